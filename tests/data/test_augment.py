import numpy as np
import pytest
import tensorflow as tf

from dfdetect.data import augment

SEED = tf.constant([1, 2])


def _gradient(height, width):
    """An image whose red is its row and green its column, 0 to 255."""
    rows = np.linspace(0, 255, height)[:, None, None] * [1, 0, 0]
    columns = np.linspace(0, 255, width)[None, :, None] * [0, 1, 0]
    return (rows + columns).astype(np.float32)


def _in_graph(function):
    """The result eagerly, after checking that a data set gives the same."""
    eager = function()
    mapped = tf.data.Dataset.range(1).map(lambda _: function()).get_single_element()
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), eager, mapped
    )
    return eager


def test_random_crop_is_a_window_of_the_image():
    image = _gradient(60, 80)
    crop = _in_graph(lambda: augment.random_crop(image, 40, SEED)).numpy()
    assert crop.shape == (40, 40, 3)
    assert np.all(np.diff(crop[:, 20, 0]) > 0)
    kept = np.ptp(crop[..., 0]) / 255 * np.ptp(crop[..., 1]) / 255
    assert 0.6 < kept <= 1.0


def test_random_crop_follows_its_seed():
    image = _gradient(60, 80)
    again = augment.random_crop(image, 40, SEED)
    np.testing.assert_array_equal(augment.random_crop(image, 40, SEED), again)
    other = augment.random_crop(image, 40, tf.constant([1, 3]))
    assert np.abs(again - other).max() > 1


def test_color_stays_in_range_and_keeps_the_shape():
    for index in range(20):
        image = augment.adjust_color(
            _gradient(8, 8) * 3 - 200, tf.constant([0, index]), strength=0.5
        ).numpy()
        assert image.shape == (8, 8, 3)
        assert image.min() >= 0 and image.max() <= 255.01


def test_flip_moves_boxes_with_the_image():
    image = _gradient(4, 10)
    boxes = tf.constant([[0.1, 0.2, 0.5, 0.4]])
    seen = set()
    for index in range(20):
        seed = tf.constant([0, index])
        flipped, moved = augment.flip_with_boxes(image, boxes, seed)
        mirrored = bool(flipped[0, 0, 1] > flipped[0, -1, 1])
        expected = [0.1, 0.6, 0.5, 0.8] if mirrored else [0.1, 0.2, 0.5, 0.4]
        np.testing.assert_allclose(moved, [expected], atol=1e-6)
        seen.add(mirrored)
    assert seen == {False, True}


@pytest.mark.parametrize("scales", [(0.3, 0.9), (1.0, 1.0), (1.2, 3.0)])
def test_boxes_stay_on_their_heads_under_scale_and_crop(scales):
    # One white head on black: the box must enclose just the white that is left.
    image = np.zeros((120, 200, 3), np.float32)
    image[30:70, 60:120] = 255
    boxes = tf.constant([[30 / 120, 60 / 200, 70 / 120, 120 / 200]])
    for index in range(8):
        window, moved, keep = augment.scale_and_crop(
            image, boxes, size=128, seed=tf.constant([3, index]), scales=scales
        )
        assert window.shape == (128, 128, 3)
        if not keep[0]:
            continue
        # The padding is the mean pixel, whose blue is below half.
        white = np.argwhere(window[..., 2].numpy() > 127.5)
        box = moved[0].numpy() * 128
        np.testing.assert_allclose(box[:2], white.min(0), atol=1.6)
        np.testing.assert_allclose(box[2:], white.max(0) + 1, atol=1.6)


def test_scale_one_is_the_letterbox():
    image = _gradient(60, 120)
    window, boxes, keep = _in_graph(
        lambda: augment.scale_and_crop(
            image,
            tf.constant([[0.0, 0.0, 1.0, 1.0]]),
            size=128,
            seed=SEED,
            scales=(1.0, 1.0),
        )
    )
    np.testing.assert_allclose(boxes, [[0, 0, 0.5, 1.0]], atol=1e-6)
    assert keep.numpy().tolist() == [True]
    np.testing.assert_allclose(window[100, 100], [123.675, 116.28, 103.53], atol=1e-3)


def test_hidden_and_thin_boxes_are_dropped():
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = tf.constant([[0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.5 + 1e-3, 0.9]])
    _, _, keep = augment.scale_and_crop(
        image, boxes, size=64, seed=SEED, scales=(4.0, 4.0)
    )
    assert keep.numpy().tolist() == [False, False]


def test_no_boxes_at_all():
    image = np.zeros((50, 70, 3), np.uint8)
    _, boxes, keep = augment.scale_and_crop(
        image, tf.zeros([0, 4]), size=64, seed=SEED, scales=(0.5, 2.0)
    )
    assert boxes.shape == (0, 4) and keep.shape == (0,)


def test_a_mosaic_fills_the_square_with_four_parts():
    images = [np.full((90, 120, 3), 60 * index, np.uint8) for index in range(4)]
    whole = [tf.constant([[0.0, 0.0, 1.0, 1.0]])] * 4
    points = []
    for index in range(8):
        seed = tf.constant([5, index])
        # So large that no part is padded, and any visible share is enough.
        image, boxes, keep = augment.build_mosaic(
            images, whole, size=64, seed=seed, scales=(2.0, 3.0), min_visible=0.0
        )
        y, x = boxes[0, 2:].numpy()
        expected = [[0, 0, y, x], [0, x, y, 1], [y, 0, 1, x], [y, x, 1, 1]]
        np.testing.assert_allclose(boxes, expected, atol=1e-6)
        assert keep.numpy().all() and 0.25 <= min(y, x) and max(y, x) <= 0.75
        for part, box in enumerate((boxes.numpy() * 64).round().astype(int)):
            shown = image[box[0] : box[2], box[1] : box[3]]
            np.testing.assert_allclose(shown, 60 * part, atol=1e-3)
        points.append((y, x))
    assert len(set(points)) > 6


