"""The Xception family against its published numbers and against keras.applications."""

import keras
import numpy as np
import pytest

from dfdetect.models import xception, xception_weights

# Total and trainable parameters by number of outputs (0: no top).
_PARAMETERS = {
    "xception": {
        0: (20_861_480, 20_806_952),
        1: (20_863_529, 20_809_001),
        2: (20_865_578, 20_811_050),
        1000: (22_910_480, 22_855_952),
    },
    "lightxception": {
        0: (14_388_104, 14_351_048),
        1: (14_390_153, 14_353_097),
    },
    "midwayxception": {
        0: (25_332_080, 25_265_904),
        2: (25_336_178, 25_270_002),
    },
}


_PARAMETERS["xception_pytorch"] = _PARAMETERS["xception"]


@pytest.mark.parametrize("preset", xception.PRESETS)
def test_parameters_and_feature_map_at_299(preset):
    for num_outputs, (total, trainable) in _PARAMETERS[preset].items():
        model = xception.Xception(
            299, num_outputs, name=preset, **xception.PRESETS[preset]
        )
        sizes = [int(np.prod(weight.shape)) for weight in model.trainable_weights]
        assert (model.count_params(), sum(sizes)) == (total, trainable)
        expected = (None, num_outputs) if num_outputs else (None, 10, 10, 2048)
        assert model.output_shape == expected
        assert model.get_layer("exit").output.shape == (None, 10, 10, 2048)


def test_no_top_by_none():
    assert xception.Xception(71, None).output_shape == (None, 3, 3, 2048)


def test_stages_have_the_documented_channels_and_strides():
    model = xception.Xception(299)
    maps = xception.feature_maps(
        model, ["stem", "entry1", "entry2", "entry3", "middle1", "middle8", "exit"]
    )
    shapes = [tuple(shape[1:]) for shape in maps.output_shape]
    assert shapes == [
        (147, 147, 64),
        (74, 74, 128),
        (37, 37, 256),
        (19, 19, 728),
        (19, 19, 728),
        (19, 19, 728),
        (10, 10, 2048),
    ]
    with pytest.raises(ValueError, match="middle9"):
        xception.feature_maps(model, ["middle9"])


def _applications_xception():
    """With random weights, and batch norms that differ from channel to channel."""
    rng = np.random.default_rng(0)
    source = keras.applications.Xception(weights=None, include_top=False)
    for layer in source.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shapes = [weight.shape for weight in layer.weights]
            layer.set_weights([rng.uniform(0.5, 1.5, shape) for shape in shapes])
    return source


def test_applications_weights_give_the_same_features():
    source = _applications_xception()
    model = xception.Xception(83)
    logits = model.get_layer("logits").get_weights()[0]
    xception_weights.copy_applications(model, source)
    images = np.random.default_rng(1).uniform(0, 255, (2, 83, 83, 3)).astype("float32")
    expected = source(images / 127.5 - 1.0)
    assert np.ptp(expected) > 0.1
    features = xception.feature_maps(model, ["exit"])(images)
    np.testing.assert_allclose(features, expected, atol=1e-4)
    np.testing.assert_array_equal(model.get_layer("logits").get_weights()[0], logits)


def test_applications_weights_fit_only_their_own_preset():
    source = keras.applications.Xception(weights=None, include_top=False)
    light = xception.Xception(71, **xception.PRESETS["lightxception"])
    with pytest.raises(ValueError, match="middle8_conv3_bn"):
        xception_weights.copy_applications(light, source)
    with pytest.raises(ValueError, match="predictions"):
        xception_weights.copy_applications(
            xception.Xception(71), keras.applications.Xception(weights=None)
        )


def test_convolution_in_pairs_is_the_grouped_one():
    features = np.random.default_rng(0).normal(size=(2, 5, 5, 12)).astype("float32")
    pairs = xception.PairConv2D()
    result = pairs(features)
    grouped = keras.layers.Conv2D(12, 3, padding="same", groups=6, use_bias=False)
    grouped.build(features.shape)
    grouped.set_weights(pairs.get_weights())
    np.testing.assert_allclose(result, grouped(features), atol=1e-5)
    with pytest.raises(ValueError, match="must be even, got 3"):
        xception.PairConv2D()(features[..., :3])


def test_convolution_in_pairs_is_a_depthwise_one_and_a_sum():
    model = xception.Xception(71, **xception.PRESETS["midwayxception"])
    layer = model.get_layer("middle3_conv2_spatial")
    (kernel,) = layer.get_weights()
    assert kernel.shape == (3, 3, 2, 728)
    # d[:, :, 2g + i, o] = k[:, :, i, 2g + o]
    depthwise = kernel.reshape(3, 3, 2, 364, 2).transpose(0, 1, 3, 2, 4)
    features = np.random.default_rng(0).normal(size=(1, 5, 5, 728)).astype("float32")
    split = keras.ops.depthwise_conv(
        features, depthwise.reshape(3, 3, 728, 2), padding="same"
    )
    pairs = np.array(split).reshape(1, 5, 5, 364, 2, 2).sum(axis=4)
    np.testing.assert_allclose(layer(features), pairs.reshape(1, 5, 5, 728), atol=1e-5)


def test_middle_skip_of_midway_replaces_the_identity():
    features = np.random.default_rng(0).normal(size=(1, 5, 5, 728)).astype("float32")
    for preset, expected in (("lightxception", features), ("midwayxception", 0.0)):
        model = xception.Xception(71, **xception.PRESETS[preset])
        # A gamma of zero silences a block's branch, and in midway the skip as well.
        silent = ["middle1_conv3_bn", "middle1_skip_bn"]
        for layer in model.layers:
            if layer.name in silent:
                layer.gamma.assign(np.zeros(728))
        block = keras.Model(
            model.get_layer("entry3").output, model.get_layer("middle1").output
        )
        np.testing.assert_allclose(
            block(features), np.broadcast_to(expected, (1, 5, 5, 728))
        )


def test_first_layer_takes_pixels_to_plus_minus_one():
    model = xception.Xception(71)
    normalise = keras.Model(model.input, model.get_layer("normalise").output)
    images = np.zeros((1, 71, 71, 3), "float32")
    images[0, 0, 0] = [0.0, 127.5, 255.0]
    np.testing.assert_allclose(normalise(images)[0, 0, 0], [-1, 0, 1], atol=1e-6)


def test_batch_norm_settings():
    model = xception.Xception(71, bn_momentum=0.9)
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {layer.momentum for layer in norms} == {0.9}
    assert {layer.epsilon for layer in norms} == {1e-3}


def test_wrong_arguments():
    with pytest.raises(ValueError, match="at least 71, got 70"):
        xception.Xception(70)
    with pytest.raises(ValueError, match="depthwise or pairs, got 'full'"):
        xception.Xception(71, spatial="full")
    with pytest.raises(ValueError, match="identity or conv, got 'none'"):
        xception.Xception(71, middle_skip="none")
