"""Embeddings of content: by hand, and of altered copies by the network that ships."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

import tiny_pipeline
from dfdetect.models import content_embedding, model_directory

_SIZE = 40


def _crops(count, size=_SIZE):
    return np.random.default_rng(0).uniform(0, 255, (count, size, size, 3)).astype("f")


def test_an_embedding_by_hand():
    network = tiny_pipeline.content_network(_SIZE)
    describe, dimension = content_embedding.build_embedder(network)
    crops = _crops(2)
    parts = []
    for grid, both in zip(
        (3, 2),
        zip(network(crops), network(crops[:, :, ::-1]), strict=True),
        strict=True,
    ):
        mean = sum(tf.image.resize(x, [grid, grid], "area").numpy() for x in both) / 2
        rows = mean.reshape(len(crops), -1)
        parts.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    expected = np.concatenate(parts, 1) / np.sqrt(2)
    assert expected.shape == (2, dimension) == (2, 13 * 12)
    np.testing.assert_allclose(describe(tf.constant(crops)), expected, atol=1e-6)


def test_a_mirrored_crop_has_the_same_embedding():
    describe, _ = content_embedding.build_embedder(tiny_pipeline.content_network(_SIZE))
    crops = tf.constant(_crops(3))
    np.testing.assert_allclose(
        describe(crops), describe(tf.image.flip_left_right(crops)), atol=1e-6
    )


def test_crops_of_another_size_are_scaled():
    describe, _ = content_embedding.build_embedder(tiny_pipeline.content_network(_SIZE))
    crops = tf.constant(_crops(2, 3 * _SIZE))
    scaled = tf.image.resize(crops, [_SIZE, _SIZE], antialias=True)
    np.testing.assert_allclose(describe(crops), describe(scaled), atol=1e-6)


@pytest.fixture(name="describe", scope="module")
def _describe():
    network = model_directory.load_content_network()
    return tf.function(content_embedding.build_embedder(network)[0], autograph=False)


def _drawn(seed, size=224):
    """Draws a scene of ellipses, of shapes and colors of its own."""
    random = np.random.default_rng(seed)
    image = np.full((size, size, 3), random.integers(0, 256, 3), np.uint8)
    for _ in range(12):
        center, axes = random.integers(0, size, 2), random.integers(10, 70, 2)
        color = tuple(map(int, random.integers(0, 256, 3)))
        angle = int(random.integers(0, 180))
        cv2.ellipse(
            image,
            tuple(map(int, center)),
            tuple(map(int, axes)),
            angle,
            0,
            360,
            color,
            -1,
        )
    return image


def _alter(image):
    """Crops a tenth, scales to a half, mirrors and compresses."""
    inner = image[11:-11, 11:-11][:, ::-1]
    small = cv2.resize(inner, (112, 112), interpolation=cv2.INTER_AREA)
    small = cv2.imdecode(
        cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR
    )
    return cv2.resize(small, image.shape[:2], interpolation=cv2.INTER_LINEAR)


def test_the_nearest_of_an_altered_copy_is_its_original(describe):
    images = [_drawn(seed) for seed in range(24)]
    known = describe(np.float32(images)).numpy()
    np.testing.assert_allclose(np.linalg.norm(known, axis=1), 1, atol=1e-5)
    copies = describe(np.float32([_alter(image) for image in images])).numpy()
    assert np.mean(np.argmax(copies @ known.T, axis=1) == np.arange(24)) > 0.9
