"""Grad-CAM: by hand, for each family, and on a forgery of which the place is known."""

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from dfdetect.data import batches
from dfdetect.metrics import classification
from dfdetect.models import classifier
from dfdetect.models import grad_cam as explain
from dfdetect.pipeline import explainer as explainer_module
from dfdetect.training import loop, objectives, settings


def _linear(kernel, flat=False):
    """Two maps, red and green of a 4 x 4 crop, and a linear logit of them."""
    crops = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(2, 1, use_bias=False, name="maps")(crops)
    pool = keras.layers.Flatten if flat else keras.layers.GlobalAveragePooling2D
    x = keras.layers.Dense(1, name="logits")(pool(name="pool")(x))
    model = keras.Model(crops, x)
    pick = np.zeros((1, 1, 3, 2))
    pick[0, 0, 0, 0] = pick[0, 0, 1, 1] = 1.0
    model.get_layer("maps").set_weights([pick])
    model.get_layer("logits").set_weights([np.reshape(kernel, (-1, 1)), np.ones(1)])
    return model


def _crops(count, size=4, seed=0):
    random = np.random.default_rng(seed)
    return random.uniform(0, 255, (count, size, size, 3)).astype(np.float32)


@pytest.mark.parametrize("by_place", [False, True])
def test_averaged_maps_count_by_their_weight(by_place):
    crops = _crops(3)
    found = explain.build_grad_cam_function(_linear([2.0, -1.0]), by_place=by_place)(
        crops
    )
    expected = np.maximum(2 * crops[..., 0] - crops[..., 1], 0)
    expected /= expected.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found["heat_map"], expected, atol=1e-5)
    logits = 2 * crops[..., 0].mean((1, 2)) - crops[..., 1].mean((1, 2)) + 1
    np.testing.assert_allclose(found["fake_logit"], logits, rtol=1e-5)


def test_weights_of_places_are_averaged_or_not():
    kernel = np.random.default_rng(1).normal(size=(4, 4, 2))
    crops, model = _crops(2), _linear(kernel, flat=True)
    for by_place, weights in ((False, kernel.mean((0, 1))), (True, kernel)):
        found = explain.build_grad_cam_function(model, "maps", by_place)(crops)[
            "heat_map"
        ]
        expected = np.maximum((weights * crops[..., :2]).sum(-1), 0)
        highest = expected.max(axis=(1, 2), keepdims=True)
        expected = expected / np.where(highest > 0, highest, 1)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_smoothing_spreads_a_place_over_its_neighbours():
    kernel = np.zeros((4, 4, 2))
    kernel[2, 2, 0] = 1.0
    found = explain.build_grad_cam_function(
        _linear(kernel, flat=True), "maps", True, smooth=True
    )
    heat = found(_crops(1))["heat_map"][0].numpy()
    # Along one axis: a third at 1 and 2, and a half at 3, where the edge leaves a
    # window of two; then the mean over such windows once more.
    row = np.array([1 / 6, 2 / 9, 7 / 18, 5 / 12])
    expected = np.outer(row, row)
    np.testing.assert_allclose(heat, expected / expected.max(), atol=1e-5)


def test_where_nothing_speaks_for_a_fake_the_map_is_zero():
    found = explain.build_grad_cam_function(_linear([-1.0, -2.0]))(_crops(2))[
        "heat_map"
    ]
    np.testing.assert_array_equal(found, np.zeros((2, 4, 4)))


def test_an_unknown_stage_is_named():
    with pytest.raises(ValueError, match="block9"):
        explain.build_grad_cam_function(classifier.build("mesonet4", 32), "block9")


@pytest.mark.parametrize(
    "name, size",
    [
        ("lightxception", 71),
        ("mesonet4", 40),
        ("mesoinception4", 32),
        ("efficientnet_lite0", 40),
        pytest.param("efficientnet_b0", 40, marks=pytest.mark.slow),
        pytest.param("xception", 71, marks=pytest.mark.slow),
        pytest.param("midwayxception", 71, marks=pytest.mark.slow),
        pytest.param("efficientnet_b1", 40, marks=pytest.mark.slow),
        pytest.param("efficientnet_b2", 40, marks=pytest.mark.slow),
        pytest.param("efficientnet_b3", 40, marks=pytest.mark.slow),
        pytest.param("efficientnet_b4", 40, marks=pytest.mark.slow),
    ],
)
def test_every_family_gives_maps_and_a_batch_equals_its_crops(name, size):
    keras.utils.set_random_seed(0)
    model = classifier.build(name, size)
    crops = _crops(3, size)
    heat_maps = explain.build_heat_maps_function(model)
    found = heat_maps(crops)
    maps = found["heat_map"].numpy()
    assert maps.shape == (3, size, size) and maps.dtype == np.float32
    assert maps.min() >= 0 and maps.max(axis=(1, 2)) == pytest.approx([1, 1, 1])
    np.testing.assert_allclose(found["fake_logit"], model(crops)[:, 0], atol=1e-4)
    np.testing.assert_allclose(heat_maps(crops[1:2])["heat_map"], maps[1:2], atol=1e-3)


