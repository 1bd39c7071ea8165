import functools

import cv2
import numpy as np
import pytest
import tensorflow as tf

from dfdetect.data import degradations, pixel_changes
from dfdetect.media import resize

SEED = tf.constant([1, 2])
CHANGES = [
    degradations.degrade,
    degradations.compress_jpeg,
    degradations.rescale,
    degradations.adjust_gamma,
    degradations.rotate,
    degradations.blur_gaussian,
    degradations.blur_motion,
    degradations.add_noise,
    degradations.cut_out,
]


def _image(height, width):
    """Smooth colors with some noise on them, as photographs are."""
    draws = np.random.default_rng(0)
    coarse = draws.uniform(0, 255, (4, 4, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    noise = draws.normal(0, 4, (height, width, 3))
    return np.clip(smooth + noise, 0, 255).astype(np.float32)


def _spot(size):
    image = np.zeros((size, size, 3), np.float32)
    image[size // 2, size // 2] = 255
    return image


@pytest.mark.parametrize("change", CHANGES)
def test_range_shape_and_seed(change):
    image = _image(40, 57)
    results = [change(image, tf.constant([0, index])) for index in range(8)]
    for result in results:
        assert result.shape == (40, 57, 3) and result.dtype == tf.float32
        assert 0 <= result.numpy().min() and result.numpy().max() <= 255
    assert len({result.numpy().tobytes() for result in results}) >= 6
    np.testing.assert_array_equal(change(image, tf.constant([0, 3])), results[3])


@pytest.mark.parametrize("change", CHANGES)
def test_in_a_data_set_of_unknown_sizes(change):
    images = [_image(40, 57), _image(33, 16), _image(1, 1)]
    rows = [(image, np.int32([4, index])) for image in images for index in range(2)]
    spec = (tf.TensorSpec([None, None, 3]), tf.TensorSpec([2], tf.int32))
    mapped = tf.data.Dataset.from_generator(lambda: rows, output_signature=spec).map(
        change
    )
    assert mapped.element_spec == spec[0]
    for row, found in zip(rows, mapped, strict=True):
        np.testing.assert_allclose(found, change(*row), atol=2e-3)


def test_forensics_leaves_some_images_alone_and_changes_most_of_them():
    image = _image(64, 64).round()
    changed = (
        tf.data.Dataset.range(250)
        .map(lambda index: degradations.degrade(image, tf.stack([index, 7])))
        .map(lambda found: _difference(found, image))
    )
    differences = np.array(list(changed.as_numpy_iterator()))
    # Without flips: .7 * .85 * .92 * .8 * .7 * .5 * .8 of them meet no change.
    assert 0.06 < np.mean(differences < 1e-3) < 0.19
    assert np.median(differences) < 12


@pytest.mark.parametrize("extent", [(40, 57), (70, 33), (64, 64), (90, 140)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_forensics_resizes_as_other_augmentations_do(extent, dtype):
    image = _image(*extent).round().astype(dtype)
    change = tf.function(functools.partial(degradations.degrade, size=64))
    resized = resize.resize(image, 64).numpy().round()
    for index in range(12):
        seed = tf.constant([index, 7])
        found = change(image, seed)
        assert found.shape == (64, 64, 3)
        # Where a pixel is halfway between two levels, both are right, and a change
        # may carry the difference on.
        assert np.mean(found != degradations.degrade(resized, seed)) < 0.1
    np.testing.assert_array_equal(
        degradations.degrade(image, seed, 64), change(image, seed)
    )


def _difference(found, image):
    """The mean absolute difference, of the image or its mirror image."""
    return tf.minimum(
        tf.reduce_mean(tf.abs(found - image)),
        tf.reduce_mean(tf.abs(found - image[:, ::-1])),
    )


@pytest.mark.parametrize(("height", "width"), [(48, 64), (37, 41)])
@pytest.mark.parametrize("quality", [40, 75, 95])
def test_jpeg_is_what_opencv_writes(height, width, quality):
    image = _image(height, width).round()
    # Edges of color both ways.
    image[:, width // 2 :, 0] = 20
    image[height // 3 :, :, 2] = 200
    expected = {}
    for mode in degradations.CHROMA_MODES:
        factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{mode.replace(':', '')}")
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
        _, written = cv2.imencode(".jpg", image[..., ::-1].astype(np.uint8), options)
        expected[mode] = cv2.imdecode(written, cv2.IMREAD_COLOR)[..., ::-1]
    for mode in degradations.CHROMA_MODES:
        found = degradations.compress_jpeg(
            image, SEED, (quality, quality), mode
        ).numpy()
        errors = {
            other: np.abs(found - pixels).mean() for other, pixels in expected.items()
        }
        assert errors.pop(mode) == 0 and min(errors.values()) > 1


def test_jpeg_blurs_edges_of_color_as_its_mode_says():
    # Red and blue of about equal luma, in columns and in rows.
    image = np.tile(np.float32([200, 40, 40]), (32, 32, 1))
    image[:, ::2] = (40, 100, 200)

    def contrast(chroma, pattern, axis):
        found = degradations.compress_jpeg(pattern, SEED, (95, 95), chroma).numpy()
        return np.abs(np.diff(found[..., 0], axis=axis)).mean()

    columns = {mode: contrast(mode, image, 1) for mode in degradations.CHROMA_MODES}
    turned = image.transpose(1, 0, 2)
    rows = {mode: contrast(mode, turned, 0) for mode in degradations.CHROMA_MODES}
    assert columns["4:4:4"] > 140 and rows["4:4:4"] > 140 and rows["4:2:2"] > 140
    assert columns["4:2:2"] < 70 and columns["4:2:0"] < 70 and rows["4:2:0"] < 70


def test_jpeg_draws_qualities_and_modes():
    image = _image(16, 24)
    expected = {
        (quality, mode): degradations.compress_jpeg(
            image, SEED, (quality, quality), mode
        )
        for quality in (50, 51)
        for mode in degradations.CHROMA_MODES
    }
    seen = set()
    for index in range(40):
        found = degradations.compress_jpeg(
            image, tf.constant([2, index]), (50, 51)
        ).numpy()
        seen |= {key for key, value in expected.items() if np.array_equal(value, found)}
    assert {mode for _, mode in seen} == {*degradations.CHROMA_MODES}
    assert {quality for quality, _ in seen} == {50, 51}


def test_jpeg_halves_chroma_both_ways_most_of_the_time():
    image = _image(16, 24).round().astype(np.uint8)

    def compress(index, mode):
        random = np.random.default_rng(index)
        return pixel_changes.compress_jpeg(image, random, (50, 50), mode).tobytes()

    modes = {compress(0, mode): mode for mode in degradations.CHROMA_MODES}
    drawn = [modes[compress(index, None)] for index in range(500)]
    shares = [drawn.count(mode) / 500 for mode in degradations.CHROMA_MODES]
    np.testing.assert_allclose(shares, [0.6, 0.15, 0.25], atol=0.07)


def test_jpeg_wants_bounds_and_modes_that_there_are():
    with pytest.raises(ValueError, match="ascend within 0 to 100, got"):
        degradations.compress_jpeg(_spot(8), SEED, (90, 101))
    with pytest.raises(ValueError, match="chroma must be one of .* got '4:1:1'"):
        degradations.compress_jpeg(_spot(8), SEED, chroma="4:1:1")


def test_rescale_takes_details_away_and_keeps_the_rest():
    lines = np.zeros((64, 64, 3), np.float32)
    lines[:, ::2] = 255
    flat = np.full((64, 64, 3), 77, np.float32)
    for index in range(20):
        seed = tf.constant([3, index])
        # Lines a pixel wide survive no quarter of the size, whatever the kernel.
        found = degradations.rescale(lines, seed, (0.25, 0.25)).numpy()
        assert np.abs(np.diff(found, axis=1)).mean() < 60
        np.testing.assert_allclose(
            degradations.rescale(flat, seed, (0.25, 1.0)), flat, atol=1e-3
        )
        same = degradations.rescale(lines, seed, (1.0, 1.0))
        np.testing.assert_allclose(same, lines, atol=1e-3)
    kernels = {
        degradations.rescale(_image(32, 32), tf.constant([5, index]), (0.5, 0.5))
        .numpy()
        .tobytes()
        for index in range(40)
    }
    assert len(kernels) > 12


@pytest.mark.parametrize(
    ("extent", "most"),
    [([97, 120], 1.0), ([20, 23], 2.0), ([31, 90], 2.0)],  # Smaller: blurs round, too.
)
def test_resize_of_bytes_is_that_of_floats(extent, most):
    image = _image(64, 80).round()
    image[::7] = 255  # Steep, so that some kernels overshoot.
    image[::5] = 0
    found = set()
    for index in range(40):
        pair = [
            pixel_changes.resize(pixels, extent, np.random.default_rng(index))
            for pixels in (image.astype(np.uint8), image)
        ]
        assert pair[0].dtype == np.uint8 and [*pair[0].shape] == [*extent, 3]
        np.testing.assert_allclose(pair[0], np.clip(pair[1], 0, 255), atol=most)
        found.add(pair[0].tobytes())
    assert len(found) >= 5


@pytest.mark.parametrize("sigma", [0.5, 1.3, 2.5])
def test_gaussian_blur_is_that_of_opencv(sigma):
    image = _image(30, 44)
    found = degradations.blur_gaussian(image, SEED, (sigma, sigma))
    side = 2 * round(3 * sigma) + 1
    expected = cv2.GaussianBlur(
        image, (side, side), sigma, borderType=cv2.BORDER_REPLICATE
    )
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_motion_blur_makes_a_line_of_a_spot():
    angles = set()
    for index in range(12):
        seed = tf.constant([6, index])
        found = degradations.blur_motion(_spot(41), seed, (9.0, 9.0)).numpy()
        np.testing.assert_allclose(found.sum((0, 1)), 255, rtol=1e-4)
        positions = np.argwhere(found[..., 0] > 1e-3) - 20.0
        weights = found[..., 0][found[..., 0] > 1e-3] / 255
        spread = np.linalg.eigvalsh((positions.T * weights) @ positions)
        # Nine pixels in a row have a variance of (81 - 1) / 12.
        assert 5.5 < spread[1] < 7.5 and spread[0] < 0.4
        angles.add(tuple(positions[0]))
    assert len(angles) > 4
    still = degradations.blur_motion(_spot(41), SEED, (1.0, 1.0))
    np.testing.assert_allclose(still, _spot(41), atol=1e-3)


def test_noise_has_its_sigma_and_is_gray_or_colored():
    image = np.full((64, 64, 3), 128, np.float32)
    gray = []
    for index in range(12):
        seed = tf.constant([8, index])
        added = degradations.add_noise(image, seed, (7.0, 7.0)).numpy() - image
        assert abs(added.std() - 7) < 0.4 and abs(added.mean()) < 0.5
        likeness = np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]
        assert abs(likeness) < 0.1 or likeness > 0.999
        gray.append(likeness > 0.5)
    assert {*gray} == {False, True}


def test_noise_is_as_often_far_from_its_mean_as_a_normal_one():
    image = np.full((256, 256, 3), 128, np.uint8)
    exact = image.astype(np.float32)
    for index in range(6):
        noise = pixel_changes.add_noise(exact, np.random.default_rng(index), (9, 9))
        noise = (noise - 128) / 9
        for one, other in ((noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1])):
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02
        assert noise.std() == pytest.approx(1, abs=0.02)
        assert np.mean(np.abs(noise) > 1) == pytest.approx(0.3173, abs=0.01)
        assert np.mean(np.abs(noise) > 2) == pytest.approx(0.0455, abs=0.004)
        assert np.mean(np.abs(noise) > 3) == pytest.approx(0.0027, abs=0.001)
        rounded = pixel_changes.add_noise(image, np.random.default_rng(index), (9, 9))
        assert rounded.dtype == np.uint8
        np.testing.assert_allclose(rounded, 128 + 9 * noise, atol=0.51)


def test_colors_are_an_affine_map_of_a_pixel():
    image = _image(30, 44).round().astype(np.uint8)
    for index in range(30):
        found = pixel_changes.adjust_color(image, np.random.default_rng(index), 0.3)
        draws = np.random.default_rng(index).uniform(-0.3, 0.3, 3)
        brightness, contrast, saturation = draws
        means = image.mean((0, 1))
        moved = (image - means) * (1 + contrast) + means + 255 * brightness
        gray = (moved @ [0.299, 0.587, 0.114])[..., None]
        expected = gray + (moved - gray) * (1 + saturation)
        assert found.dtype == np.uint8
        # OpenCV rounds weights as well.
        np.testing.assert_allclose(found, np.clip(expected, 0, 255), atol=0.8)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_gamma_raises_pixels_to_a_power(dtype):
    image = _image(20, 30).round().astype(dtype)
    found = pixel_changes.adjust_gamma(image, np.random.default_rng(0), (2.0, 2.0))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, (image / 255.0) ** 2 * 255, atol=0.51)
    ends = np.array([[[0, 0, 0], [255, 255, 255]]], dtype)
    for index in range(20):
        changed = pixel_changes.adjust_gamma(ends, np.random.default_rng(index))
        np.testing.assert_array_equal(changed, ends)


def test_gamma_darkens_and_brightens():
    gray = np.full((1, 1, 3), 128, np.float32)
    levels = [
        pixel_changes.adjust_gamma(gray, np.random.default_rng(index))[0, 0, 0]
        for index in range(100)
    ]
    # Of 255: .502 to the power of 3.5 and of .4.
    assert 22 < min(levels) < 35 and 185 < max(levels) < 194


def test_rotation_is_about_the_center_and_within_its_bounds():
    image = np.zeros((81, 81, 3), np.float32)
    cv2.circle(image, (40, 12), 3, (255, 255, 255), -1)
    angles = []
    for index in range(120):
        found = pixel_changes.rotate(image, np.random.default_rng(index), 30, 0)
        # By another border the spot may be seen again, far from its circle.
        y, x = np.mean(np.nonzero(found[..., 0] > 200), axis=1) - 40
        assert np.hypot(y, x) == pytest.approx(28, abs=0.7)
        angles.append(np.degrees(np.arctan2(-x, -y)))
    assert -31 < min(angles) < -25 and 25 < max(angles) < 31


def test_some_rotations_are_by_any_angle():
    image = np.zeros((81, 81, 3), np.float32)
    cv2.circle(image, (40, 26), 3, (255, 255, 255), -1)
    spots = [
        np.mean(
            np.nonzero(
                pixel_changes.rotate(image, np.random.default_rng(index), 10, 0.5)[
                    ..., 0
                ]
                > 200
            ),
            axis=1,
        )
        for index in range(80)
    ]
    # Evenly on the circle: half of this half ends up below the center.
    assert 10 < sum(y > 40 for y, _ in spots) < 30


def test_rotation_leaves_no_border():
    flat = np.full((30, 41, 3), 90, np.uint8)
    for index in range(20):
        found = pixel_changes.rotate(flat, np.random.default_rng(index))
        np.testing.assert_array_equal(found, flat)
    image = _image(30, 41)
    same = pixel_changes.rotate(image, np.random.default_rng(0), 0, 0)
    np.testing.assert_allclose(same, image, atol=1e-3)


def test_cut_out_fills_one_rectangle():
    image = _image(80, 120)
    by_mean, corners = [], set()
    for index in range(16):
        seed = tf.constant([9, index])
        found = degradations.cut_out(image, seed, (0.05, 0.1)).numpy()
        changed = np.argwhere(np.any(found != image, axis=-1))
        (top, left), (bottom, right) = changed.min(0), changed.max(0) + 1
        area = (bottom - top) * (right - left)
        assert len(changed) == area and 0.045 < area / (80 * 120) < 0.105
        inside = found[top:bottom, left:right]
        np.testing.assert_array_equal(
            inside, np.broadcast_to(inside[0, 0], inside.shape)
        )
        by_mean.append(np.allclose(inside[0, 0], image.mean((0, 1)), atol=0.1))
        corners.add((top, left))
    assert {*by_mean} == {False, True} and len(corners) > 12


def test_level_hides_size_and_sharpness_of_what_a_crop_was():
    """Crops of two sizes, one of them blurred: the same distribution comes out."""
    sharp, soft = _image(400, 400), _image(200, 200)
    level = tf.function(degradations.level_quality)
    sides, details = [], []
    for image in (sharp, cv2.GaussianBlur(soft, (0, 0), 0.7)):
        results = [level(image, tf.constant([3, seed])).numpy() for seed in range(60)]
        assert all(r.shape[0] == r.shape[1] and 64 <= len(r) <= 192 for r in results)
        assert all(r.min() >= 0 and r.max() <= 255 for r in results)
        sides.append([len(result) for result in results])
        details.append([cv2.Laplacian(r[..., 1], cv2.CV_32F).std() for r in results])
    assert sides[0] == sides[1] and len(set(sides[0])) > 30  # Of the seed alone.
    before = [
        cv2.Laplacian(image[..., 1], cv2.CV_32F).std()
        for image in (sharp, cv2.GaussianBlur(soft, (0, 0), 0.7))
    ]
    assert before[0] > 3 * before[1]
    assert np.median(details[0]) < 1.5 * np.median(details[1])
    wide = degradations.level_quality(_image(100, 200), SEED, sides=(64, 64))
    assert wide.shape == (32, 64, 3) and wide.dtype == tf.float32
