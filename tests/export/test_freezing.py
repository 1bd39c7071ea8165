"""Folded functions: the same numbers, loops and gradients, without variables."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfdetect.export import freezing, inspection


@pytest.fixture(name="function", scope="module")
def _function():
    """Logits, their gradient, and what a loop makes of them."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3)(images)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Activation("silu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, keras.layers.Dense(2)(x))

    def call(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = model(images, training=False)
        doubled = tf.while_loop(
            lambda i, _: i < 3, lambda i, x: (i + 1, 2 * x), (0, logits)
        )[1]
        return {
            "logits": logits,
            "gradients": tape.gradient(logits, images),
            "doubled": doubled,
        }

    spec = tf.TensorSpec([None, 8, 8, 3], tf.float32, "images")
    return tf.function(call, input_signature=[spec], autograph=False)


def _images(count=3):
    return np.random.default_rng(0).uniform(-1, 1, (count, 8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize("for_this_machine", [False, True])
@pytest.mark.parametrize("precision, atol", [("float32", 1e-6), ("bfloat16", 0.02)])
def test_the_same_numbers(function, precision, atol, for_this_machine):
    folded = freezing.fold(function, precision, for_this_machine)
    assert not folded.graph.variables and not folded.captured_inputs
    # Not 0: to an empty batch oneDNN's convolutions give the shape of their input.
    for count in (1, 3):
        expected = function(_images(count))
        found = folded(tf.constant(_images(count)))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].dtype == tf.float32
            np.testing.assert_allclose(found[name], value, atol=atol)


def test_nothing_is_told_of_grappler(function, capfd, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    freezing.fold(function, for_this_machine=True)
    assert capfd.readouterr().err == ""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    freezing.fold(function, for_this_machine=True)
    assert "single_machine.cc" in capfd.readouterr().err


def test_only_for_this_machine_are_convolutions_joined_with_what_follows():
    kernel, bias = tf.Variable(tf.ones([3, 3, 3, 8])), tf.Variable(tf.ones([8]))

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32)])
    def call(images):
        maps = tf.nn.conv2d(images, kernel, 1, "SAME")
        return {"maps": tf.nn.relu(tf.nn.bias_add(maps, bias))}

    found = []
    for for_this_machine in (False, True):
        folded = freezing.fold(call, for_this_machine=for_this_machine)
        types = {operation.type for operation in folded.graph.get_operations()}
        assert ("_FusedConv2D" in types) == for_this_machine
        found.append(folded(tf.constant(_images()))["maps"])
    np.testing.assert_allclose(*found, atol=1e-5)


def test_it_is_saved_within_another(function, tmp_path):
    # Twice, as a graph has several: their loops must not be mixed up.
    folded = [freezing.fold(function) for _ in range(2)]
    spec = tf.TensorSpec([None, 8, 8, 3], tf.float32, "images")
    module = tf.Module()
    module.call = tf.function(
        lambda images: {
            "sum": folded[0](images)["doubled"] + folded[1](images)["doubled"]
        },
        input_signature=[spec],
    )
    tf.saved_model.save(module, str(tmp_path), {"serving_default": module.call})
    expected = function(_images())["doubled"].numpy()
    with inspection.open_signatures(str(tmp_path)) as run:
        found = run("serving_default", _images())["sum"]
    np.testing.assert_allclose(found, 2 * expected, atol=1e-4)
    assert "VarHandleOp" not in inspection.list_operations(str(tmp_path))


def test_an_unknown_precision_is_refused(function):
    with pytest.raises(ValueError, match="precision must be one of .* got 'float16'"):
        freezing.fold(function, "float16")
