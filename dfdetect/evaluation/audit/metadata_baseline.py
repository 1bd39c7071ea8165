"""Baseline that tells labels by size, format and compression, without any pixel.

Where size, format or compression give the class away, a detector learns them, and its
accuracy says nothing about forgeries: on the challenge images a tree on the size alone
is right in about .87 of the cases.
"""

import functools
import io
from typing import Any

import numpy as np

from dfdetect.evaluation.audit import folds
from dfdetect.evaluation.audit.survey import Survey
from dfdetect.metrics import bootstrap, classification

FEATURES = (
    "width",
    "height",
    "aspect",
    "num_bytes",
    "bits_per_pixel",
    "format",
    "mode",
    "progressive",
    "subsampling",
    "luminance_table",
    "luminance_first",
    "chrominance_table",
    "has_exif",
    "has_icc",
)

_WARN_ABOVE = 0.6  # AUC.
_FEW_GROUPS = 10  # Of a class; intervals of fewer are too narrow to be trusted.

_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
_MODES = ("RGB", "L", "RGBA", "P", "CMYK", "I;16", "1")


def read_features(image_bytes: bytes) -> list[float]:
    """Reads the header of a file, in the order of `FEATURES`; nothing is decoded.

    Sums and first entries of JPEG's quantization tables; the subsampling is the first
    component's factors as one number (0x22 for 4:2:0). Zeros where a format has none.
    """
    from PIL import Image, JpegImagePlugin

    # The header is read, the pixels are not.
    with Image.open(io.BytesIO(image_bytes)) as image:
        width, height = image.size
        tables = getattr(image, "quantization", {}) or {}
        luminance = list(tables.get(0, [0]))
        is_jpeg = isinstance(image, JpegImagePlugin.JpegImageFile)
        return [
            width,
            height,
            width / height,
            len(image_bytes),
            8 * len(image_bytes) / (width * height),
            _place(image.format, _FORMATS),
            _place(image.mode, _MODES),
            float(bool(image.info.get("progressive"))),
            float(_subsampling(image)) if is_jpeg else 0.0,
            float(sum(luminance)),
            float(luminance[0]),
            float(sum(tables.get(1, [0]))),
            float("exif" in image.info),
            float("icc_profile" in image.info),
        ]


def measure_baseline(survey: Survey, seed: int = 0) -> dict[str, Any]:
    """Measures how well `FEATURES` tell real from fake in groups not trained on.

    Gradient-boosted trees, each fifth of the groups judged by those trained on the
    others.

    Args:
        survey: Survey of a data set with labels.
        seed: Seed of folds, trees and resampling.

    Returns:
        `auc` with its 95 % `interval` (resampled by group), `accuracy` and
        `majority_share`, the AUC of each feature that varies alone in `single` (above
        .5 whichever way it points), `num_images`, `num_groups` and `warning`, see
        `describe_shortcut`; or why there is no figure in `reason`.
    """
    if survey.labels is None:
        return {"reason": "the data set has no labels"}
    truths, values = survey.labels, survey.features
    groups = survey.groups
    reason = folds.explain_unfit(truths, groups)
    if reason:
        return {"reason": reason}
    scores = predict_out_of_fold(values, truths, groups, seed)
    auc, interval = classification.compute_auc_interval(
        truths, scores, groups, seed=seed
    )
    share = float(np.mean(truths))
    single = {
        name: round(_auc_either_way(truths, values[:, i]), 4)
        for i, name in enumerate(FEATURES)
        if np.ptp(values[:, i]) > 0
    }
    return {
        "auc": auc,
        "interval": list(interval),
        "accuracy": float(np.mean((scores >= 0.5) == truths)),
        "majority_share": max(share, 1 - share),
        "single": dict(sorted(single.items(), key=lambda item: -item[1])),
        "num_images": len(truths),
        "num_groups": len(np.unique(groups)),
        "warning": describe_shortcut(auc, interval, truths, groups),
    }


