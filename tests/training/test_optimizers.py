import keras
import numpy as np
import pytest
import tensorflow as tf

from dfdetect.training import optimizers


def _rates(at, **arguments):
    return [float(optimizers.learning_rate(s, 1.0, **arguments)) for s in at]


def test_cosine_rises_then_falls_to_zero():
    rates = _rates(
        (0, 4, 9, 10, 60, 110), schedule="cosine", steps=110, warmup_steps=10
    )
    np.testing.assert_allclose(rates, [0.1, 0.5, 1.0, 1.0, 0.5, 0.0], atol=1e-6)


def test_steps_of_five_epochs_multiply():
    # Epochs of 100 steps: a twentieth every 5 epochs.
    rates = _rates(
        (0, 499, 500, 999, 1000),
        schedule="step",
        steps=2000,
        decay_factor=0.05,
        decay_every=500,
    )
    np.testing.assert_allclose(rates, [1, 1, 0.05, 0.05, 0.0025], rtol=1e-5)
    assert _rates((0, 10**6), schedule="constant", steps=10) == [1.0, 1.0]


@pytest.mark.parametrize(
    "rule, theirs",
    [
        ("sgd", keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01)),
        ("adam", keras.optimizers.Adam(0.1)),
        ("adamw", keras.optimizers.AdamW(0.1, weight_decay=0.01)),
    ],
)
def test_rules_are_those_of_keras(rule, theirs):
    random = np.random.default_rng(0)
    values = random.normal(size=(3, 2)).astype(np.float32)
    ours, other = (keras.Variable(values, name="kernel") for _ in range(2))
    decay = 0.0 if rule == "adam" else 0.01
    optimizer = optimizers.Optimizer({"kernel": ours}, rule, weight_decay=decay)
    for step in range(5):
        gradient = tf.constant(random.normal(size=(3, 2)), tf.float32)
        optimizer.apply([gradient], tf.constant(0.1), tf.constant(step, tf.int64))
        theirs.apply([gradient], [other])
    assert np.abs(ours.numpy() - values).max() > 0.1
    np.testing.assert_allclose(ours.numpy(), other.numpy(), rtol=1e-5, atol=1e-6)


def test_biases_and_batch_norms_are_not_decayed():
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    layer.bias.assign([1.0, 1.0])
    before = layer.kernel.numpy()
    named = {weight.path: weight for weight in layer.weights}
    optimizer = optimizers.Optimizer(named, "adamw", weight_decay=0.5)
    zeros = [tf.zeros(w.shape) for w in layer.weights]
    optimizer.apply(zeros, tf.constant(0.1), tf.constant(0, tf.int64))
    np.testing.assert_allclose(layer.kernel.numpy(), before * 0.95, rtol=1e-6)
    np.testing.assert_array_equal(layer.bias.numpy(), [1.0, 1.0])


def test_loss_scale_halves_on_overflow_and_doubles_in_time():
    scale = optimizers.LossScale()
    scale.update(tf.constant(False))
    assert float(scale.scale) == 2.0**14
    for _ in range(2000):
        scale.update(tf.constant(True))
    assert float(scale.scale) == 2.0**15
