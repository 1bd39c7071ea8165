"""The exported detector alone finds what it finds inside the chain."""

import numpy as np
import pytest
import tensorflow as tf

from dfdetect import boxes, manifest
from dfdetect.export import detector as detector_export
from dfdetect.media import resize, source_files
from dfdetect.models import model_directory
from dfdetect.pipeline import build


@pytest.fixture(name="images", scope="module")
def _images(sample_folder):
    """Images of classrooms of the sample data, or else matplotlib's portrait."""
    names = sorted((sample_folder / "heads" / "JPEGImages").glob("*"))[::600]
    return [tf.io.decode_jpeg(tf.io.read_file(str(p))) for p in names] or [
        tf.io.decode_jpeg(tf.io.read_file(source_files.find_sample()))
    ]


# Each of them builds or converts whole models: half a minute and more.
pytestmark = pytest.mark.slow


@pytest.fixture(name="detector", scope="module")
def _detector():
    return model_directory.load_detector()


@pytest.fixture(name="in_chain", scope="module")
def _in_chain(images):
    """Boxes and scores of each image, from the whole pipeline."""
    graph = build.build_from_directories()
    found = []
    for image in images:
        outputs = graph.detect_frames(image[None])
        count = int(outputs["num_heads"][0])
        assert count > 0
        found.append(
            (outputs["boxes"][0, :count].numpy(), outputs["head_scores"][0, :count])
        )
    return found


def _alone(detect, image, size):
    outputs = detect(images=resize.letterbox(image, size)[None].numpy())
    count = int(outputs["num_heads"][0])
    height, width = image.shape[:2]
    found = resize.unletterbox_boxes(outputs["boxes"][0][:count], height, width)
    return found.numpy(), np.array(outputs["scores"][0][:count])


def _runner(content):
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=2)
    return interpreter.get_signature_runner()


def test_the_saved_model_equals_the_chain(detector, images, in_chain, tmp_path):
    detector_export.save(*detector, str(tmp_path))
    described = manifest.read(tmp_path / "assets", "detector")
    detect = tf.saved_model.load(tmp_path).signatures["serving_default"]
    for image, (expected, scores) in zip(images, in_chain, strict=True):
        found = _alone(
            lambda images: detect(images=tf.constant(images)),
            image,
            detector[1]["image_size"],
        )
        np.testing.assert_allclose(found[0], expected, atol=1e-4)
        np.testing.assert_allclose(found[1], scores, atol=1e-4)
    assert described["image_size"] == detector[1]["image_size"]


def test_tflite_equals_the_chain(detector, images, in_chain):
    detect = _runner(detector_export.convert_to_tflite(*detector))
    for image, (expected, scores) in zip(images, in_chain, strict=True):
        found = _alone(detect, image, detector[1]["image_size"])
        np.testing.assert_allclose(found[0], expected, atol=1e-4)
        np.testing.assert_allclose(found[1], scores, atol=1e-4)


def test_tflite_of_8_bits_finds_the_same_heads(detector, images, in_chain):
    content = detector_export.convert_to_tflite(*detector, int8=True)
    assert len(content) < 6e6
    detect = _runner(content)
    offsets = []
    for image, (expected, scores) in zip(images, in_chain, strict=True):
        found, found_scores = _alone(detect, image, detector[1]["image_size"])
        sure = np.array(scores) > detector[1]["score_threshold"] + 0.05
        overlaps = np.array(boxes.iou(expected[sure], found))
        assert np.all(overlaps.max(1) > 0.5)
        nearest = overlaps.argmax(1)
        offsets.extend(np.abs(expected[sure] - found[nearest]).max(1))
        np.testing.assert_allclose(found_scores[nearest], scores[sure], atol=0.05)
    assert np.percentile(offsets, 95) < 2e-3
