"""SqueezeNet: published weights, the order of channels, and whether features tell."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfdetect.models import squeezenet

h5py = pytest.importorskip("h5py")

# Squeeze and expand channels of SqueezeNet 1.1.
_FIRES = [(16, 64)] * 2 + [(32, 128)] * 2 + [(48, 192)] * 2 + [(64, 256)] * 2


def _write_h5(path, leave_out=None):
    """A file of the public one's layout with random numbers; returns them by layer."""
    rng = np.random.default_rng(0)
    convs = {"conv1": (3, 3, 3, 64)}
    channels = 64
    for fire, (squeeze, expand) in enumerate(_FIRES, start=2):
        convs[f"fire{fire}/squeeze1x1"] = (1, 1, channels, squeeze)
        convs[f"fire{fire}/expand1x1"] = (1, 1, squeeze, expand)
        convs[f"fire{fire}/expand3x3"] = (3, 3, squeeze, expand)
        channels = 2 * expand
    arrays = {}
    with h5py.File(path, "w") as file:
        file.create_group("pool1")
        for index, (name, shape) in enumerate(convs.items(), start=1):
            if name == leave_out:
                continue
            kernel = rng.normal(size=shape, scale=0.1).astype("float32")
            bias = rng.normal(size=shape[-1]).astype("float32")
            file[f"{name}/uniform{index}"] = kernel
            file[f"{name}/{name}_b"] = bias
            arrays[name] = (kernel, bias)
    return arrays


def test_shapes_parameters_and_config():
    names = ["fire3", "fire5", "fire7", "fire9"]
    model = squeezenet.SqueezeNet(224, names)

    assert model.count_params() == 722_496
    shapes = [tuple(shape[1:]) for shape in model.output_shape]
    assert shapes == [(55, 55, 128), (27, 27, 256), (13, 13, 384), (13, 13, 512)]
    again = squeezenet.SqueezeNet.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert again.output_shape == model.output_shape


def test_loads_the_layout_and_feeds_bgr(tmp_path):
    arrays = _write_h5(tmp_path / "w.h5")
    model = squeezenet.build(tmp_path / "w.h5", ("fire9",), image_size=40)
    assert model.trainable_weights == []
    images = np.random.default_rng(1).uniform(0, 255, (1, 40, 40, 3)).astype("float32")
    conv1 = keras.Model(model.input, model.get_layer("conv1").output)(images)
    kernel, bias = arrays["conv1"]
    window = images[0, 6:9, 10:13, ::-1] - [103.9, 116.8, 123.7]
    expected = np.maximum(np.einsum("yxc,yxco->o", window, kernel) + bias, 0)
    np.testing.assert_allclose(conv1[0, 3, 5], expected, atol=1e-3)
    for name, (kernel, bias) in list(arrays.items())[1:]:
        found = model.get_layer(name.replace("/", "_")).get_weights()
        np.testing.assert_array_equal(found[0], kernel)
        np.testing.assert_array_equal(found[1], bias)


def test_fire_joins_its_two_expansions(tmp_path):
    _write_h5(tmp_path / "w.h5")
    model = squeezenet.build(tmp_path / "w.h5", ("fire4", "fire4"), 40)
    layers = [model.get_layer(f"fire4_{x}").output for x in ("expand1x1", "expand3x3")]
    images = np.random.default_rng(1).uniform(0, 255, (1, 40, 40, 3)).astype("float32")
    first, second = keras.Model(model.input, layers)(images)
    for fire in model(images):
        np.testing.assert_array_equal(fire, np.concatenate([first, second], -1))


def test_a_layer_that_the_file_lacks(tmp_path):
    _write_h5(tmp_path / "w.h5", leave_out="fire7/squeeze1x1")
    with pytest.raises(ValueError, match="fire7_squeeze1x1 must have a kernel"):
        squeezenet.build(tmp_path / "w.h5", ("fire9",))
    early = squeezenet.build(tmp_path / "w.h5", ("fire5",))
    assert early.output_shape == (None, 27, 27, 256)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="got .*'fire10'"):
        squeezenet.SqueezeNet(224, ["fire10"])
    with pytest.raises(ValueError, match="features must be some of"):
        squeezenet.SqueezeNet(224, [])
    with pytest.raises(ValueError, match="at least 32, got 31"):
        squeezenet.SqueezeNet(31)


@pytest.mark.slow
def test_public_weights_tell_fakes_from_reals(sample_data):
    """Linear probe of pooled fire5 features; 700 pairs of faces gave .74."""
    weights = sample_data("../weights/squeezenet1.1_imagenet_notop.h5")
    faces = sample_data("faces_dfdc")
    linear_model = pytest.importorskip("sklearn.linear_model")
    metrics = pytest.importorskip("sklearn.metrics")
    model = squeezenet.build(weights, ("fire5",))

    @tf.function
    def pooled(images):
        maps = model(images)
        parts = [tf.reduce_mean(maps, [1, 2]), tf.math.reduce_std(maps, [1, 2])]
        return tf.concat(parts, axis=-1)

    def load(split, num_groups):
        with open(faces / "labels.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == split]
        groups = sorted({row["group"] for row in rows})[:num_groups]
        rows = [row for row in rows if row["group"] in groups]
        features = []
        for row in rows:
            encoded = tf.io.read_file(str(faces / row["path"]))
            image = tf.cast(tf.io.decode_jpeg(encoded, channels=3), tf.float32)
            features.append(pooled(image[None])[0])
        return np.array(features), np.array([row["label"] == "fake" for row in rows])

    features, labels = load("train", 700)
    mean, stddev = features.mean(0), features.std(0) + 1e-6
    probe = linear_model.LogisticRegression(C=0.1, max_iter=2000)
    probe.fit((features - mean) / stddev, labels)
    features, labels = load("val", 200)
    scores = probe.decision_function((features - mean) / stddev)
    assert metrics.roc_auc_score(labels, scores) > 0.7
