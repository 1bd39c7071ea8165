"""The chained graph with small stand-ins: known detections, a known classifier."""

import io
import json
import pathlib
import types

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from PIL import Image

import tiny_pipeline
from dfdetect import manifest
from dfdetect.data import batches
from dfdetect.export import inspection, saved_pipeline
from dfdetect.media import decode, image_status
from dfdetect.models import classifier as classifiers
from dfdetect.models import efficientdet, grad_cam, model_directory, weights, xception
from dfdetect.pipeline import deepfake_pipeline
from dfdetect.training import loop, objectives, settings

_DETECTOR_SIZE, _CROP_SIZE, _NUM_FEATURES = 64, 40, 8
_NUM_BOXES = 6
_TEMPERATURE = 2.0

# What the stand-in can find: a head at the top left, one at the right, a tiny one.
_ANCHORS = np.float32(
    [[0.0, 0.0, 0.5, 0.5], [0.25, 0.5, 0.75, 0.9], [0.9, 0.9, 0.96, 0.96]]
)


@keras.saving.register_keras_serializable(package="test")
class _PixelDetector(keras.layers.Layer):
    """Each anchor has a switch, 8 x 8 pixels in the first row: its red is its logit."""

    def call(self, images):
        logits = images[:, 3, 4:28:8, 0, None] / 10.0 - 5.0
        return logits, keras.ops.tile(logits * 0.0, (1, 1, 4))


def _detector():
    images = keras.Input((_DETECTOR_SIZE, _DETECTOR_SIZE, 3))
    model = keras.Model(images, _PixelDetector()(images))
    model.anchors = types.SimpleNamespace(boxes=_ANCHORS)
    return model


