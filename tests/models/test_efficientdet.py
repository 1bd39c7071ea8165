"""EfficientDet against its published numbers and against keras.applications."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfdetect.models import anchors, bifpn, efficientdet, efficientnet

# Trainable parameters: backbone, P6, laterals, cells, fusion, boxes, classes; 1 class.
_COMPONENTS = {
    0: (3_595_388, 20_672, 58_816, 116_736, 57, 19_044, 17_289),
    1: (6_101_024, 28_424, 80_872, 281_600, 76, 32_508, 30_105),
    2: (7_202_562, 39_760, 112_784, 555_520, 95, 49_428, 46_377),
    3: (10_103_336, 61_920, 176_480, 1_320_960, 114, 122_436, 118_089),
    4: (16_742_216, 101_024, 288_288, 2_960_384, 133, 228_740, 222_665),
    5: (27_288_112, 148_320, 419_040, 4_838_400, 133, 367_812, 360_009),
    6: (39_403_992, 222_336, 629_376, 9_732_096, 0, 792_996, 782_601),
    7: (39_403_992, 222_336, 629_376, 9_732_096, 0, 792_996, 782_601),
}
_TOTALS = {  # Trainable parameters with 1, 2 and 90 classes.
    0: (3_828_002, 3_828_587, 3_880_067),
    1: (6_554_609, 6_555_410, 6_625_898),
    2: (8_006_526, 8_007_543, 8_097_039),
    3: (11_903_335, 11_904_784, 12_032_296),
    4: (20_543_450, 20_545_475, 20_723_675),
    5: (33_421_826, 33_424_427, 33_653_315),
    6: (51_563_397, 51_566_862, 51_871_782),
    7: (51_563_397, 51_566_862, 51_871_782),
}
_BACKBONE_STATISTICS = {  # Moving means and variances of the backbones.
    0: 39_456,
    1: 59_488,
    2: 64_752,
    3: 84_224,
    4: 121_616,
    5: 168_640,
    6: 219_824,
    7: 219_824,
}
_SIZES = {  # Input, channels, cells, depth of the heads, anchors.
    0: (512, 64, 3, 3, 49_104),
    1: (640, 88, 4, 3, 76_725),
    2: (768, 112, 5, 3, 110_484),
    3: (896, 160, 6, 4, 150_381),
    4: (1024, 224, 7, 4, 196_416),
    5: (1280, 288, 7, 4, 306_900),
    6: (1280, 384, 8, 5, 306_900),
    7: (1536, 384, 8, 5, 441_936),
}


def _count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def _random_images(num_images=1, image_size=128, seed=0):
    rng = np.random.default_rng(seed)
    shape = (num_images, image_size, image_size, 3)
    return rng.uniform(0, 255, shape).astype(np.float32)


def _randomize(model, seed=0):
    """Gives every weight, the batch norms' statistics too, an unlikely value."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) > 1:
            fan_in = np.prod(weight.shape[:-1])
            weight.assign(rng.normal(0, fan_in**-0.5, weight.shape))
        elif weight.name in ("gamma", "moving_variance", "fusion_weights"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        else:
            weight.assign(rng.normal(0, 0.1, weight.shape))


@pytest.fixture(scope="module")
def small_d0():
    keras.utils.set_random_seed(0)
    model = efficientdet.EfficientDet(0, image_size=128)
    _randomize(model)
    return model


_PHIS = [
    pytest.param(phi, marks=pytest.mark.slow if phi > 3 else ()) for phi in range(8)
]


@pytest.mark.parametrize("phi", _PHIS)
def test_sizes_and_parameters(phi):
    model = efficientdet.EfficientDet(phi)
    image_size, num_filters, num_cells, depth, num_anchors = _SIZES[phi]
    assert model.image_size == image_size
    assert model.output_shape == [(None, num_anchors, 1), (None, num_anchors, 4)]
    assert model.anchors.boxes.shape == (num_anchors, 4)
    assert model.anchors.anchor_scale == (5 if phi == 7 else 4)

    found = dict.fromkeys(
        ["backbone", "p6", "laterals", "cells", "fusion", "boxes", "classes"], 0
    )
    for layer in model.layers:
        if "_fusion" in layer.name:
            part = "fusion"
        elif layer.name.startswith("p6_lateral"):
            part = "p6"
        elif "_lateral" in layer.name:
            part = "laterals"
        else:
            starts = {"bifpn": "cells", "box": "boxes", "class": "classes"}
            start = next((s for s in starts if layer.name.startswith(s)), "backbone")
            part = starts.get(start, start)
        found[part] += _count(layer.trainable_weights)
    assert tuple(found.values()) == _COMPONENTS[phi]
    assert _count(model.trainable_weights) == _TOTALS[phi][0]
    statistics = (6 + 8 * num_cells + 10 * depth) * 2 * num_filters
    expected = _BACKBONE_STATISTICS[phi] + statistics
    assert _count(model.non_trainable_weights) == expected


@pytest.mark.parametrize("phi", range(8))
def test_class_head_with_more_classes(phi):
    _, num_filters, _, depth, _ = _SIZES[phi]
    for num_classes, total in zip((1, 2, 90), _TOTALS[phi], strict=True):
        inputs = [keras.Input((1, 1, num_filters)) for _ in range(5)]
        outputs = efficientdet._head(
            inputs,
            "class",
            filters=num_filters,
            depth=depth,
            outputs=num_classes,
            num_anchors=9,
            bias=0.0,
            bn_momentum=0.99,
        )
        head = keras.Model(inputs, outputs)
        expected = total - sum(_COMPONENTS[phi][:-1])
        assert _count(head.trainable_weights) == expected


@pytest.mark.parametrize("num_classes", [2, 90])
def test_parameters_with_more_classes(num_classes):
    model = efficientdet.EfficientDet(0, num_classes, image_size=128)
    total = _TOTALS[0][1 if num_classes == 2 else 2]
    assert _count(model.trainable_weights) == total
    assert model.output_shape[0] == (None, len(model.anchors.boxes), num_classes)


def test_fast_fusion_of_two_equal_vectors():
    vector = tf.constant([[1.0, 3.0]])
    fused = bifpn.FastFusion()([vector, vector])
    np.testing.assert_allclose(fused, [[0.99995, 2.99985]], rtol=1e-6)


def test_fast_fusion_ignores_negative_weights():
    layer = bifpn.FastFusion()
    layer.build([(None, 2)] * 3)
    layer.fusion_weights.assign([3.0, -5.0, 1.0])
    inputs = [tf.constant([[4.0, 8.0]]), tf.ones((1, 2)) * 100, tf.zeros((1, 2))]
    np.testing.assert_allclose(layer(inputs), [[3.0, 6.0]], rtol=1e-4)


def _sources(model, layer_name):
    """Names of the layers whose outputs a layer reads."""
    tensors = model.get_layer(layer_name).input
    return [tensor._keras_history.operation.name for tensor in tensors]


def test_the_pyramid_is_wired_as_published(small_d0):
    first = {
        "p6_td": ["p6_pool", "bifpn0_p7_up"],
        "p5_td": ["p5_lateral_bn", "bifpn0_p6_up"],
        "p4_td": ["p4_lateral_bn", "bifpn0_p5_up"],
        "p3_out": ["p3_lateral_bn", "bifpn0_p4_up"],
        "p4_out": ["p4_lateral_up_bn", "bifpn0_p4_td_bn", "bifpn0_p3_down"],
        "p5_out": ["p5_lateral_up_bn", "bifpn0_p5_td_bn", "bifpn0_p4_down"],
        "p6_out": ["p6_pool", "bifpn0_p6_td_bn", "bifpn0_p5_down"],
        "p7_out": ["p7_pool", "bifpn0_p6_down"],
    }
    for node, sources in first.items():
        assert _sources(small_d0, f"bifpn0_{node}_fusion") == sources
    assert _sources(small_d0, "bifpn1_p5_out_fusion") == [
        "bifpn0_p5_out_bn",
        "bifpn1_p5_td_bn",
        "bifpn1_p4_down",
    ]
    shared = small_d0.get_layer("class_conv0")
    read = [node.input_tensors[0] for node in shared._inbound_nodes]
    names = [tensor._keras_history.operation.name for tensor in read]
    assert names == [f"bifpn2_p{level}_out_bn" for level in range(3, 8)]


def test_batch_norms_follow_google_automl(small_d0):
    layers = small_d0._flatten_layers()
    norms = [x for x in layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 49 - 1 + 6 + 3 * 8 + 30  # B0 without its top.
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.99, 1e-3)}


