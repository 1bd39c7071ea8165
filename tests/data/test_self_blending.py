import cv2
import numpy as np
import pytest
import tensorflow as tf

from dfdetect.data import self_blending

BOX = tf.constant([0.3, 0.4, 0.6, 0.7])


def _image(height, width):
    draws = np.random.default_rng(0)
    coarse = draws.uniform(30, 220, (4, 4, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    noise = draws.normal(0, 6, (height, width, 3))
    return np.clip(smooth + noise, 0, 255).astype(np.float32)


def _parts(image, index, box=None, landmarks=None):
    seed = tf.constant([3, index])
    parts = self_blending.self_blend_parts(image, seed, box=box, landmarks=landmarks)
    return tuple(np.asarray(part) for part in parts)


def _masks(count, box=None, landmarks=None, names=()):
    image = _image(100, 120)
    blending = self_blending.Blending(masks=names)
    parts = tf.data.Dataset.range(count).map(
        lambda index: self_blending.self_blend_parts(
            image, tf.stack([index, 3]), box=box, landmarks=landmarks, blending=blending
        )
    )
    return [mask for _, _, mask in parts.as_numpy_iterator()]


@pytest.mark.parametrize("box", [None, BOX])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 83)])
def test_it_is_the_blend_of_its_parts(box, height, width):
    image = _image(height, width)
    results = set()
    for index in range(6):
        source, target, mask = _parts(image, index, box)
        assert source.shape == target.shape == (height, width, 3)
        assert mask.shape == (height, width, 1)
        assert 0 <= mask.min() and mask.max() <= 1
        found = self_blending.self_blend(
            image, tf.constant([3, index]), box=box
        ).numpy()
        assert found.dtype == np.float32 and found.shape == image.shape
        assert 0 <= found.min() and found.max() <= 255
        expected = mask * source + (1 - mask) * target
        np.testing.assert_allclose(found, expected, atol=1e-4)
        outside = mask[..., 0] == 0
        assert outside.any()
        np.testing.assert_array_equal(found[outside], target[outside])
        inside = mask[..., 0] > 0.2
        assert np.abs(found - target)[inside].mean() > 0.5
        again = self_blending.self_blend(image, tf.constant([3, index]), box=box)
        np.testing.assert_array_equal(found, again)
        results.add(found.tobytes())
    assert len(results) == 6


def test_the_blend_by_hand():
    source, target = tf.fill([1, 2, 3], 200.0), tf.fill([1, 2, 3], 100.0)
    mask = tf.constant([[[0.25], [1.0]]])
    found = self_blending.blend(source, target, mask)
    np.testing.assert_array_equal(found, [[[125.0] * 3, [200.0] * 3]])


def test_in_a_data_set_of_unknown_sizes_with_and_without_landmarks():
    spec = (
        tf.TensorSpec([None, None, 3], tf.float32),
        tf.TensorSpec([None, 2], tf.float32),
    )
    points = np.float32([[0.3, 0.3], [0.3, 0.7], [0.7, 0.5], [0.4, 0.5]])
    rows = [
        (_image(40, 57), points),
        (_image(70, 64), np.zeros([0, 2], np.float32)),
        (_image(3, 1), points[:1]),
    ]
    seed = tf.constant([4, 5])
    mapped = tf.data.Dataset.from_generator(lambda: rows, output_signature=spec).map(
        lambda image, landmarks: self_blending.self_blend(
            image, seed, box=BOX, landmarks=landmarks
        )
    )
    assert mapped.element_spec == spec[0]
    for (image, landmarks), found in zip(rows, mapped, strict=True):
        expected = self_blending.self_blend(image, seed, box=BOX, landmarks=landmarks)
        np.testing.assert_allclose(found, expected, atol=0.05)
        if len(landmarks) < 3:
            expected = self_blending.self_blend(image, seed, box=BOX)
            np.testing.assert_allclose(found, expected, atol=0.05)


def test_the_mask_is_about_the_head_and_nowhere_else():
    for mask in _masks(20, BOX):
        positions = np.argwhere(mask[..., 0] > 0.5 * mask.max()) + 0.5
        top, left, bottom, right = BOX.numpy() * (100, 120, 100, 120)
        center = positions.mean(0)
        assert top < center[0] < bottom and left < center[1] < right
        share = len(positions) / ((bottom - top) * (right - left))
        assert 0.1 < share < 1.1
        # The grid of the mask reaches 1.6 times as far as the box.
        assert not mask[:20].any() and not mask[72:].any()
        assert not mask[:, :36].any() and not mask[:, 96:].any()