def _classifier():
    """The mean of some filters over the image: it tells noise from noise."""
    keras.utils.set_random_seed(1)
    images = keras.Input((_CROP_SIZE, _CROP_SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(images)
    x = keras.layers.Conv2D(_NUM_FEATURES, 5, strides=3, activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    initializer = keras.initializers.RandomNormal(stddev=5.0)
    x = keras.layers.Dense(1, name="logits", kernel_initializer=initializer)(x)
    return keras.Model(images, x)


def _description(**changes):
    return {
        "kind": "pipeline",
        "format": 1,
        "detector": {
            "kind": "detector",
            "phi": 0,
            "image_size": _DETECTOR_SIZE,
            "anchor_scale": 4.0,
            "num_classes": 1,
            "score_threshold": 0.5,
            "iou_threshold": 0.5,
            "max_detections": _NUM_BOXES,
            "labels": ["head"],
        },
        "classifier": {
            "kind": "classifier",
            "model": "efficientnet_b0",
            "image_size": _CROP_SIZE,
            "crop_margin": 1.3,
            "temperature": _TEMPERATURE,
            "thresholds": {"real_below": 0.5, "fake_from": 0.5},
            "labels": ["real", "fake"],
        },
        "max_detections": _NUM_BOXES,
        "min_head_size": 16,
        "versions": {},
    } | changes


@pytest.fixture(name="parts", scope="module")
def _parts():
    return _detector(), _classifier(), tiny_pipeline.content_network(_CROP_SIZE)


@pytest.fixture(name="graph", scope="module")
def _graph(parts):
    return deepfake_pipeline.DeepfakePipeline(*parts, _description())


@pytest.fixture(name="saved", scope="module")
def _saved(graph, tmp_path_factory):
    directory = tmp_path_factory.mktemp("base") / "1"
    saved_pipeline.save(graph, str(directory))
    return str(directory)


def _image(reds, height=128, width=128, seed=0):
    """Noise below the switches of the stand-in."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    block = 8 * max(height, width) // _DETECTOR_SIZE
    for i, red in enumerate(reds):
        image[:block, i * block : (i + 1) * block, 0] = red
    return image


_ALL, _FIRST, _TINY, _NONE = (120, 100, 80), (120, 0, 0), (0, 0, 80), (0, 0, 0)


def _png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


def _sigmoid(logit):
    return 1 / (1 + np.exp(-logit))


def _judged_alone(classifier, image, box):
    """The probability by hand: the square of FACTS 3.6, resized, calibrated."""
    height, width = image.shape[:2]
    corners = np.round(np.array(box) * [height, width, height, width])
    y1, x1, y2, x2 = corners.astype(int)
    side = max(y2 - y1, x2 - x1) * 13 // 10
    y = max((y1 + y2) // 2 - side // 2, 0)
    x = max((x1 + x2) // 2 - side // 2, 0)
    side = min(side, height - y, width - x)
    square = image[y : y + side, x : x + side]
    return _crop_judged_alone(classifier, square)


def _crop_judged_alone(classifier, crop):
    resized = tf.image.resize(crop, [_CROP_SIZE, _CROP_SIZE], antialias=True)
    logit = classifier(resized[None], training=False)
    return _sigmoid(float(logit[0, 0]) / _TEMPERATURE)


def test_outputs_by_hand(graph, parts):
    image = _image(_ALL)
    found = graph.detect(tf.constant([_png(image)]))
    np.testing.assert_array_equal(found["num_heads"], [3])
    np.testing.assert_array_equal(found["status"], [image_status.OK])
    np.testing.assert_allclose(found["boxes"][0, :3], _ANCHORS, atol=1e-6)
    np.testing.assert_allclose(
        found["head_scores"][0, :3], _sigmoid(np.array([7.0, 5.0, 3.0])), rtol=1e-5
    )
    expected = [_judged_alone(parts[1], image, box) for box in _ANCHORS[:2]]
    # The classifier tells the two heads apart, or this would test nothing.
    assert abs(expected[0] - expected[1]) > 1e-3
    probabilities = found["fake_probabilities"][0].numpy()
    np.testing.assert_allclose(probabilities[:2], expected, atol=1e-5)
    assert np.isnan(probabilities[2])
    np.testing.assert_allclose(found["fake_probability"], [max(expected)], atol=1e-5)
    # The padding is zeros.
    for name in ("boxes", "head_scores", "fake_probabilities"):
        assert found[name].shape[1] == _NUM_BOXES
        assert not found[name][0, 3:].numpy().any()


def test_heads_of_a_large_jpeg_are_judged_in_full_resolution(graph, parts):
    file = io.BytesIO()
    Image.fromarray(_image(_ALL, 512, 512)).save(file, format="JPEG", quality=95)
    pixels = decode.decode_image(file.getvalue()).numpy()
    found = graph.detect(tf.constant([_png(pixels), file.getvalue()]))
    np.testing.assert_array_equal(found["num_heads"], [3, 3])
    np.testing.assert_allclose(found["boxes"][1, :3], _ANCHORS, atol=1e-6)
    # The detector sees other numbers than of the PNG, the classifier the same.
    scores = found["head_scores"].numpy()
    assert np.abs(scores[0] - scores[1]).max() > 0
    np.testing.assert_allclose(scores[0], scores[1], atol=0.02)
    expected = [_judged_alone(parts[1], pixels, box) for box in _ANCHORS]
    for probabilities in found["fake_probabilities"].numpy():
        np.testing.assert_allclose(probabilities[:3], expected, atol=1e-5)


def test_boxes_are_those_of_the_original(graph):
    # 128 high, 64 wide: the letterbox is padded on its right half.
    found = graph.detect(tf.constant([_png(_image(_FIRST, width=64))]))
    np.testing.assert_array_equal(found["num_heads"], [1])
    np.testing.assert_allclose(found["boxes"][0, 0], [0, 0, 0.5, 1], atol=1e-6)


def _mixed_batch():
    reds = [_ALL, _NONE, _TINY, _FIRST, _ALL, _NONE, _FIRST, _ALL, _FIRST]
    images = [
        _png(_image(r, height=64 * (1 + i % 3), seed=i)) for i, r in enumerate(reds)
    ]
    # More than are looked at together, and broken ones between.
    batch = [*images[:3], b"", *images[3:6], images[0][:-60], *images[6:]]
    statuses = [0, 1, 4, 2, 0, 0, 1, 2, 0, 0, 0]
    return batch, statuses


def test_statuses_and_the_batch_equals_its_images(graph):
    batch, statuses = _mixed_batch()
    together = graph.detect(tf.constant(batch))
    np.testing.assert_array_equal(together["status"], statuses)
    suspect = np.isnan(together["fake_probability"])
    np.testing.assert_array_equal(suspect, np.array(statuses) != image_status.OK)
    for i, image_bytes in enumerate(batch):
        alone = graph.detect(tf.constant([image_bytes]))
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][i], value[0], atol=1e-5)


def test_a_image_without_an_answer(graph):
    found = graph.detect(tf.constant([b"no image", _png(_image(_NONE))]))
    for name in ("num_heads", "boxes", "head_scores", "fake_probabilities"):
        assert not found[name].numpy().any()
    assert np.isnan(found["fake_probability"]).all()


def test_frames_equal_files(graph):
    images = np.stack([_image(_ALL, seed=1), _image(_NONE), _image(_TINY)])
    by_frames = graph.detect_frames(tf.constant(images))
    by_files = graph.detect(tf.constant([_png(x) for x in images]))
    for name, value in by_files.items():
        np.testing.assert_allclose(by_frames[name], value, atol=1e-6)


def test_classify_crops(graph, parts):
    images = [_image(_NONE, seed=i) for i in range(3)]
    batch = [_png(x) for x in images]
    found = graph.classify_crops(tf.constant([batch[0], b"bad", *batch[1:]]))
    np.testing.assert_array_equal(found["status"], [0, image_status.UNREADABLE, 0, 0])
    probabilities = found["fake_probability"].numpy()
    assert np.isnan(probabilities[1])
    expected = [_crop_judged_alone(parts[1], x) for x in images]
    np.testing.assert_allclose(probabilities[[0, 2, 3]], expected, atol=1e-5)


def test_heat_maps_of_crops(graph, parts):
    # More than are looked at together.
    images = [_image(_NONE, seed=i) for i in range(10)]
    batch = [_png(x) for x in images]
    found = graph.explain(tf.constant([batch[0], b"bad", *batch[1:]]))
    judged = graph.classify_crops(tf.constant([batch[0], b"bad", *batch[1:]]))
    for name, value in judged.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6)
    maps = found["heat_map"].numpy()
    assert not maps[1].any()
    heat_maps = grad_cam.build_heat_maps_function(parts[1])
    for image, heat in zip(images, maps[[0, *range(2, 11)]], strict=True):
        crop = tf.image.resize(image, [_CROP_SIZE] * 2, antialias=True)
        np.testing.assert_allclose(
            heat, heat_maps(crop[None])["heat_map"][0], atol=1e-4
        )
    assert maps[0].max() == 1.0 and np.ptp(maps[0]) > 0.5


def test_embeddings_have_unit_length(graph, parts):
    image = _image(_NONE)
    found = graph.embed(tf.constant([_png(image), b"bad"]))["embedding"]
    features = classifiers.build_embedding_model(parts[1])(
        tf.image.resize(image, [_CROP_SIZE] * 2, antialias=True)[None]
    )[0]
    np.testing.assert_allclose(
        found[0], features / np.linalg.norm(features), rtol=1e-3, atol=1e-5
    )
    assert not found[1].numpy().any()


def _signature_outputs(directory, name, batch):
    """As TensorFlow Serving runs a graph: a session."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], directory)
        signature = meta.signature_def[name]
        (feed,) = signature.inputs.values()
        fetches = {key: info.name for key, info in signature.outputs.items()}
        return session.run(fetches, {feed.name: batch})


def test_signatures_of_the_saved_graph(saved):
    signatures = tf.saved_model.load(saved).signatures
    shapes = {
        name: {key: (spec.dtype.name, tuple(spec.shape)) for key, spec in outs.items()}
        for name, outs in ((n, s.structured_outputs) for n, s in signatures.items())
    }
    detections = {
        "num_heads": ("int32", (None,)),
        "boxes": ("float32", (None, _NUM_BOXES, 4)),
        "head_scores": ("float32", (None, _NUM_BOXES)),
        "fake_probabilities": ("float32", (None, _NUM_BOXES)),
        "fake_probability": ("float32", (None,)),
        "status": ("int32", (None,)),
        "verdict": ("string", (None,)),
    }
    explanations = {
        "heat_map": ("float32", (None, _CROP_SIZE, _CROP_SIZE)),
        "fake_probability": ("float32", (None,)),
        "status": ("int32", (None,)),
    }
    assert shapes == {
        "serving_default": detections,
        "frames": detections,
        "classify_crops": {
            "fake_probability": ("float32", (None,)),
            "status": ("int32", (None,)),
            "verdict": ("string", (None,)),
        },
        "embed": {"embedding": ("float32", (None, _NUM_FEATURES))},
        # 12 maps in 3 x 3 and in 2 x 2 cells.
        "embed_content": {"embedding": ("float32", (None, 13 * 12))},
        "explain": explanations,
        "explain_heads": explanations,
    }


def test_the_loaded_graph_answers_alike(graph, saved):
    loaded = saved_pipeline.load(saved)
    assert loaded.manifest == graph.manifest
    batch, _ = _mixed_batch()
    image_bytes = tf.constant(batch)
    frames = tf.constant(_image(_ALL)[None])
    for name, argument in (
        ("detect", image_bytes),
        ("detect_frames", frames),
        ("classify_crops", image_bytes),
        ("embed", image_bytes),
        ("explain", image_bytes),
    ):
        expected = getattr(graph, name)(argument)
        found = getattr(loaded, name)(argument)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, atol=1e-5)


@pytest.mark.slow  # Saves two graphs.
def test_the_temperature_is_in_the_exported_graph(parts, saved, tmp_path):
    described = _description()
    described["classifier"]["temperature"] = 3 * _TEMPERATURE
    saved_pipeline.save(
        deepfake_pipeline.DeepfakePipeline(*parts, described), str(tmp_path / "1")
    )
    batch = np.array([_png(_image(_NONE, seed=i)) for i in range(3)], object)
    sharp, flat = (
        scipy.special.logit(
            _signature_outputs(directory, "classify_crops", batch)["fake_probability"]
        )
        for directory in (saved, str(tmp_path / "1"))
    )
    assert np.abs(sharp).min() > 0.1
    np.testing.assert_allclose(sharp, 3 * flat, rtol=1e-3)


@pytest.mark.slow  # So do those of test_publish, whatever they are asked.
def test_a_session_answers_alike(graph, saved):
    batch, _ = _mixed_batch()
    found = _signature_outputs(saved, "serving_default", np.array(batch, object))
    for key, value in graph.detect(tf.constant(batch)).items():
        np.testing.assert_allclose(found[key], value, atol=1e-5)
    empty = _signature_outputs(saved, "classify_crops", np.array([], object))
    assert empty["fake_probability"].shape == (0,)
    shown = _signature_outputs(saved, "explain", np.array(batch[:4], object))
    for key, value in graph.explain(tf.constant(batch[:4])).items():
        np.testing.assert_allclose(shown[key], value, atol=1e-5)


def test_heads_in_images_are_explained_as_they_are_judged(graph, saved):
    batch, _ = _mixed_batch()
    found = {k: v.numpy() for k, v in graph.detect(tf.constant(batch)).items()}
    judged = np.argwhere(np.nan_to_num(found["fake_probabilities"]) > 0)
    assert len(judged) > 2
    images = np.array([batch[i] for i, _ in judged], object)
    boxes = np.stack([found["boxes"][i, k] for i, k in judged])
    shown = graph.explain_heads(images, boxes)
    np.testing.assert_allclose(
        shown["fake_probability"],
        [found["fake_probabilities"][i, k] for i, k in judged],
        atol=1e-6,
    )
    assert shown["status"].numpy().tolist() == [0] * len(judged)
    assert shown["heat_map"].shape == (len(judged), _CROP_SIZE, _CROP_SIZE)
    # Without a readable image, and in a session.
    images, boxes = np.append(images[:2], [b"no image"]), boxes[:3]
    with inspection.open_signatures(saved) as run:
        shown = run("explain_heads", {"image_bytes": images, "boxes": boxes})
    for key, value in graph.explain_heads(images, boxes).items():
        np.testing.assert_allclose(shown[key], value, atol=1e-5)
    assert shown["status"].tolist() == [0, 0, 2]
    assert np.isnan(shown["fake_probability"][2]) and not shown["heat_map"][2].any()


def test_an_empty_batch(graph):
    nothing = tf.constant([], tf.string)
    assert graph.detect(nothing)["boxes"].shape == (0, _NUM_BOXES, 4)
    assert graph.classify_crops(nothing)["fake_probability"].shape == (0,)
    assert graph.embed(nothing)["embedding"].shape == (0, _NUM_FEATURES)
    heat_maps = graph.explain(nothing)["heat_map"]
    assert heat_maps.shape == (0, _CROP_SIZE, _CROP_SIZE)
    heat_maps = graph.explain_heads(nothing, tf.zeros([0, 4]))["heat_map"]
    assert heat_maps.shape == (0, _CROP_SIZE, _CROP_SIZE)
    frames = graph.detect_frames(tf.zeros([0, 20, 30, 3], tf.uint8))
    assert frames["status"].shape == (0,)


def test_saving_leaves_nothing_aside(graph, saved):
    base = pathlib.Path(saved).parent
    assert [path.name for path in base.iterdir()] == ["1"]
    described = json.loads((base / "1/assets/manifest.json").read_text())
    assert described == graph.manifest
    embeddings = described.pop("embeddings")
    assert described == _description()
    assert {name: x["dimension"] for name, x in embeddings.items()} == {
        "forgery": _NUM_FEATURES,
        "content": 13 * 12,
    }
    with pytest.raises(FileExistsError, match="is there already"):
        saved_pipeline.save(graph, saved)


def test_a_foreign_graph_is_refused(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "foreign"))
    with pytest.raises(ValueError, match=r"foreign is not a graph of dfdetect"):
        saved_pipeline.load(str(tmp_path / "foreign"))


def test_a_graph_of_another_format_is_refused(tmp_path):
    manifest.write(tmp_path / "assets", _description(format=2))
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ValueError, match="format must be 1, got 2"):
        saved_pipeline.load(str(tmp_path))