def test_the_new_model_expects_background():
    model = efficientdet.EfficientDet(0, image_size=128)
    bias = model.get_layer("class_predict").bias
    np.testing.assert_allclose(bias, np.full(9, -4.59512), rtol=1e-6)
    assert not np.any(model.get_layer("box_predict").bias)


def test_outputs_are_in_the_order_of_the_anchors(small_d0):
    """An anchor's outputs depend on the pixels around it, and on its own channels."""
    model = efficientdet.EfficientDet.from_config(small_d0.get_config())
    model.set_weights(small_d0.get_weights())
    for name, channels in (("class_predict", 9), ("box_predict", 36)):
        layer = model.get_layer(name)
        layer.pointwise_kernel.assign(keras.ops.zeros_like(layer.pointwise_kernel))
        layer.bias.assign(np.arange(channels))
    class_logits, box_offsets = model(_random_images())
    places = len(model.anchors.boxes) // 9
    expected = np.tile(np.arange(9.0), places)
    np.testing.assert_allclose(class_logits[0, :, 0], expected)
    expected = np.tile(np.arange(36.0).reshape(9, 4), (places, 1))
    np.testing.assert_allclose(box_offsets[0], expected)


def test_levels_and_rows_are_in_the_order_of_the_anchors():
    """A head that only copies its features shows where each of them ends up."""
    sizes = (16, 8, 4, 2, 1)
    inputs = [keras.Input((size, size, 1)) for size in sizes]
    outputs = efficientdet._head(
        inputs,
        "copy",
        filters=1,
        depth=0,
        outputs=1,
        num_anchors=1,
        bias=0.0,
        bn_momentum=0.99,
    )
    model = keras.Model(inputs, outputs)
    predict = model.get_layer("copy_predict")
    kernel = np.zeros((3, 3, 1, 1))
    kernel[1, 1] = 1.0
    predict.set_weights([kernel, np.ones((1, 1, 1, 1)), np.zeros(1)])
    grid = anchors.Anchors(128, num_octaves=1, aspect_ratios=(1.0,)).boxes
    rows, columns = (grid[:, 0] + grid[:, 2]) / 2, (grid[:, 1] + grid[:, 3]) / 2
    for coordinates, axis in ((rows, 0), (columns, 1)):
        features = []
        for size in sizes:
            centers = (np.arange(size, dtype=np.float32) + 0.5) / size
            square = np.broadcast_to(np.expand_dims(centers, 1 - axis), (size, size))
            features.append(square[None, ..., None])
        np.testing.assert_allclose(model(features)[0, :, 0], coordinates, atol=1e-5)