def test_the_mask_of_a_crop_is_in_its_middle():
    for mask in _masks(20):
        weight = mask[..., 0] > 0.5 * mask.max()
        assert 0.07 < weight.mean() < 0.8
        center = np.argwhere(weight).mean(0) / (100, 120)
        assert np.all(np.abs(center - 0.5) < 0.3)


def test_masks_are_as_strong_as_the_paper_says():
    # Not quite: enlarging the grid may miss the largest cell by a little.
    tops = np.array([mask.max() for mask in _masks(60, BOX)])
    nearest = np.abs(tops[:, None] - [0.25, 0.5, 0.75, 1.0]).argmin(1)
    np.testing.assert_allclose(tops, (nearest + 1) / 4, atol=0.02)
    counts = np.bincount(nearest, minlength=4)
    assert counts.min() >= 3 and counts.argmax() == 3


def test_the_mask_follows_the_hull_of_the_landmarks():
    points = np.float32([[0.2, 0.25], [0.25, 0.75], [0.8, 0.7], [0.75, 0.2]])
    inner = np.float32([[0.5, 0.5], [0.4, 0.6]])
    pixels = np.round(points[:, ::-1] * (120, 100) - 0.5).astype(np.int32)
    hull = cv2.fillConvexPoly(np.zeros((100, 120), np.uint8), pixels, 1) > 0
    likeness = []
    for mask in _masks(30, None, np.concatenate([points, inner])):
        weight = mask[..., 0] > 0.5 * mask.max()
        likeness.append((weight & hull).sum() / (weight | hull).sum())
        assert (weight & hull).sum() > 0.85 * weight.sum()
    # A part of the masks is of half the face.
    assert np.median(likeness) > 0.7 and max(likeness) > 0.85


def _extent(mask):
    """Top, bottom and width of a mask, in the box: -1 to 1."""
    positions = np.argwhere(mask[..., 0] > 0.5 * mask.max()) + 0.5
    top, left, bottom, right = BOX.numpy() * (100, 120, 100, 120)
    y = (positions[:, 0] - (top + bottom) / 2) / ((bottom - top) / 2)
    width = np.ptp(positions[:, 1]) / (right - left)
    return np.array([y.min(), y.max(), width])


def test_each_part_of_a_face_has_its_place():
    found = {
        name: np.median([_extent(x) for x in _masks(20, BOX, names=(name,))], 0)
        for name in self_blending.MASKS
    }
    for part, (top, bottom, width) in found.items():
        assert top < bottom, part
        assert width <= found["whole"][2] and top >= found["whole"][0] - 0.05, part
    heights = {name: bottom - top for name, (top, bottom, _) in found.items()}
    assert heights["whole"] > heights["inner"] > heights["eyes_nose"]
    assert heights["eyes_nose"] > heights["mouth"]
    # The mouth is in the lower half, and the eyes and the nose are above it.
    assert found["mouth"][0] > 0.2 and found["mouth"][2] < 0.7 * found["inner"][2]
    middle = {name: (top + bottom) / 2 for name, (top, bottom, _) in found.items()}
    assert middle["eyes_nose"] < middle["inner"] < middle["mouth"]


def test_parts_lie_within_the_landmarks():
    points = np.float32([[0.3, 0.45], [0.3, 0.65], [0.6, 0.55], [0.5, 0.45]])
    mouths = [_extent(x) for x in _masks(12, None, points, ("mouth",))]
    eyes = [_extent(x) for x in _masks(12, None, points, ("eyes_nose",))]
    assert np.mean(eyes, 0)[1] < np.mean(mouths, 0)[1]
    assert np.mean(eyes, 0)[0] < np.mean(mouths, 0)[0]


def test_each_of_several_masks_is_drawn_about_as_often():
    masks = _masks(40, BOX, names=("mouth", "whole"))
    are_mouths = [_extent(mask)[0] > 0 for mask in masks]
    assert 12 < sum(are_mouths) < 28


