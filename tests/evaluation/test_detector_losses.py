"""The validation loss of a detector is that of its training, over a whole split."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import drawn_heads
from dfdetect.data import detector_input
from dfdetect.evaluation import detectors
from dfdetect.models import anchors
from dfdetect.training import objectives


@pytest.fixture(scope="module", name="model")
def _model():
    """A small network of the same outputs: the losses know no more of a detector."""
    grid = anchors.Anchors(128)
    images = keras.Input((128, 128, 3))
    x = keras.layers.Rescaling(1 / 255)(keras.layers.AveragePooling2D(32)(images))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))  # Of training alone.
    outputs = [
        keras.layers.Reshape((len(grid.boxes), size))(
            keras.layers.Dense(len(grid.boxes) * size)(x)
        )
        for size in (1, 4)
    ]
    model = keras.Model(images, outputs)
    model.anchors = grid
    return model


@pytest.mark.slow
def test_it_does_not_depend_on_the_batches_and_is_that_of_training(tmp_path, model):
    builder = drawn_heads.prepare(tmp_path, "drawn_3", validation=5)
    add = detectors.build_loss_function(model, 4)

    def losses(size):
        batches = detector_input.build_target_batches(
            builder, "validation", grid=model.anchors, image_size=128, batch_size=size
        )
        return detectors.measure_losses(add, batches, tf.distribute.get_strategy())

    one, all_at_once = losses(2), losses(5)
    assert tuple(one) == detectors.DETECTOR_LOSSES
    for name, value in one.items():
        assert value == pytest.approx(all_at_once[name], rel=1e-4) and value > 0
    # The whole split as a batch of the training.
    (batch,) = detector_input.build_target_batches(
        builder, "validation", grid=model.anchors, image_size=128, batch_size=5
    )
    sums, weight = objectives.detection(model, batch, batch_size=4, training=False)
    assert one["val_loss"] == pytest.approx(float(sums["loss"] / weight), rel=1e-4)
    positives = int((batch[1].numpy() >= 0).sum())
    assert positives and float(weight) == pytest.approx(positives + 5 / 4)


def test_targets_are_those_of_training_without_augmentation(tmp_path, model):
    builder = drawn_heads.prepare(tmp_path, "drawn_2", train=4)
    batches = detector_input.build_training_batches(
        [builder],
        "train",
        grid=model.anchors,
        image_size=128,
        batch_size=4,
        seed=0,
        scales=(1.0, 1.0),
        augmentation="none",
    )
    trained = next(iter(batches.from_step(0)))
    (judged,) = detector_input.build_target_batches(
        builder, "train", grid=model.anchors, image_size=128, batch_size=4
    )
    for one, other in zip(trained, judged, strict=True):
        order, same = (
            np.lexsort(x.numpy().reshape(4, -1).T[:200])
            for x in (trained[0], judged[0])
        )
        np.testing.assert_allclose(one.numpy()[order], other.numpy()[same], atol=1e-5)


def test_without_images_there_is_no_loss(model):
    add = detectors.build_loss_function(model, 4)
    found = detectors.measure_losses(add, [], tf.distribute.get_strategy())
    assert np.isnan(list(found.values())).all() and tf.nest.flatten(found)
