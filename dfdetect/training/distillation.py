"""Distillation: a student learns a frozen teacher's feature maps and its own task.

Traces of a forgery lie in features that random weights learn slowly. Without ImageNet
weights of the network itself, a small teacher's feature maps are a cheap start: one 1x1
convolution projects each tapped map of the student to the teacher's map of the same
stride. The convolutions are discarded afterwards.

Source: Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015.
"""

from collections.abc import Sequence
from typing import Any

import keras

from dfdetect.models import classifier

# Maps of stride 8, 16 and perhaps 32, by the stage names of `classifier.feature_maps`.
STAGES = {
    "xception": ("entry2", "middle8"),
    "midwayxception": ("entry2", "middle8"),
    "lightxception": ("entry2", "middle4"),
    **{
        name: ("block3", "block5", "block7")
        for name in classifier.NAMES
        if name.startswith("efficientnet_")
    },
    "mobilenet_v2": ("block_5_add", "block_12_add", "block_15_add"),
}


def match_maps(
    taps: Sequence[Any], targets: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """Pairs maps `[B, H, W, C]`, or vectors `[B, C]`, to be made equal.

    Args:
        taps: The student's maps, in the order of `targets`; extra ones of either side
            are left out.
        targets: The teacher's maps, of the same strides.

    Returns:
        The student's maps projected to the teacher's channels, and the teacher's
        standardized by channel; float32.
    """
    guesses, standards = [], []
    for index, (tap, target) in enumerate(zip(taps, targets, strict=False)):
        # At each place: a 1x1 convolution of a map.
        project = keras.layers.Dense(
            target.shape[-1], dtype="float32", name=f"project{index}"
        )
        standardise = keras.layers.BatchNormalization(
            center=False, scale=False, dtype="float32", name=f"standardise{index}"
        )
        guesses.append(project(tap))
        standards.append(standardise(target))
    return guesses, standards


def map_errors(guesses: Sequence[Any], targets: Sequence[Any]) -> list[Any]:
    """Computes the mean square errors of each pair, `[B]`; those of a constant are 1.

    The teacher's maps are resized to the student's.
    """
    found = []
    for guess, target in zip(guesses, targets, strict=True):
        if tuple(target.shape[1:]) != tuple(guess.shape[1:]):
            size = keras.ops.shape(guess)[1:3]
            target = keras.ops.image.resize(target, size, antialias=True)
        error = keras.ops.square(guess - keras.ops.stop_gradient(target))
        found.append(keras.ops.mean(error, axis=range(1, len(error.shape))))
    return found


def build_with_teacher(
    name: str, student: keras.Model, teacher_name: str, teacher: keras.Model
) -> keras.Model:
    """Builds a model that joins a student and its teacher on the same crops.

    Args:
        name: Name of the student, one of `STAGES`.
        student: A classifier.
        teacher_name: Name of the teacher, one of `STAGES`.
        teacher: A classifier of the same input, frozen here.

    Returns:
        A model from crops to a dict: `logits` of the student, and the lists `guesses`
        and `targets` of `match_maps`, first maps, then pooled features.

    Raises:
        ValueError: A network is not one of `STAGES`.
    """
    for each in (name, teacher_name):
        if each not in STAGES:
            raise ValueError(f"distillation knows {list(STAGES)}, got {each!r}.")
    teacher.trainable = False
    images = keras.Input(student.input_shape[1:], name="images")
    taps = classifier.feature_maps(student, [*STAGES[name], "pool", "logits"])
    *maps, pooled, logits = taps(images)
    stages = STAGES[teacher_name][: len(maps)]
    targets = classifier.feature_maps(teacher, [*stages, "pool"])(images)
    guesses, targets = match_maps([*maps[: len(stages)], pooled], targets)
    outputs = {"logits": logits, "guesses": guesses, "targets": targets}
    return keras.Model(images, outputs)