def test_a_manifest_that_disagrees_with_its_model_is_refused(parts):
    wrong = _description()
    wrong["classifier"]["image_size"] = 75
    with pytest.raises(ValueError, match="classifier must take images of 75 pixels"):
        deepfake_pipeline.DeepfakePipeline(*parts, wrong)


# Model directories and the export, with real models of the smallest size.


@pytest.fixture(name="directories", scope="module")
def _directories(tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    described = _description()
    described["detector"]["image_size"] = 128
    described["classifier"]["image_size"] = 64
    models = {
        "detector": efficientdet.EfficientDet(image_size=128),
        "classifier": classifiers.build("efficientnet_b0", 64),
    }
    for name, model in models.items():
        manifest.write(base / name, described[name])
        weights.save(model, base / name)
    return base


def test_model_directories(directories):
    model, described = model_directory.load_classifier(str(directories / "classifier"))
    assert described["image_size"] == model.input_shape[1] == 64
    stored = np.load(directories / "classifier" / weights.FILE_NAME)
    for key, variable in weights.variables(model).items():
        np.testing.assert_array_equal(variable, stored[key])
    with pytest.raises(ValueError, match="must be of kind 'detector'"):
        model_directory.load_detector(str(directories / "classifier"))


def test_labels_the_other_way_round_are_refused(tmp_path):
    described = _description()["classifier"] | {"labels": ["fake", "real"]}
    manifest.write(tmp_path, described)
    with pytest.raises(ValueError, match="labels of .* must be"):
        model_directory.load_classifier(str(tmp_path))


@pytest.mark.slow  # The scripts' tests take lightxception the same way.
@pytest.mark.parametrize("name", list(xception.PRESETS))
def test_each_xception_trains_goes_on_and_runs_in_the_chain(name, parts, tmp_path):
    random = np.random.default_rng(0)
    crops = random.integers(0, 256, (8, 71, 71, 3), np.uint8)
    examples = tf.data.Dataset.from_tensor_slices((crops, np.arange(8) % 2))

    def prepare(seed, example):
        return tf.cast(example[0], tf.float32), example[1]

    def train(steps):
        model, judged = (classifiers.build(name, 71) for _ in range(2))
        loop.Run(
            model,
            judged,
            loss=objectives.classification,
            batches=batches.Batches(
                batches.ShuffledSource(examples, 0), prepare, 4, seed=0
            ),
            evaluate=lambda: seen.append(steps) or {"steps": steps},
            keep_best=lambda figures: weights.save(judged, str(best)) or figures,
            settings=settings.Settings(str(tmp_path), steps, "steps", eval_every=1),
        ).train()
        return judged

    seen, best = [], tmp_path / weights.FILE_NAME
    train(1)
    judged = train(2)
    assert seen == [1, 2]  # The second run began at the checkpoint of the first.
    kept = classifiers.build(name, 71)
    weights.load(kept, str(best))
    logits = np.array(judged(crops.astype(np.float32)))[:, 0]
    np.testing.assert_allclose(kept(crops.astype(np.float32))[:, 0], logits, atol=1e-5)

    described = _description()
    described["classifier"] |= {"image_size": 71, "temperature": 1.0}
    saved_pipeline.save(
        deepfake_pipeline.DeepfakePipeline(parts[0], kept, parts[2], described),
        str(tmp_path / "1"),
    )
    loaded = saved_pipeline.load(str(tmp_path / "1"))
    found = loaded.classify_crops(tf.constant([_png(crop) for crop in crops]))
    np.testing.assert_allclose(found["fake_probability"], _sigmoid(logits), atol=1e-4)
    found = loaded.detect(tf.constant([_png(_image(_ALL))]))
    assert found["num_heads"] == 3 and 0 <= found["fake_probability"] <= 1


@pytest.mark.slow
def test_export_numbers_the_versions(directories, tmp_path, run_script):
    (tmp_path / "7").mkdir()
    (tmp_path / "12.tmp").mkdir()
    command = ["serve/export.py", f"--output={tmp_path}"]
    command += [f"--{x}={directories / x}" for x in ("detector", "classifier")]
    done = run_script(*command)
    assert done.stdout.splitlines()[-1] == str(tmp_path / "8")
    assert {x.name for x in tmp_path.iterdir()} == {"7", "12.tmp", "8"}
    batch = np.array([_png(_image(_NONE)), b""], object)
    found = _signature_outputs(str(tmp_path / "8"), "classify_crops", batch)
    np.testing.assert_array_equal(
        found["status"], [image_status.OK, image_status.UNREADABLE]
    )
    again = run_script(*command, "--version=8", check=False)
    assert again.returncode != 0 and "is there already" in again.stdout + again.stderr


@pytest.mark.slow
def test_a_graph_with_tiles_is_saved_and_says_so(parts, tmp_path):
    described = _description()
    described["detector"]["tile_size"] = _DETECTOR_SIZE
    saved_pipeline.save(
        deepfake_pipeline.DeepfakePipeline(*parts, described), str(tmp_path / "1")
    )
    loaded = saved_pipeline.load(str(tmp_path / "1"))
    assert loaded.manifest["detector"]["tile_size"] == _DETECTOR_SIZE
    image = np.zeros((256, 256, 3), np.uint8)
    image[:8, :8, 0] = 200  # A switch at the scale of a tile, not at that of all.
    outputs = loaded.detect_frames(image[None])
    np.testing.assert_array_equal(outputs["num_heads"], [1])
    np.testing.assert_allclose(outputs["boxes"][0, 0], [0, 0, 1 / 8, 1 / 8], atol=1e-6)
