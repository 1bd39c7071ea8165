"""Flags of the training of a detector, beside those of every training."""

import math
from typing import Any

from absl import flags

from dfdetect.training import held_out, run_flags

flags.adopt_module_key_flags(run_flags)
flags.adopt_module_key_flags(held_out)

_DATASET = flags.DEFINE_list(
    "dataset",
    ["hollywood_heads"],
    "Prepared data sets, by commas, such as hollywood_heads,labeled_heads/portraits. "
    "Each that has a validation split is validated on by itself; --best_metric is the "
    "mean over those with heads.",
)
_WEIGHTS = flags.DEFINE_list(
    "dataset_weights",
    [],
    "Weights of the data sets in training; by default their sizes.",
)
flags.DEFINE_float(
    "max_false_boxes",
    0.05,
    "Most boxes per image that the score threshold may let pass on validation images "
    "of a data set without heads.",
    lower_bound=0.0,
)
flags.DEFINE_integer("phi", 0, "Compound coefficient, 0 to 7.", 0, 7)
flags.DEFINE_bool(
    "lite",
    False,
    "Use EfficientDet-Lite of that phi, 0 to 4: no squeeze-and-excitation, ReLU6 for "
    "swish, plain sums.",
)
flags.DEFINE_integer(
    "image_size",
    None,
    "Side of the input in px, a multiple of 32; by default that of --phi.",
)
_WINDOW_SIZE = flags.DEFINE_integer(
    "window_size",
    None,
    "Train on random windows of this side in px, a multiple of 32: heads are as large "
    "as at --image_size, but steps are cheaper. By default --image_size.",
)
_RANDOM_TRANSFORM = flags.DEFINE_bool(
    "random_transform",
    True,
    "Change training images at random; else they are letterboxed as for evaluation.",
)
_AUGMENTATION = flags.DEFINE_enum(
    "augmentation",
    "light",
    ["light", "ordinary"],
    "light scales, crops, mirrors and colors training images at random. ordinary also "
    "adds borders, rotates by up to 15 degrees, takes the color from --gray_share, "
    "blurs, adds noise, compresses as JPEG, and pastes closeups onto images without "
    "heads.",
)
flags.DEFINE_float(
    "gray_share",
    0.1,
    "Share of the images whose color --augmentation=ordinary takes away.",
    lower_bound=0.0,
    upper_bound=1.0,
)
_SCALES = flags.DEFINE_list(
    "scales", ["0.1", "2.0"], "Bounds of the scale jitter; 1 fills image_size."
)
_MOSAIC = flags.DEFINE_float(
    "mosaic", 0.0, "Chance to join an image with the next three.", 0.0, 1.0
)
_JPEG_QUALITY = flags.DEFINE_list(
    "jpeg_quality",
    [],
    "Bounds of JPEG compression, such as 30,95. By default none, or with "
    "--augmentation=ordinary 30,95 for half of the images.",
)
flags.DEFINE_float(
    "anchor_scale", None, "Side of the smallest anchor in strides; 4, or 5 for D7."
)
flags.DEFINE_bool(
    "weighted_bifpn", None, "Learned fusion weights; by default up to phi 5."
)
flags.DEFINE_float(
    "drop_connect_rate", 0.2, "Chance to skip the last residual block of the backbone."
)
flags.DEFINE_float(
    "bn_momentum", 0.99, "Momentum of the batch norms; lower for short runs."
)
flags.DEFINE_string(
    "init_from",
    None,
    "Model folder of an earlier run to start from: its weights must be those of the "
    "model, none missing and none left over. --snapshot is not read.",
)
flags.DEFINE_bool(
    "compute_val_loss",
    False,
    "At each evaluation, also compute the loss of the validation images and its parts: "
    "val_loss, val_class_loss and val_box_loss, in TensorBoard beside those of "
    "training. --best_metric=-val_loss then keeps the weights of the lowest.",
)
flags.mark_flags_as_required(["model_dir", "data_dir"])


@flags.validator(_SCALES, "must be two numbers above 0 that ascend, as 0.1,2")
def _are_scales(texts: list[str]) -> bool:
    bounds = _parse_numbers(float, texts)
    return len(bounds) == 2 and 0 < bounds[0] <= bounds[1] < math.inf


@flags.validator(_JPEG_QUALITY, "must be two whole numbers that ascend within 0 to 100")
def _are_qualities(texts: list[str]) -> bool:
    bounds = _parse_numbers(int, texts)
    return not texts or len(bounds) == 2 and 0 <= bounds[0] <= bounds[1] <= 100


@flags.multi_flags_validator(
    [_DATASET, _WEIGHTS],
    "--dataset must be different names, --dataset_weights a number above 0 for each.",
)
def _are_weights(values: dict[str, Any]) -> bool:
    names, texts = values[_DATASET.name], values[_WEIGHTS.name]
    weights = _parse_numbers(float, texts)
    if not names or len({*names}) < len(names) or len(weights) < len(texts):
        return False
    return len(texts) in (0, len(names)) and all(0 < w < math.inf for w in weights)


@flags.multi_flags_validator(
    [_RANDOM_TRANSFORM, _MOSAIC, _JPEG_QUALITY, _WINDOW_SIZE, _AUGMENTATION],
    "--norandom_transform excludes --mosaic, --jpeg_quality, --window_size and "
    "--augmentation=ordinary.",
)
def _are_changes_wanted(values: dict[str, Any]) -> bool:
    values = {**values, _AUGMENTATION.name: values[_AUGMENTATION.name] != "light"}
    return values.pop(_RANDOM_TRANSFORM.name) or not any(values.values())


def _parse_numbers(kind: type, texts: list[str]) -> list:
    """Converts texts to numbers; nothing if one of them is not a number."""
    try:
        return [kind(text) for text in texts]
    except ValueError:
        return []