def test_heads_are_explained_in_the_squares_that_were_judged():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (40, 60, 3), np.uint8)
    boxes = np.array([[0.25, 0.5, 0.5, 2 / 3], [0.0, 0.0, 0.5, 0.25]])
    seen = []

    def graph(image_bytes):
        seen.extend(tf.io.decode_png(one).numpy() for one in image_bytes)
        return {"heat_map": tf.zeros([len(image_bytes), 8, 8])}

    explainer = explainer_module.Explainer(graph, 1.0)
    regions, maps = explainer(image, boxes)
    # Boxes of 10 x 10 and of 20 x 15 px: the second square is moved to the left edge.
    np.testing.assert_array_equal(regions, [[10, 30, 10, 10], [0, 0, 20, 20]])
    assert maps.shape == (2, 8, 8)
    np.testing.assert_array_equal(seen[0], image[10:20, 30:40])
    np.testing.assert_array_equal(seen[1], image[:20, :20])
    # The same again is not computed again; another image is.
    assert explainer(image.copy(), boxes)[1] is maps and len(seen) == 2
    explainer(image[::-1], boxes)
    assert len(seen) == 4
    regions, maps = explainer(image, np.zeros((0, 4)))
    assert regions.shape == (0, 4) and maps.shape == (0, 8, 8)


# A forgery of which the place is known.

_SIZE, _FORGED = 72, 24


def _draw(random, fake):
    """A smooth image; of a fake, a square was enlarged by a transposed convolution.

    Its kernel of 3 at a stride of 2 covers every second pixel twice as often: the
    checkerboard of generators (Odena et al., Deconvolution and Checkerboard Artifacts,
    2016).
    """
    coarse = random.uniform(20, 235, (5, 5, 3)).astype(np.float32)
    image = cv2.resize(coarse, (_SIZE, _SIZE), interpolation=cv2.INTER_CUBIC)
    image += random.normal(0, 4, image.shape)
    top, left = random.integers(0, _SIZE - _FORGED, 2)
    place = np.s_[top : top + _FORGED, left : left + _FORGED]
    if fake:
        spread = np.zeros((_FORGED, _FORGED, 3), np.float32)
        spread[::2, ::2] = image[place][::2, ::2]
        forged = cv2.filter2D(spread, -1, np.full((3, 3), 1 / 2.25, np.float32))
        image[place] = 0.7 * image[place] + 0.3 * forged
    inside = np.zeros((_SIZE, _SIZE), bool)
    inside[place] = True
    return np.clip(np.round(image), 0, 255).astype(np.uint8), inside


def _images(count, seed):
    random = np.random.default_rng(seed)
    truths = np.arange(count) % 2
    images, places = zip(*(_draw(random, fake) for fake in truths), strict=True)
    return np.stack(images), truths, np.stack(places)


@pytest.mark.slow  # Trains a network.
def test_grad_cam_finds_a_checkerboard_that_was_learned(tmp_path):
    keras.utils.set_random_seed(0)
    model, judged = (
        classifier.build("mesonet4", _SIZE, dropout=0.0, bn_momentum=0.9)
        for _ in range(2)
    )
    images, truths, _ = _images(512, seed=1)
    examples = tf.data.Dataset.from_tensor_slices((images, truths))
    held_out, answers, places = _images(128, seed=2)
    held_out = held_out.astype(np.float32)

    def prepare(seed, example):
        image, truth = example
        return tf.cast(image, tf.float32), truth

    def evaluate():
        return classification.compute_metrics(answers, _sigmoid(judged(held_out)[:, 0]))

    how = settings.Settings(
        str(tmp_path), 250, "auc", learning_rate=3e-3, eval_every=250
    )
    best = loop.Run(
        model,
        judged,
        loss=objectives.classification,
        batches=batches.Batches(
            batches.ShuffledSource(examples, seed=0), prepare, 16, seed=0
        ),
        evaluate=evaluate,
        keep_best=lambda figures: figures,
        settings=how,
    ).train()
    assert best["auc"] > 0.95
    fakes, forged = held_out[answers == 1], places[answers == 1]
    grad_cam, heat_maps = (
        explain.build_grad_cam_function(judged),
        explain.build_heat_maps_function(judged),
    )
    for show, least in ((grad_cam, 0.9), (heat_maps, 0.8)):
        maps = show(fakes)["heat_map"].numpy()
        peaks = maps.reshape(len(maps), -1).argmax(axis=1)
        hits = forged.reshape(len(maps), -1)[np.arange(len(maps)), peaks]
        assert hits.mean() >= least  # A ninth of all places is forged.


def _sigmoid(logits):
    return 1 / (1 + np.exp(-np.asarray(logits)))
