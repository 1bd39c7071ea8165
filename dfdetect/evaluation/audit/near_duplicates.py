"""Finds images in different splits that are the same to the eye, by perceptual hash.

The hash is ImageHash's DCT hash (pHash) of 256 bits, over pixels of
`dfdetect.media.decode`. Of 200 images each of DFDC faces, FFHQ and StyleGAN, CelebA
and SCUT-HEAD, at a distance of 30 bits or less lie 95 % or more of copies that were
saved as JPEG of quality 40, brightened by 40 %, or cut by 2 %, scaled by .75,
brightened by 15 % and saved with quality 60; of copies cut by 4 % it is 17 to 52 %.
Different images are 118 to 128 bits apart in the mean; among the 1.6 million pairs of
1,800 aligned faces (FFHQ and StyleGAN), one is within 30 bits: one face twice, cut
differently. The nearest two faces that differ are 42 bits apart. 64 bits do not part
aligned faces: at a distance of 8, which finds most copies cut by 4 %, too, it is 53
pairs. A mirrored or turned copy is not found.
"""

import itertools
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from dfdetect.evaluation.audit.survey import Survey

THUMBNAIL = 64  # Side of the image that is hashed: four times that of the hash.
NUM_BYTES = 32
MAX_DISTANCE = 30

_SIDE = 16
_LEAST_CONTRAST = 2.0  # Standard deviation; below it the hash is that of noise.
_BLOCK = 4096  # Rows of one product; 64 MiB of distances.


def compute_hash(thumbnail: np.ndarray) -> np.ndarray:
    """Computes the hash, uint8 `[32]`, of an image, uint8 `[64, 64, 3]`.

    Raises:
        ImportError: ImageHash is not installed.
    """
    try:
        import imagehash
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "ImageHash is missing: pip install dfdetect[audit]"
        ) from error
    bits = imagehash.phash(Image.fromarray(thumbnail), hash_size=_SIDE).hash
    return np.packbits(bits)


def describe(images: Sequence[np.ndarray]) -> np.ndarray:
    """Computes hashes of images as vectors, float32 `[N, 256]` of +1 and -1.

    Their cosine falls by 1 / 128 for each bit in which they differ.

    Args:
        images: uint8 `[H, W, 3]`.
    """
    small = [
        cv2.resize(x, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        for x in images
    ]
    hashes = np.stack([compute_hash(thumbnail) for thumbnail in small])
    return np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1


def is_comparable(thumbnail: np.ndarray) -> bool:
    """Whether an image has any contrast; all flat ones are alike."""
    return float(thumbnail.mean(axis=2).std()) >= _LEAST_CONTRAST


def find_pairs(survey: Survey, max_distance: int = MAX_DISTANCE) -> list[dict]:
    """Finds pairs of images in different splits that are near duplicates.

    Every image that has one is in a pair; of images with equal hashes in a split,
    only the first is paired with all.

    Args:
        survey: Survey of the data set.
        max_distance: Most bits of 256 in which they differ.

    Returns:
        For each pair `distance`, and `filename`, `split` and `label` of both in lists,
        the nearest first.
    """
    found = sorted(
        (distance, int(one), int(other))
        for one, other, distance in _near(survey, max_distance)
    )
    splits, labels = survey.splits.tolist(), survey.labels
    return [
        {
            "distance": distance,
            "filename": [survey.filenames[one], survey.filenames[other]],
            "split": [splits[one], splits[other]],
            "label": None if labels is None else labels[[one, other]].tolist(),
        }
        for distance, one, other in found
    ]


def _near(survey: Survey, max_distance: int) -> Iterator[tuple[int, int, int]]:
    """Pairs of positions in different splits, with their distance.

    Each distinct hash of a split is compared once, by products of blocks: frames of a
    clip share theirs.
    """
    members = {}
    for split in np.unique(survey.splits):
        index = np.flatnonzero((survey.splits == split) & survey.comparable)
        hashes, inverse = np.unique(survey.hashes[index], axis=0, return_inverse=True)
        order = np.argsort(inverse.ravel(), kind="stable")
        starts = np.searchsorted(inverse.ravel()[order], np.arange(len(hashes) + 1))
        # +1 and -1: a product is the number of equal bits less that of others.
        signs = np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1
        members[split] = signs, index[order], starts
    for left, right in itertools.combinations(members.values(), 2):
        for i, j, distance in _blocks(left[0], right[0], max_distance):
            ones = left[1][left[2][i] : left[2][i + 1]]
            others = right[1][right[2][j] : right[2][j + 1]]
            # Each with the first of the others: thousands of equal frames would make
            # millions of pairs.
            yield from ((one, others[0], distance) for one in ones)
            yield from ((ones[0], other, distance) for other in others[1:])


def _blocks(
    left: np.ndarray, right: np.ndarray, max_distance: int
) -> Iterator[tuple[int, int, int]]:
    least = left.shape[1] - 2 * max_distance
    for start in range(0, len(left), _BLOCK):
        for other in range(0, len(right), _BLOCK):
            equal = left[start : start + _BLOCK] @ right[other : other + _BLOCK].T
            for i, j in np.argwhere(equal >= least):
                distance = (left.shape[1] - int(equal[i, j])) // 2
                yield int(start + i), int(other + j), distance