def test_boxes_stay_on_their_heads_in_a_mosaic():
    # One head in each image, of a color of its own, on black.
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    images = [np.zeros((120, 200, 3), np.float32) for _ in colors]
    for image, color in zip(images, colors, strict=True):
        image[30:70, 60:120] = color
    boxes = [tf.constant([[30 / 120, 60 / 200, 70 / 120, 120 / 200]])] * 4
    seen = 0
    for index in range(12):
        window, moved, keep = augment.build_mosaic(
            images, boxes, size=128, seed=tf.constant([7, index]), scales=(0.8, 1.6)
        )
        assert window.shape == (128, 128, 3)
        for head in np.flatnonzero(keep):
            wanted = np.array(colors[head]) > 127.5
            # The padding is the mean pixel; no head is near it.
            distinct = np.all((window.numpy() > 180) == wanted, axis=-1)
            found = np.argwhere(distinct & (window.numpy().max(-1) > 180))
            box = moved[head].numpy() * 128
            np.testing.assert_allclose(box[:2], found.min(0), atol=1.6)
            np.testing.assert_allclose(box[2:], found.max(0) + 1, atol=1.6)
            seen += 1
    assert seen > 12


def test_a_mosaic_in_a_data_set_and_without_heads():
    images = [_gradient(50, 70)] * 4
    one = tf.constant([[0.2, 0.2, 0.8, 0.8]])
    none = tf.zeros([0, 4])
    for boxes, count in (([one] * 4, 4), ([none] * 4, 0), ([one, none] * 2, 2)):
        window, moved, keep = _in_graph(
            lambda boxes=boxes: augment.build_mosaic(
                images, boxes, size=64, seed=SEED, scales=(0.1, 2.0)
            )
        )
        assert window.shape == (64, 64, 3)
        assert moved.shape == (count, 4) and keep.shape == (count,)
    with pytest.raises(ValueError, match="four images .* got 3 and 4"):
        augment.build_mosaic(
            images[:3], [one] * 4, size=64, seed=SEED, scales=(0.1, 2.0)
        )


def test_each_image_of_a_mosaic_fills_one_side_of_its_part():
    images = [np.zeros((90, 120, 3), np.uint8)] * 4
    whole = [tf.constant([[0.0, 0.0, 1.0, 1.0]])] * 4
    for index in range(8):
        seed = tf.constant([9, index])
        _, boxes, _ = augment.build_mosaic(
            images, whole, size=64, seed=seed, scales=(0.1, 1.0)
        )
        y1, x1, y2, x2 = boxes.numpy().T
        (y, x), pixel = (y1[3], x1[3]), 1 / 64
        for part, (height, width) in enumerate(
            [(y, x), (y, 1 - x), (1 - y, x), (1 - y, 1 - x)]
        ):
            missing = (height - (y2 - y1)[part], width - (x2 - x1)[part])
            assert -1e-6 < min(missing) < pixel and max(missing) < 0.7


def test_a_mosaic_drops_thin_boxes():
    images = [np.zeros((100, 100, 3), np.uint8)] * 4
    thin = [tf.constant([[0.0, 0.5, 1.0, 0.5 + 1e-3]])] * 4
    *_, keep = augment.build_mosaic(
        images, thin, size=64, seed=SEED, scales=(1.0, 1.0), min_visible=0.0
    )
    assert not keep.numpy().any()


def test_scales_must_ascend():
    for scales in ((2.0, 1.0), (0.0, 1.0)):
        with pytest.raises(ValueError, match="scales must be above 0 and ascend"):
            augment.scale_and_crop(
                _gradient(9, 9), tf.zeros([0, 4]), size=8, seed=SEED, scales=scales
            )


def test_jpeg_compresses_at_a_drawn_quality():
    image = np.random.default_rng(0).uniform(0, 255, (16, 24, 3)).astype(np.float32)
    pixels = image.round().astype(np.uint8)
    expected = [tf.image.adjust_jpeg_quality(pixels, q).numpy() for q in (40, 41)]
    drawn = []
    for index in range(12):
        seed = tf.constant([0, index])
        found = augment.compress_jpeg(image, seed, (40, 41))
        assert found.dtype == tf.float32
        equal = [np.array_equal(found, other) for other in expected]
        assert sum(equal) == 1
        drawn.append(equal[1])
    assert {*drawn} == {False, True}

    def error(quality):
        return np.abs(
            _in_graph(lambda: augment.compress_jpeg(image, SEED, quality)) - image
        )

    assert error((100, 100)).mean() < error((50, 50)).mean() < error((5, 5)).mean()
    smooth = _gradient(16, 16)
    np.testing.assert_allclose(
        augment.compress_jpeg(smooth, SEED, (100, 100)), smooth, atol=12
    )
    with pytest.raises(ValueError, match="ascend within 0 to 100, got"):
        augment.compress_jpeg(image, SEED, (90, 101))
