"""Students beside a teacher: what is matched, and what is lowered."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfdetect.models import classifier, weights
from dfdetect.training import distillation, objectives


def _pair(size=71):
    student = classifier.build("lightxception", size, dropout=0.0)
    teacher = classifier.build("mobilenet_v2", size)
    return distillation.build_with_teacher(
        "lightxception", student, "mobilenet_v2", teacher
    )


def test_maps_are_matched_in_size_and_channels():
    pair = _pair()
    crops = np.random.default_rng(0).uniform(0, 255, (2, 71, 71, 3)).astype("float32")
    outputs = pair(crops)
    assert outputs["logits"].shape == (2, 1)
    channels = [guess.shape[-1] for guess in outputs["guesses"]]
    assert channels == [t.shape[-1] for t in outputs["targets"]] == [32, 96, 752]
    errors = distillation.map_errors(outputs["guesses"], outputs["targets"])
    assert [error.shape for error in errors] == [(2,)] * 3


def test_errors_by_hand():
    guess, target = tf.constant([[[[1.0]], [[2.0]]]]), tf.constant([[[[3.0]], [[2.0]]]])
    vector = tf.constant([[1.0, 2.0]]), tf.constant([[1.0, 5.0]])
    errors = distillation.map_errors([guess, vector[0]], [target, vector[1]])
    np.testing.assert_allclose(errors, [[2.0], [4.5]])


@pytest.mark.slow
def test_the_teacher_stays_and_the_student_learns():
    keras.utils.set_random_seed(0)
    pair = _pair()
    names = {id(v): name for name, v in weights.variables(pair).items()}
    trained = {names[id(v)] for v in pair.trainable_variables}
    assert not any("block_" in name for name in trained)  # MobileNetV2's layers
    assert any("middle1" in name for name in trained)
    random = np.random.default_rng(0)
    crops = tf.constant(random.uniform(0, 255, (4, 71, 71, 3)), tf.float32)
    truths = tf.constant([0, 1, 0, 1])
    optimizer = keras.optimizers.Adam(1e-3)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            sums, weight = objectives.distilled_classification(
                pair, (crops, truths), teacher_weight=2.0
            )
            loss = sums["loss"] / weight
        gradients = tape.gradient(loss, pair.trainable_variables)
        optimizer.apply_gradients(zip(gradients, pair.trainable_variables, strict=True))
        return {**sums, "weight": weight}

    found = [{k: float(v) for k, v in step().items()} for _ in range(8)]
    assert found[0]["weight"] == 4
    assert found[0]["loss"] > 2 * found[0]["teacher"]
    assert found[-1]["teacher"] < found[0]["teacher"]


def test_label_smoothing_and_class_weights_by_hand():
    def model(images, training):
        return images  # The logits.

    batch = tf.constant([[2.0], [-1.0]]), tf.constant([1, 0])
    sums, weight = objectives.classification(model, batch, [1.0, 3.0], 0.1)
    # -(.95 log s(2) + .05 log s(-2)) and -(.05 log s(-1) + .95 log s(1))
    assert float(sums["loss"]) == pytest.approx(3 * 0.226928 + 0.363262, abs=1e-5)
    assert float(sums["accuracy"]) == 4 and float(weight) == 4


def test_networks_whose_maps_are_not_known_are_refused():
    student = classifier.build("mesonet4", 64)
    teacher = classifier.build("mobilenet_v2", 64)
    with pytest.raises(ValueError, match="distillation knows .*, got 'mesonet4'"):
        distillation.build_with_teacher("mesonet4", student, "mobilenet_v2", teacher)


def test_a_lite_network_is_a_teacher():
    teacher = classifier.build("efficientnet_lite0", 71)
    student = classifier.build("lightxception", 71)
    pair = distillation.build_with_teacher(
        "lightxception", student, "efficientnet_lite0", teacher
    )
    shapes = [tuple(x.shape[1:]) for x in pair.output["targets"]]
    # Maps of stride 8 and 16, and the standardized moments.
    assert shapes == [
        (9, 9, 40),
        (5, 5, 112),
        teacher.get_layer("pool").output.shape[1:],
    ]
    assert not any(v.path.startswith("efficientnet") for v in pair.trainable_variables)
