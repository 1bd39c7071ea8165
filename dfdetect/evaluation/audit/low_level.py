"""Baseline that tells labels by color, sharpness and the slope of the spectrum alone.

Where these give the class away, a classifier may have learned who took or made the
images instead of what a forgery looks like.
"""

import cv2
import numpy as np
import tensorflow_datasets as tfds

from dfdetect.data import classifier_input
from dfdetect.evaluation import hand_crafted_features
from dfdetect.evaluation.audit import folds

FEATURES = ("red", "green", "blue", "sharpness", "spectrum_slope")
SIDE = 224  # Pixels of the crops, as a classifier would see them.

_BATCH_SIZE = 32


def describe_crop(crop: np.ndarray) -> list[float]:
    """Describes a crop by a few numbers, in the order of `FEATURES`.

    Args:
        crop: `[S, S, 3]` RGB in [0, 255].

    Returns:
        The means of the channels; the natural logarithm of the variance of the
        Laplacian of the gray image; and the slope of its log power over the logarithm
        of the frequency, see `hand_crafted_features.compute_spectrum`.
    """
    gray = cv2.cvtColor(np.asarray(crop, np.float32), cv2.COLOR_RGB2GRAY)
    variance = cv2.Laplacian(gray, cv2.CV_32F).var()
    power = hand_crafted_features.compute_spectrum(gray)[
        1:
    ]  # Ring 0 is the mean of the image.
    slope = np.polyfit(np.log(np.arange(1, len(power) + 1)), power, 1)[0]
    means = np.asarray(crop, np.float64).mean(axis=(0, 1))
    return [*map(float, means), float(np.log(variance + 1e-3)), float(slope)]


def measure_crops(
    builder: tfds.core.DatasetBuilder,
    split: str,
    wanted: np.ndarray | None = None,
    crop_margin: float = 1.3,
) -> np.ndarray:
    """Describes the head crops of a split, float64 `[N, F]`.

    Args: see `classifier_input.build_evaluation_batches`.
    """
    batches = classifier_input.build_evaluation_batches(
        builder,
        split,
        image_size=SIDE,
        batch_size=_BATCH_SIZE,
        wanted=wanted,
        crop_margin=crop_margin,
    )
    return np.array(
        [describe_crop(crop) for crops, _ in batches for crop in crops.numpy()]
    )


def predict(
    values: np.ndarray, truths: np.ndarray, groups: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Fake probabilities `[N]` of a logistic regression, see `folds`."""
    return folds.predict_out_of_fold(
        _fit, values, truths=truths, groups=groups, seed=seed
    )


def _fit(values: np.ndarray, truths: np.ndarray) -> folds.Predict:
    import sklearn.linear_model
    import sklearn.pipeline
    import sklearn.preprocessing

    model = sklearn.pipeline.make_pipeline(
        sklearn.preprocessing.StandardScaler(),
        sklearn.linear_model.LogisticRegression(class_weight="balanced"),
    ).fit(values, truths)
    return lambda held_out: model.predict_proba(held_out)[:, 1]
