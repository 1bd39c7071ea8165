"""Hand-crafted features: SIFT, Harris corners and the spectrum of brightness.

All see an image as it is stored. Resizing would blur the traces that the spectrum
is after.
"""

import dataclasses
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import scipy.fft
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.data import records
from dfdetect.media import decode

NUM_RINGS = 64

# The most distinct ones: a large image has thousands.
_MAX_KEYPOINTS = 500

_CORNER_SIZE = 8.0  # Pixels around a corner that are described, in diameter.

# Far below the power that rounding to whole levels leaves in a coefficient, 1 / 12.
_LEAST_POWER = 1e-3


@dataclasses.dataclass(frozen=True)
class FeatureTable:
    """Features, labels and groups of the N images of a split, in order.

    Attributes:
        features: `[N]` each, by the names of `FEATURES`.
        labels: `[N]`, see `dfdetect.labels`.
        groups: `[N]`.
    """

    features: dict[str, list[np.ndarray]]
    labels: np.ndarray
    groups: np.ndarray


def build_feature_table(
    builder: tfds.core.DatasetBuilder,
    split: str,
    names: Sequence[str],
    count: Callable[[str], None] = lambda split: None,
) -> FeatureTable:
    """Computes features of every image of a split, with its label and group.

    Args:
        builder: A prepared data set of labeled images, see `records`.
        split: One of its splits.
        names: Which of `FEATURES`.
        count: Called for each image, with the split.

    Raises:
        ValueError: There is no such split, or it does not hold reals and fakes.
    """
    records.check_labeled(builder)
    if split not in builder.info.splits:
        there = ", ".join(builder.info.splits)
        raise ValueError(f"{builder.info.name} has no split {split!r}, only {there}.")
    decode_image = tf.function(
        decode.decode_image, input_signature=[tf.TensorSpec([], tf.string)]
    )
    features: dict[str, list[np.ndarray]] = {name: [] for name in names}
    truths, groups = [], []
    for record in records.read_records(builder, split):
        image = decode_image(tf.constant(record.image_bytes)).numpy()
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        for name, found in features.items():
            found.append(FEATURES[name](gray))
        truths.append(record.label)
        groups.append(record.group)
        count(split)
    if set(truths) != {labels.REAL, labels.FAKE}:
        raise ValueError(f"{split} of {builder.info.name} must hold reals and fakes.")
    return FeatureTable(features, np.array(truths), np.array(groups))


def describe_sift(gray: np.ndarray) -> np.ndarray:
    """Describes the most distinct points of an image; a flat one has none.

    Args:
        gray: `[H, W]` uint8.

    Returns:
        `[num_points, 128]` uint8.

    Source: Lowe, Distinctive Image Features from Scale-Invariant Keypoints, IJCV 2004.
    """
    _, found = cv2.SIFT.create(nfeatures=_MAX_KEYPOINTS).detectAndCompute(gray, None)
    # They are whole numbers up to 255, in four times the memory.
    return np.zeros((0, 128), np.uint8) if found is None else found.astype(np.uint8)


def compute_spectrum(gray: np.ndarray) -> np.ndarray:
    """Computes the power of each frequency, averaged over directions.

    The mean log power of the cosine transform in rings from the lowest frequency to the
    highest that the image's own pixels can hold.

    Args:
        gray: `[H, W]` in [0, 255].

    Returns:
        `[NUM_RINGS]` float32, natural logarithms.

    Source: rings as in Durall et al., Watch your Up-Convolution, CVPR 2020; the
    transform as in Frank et al., Leveraging Frequency Analysis for Deep Fake Image
    Recognition, ICML 2020.
    """
    height, width = gray.shape
    power = scipy.fft.dctn(gray.astype(np.float32), norm="ortho") ** 2
    y, x = np.arange(height)[:, None] / height, np.arange(width) / width
    ring = (np.hypot(y, x) / np.sqrt(2) * NUM_RINGS).astype(int).ravel()
    members = np.bincount(ring, minlength=NUM_RINGS)
    totals = np.bincount(ring, np.log(power + _LEAST_POWER).ravel(), NUM_RINGS)
    # An image of less than 64 pixels leaves rings empty.
    filled = np.flatnonzero(members)
    means = totals[filled] / members[filled]
    return np.interp(np.arange(NUM_RINGS), filled, means).astype(np.float32)


def describe_harris(gray: np.ndarray) -> np.ndarray:
    """Describes an image's strongest Harris corners as `describe_sift` does its points.

    Args:
        gray: `[H, W]` uint8.

    Returns:
        `[num_corners, 128]` uint8, at most 500.

    Source: Harris and Stephens, A Combined Corner and Edge Detector, AVC 1988.
    """
    corners = cv2.goodFeaturesToTrack(
        gray, _MAX_KEYPOINTS, 0.01, 3, useHarrisDetector=True, k=0.04
    )
    if corners is None:
        return np.zeros((0, 128), np.uint8)
    points = [cv2.KeyPoint(float(x), float(y), _CORNER_SIZE) for x, y in corners[:, 0]]
    _, found = cv2.SIFT.create().compute(gray, points)
    return np.zeros((0, 128), np.uint8) if found is None else found.astype(np.uint8)


FEATURES = {
    "sift": describe_sift,
    "spectrum": compute_spectrum,
    "harris": describe_harris,
}