def test_a_batch_equals_its_images(small_d0):
    images = _random_images(2)
    together = small_d0(images)
    for i in range(2):
        alone = small_d0(images[[i]])
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[i], b[0], atol=1e-3)


def test_config_and_weights_survive_saving(small_d0, tmp_path):
    path = tmp_path / "model.keras"
    small_d0.save(path)
    loaded = keras.models.load_model(path)
    assert isinstance(loaded, efficientdet.EfficientDet)
    assert loaded.get_config() == small_d0.get_config()
    images = _random_images()
    for a, b in zip(small_d0(images), loaded(images), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_config_holds_every_argument():
    arguments = {
        "phi": 1,
        "num_classes": 2,
        "image_size": 256,
        "anchor_scale": 3.0,
        "weighted_bifpn": False,
        "bn_momentum": 0.9,
        "drop_connect_rate": 0.1,
        "lite": True,
        "name": "small",
    }
    model = efficientdet.EfficientDet(**arguments)
    assert model.get_config() == arguments
    assert not [x for x in model.layers if isinstance(x, bifpn.FastFusion)]
    norms = [x for x in model._flatten_layers() if x.name.endswith("_bn")]
    assert {norm.momentum for norm in norms} == {0.9}


@pytest.mark.slow
def test_saved_model_with_a_free_batch(small_d0, tmp_path):
    module = tf.Module()
    module.model = small_d0
    module.call = tf.function(
        lambda images: small_d0(images, training=False),
        input_signature=[tf.TensorSpec((None, 128, 128, 3))],
    )
    tf.saved_model.save(module, tmp_path)
    images = _random_images(2)
    loaded = tf.saved_model.load(tmp_path)
    for a, b in zip(small_d0(images), loaded.call(images), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_mixed_precision_gives_float32_near_the_full_one(small_d0):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = efficientdet.EfficientDet(0, image_size=128)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    model.set_weights(small_d0.get_weights())
    images = _random_images()
    for full, mixed in zip(small_d0(images), model(images), strict=True):
        assert mixed.dtype == tf.float32
        assert np.abs(mixed - full).mean() < 0.15 * np.abs(full).mean()


def test_every_weight_learns(small_d0):
    model = efficientdet.EfficientDet(0, image_size=128)
    with tf.GradientTape() as tape:
        class_logits, box_offsets = model(_random_images(2), training=True)
        loss = tf.reduce_sum(class_logits**2) + tf.reduce_sum(box_offsets**2)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(gradient is not None for gradient in gradients)


def test_variable_paths_are_the_same_in_a_second_model(small_d0):
    first = [weight.path for weight in small_d0.weights]
    second = efficientdet.EfficientDet(0, image_size=128, name="other")
    assert first == [weight.path for weight in second.weights]
    assert len(set(first)) == len(first)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"phi": 8}, "phi must be one of"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"image_size": 500}, "multiple of 32"),
    ],
)
def test_refuses_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        efficientdet.EfficientDet(**arguments)
    with pytest.raises(ValueError, match="variant must be one of"):
        efficientnet.build("b8")


