"""Each change eagerly and in a data set, on drawn images whose heads are known."""

import math

import numpy as np
import pytest
import tensorflow as tf

from dfdetect.data import detector_augment
from dfdetect.media import resize

SEED = tf.constant([1, 2])


def _in_graph(function, *arguments):
    """The result eagerly, after checking that a data set gives the same."""
    eager = function(*arguments)
    dataset = tf.data.Dataset.from_tensors(arguments).map(function)
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-2),
        eager,
        dataset.get_single_element(),
    )
    return eager


def _ellipse(height=90, width=120, center=(40, 70), axes=(20, 14)):
    """A white ellipse on black, and its box."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    inside = ((rows - center[0]) / axes[0]) ** 2 + (
        (columns - center[1]) / axes[1]
    ) ** 2 <= 1
    image = np.where(inside[..., None], 255.0, 0.0) * np.ones(3)
    extent = np.tile([height, width], 2)
    box = np.array([center[0] - axes[0], center[1] - axes[1], 0, 0], np.float32)
    box[2:] = center[0] + axes[0], center[1] + axes[1]
    return image.astype(np.float32), (box / extent).astype(np.float32)[None]


def _white(image):
    """Box, in pixels, of what is nearly white."""
    places = np.argwhere(image.numpy().min(-1) > 200)
    return np.concatenate([places.min(0), places.max(0) + 1])


def test_colors_stay_in_range_and_one_in_ten_is_gray():
    image = np.random.default_rng(0).uniform(0, 255, (8, 9, 3)).astype(np.float32)
    gray, shifts = 0, []
    for index in range(200):
        changed = detector_augment.adjust_colors(image, tf.constant([0, index])).numpy()
        assert changed.shape == (8, 9, 3)
        assert changed.min() >= 0 and changed.max() <= 255
        gray += np.ptp(changed, axis=-1).max() < 0.01
        shifts.append(changed.mean() - image.mean())
    assert 10 <= gray <= 32
    assert min(shifts) < -20 and max(shifts) > 20
    _in_graph(detector_augment.adjust_colors, image, SEED)
    gray = detector_augment.adjust_colors(image, SEED, gray_share=1.0).numpy()
    assert np.ptp(gray, axis=-1).max() < 0.01 and np.ptp(gray) > 100
    same = detector_augment.adjust_colors(image, SEED, strength=0.0, gray_share=0.0)
    np.testing.assert_allclose(same, image, atol=1e-3)


def test_blur_takes_detail_and_keeps_the_mean():
    image = np.random.default_rng(0).uniform(0, 255, (40, 50, 3)).astype(np.float32)
    blurred = _in_graph(detector_augment.blur, image, SEED).numpy()
    assert blurred.std() < 0.9 * image.std()
    assert abs(blurred.mean() - image.mean()) < 3
    flat = np.full((12, 12, 3), 77, np.float32)
    np.testing.assert_allclose(detector_augment.blur(flat, SEED), flat, atol=1e-3)


def test_noise_is_as_strong_as_drawn_and_in_range():
    image = np.full((200, 150, 3), 128, np.float32)
    strengths = []
    for index in range(6):
        noisy = detector_augment.add_noise(image, tf.constant([0, index])).numpy()
        assert noisy.shape == image.shape and abs(noisy.mean() - 128) < 0.5
        strengths.append(noisy.std())
    assert max(strengths) < 12.5 and np.ptp(strengths) > 1
    _in_graph(detector_augment.add_noise, image, SEED)


@pytest.mark.parametrize("first", range(6))
def test_a_turned_box_is_that_of_the_turned_head(first):
    # Around the corners of its box the head would have up to 8 pixels more.
    image, boxes = _ellipse()
    turned, moved, keep = _in_graph(
        detector_augment.rotate_with_boxes, image, boxes, tf.constant([first, 5])
    )
    assert turned.shape == image.shape and keep.numpy().tolist() == [True]
    pixels = moved[0].numpy() * np.tile(image.shape[:2], 2)
    np.testing.assert_allclose(pixels, _white(turned), atol=1.6)


def test_turning_drops_what_leaves_the_image_and_takes_none():
    image = np.zeros((400, 100, 3), np.float32)
    boxes = tf.constant([[0.0, 0.9, 0.02, 1.0], [0.4, 0.4, 0.6, 0.6]])
    kept = set()
    for index in range(20):
        _, _, keep = detector_augment.rotate_with_boxes(
            image, boxes, tf.constant([0, index])
        )
        assert keep[1]
        kept.add(bool(keep[0]))
    assert kept == {False, True}
    turned, none, keep = detector_augment.rotate_with_boxes(
        image, tf.zeros([0, 4]), tf.constant([0, 3])
    )
    assert none.shape == (0, 4) and keep.shape == (0,)
    # What came from outside is the ground of the letterbox.
    np.testing.assert_allclose(turned[0, 0], resize.MEAN_PIXEL, atol=40)


def test_images_stand_anywhere_on_grounds_of_four_kinds():
    image, boxes = _ellipse(60, 90, (30, 40), (20, 14))
    image[0, 0] = 1.0
    boxes = tf.constant(boxes * np.float32([60, 90, 60, 90]))
    corners, grounds = set(), set()
    for index in range(40):
        canvas, moved = detector_augment.place_on_canvas(
            image, boxes, 100, tf.constant([0, index])
        )
        assert canvas.shape == (100, 100, 3)
        top, left = np.round(moved[0, :2] - boxes[0, :2]).astype(int)
        inside = canvas[top : top + 60, left : left + 90]
        np.testing.assert_allclose(inside, image, atol=0.01)
        assert 0 <= top <= 40 and 0 <= left <= 10
        corners.add((top, left))
        outside = np.concatenate([canvas[:top].numpy(), canvas[top + 60 :].numpy()])
        grounds.add(tuple(np.round(outside.mean((0, 1)), -1)))
    assert len(corners) > 20 and len(grounds) > 6
    _in_graph(
        lambda image, boxes, seed: detector_augment.place_on_canvas(
            image, boxes, 100, seed
        ),
        image,
        boxes,
        SEED,
    )
    whole = tf.zeros([100, 100, 3])
    canvas, moved = detector_augment.place_on_canvas(whole, boxes, 100, SEED)
    np.testing.assert_array_equal(canvas, whole)
    np.testing.assert_array_equal(moved, boxes)


def test_a_pasted_image_brings_its_heads():
    pasted, boxes = _ellipse()
    room = np.full((200, 160, 3), 90, np.float32)
    sides = []
    for index in range(12):
        seed = tf.constant([3, index])
        joined, moved = detector_augment.paste_image(
            room, pasted, boxes, seed, (0.2, 0.6)
        )
        assert joined.shape == room.shape
        pixels = moved[0].numpy() * [200, 160, 200, 160]
        np.testing.assert_allclose(pixels, _white(joined), atol=2)
        changed = np.abs(joined.numpy() - room).max(-1) > 1
        sides.append(changed.any(0).sum() / 160)
        assert changed.sum() <= changed.any(0).sum() * changed.any(1).sum()
    assert 0.19 < min(sides) < max(sides) <= 0.6 and np.ptp(sides) > 0.1
    _in_graph(detector_augment.paste_image, room, pasted, boxes, SEED)


def test_some_images_are_changed():
    image = tf.zeros([4, 5, 3])
    changed = [
        float(
            detector_augment.apply_sometimes(
                0.25, lambda x: x + 1, image, tf.constant([0, index])
            )[0, 0, 0]
        )
        for index in range(200)
    ]
    assert 0.15 < np.mean(changed) < 0.35
    assert math.isclose(min(changed), 0)
