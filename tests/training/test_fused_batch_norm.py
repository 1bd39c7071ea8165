"""The fused batch norm against Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfdetect.models import classifier, efficientdet, weights
from dfdetect.training import fused_batch_norm, train_step


def _pair(**arguments):
    """Keras' layer and a fused one with the same unlikely weights."""
    rng = np.random.default_rng(0)
    layers = []
    for cls in (
        keras.layers.BatchNormalization,
        fused_batch_norm.FusedBatchNormalization,
    ):
        layer = cls(momentum=0.9, epsilon=1e-3, **arguments)
        layer.build((None, 5, 7, 3))
        layers.append(layer)
    values = [rng.uniform(0.5, 1.5, weight.shape) for weight in layers[0].weights]
    for layer in layers:
        layer.set_weights(values)
    return layers


def _maps(dtype=np.float32):
    rng = np.random.default_rng(1)
    return tf.cast(rng.normal(3, 2, (4, 5, 7, 3)), dtype)


def _step(layer, maps, training):
    with tf.GradientTape() as tape:
        tape.watch(maps)
        out = layer(maps, training=training)
        loss = tf.reduce_sum(tf.cast(out, tf.float32) ** 3)
    sources = [maps, *[weight.value for weight in layer.trainable_weights]]
    return out, tape.gradient(loss, sources)


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function])
@pytest.mark.parametrize("training", [True, False])
def test_equals_keras(training, wrap):
    expected, found = _pair()
    for _ in range(2):
        wanted = _step(expected, _maps(), training)
        came = wrap(lambda maps: _step(found, maps, training))(_maps())
        for a, b in zip(tf.nest.flatten(wanted), tf.nest.flatten(came), strict=True):
            np.testing.assert_allclose(b, a, rtol=2e-4, atol=2e-3)
    for a, b in zip(expected.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5)


def test_equals_keras_in_bfloat16():
    expected, found = _pair(dtype="mixed_bfloat16")
    wanted, _ = _step(expected, _maps(), True)
    came, _ = _step(found, _maps(), True)
    assert came.dtype == wanted.dtype == tf.bfloat16
    gap = np.abs(np.float32(came) - np.float32(wanted))
    assert gap.max() < 0.05
    for a, b in zip(expected.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-2)


def test_a_frozen_layer_keeps_its_statistics():
    _, found = _pair()
    found.trainable = False
    before = found.get_weights()
    _step(found, _maps(), True)
    for a, b in zip(before, found.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow  # Builds a detector twice.
def test_all_norms_of_a_detector_are_fused_and_nothing_else_changes():
    model = efficientdet.EfficientDet(0, image_size=64, lite=True)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    paths = [weight.path for weight in model.weights]
    before = model(images, training=False)
    norms = train_step.find_batch_norms(model)
    assert fused_batch_norm.fuse_batch_norms(model) == len(norms)
    assert fused_batch_norm.fuse_batch_norms(model) == 0
    assert [weight.path for weight in model.weights] == paths
    for a, b in zip(before, model(images, training=False), strict=True):
        np.testing.assert_array_equal(a, b)
    trained = tf.function(lambda x: model(x, training=True))(images)
    assert np.isfinite(trained[0]).all()
    assert not np.any(norms[0].moving_mean == 0)


def test_statistics_that_no_file_gave_are_learned_on_a_frozen_backbone():
    model = classifier.build("mobilenet_v2", 32)
    keys = [*weights.variables(model)]
    missing = [key for key in keys if key.startswith(("pool/", "logits/"))]
    loaded = tuple(key for key in keys if key not in missing)
    report = weights.LoadReport(loaded, tuple(missing))
    last = train_step.name_backbone_end(model, report)
    assert last == "moments"
    train_step.freeze_through(model, last)
    assert [v.path.split("/")[-2] for v in model.trainable_variables] == ["logits"] * 2
    assert weights.find_frozen_random(model, report) == []
    # All batch norms by another flag: that is told.
    train_step.freeze_batch_norms(model)
    statistics = ["pool/moving_mean", "pool/moving_variance"]
    assert weights.find_frozen_random(model, report) == statistics
    # A second phase has them.
    whole = weights.LoadReport(tuple(keys))
    assert train_step.name_backbone_end(model, whole) == "pool"
    assert weights.find_frozen_random(model, whole) == []
    other = classifier.build("mesonet4", 32)
    assert train_step.name_backbone_end(other, weights.LoadReport()) == "pool"
    with pytest.raises(ValueError, match="no layer 'stranger' in "):
        train_step.freeze_through(other, "stranger")