def _changed(image, index, mismatch):
    blending = self_blending.Blending(mismatches=(mismatch,) if mismatch else ())
    seed = tf.constant([3, index])
    source, target, _ = self_blending.self_blend_parts(
        image, seed, box=BOX, landmarks=None, blending=blending
    )
    return np.asarray(source), np.asarray(target)


def test_what_was_generated_at_a_small_size_has_less_detail():
    image = _image(300, 300)

    def detail(copy):
        return np.abs(np.diff(copy, axis=0)).mean()

    ratios = []
    for index in range(12):
        plain, coarse = (_changed(image, index, x) for x in ("", "resolution"))
        ratios += [detail(b) / detail(a) for a, b in zip(plain, coarse, strict=True)]
    # One of the two copies is as it was, and one time in three both are.
    assert 12 <= sum(np.isclose(ratios, 1)) <= 18
    changed = [ratio for ratio in ratios if not np.isclose(ratio, 1)]
    # Some were blurred before.
    assert np.mean(changed) < 0.85 and min(changed) < 0.5 and max(changed) < 1.1


def test_a_warped_face_is_turned_and_bent():
    image = np.full((200, 200, 3), 40, np.float32)
    corners = np.array([[61, 81], [61, 139], [119, 81], [119, 139]])
    for y, x in corners:
        image[y - 2 : y + 3, x - 2 : x + 3] = 250

    def places(copy):
        found = []
        for y, x in corners:
            window = copy[y - 9 : y + 10, x - 9 : x + 10, 1]
            weight = np.maximum(window - np.median(window) - 30, 0)
            offset = np.indices(weight.shape) - 9
            found.append((offset * weight).sum((1, 2)) / weight.sum() + (y, x))
        return np.array(found)

    def bend(corners):
        # Of a square that is shifted and scaled, both diagonals have one middle and
        # both edges one direction.
        first, second, third, fourth = corners
        tilt = np.abs(first + fourth - second - third).max()
        return max(tilt, np.abs((second - first)[0]))

    bends = {
        mismatch: [bend(places(_changed(image, i, mismatch)[0])) for i in range(8)]
        for mismatch in ("", "warp")
    }
    assert max(bends[""]) < 0.7
    assert np.mean(bends["warp"]) > 1.5 and max(bends["warp"]) < 12


def test_unknown_masks_and_mismatches_are_told():
    with pytest.raises(ValueError, match=r"masks must be of .*'mouth'.* got 'ear'"):
        self_blending.Blending(masks=("whole", "ear"))
    with pytest.raises(ValueError, match=r"mismatches must be of .* got 'sound'"):
        self_blending.Blending(mismatches=("sound",))


def test_either_copy_is_the_changed_one():
    image = _image(60, 60)
    untouched = [np.array_equal(_parts(image, index)[1], image) for index in range(20)]
    assert 4 < sum(untouched) < 16


def test_the_source_is_moved_a_little():
    # Bright spots at the corners of the box, dark elsewhere.
    image = np.full((200, 200, 3), 40, np.float32)
    corners = np.array([[61, 81], [61, 139], [119, 81], [119, 139]])
    for y, x in corners:
        image[y - 2 : y + 3, x - 2 : x + 3] = 250
    moved = []
    for index in range(10):
        source, *_ = _parts(image, index, BOX)
        for y, x in corners:
            window = source[y - 7 : y + 8, x - 7 : x + 8, 1]
            weight = np.maximum(window - np.median(window) - 30, 0)
            offset = np.indices(weight.shape) - 7
            moved.append((offset * weight).sum((1, 2)) / weight.sum())
    # 3 % of the 60 pixels of the box, and 5 % of half of them.
    assert 0.5 < np.abs(moved).mean() and np.abs(moved).max() < 3.6


def test_wrong_shapes_are_told():
    image, seed = _image(8, 8), tf.constant([1, 2])
    with pytest.raises(ValueError, match=r"box must be \[4\], got \(1, 4\)"):
        self_blending.self_blend(image, seed, box=BOX[None])
    with pytest.raises(ValueError, match=r"landmarks must be .* got \(5, 3\)"):
        self_blending.self_blend(image, seed, box=BOX, landmarks=tf.zeros([5, 3]))
