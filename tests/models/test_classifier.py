"""Classifiers by name: shapes, embeddings, stages and what training changes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfdetect.models import classifier, xception


def _images(batch_size, size=75):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (batch_size, size, size, 3)).astype("float32")


@pytest.mark.parametrize(
    "name",
    [
        *xception.PRESETS,
        "mesonet4",
        "mesoinception4",
        "efficientnet_b0",
        "efficientnet_lite0",
    ],
)
def test_batch_equals_single_eagerly_and_in_a_graph(name):
    model = classifier.build(name, 75)
    images = _images(2)
    logits = np.array(model(images))
    assert logits.shape == (2, 1) and logits.dtype == np.float32
    np.testing.assert_allclose(model(images[1:]), logits[1:], atol=1e-5)
    np.testing.assert_allclose(tf.function(model)(images), logits, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("lightxception", 2048),
        ("mesoinception4", 16),
        ("efficientnet_b0", 1280),
        ("efficientnet_lite0", 1568),
    ],
)
def test_the_logit_is_linear_in_the_embedding(name, width):
    model = classifier.build(name, 75)
    kernel, bias = model.get_layer("logits").get_weights()
    embeddings = np.array(classifier.build_embedding_model(model)(_images(3)))
    assert embeddings.shape == (3, width)
    np.testing.assert_allclose(embeddings @ kernel + bias, model(_images(3)), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "stages", "shapes"),
    [
        ("xception", ["entry2", "entry3"], [(9, 9, 256), (5, 5, 728)]),
        ("efficientnet_b0", ["block3", "block5"], [(9, 9, 40), (4, 4, 112)]),
        ("efficientnet_lite0", ["block3", "block5"], [(10, 10, 40), (5, 5, 112)]),
    ],
)
def test_stages_share_the_weights(name, stages, shapes):
    model = classifier.build(name, 75)
    maps = classifier.feature_maps(model, [*stages, "pool"])
    *features, pooled = maps(_images(1))
    assert [tuple(feature.shape[1:]) for feature in features] == shapes
    np.testing.assert_array_equal(
        pooled, classifier.build_embedding_model(model)(_images(1))
    )
    with pytest.raises(ValueError, match="block9"):
        classifier.feature_maps(model, ["block9"])


@pytest.mark.parametrize(
    ("name", "size", "width"),
    [
        ("efficientnet_b0", 4_049_571, 1280),
        pytest.param("efficientnet_b1", 6_575_239, 1280, marks=pytest.mark.slow),
        pytest.param("efficientnet_b2", 7_768_569, 1408, marks=pytest.mark.slow),
        pytest.param("efficientnet_b3", 10_783_535, 1536, marks=pytest.mark.slow),
        pytest.param("efficientnet_b4", 17_673_823, 1792, marks=pytest.mark.slow),
    ],
)
def test_an_efficientnet_has_the_published_size(name, size, width):
    # keras.applications counts 7 more in its normalization layer.
    model = classifier.build(name, 224)
    assert model.count_params() == size - 7 + width + 1


@pytest.mark.parametrize(
    ("name", "size", "channels"),
    [
        ("lite0", 4_652_008, 320),
        pytest.param("lite1", 5_416_680, 320, marks=pytest.mark.slow),
        pytest.param("lite2", 6_092_072, 352, marks=pytest.mark.slow),
        pytest.param("lite3", 8_197_096, 384, marks=pytest.mark.slow),
        pytest.param("lite4", 13_006_568, 448, marks=pytest.mark.slow),
    ],
)
def test_an_efficientnet_lite_has_the_published_size(name, size, channels):
    model = classifier.build(f"efficientnet_{name}", 64)
    stages = model.get_layer("backbone").trainable_variables
    # Ours has another top: theirs is a convolution, its norm, and a thousand classes.
    top = channels * 1280 + 2 * 1280 + 1000 * (1280 + 1)
    assert sum(np.prod(variable.shape) for variable in stages) + top == size


@pytest.mark.parametrize(
    ("name", "size", "trainable"),
    [("mesonet4", 28_073, 27_977), ("mesoinception4", 28_725, 28_615)],
)
def test_a_mesonet_has_the_published_size(name, size, trainable):
    model = classifier.build(name, 256)
    assert model.count_params() == size
    assert sum(np.prod(v.shape) for v in model.trainable_variables) == trainable
    with pytest.raises(ValueError, match="at least 32, got 31"):
        classifier.build(name, 31)


def test_efficientnet_b0_takes_the_weights_of_its_top():
    rng = np.random.default_rng(0)
    source = keras.applications.EfficientNetB0(
        weights=None, include_top=False, input_shape=(64, 64, 3)
    )
    model = classifier.build("efficientnet_b0", 64)
    for layer in source.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shapes = [weight.shape for weight in layer.weights]
            layer.set_weights([rng.uniform(0.5, 1.5, shape) for shape in shapes])
    # Keras numbers those of a process.
    (normalization,) = [
        layer
        for layer in source.layers
        if isinstance(layer, keras.layers.Normalization)
    ]
    stddev = np.array([0.229, 0.224, 0.225])
    normalization.set_weights([np.array([0.485, 0.456, 0.406]), stddev**2, np.array(0)])
    normalization.finalize_state()
    model.copy_applications_weights(source)
    expected = source(_images(1, 64))
    assert np.ptp(expected) > 0.1
    features = classifier.feature_maps(model, ["exit"])(_images(1, 64))
    np.testing.assert_allclose(features, expected, atol=1e-3)


def test_training_steps_lower_the_loss_and_settle_the_batch_norms():
    keras.utils.set_random_seed(0)
    model = classifier.build("lightxception", 71, dropout=0.0, bn_momentum=0.5)
    images, labels = _images(4, 71), np.array([[0.0], [1.0], [0.0], [1.0]])
    images[1::2] /= 2
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, run_eagerly=True)
    losses = [model.train_on_batch(images, labels) for _ in range(5)]
    assert losses[-1] < losses[0] / 2
    logits = np.array(model(images))
    assert logits[1::2].min() > logits[::2].max()


def test_wrong_arguments():
    with pytest.raises(ValueError, match="name must be one of .*, got 'resnet'"):
        classifier.build("resnet", 75)
    with pytest.raises(ValueError, match="at least 71, got 64"):
        classifier.build("xception", 64)
    with pytest.raises(ValueError, match="at least 32, got 31"):
        classifier.build("efficientnet_b0", 31)
