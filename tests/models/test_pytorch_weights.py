"""PyTorch's older files, written here byte by byte, and weights that come in them."""

import functools
import io
import os
import pickle

import keras
import numpy as np
import pytest

import pytorch_files
from dfdetect.models import (
    classifier,
    content_embedding,
    efficientdet,
    pytorch_weights,
    weights,
)


@pytest.fixture
def write(monkeypatch, tmp_path):
    """A function from a dictionary of arrays to the path of PyTorch's file."""
    pytorch_files.fake_torch(monkeypatch)
    return functools.partial(pytorch_files.write_older, tmp_path / "weights.pth")


def test_reads_what_was_written(write):
    arrays = {
        "kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "half": np.float16([[1.5, -2]]),
        "count": np.array(7, np.int64),
    }
    found = pytorch_weights.read(write(arrays))
    assert list(found) == list(arrays)
    for key, array in arrays.items():
        assert found[key].dtype == array.dtype
        np.testing.assert_array_equal(found[key], array)


@pytest.mark.parametrize("extra", [os.system, io.BytesIO, np.float64])
def test_unpickles_nothing_but_tensors(write, extra):
    path = write({"kernel": np.zeros(3, np.float32)}, {"extra": extra})
    with pytest.raises(ValueError, match="must be a dictionary of tensors"):
        pytorch_weights.read(path)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_cut_file_is_refused(write, share):
    path = write({"kernel": np.zeros((50, 50), np.float32)})
    with open(path, "r+b") as stream:
        stream.truncate(int(share * os.path.getsize(path)))
    with pytest.raises(ValueError, match="must be a dictionary of tensors"):
        pytorch_weights.read(path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    with open(path, "wb") as stream:
        for number in range(4):
            pickle.dump(number, stream)
    with pytest.raises(ValueError, match=r"\[0, 1\] for magic number and version"):
        pytorch_weights.read(path)
    path.write_bytes(b"PK\x03\x04 a ZIP file that is none")
    with pytest.raises(ValueError, match="must be a dictionary of tensors"):
        pytorch_weights.read(path)


def _as_published(model):
    """A Lite's weights under such names and in the order of the public package."""
    arrays = {}
    for layer in model.get_layer("backbone").layers:
        values = layer.get_weights()
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            arrays[f"{layer.name}.weight"] = values[0].transpose(2, 3, 0, 1)
        elif isinstance(layer, keras.layers.Conv2D):
            arrays[f"{layer.name}.weight"] = values[0].transpose(3, 2, 0, 1)
        elif values:
            parts = ("weight", "bias", "running_mean", "running_var")
            named = zip(parts, values, strict=True)
            arrays |= {f"{layer.name}.{part}": array for part, array in named}
            arrays[f"{layer.name}.num_batches_tracked"] = np.array(0)
    arrays["_conv_head.weight"] = np.zeros((1280, 320, 1, 1), np.float32)
    arrays["_bn1.running_mean"] = np.zeros(1280, np.float32)
    return {**arrays, "_fc.weight": np.zeros((1000, 1280), np.float32)}


def test_a_lite_starts_from_the_public_file(write):
    rng = np.random.default_rng(0)
    source = classifier.build("efficientnet_lite0", 40)
    for layer in source.get_layer("backbone").layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shapes = [weight.shape for weight in layer.weights]
            layer.set_weights([rng.uniform(0.5, 1.5, shape) for shape in shapes])
    model = classifier.build("efficientnet_lite0", 40)
    report = weights.load_snapshot(model, write(_as_published(source)))
    tops = ("pool/moving_mean", "pool/moving_variance", "logits/kernel", "logits/bias")
    assert sorted(report.missing) == sorted(tops)
    images = rng.uniform(0, 255, (2, 40, 40, 3)).astype(np.float32)
    expected, found = (
        classifier.feature_maps(each, ["block7"])(images) for each in (source, model)
    )
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_detector_of_lite_starts_from_the_same_file(write):
    source = classifier.build("efficientnet_lite0", 64)
    model = efficientdet.EfficientDet(0, image_size=64, lite=True)
    weights.load_snapshot(model, write(_as_published(source)))
    images = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype("float32")
    found = model.backbone(images)
    expected = source.get_layer("backbone")(images)
    for stage, features in zip((2, 4, 6), found, strict=True):
        np.testing.assert_allclose(features, expected[stage], atol=1e-5)


def test_the_content_network_takes_its_stages_of_the_same_file(write):
    source = classifier.build("efficientnet_lite0", 64)
    network = content_embedding.build_network(64)
    content_embedding.load_pytorch(network, write(_as_published(source)))
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    expected = classifier.feature_maps(source, ["block4", "block6"])(images)
    for maps, wanted in zip(network(images), expected, strict=True):
        np.testing.assert_allclose(maps, wanted, atol=1e-5)


def test_what_does_not_fit_is_named(write):
    path = write({"_conv_stem.weight": np.zeros((32, 3, 3, 3), np.float32)})
    with pytest.raises(ValueError, match="48 convolutions .* got 1 and 0"):
        weights.load_snapshot(classifier.build("efficientnet_lite0", 40), path)
    for name in ("efficientnet_b0", "mesonet4"):
        with pytest.raises(ValueError, match=f"{name} takes no .pth file"):
            weights.load_snapshot(classifier.build(name, 40), path)
    with pytest.raises(ValueError, match="no ImageNet weights for efficientnet_lite0"):
        weights.load_snapshot(classifier.build("efficientnet_lite0", 40), "imagenet")