_TAPS = {  # Channels at strides 8, 16 and 32.
    "b0": (40, 112, 320),
    "b2": (48, 120, 352),
    "b3": (48, 136, 384),
}


@pytest.mark.parametrize("variant", _TAPS)
def test_backbone_taps(variant):
    taps = zip((8, 16, 32), _TAPS[variant], strict=True)
    backbone = efficientnet.build(variant)
    shapes = [tuple(x.shape) for x in backbone(_random_images(1, 64)[:, :32])]
    expected = [(1, 32 // s, 64 // s, c) for s, c in taps]
    assert shapes == expected


def test_normalization_is_that_of_imagenet():
    pixel = np.array([123.675, 116.28 + 57.12, 103.53 - 57.375], np.float32)
    normalized = efficientnet.build_normalization()(pixel.reshape(1, 1, 1, 3))
    np.testing.assert_allclose(np.ravel(normalized), [0, 1, -1], atol=1e-5)


def _normalize_like_imagenet(source):
    """Does to a random model what its ImageNet weights do."""
    kinds = keras.layers.Normalization
    layer = next(x for x in source.layers if isinstance(x, kinds))
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    variance = np.array([0.229, 0.224, 0.225], np.float32) ** 2
    layer.set_weights([mean, variance, np.array(0)])
    layer.finalize_state()


def test_weights_of_keras_applications_give_the_same_features():
    source = keras.applications.EfficientNetB0(weights=None, include_top=False)
    _randomize(source)
    _normalize_like_imagenet(source)
    backbone = efficientnet.build("b0", 64)
    efficientnet.copy_applications_weights(backbone, source)
    taps = ["block3b_add", "block5c_add", "block7a_project_bn"]
    reference = keras.Model(source.input, [source.get_layer(x).output for x in taps])
    images = _random_images(2, 64)
    found = backbone(efficientnet.build_normalization()(images))
    for a, b in zip(found, reference(images), strict=True):
        assert np.std(b) > 0.1
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.std(b))


def test_drop_rates_are_those_of_keras_applications():
    """keras-cv's own rates are wrong in every size but B0."""
    source = keras.applications.EfficientNetB1(weights=None, include_top=False)
    _normalize_like_imagenet(source)
    backbone = efficientnet.build("b1")
    efficientnet.copy_applications_weights(backbone, source)
    dropouts = [x for x in backbone.layers if isinstance(x, keras.layers.Dropout)]
    assert len(dropouts) == 16
    for layer in dropouts:
        assert np.isclose(layer.rate, source.get_layer(layer.name).rate)


def test_refuses_a_source_of_another_size_or_normalization():
    backbone = efficientnet.build("b0")
    source = keras.applications.EfficientNetB0(weights=None, include_top=False)
    with pytest.raises(ValueError, match="must normalize"):
        efficientnet.copy_applications_weights(backbone, source)
    source = keras.applications.EfficientNetB3(weights=None, include_top=False)
    _normalize_like_imagenet(source)
    with pytest.raises(ValueError, match="stem_conv must have"):
        efficientnet.copy_applications_weights(backbone, source)


# Lite: input, channels, cells, depth of the heads, anchor scale; trainable
# parameters with 90 classes (google/automl's table), with 1, and of its backbone.
_LITE = {
    0: (320, 64, 3, 3, 3, 3_243_470, 3_191_405, 2_958_848),
    1: (384, 88, 4, 3, 3, 4_248_318, 4_177_029, 3_723_520),
    2: (448, 112, 5, 3, 3, 5_252_334, 5_161_821, 4_357_952),
    3: (512, 160, 6, 4, 4, 8_350_862, 8_221_901, 6_422_016),
    4: (640, 224, 7, 4, 4, 15_130_894, 14_950_669, 11_149_568),
}


@pytest.mark.parametrize(
    "phi",
    [pytest.param(phi, marks=pytest.mark.slow if phi > 1 else ()) for phi in _LITE],
)
def test_lite_sizes_and_parameters(phi):
    image_size, num_filters, num_cells, depth, anchor_scale, *counts = _LITE[phi]
    of_coco, of_heads, of_backbone = counts
    for num_classes, count in ((90, of_coco), (1, of_heads)):
        model = efficientdet.EfficientDet(phi, num_classes, lite=True)
        assert _count(model.trainable_weights) == count
    assert _count(model.backbone.trainable_weights) == of_backbone
    assert (model.image_size, model.anchors.anchor_scale) == (image_size, anchor_scale)
    statistics = (6 + 8 * num_cells + 10 * depth) * 2 * num_filters
    found = _count(model.non_trainable_weights)
    assert found - _count(model.backbone.non_trainable_weights) == statistics
    # The last anchor of the paper's grid: places are halved, rounded up, to level 7.
    places = sum((-(-image_size // 2**level)) ** 2 for level in range(3, 8))
    assert model.output_shape == [(None, 9 * places, 1), (None, 9 * places, 4)]
    assert len(model.anchors.boxes) == 9 * places


def test_lite_has_relu6_and_plain_sums_alone():
    model = efficientdet.EfficientDet(0, image_size=64, lite=True)
    layers = model._flatten_layers(include_self=False)
    activations = {
        layer.activation.__name__
        for layer in layers
        if isinstance(layer, keras.layers.Activation) and layer.name != "class_output"
    }
    assert activations == {"relu6", "linear"}
    assert not [x for x in model.layers if isinstance(x, bifpn.FastFusion)]
    pixels = np.array([[[[0.0, 127.0, 255.0]]]], np.float32)
    found = model.get_layer("normalization")(pixels)
    np.testing.assert_allclose(found, [[[[-127 / 128, 0.0, 1.0]]]])


def test_odd_levels_are_enlarged_to_their_nearest_neighbours():
    coarse = np.arange(9.0, dtype=np.float32).reshape(1, 3, 3, 1)
    for side in (5, 6):
        fine = np.zeros((1, side, side, 1), np.float32)
        # google/automl: without half-pixel centers.
        expected = tf.compat.v1.image.resize_nearest_neighbor(coarse, (side, side))
        found = bifpn._upsample(coarse, fine, f"up_{side}")
        np.testing.assert_array_equal(found, expected)


def test_a_lite_survives_saving_at_an_odd_size(tmp_path):
    model = efficientdet.EfficientDet(0, image_size=96, lite=True)
    _randomize(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    images = _random_images(image_size=96)
    for a, b in zip(model(images), loaded(images), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_lite_has_its_own_weights_to_start_from():
    with pytest.raises(ValueError, match=r"phi must be one of .* for Lite, got 5"):
        efficientdet.EfficientDet(5, lite=True)
    model = efficientdet.EfficientDet(0, image_size=32, lite=True)
    with pytest.raises(ValueError, match="Keras has no ImageNet weights of"):
        model.load_imagenet()
    with pytest.raises(ValueError, match="Only EfficientDet-Lite takes a .pth file"):
        efficientdet.EfficientDet(0, image_size=32).load_pytorch("weights.pth")