def describe_shortcut(
    auc: float, interval: bootstrap.Interval, truths: np.ndarray, groups: np.ndarray
) -> str:
    """Describes the shortcut that an AUC of this baseline shows.

    Args:
        auc: The AUC.
        interval: Its 95 % interval.
        truths: `[N]` of `dfdetect.labels`, the images that it was measured on.
        groups: `[N]`, their groups.

    Returns:
        A warning, also where there are too few groups to tell a shortcut from chance;
        "" where the AUC is low.
    """
    if not auc > _WARN_ABOVE:
        return ""
    smallest = min(len(np.unique(groups[truths == label])) for label in (0, 1))
    ends = f"[{interval[0]:.3f}, {interval[1]:.3f}]"
    tell = (
        "without a look at any pixel, size, format and compression of the files tell "
        f"the class with an AUC of {auc:.3f} {ends}"
    )
    if smallest >= _FEW_GROUPS and interval[0] > 0.5:
        return f"SHORTCUT: {tell}. A detector may learn that instead of forgeries."
    return (
        f"TOO SMALL to tell whether there is a shortcut: {tell}, which may be chance "
        f"with {smallest} groups of a class."
    )


def predict_split(
    survey: Survey, split: str, seed: int = 0
) -> tuple[np.ndarray | None, str]:
    """Predicts each record of a split by trees on its `FEATURES` alone.

    They are trained on the other splits, as a model would be; where those lack a class,
    on the other groups of the split itself.

    Args:
        survey: Survey of a data set with labels.
        split: The split to predict.
        seed: Seed of folds and trees.

    Returns:
        Fake probabilities `[N]` of the split, and how they came about; or None, and why
        there are none.
    """
    judged = survey.splits == split
    truths = survey.truths
    if len(np.unique(truths[~judged])) == 2:
        others = [str(name) for name in np.unique(survey.splits[~judged])]
        trees = _fitted(survey.features[~judged], truths[~judged], seed)
        scores = _predicted(trees, survey.features[judged])
        return scores, f"trained on {' and '.join(others)}"
    one = survey.take(judged)
    reason = folds.explain_unfit(one.truths, one.groups)
    if reason:
        return None, reason
    scores = predict_out_of_fold(one.features, one.truths, one.groups, seed)
    return scores, f"{folds.NUM_FOLDS} folds of {split}, by group"


def predict_out_of_fold(
    values: np.ndarray, truths: np.ndarray, groups: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Predicts fake probabilities `[N]` by `FEATURES` `[N, F]`, see `folds`."""

    def fit(learned: np.ndarray, labels: np.ndarray) -> folds.Predict:
        return functools.partial(_predicted, _fitted(learned, labels, seed))

    return folds.predict_out_of_fold(
        fit, values, truths=truths, groups=groups, seed=seed
    )


def _fitted(values: np.ndarray, truths: np.ndarray, seed: int) -> Any:
    import sklearn.ensemble
    import threadpoolctl

    # A leaf holds 20 records by default: in a set of less than 50 no tree could split,
    # and the plainest shortcut would look like none.
    trees = sklearn.ensemble.HistGradientBoostingClassifier(
        max_iter=50,
        min_samples_leaf=max(1, min(20, len(truths) // 10)),
        random_state=seed,
    )
    # On a busy machine OpenMP's threads wait for each other for minutes.
    with threadpoolctl.threadpool_limits(1, "openmp"):
        return trees.fit(values, truths)


def _predicted(trees: Any, values: np.ndarray) -> np.ndarray:
    import threadpoolctl

    with threadpoolctl.threadpool_limits(1, "openmp"):
        return trees.predict_proba(values)[:, 1]


def _auc_either_way(truths: np.ndarray, values: np.ndarray) -> float:
    import sklearn.metrics

    auc = float(sklearn.metrics.roc_auc_score(truths, values))
    return max(auc, 1 - auc)


def _place(name: str | None, names: tuple[str, ...]) -> float:
    return float(names.index(name)) if name in names else float(len(names))


def _subsampling(image: Any) -> int:
    _, horizontal, vertical, _ = image.layer[0]
    return 16 * horizontal + vertical
