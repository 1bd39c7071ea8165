"""Rules for every model, at its smallest size: one line each in `_MODELS`."""

import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfdetect.models import classifier, efficientdet, squeezenet

_MODELS = {
    "xception": lambda: classifier.build("xception", 71),
    "midwayxception": lambda: classifier.build("midwayxception", 71),
    "lightxception": lambda: classifier.build("lightxception", 71),
    "xception_pytorch": lambda: classifier.build("xception_pytorch", 71),
    "efficientnet_b0": lambda: classifier.build("efficientnet_b0", 32),
    "efficientnet_lite0": lambda: classifier.build("efficientnet_lite0", 32),
    "mesonet4": lambda: classifier.build("mesonet4", 32),
    "mesoinception4": lambda: classifier.build("mesoinception4", 32),
    "squeezenet": lambda: squeezenet.SqueezeNet(32),
}


# Relatives of them are always tested; these take longest.
_SLOW = ("xception", "midwayxception", "xception_pytorch", "efficientnet_b0")


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.slow) if name in _SLOW else name
        for name in _MODELS
    ]
)
def build(request):
    return _MODELS[request.param]


def _images(model):
    rng = np.random.default_rng(0)
    shape = (2, *model.input_shape[1:])
    return rng.uniform(0, 255, shape).astype("float32")


def _assert_equal(outputs, expected, atol):
    outputs, expected = keras.tree.flatten(outputs), keras.tree.flatten(expected)
    for one, other in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=atol)


def test_config_save_and_load(build, tmp_path):
    model = build()
    again = type(model).from_config(model.get_config())
    assert again.get_config() == model.get_config()
    weights = [(weight.path, weight.shape) for weight in model.weights]
    assert [(weight.path, weight.shape) for weight in again.weights] == weights
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    _assert_equal(loaded(_images(model)), model(_images(model)), atol=0)


def test_saved_model(build, tmp_path):
    model = build()
    model.export(str(tmp_path), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path))
    images = _images(model)
    _assert_equal(loaded.serve(images), model(images), atol=1e-4)
    _assert_equal(loaded.serve(images[:1]), model(images[:1]), atol=1e-4)


def test_mixed_precision(build):
    model = build()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = build()
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(model.get_weights())
    assert {str(weight.dtype) for weight in mixed.weights} == {"float32"}
    assert "bfloat16" in {layer.compute_dtype for layer in mixed.layers}
    for outputs, expected in zip(
        keras.tree.flatten(mixed(_images(model))),
        keras.tree.flatten(model(_images(model))),
        strict=True,
    ):
        outputs = keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32"))
        # bfloat16 keeps 8 bits, and the roundings of all layers add up.
        assert np.abs(outputs - expected).max() <= 0.1 * np.abs(expected).max()


# The larger EfficientNets are one class with B0.
@pytest.mark.parametrize(
    "name", [*classifier.NAMES[:6], "efficientnet_b0", "efficientnet_lite0"]
)
def test_logits_stay_in_float32(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = _MODELS[name]()
    finally:
        keras.config.set_dtype_policy("float32")
    assert model(_images(model)).dtype == "float32"
    assert classifier.build_embedding_model(model)(_images(model)).dtype == "float32"
    assert model.get_layer("normalise").compute_dtype == "float32"


_README = pathlib.Path(__file__).resolve().parents[2] / "train/README.md"
_COUNTED_FAST = ("xception", "mesonet4", "mesoinception4", "efficientnet_lite0", "D0")


def _read_parameters():
    """Parameters by model, of the tables in train/README.md."""
    counts = {}
    for line in _README.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip(" `") for cell in line.split("|")]
        # `lite0` to `_lite4`, D0 to D4, or one name.
        if not (numbers := re.findall(r"\d[\d,]{5,}", "".join(cells[2:3]))):
            continue
        first = re.split(r"[` ]", cells[1])[0]
        stem, start = (first, "") if len(numbers) == 1 else (first[:-1], first[-1])
        for place, number in enumerate(numbers):
            name = f"{stem}{int(start) + place}" if start else stem
            counts[name] = int(number.replace(",", ""))
    return counts


def test_the_table_of_models_has_them_all():
    detectors = [f"D{phi}" for phi in efficientdet.PRESETS]
    detectors += [f"Lite{phi}" for phi in efficientdet.LITE_PRESETS]
    names = [*classifier.NAMES, *classifier.TEACHERS, *detectors]
    assert sorted(_read_parameters()) == sorted(names)


@pytest.mark.parametrize(
    "name",
    [
        name if name in _COUNTED_FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in _read_parameters()
    ],
)
def test_the_table_of_models_has_their_parameters(name):
    detector = re.fullmatch(r"(D|Lite)(\d)", name)
    if detector:
        lite, phi = detector[1] == "Lite", int(detector[2])
        model = efficientdet.EfficientDet(phi, image_size=128, lite=lite)
    else:
        # Those of MesoNets depend on the side.
        model = classifier.build(name, 256 if name.startswith("meso") else 96)
    assert model.count_params() == _read_parameters()[name]
