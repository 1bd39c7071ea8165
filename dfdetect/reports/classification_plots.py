"""Three plots of a classifier's probabilities: ROC, reliability and scores."""

from typing import Any

import matplotlib.figure
import numpy as np
import sklearn.metrics
from matplotlib.axes import Axes

from dfdetect import labels as label_names
from dfdetect.evaluation.predictions import Predictions
from dfdetect.media import drawing
from dfdetect.metrics import bootstrap

_REAL, _FAKE, _GRAY = "#2a78b5", "#d1603d", "#888888"
_NUM_SCORE_BINS = 20


def draw_roc(
    predictions: Predictions,
    figures: dict[str, Any],
    metadata_probabilities: np.ndarray | None,
    title: str,
) -> bytes:
    """Draws the ROC curves of images, of videos and of the metadata baseline as PNG.

    Args:
        predictions: Predictions on the images.
        figures: `metrics` and `video_metrics`, see `classification_protocol`.
        metadata_probabilities: The baseline's for the same images, or None.
        title: What was measured.
    """
    figure, axes = _make_axes(title)
    videos = predictions.by_video()
    curves = [
        ("images", predictions.labels, predictions.probabilities, _FAKE, "metrics"),
        ("videos", videos.labels, videos.probabilities, _REAL, "video_metrics"),
    ]
    if len(np.unique(predictions.labels)) == 2:
        for name, labels, probabilities, color, level in curves:
            low, high = figures[level]["auc_interval"]
            label = f"{name}: {figures[level]['auc']:.3f} [{low:.3f}, {high:.3f}]"
            _draw_roc_curve(axes, labels, probabilities, color, label)
        if metadata_probabilities is not None:
            _draw_roc_curve(
                axes,
                predictions.labels,
                metadata_probabilities,
                _GRAY,
                "without pixels",
            )
    return _finish_roc(figure, axes)


def compare_roc(
    labels: np.ndarray,
    ways: dict[str, tuple[np.ndarray, dict[str, Any]]],
    title: str,
) -> bytes:
    """Draws the ROC curves of two ways to judge the same images as PNG.

    Args:
        labels: `[N]` of `dfdetect.labels`; without both classes no curve is drawn.
        ways: Fake probabilities `[N]`, and figures with `auc` and `auc_interval`, by
            the names of the ways.
        title: What was measured.
    """
    figure, axes = _make_axes(title)
    if len(np.unique(labels)) == 2:
        for (name, way), color in zip(ways.items(), (_FAKE, _REAL), strict=True):
            probabilities, figures = way
            low, high = figures["auc_interval"]
            label = f"{name}: {figures['auc']:.3f} [{low:.3f}, {high:.3f}]"
            _draw_roc_curve(axes, labels, probabilities, color, label)
    return _finish_roc(figure, axes)


def draw_reliability(predictions: Predictions, num_resamples: int, title: str) -> bytes:
    """Draws the share of fakes by predicted probability as PNG."""
    figure, axes = _make_axes(title)
    in_bin = bootstrap.assign_bins(predictions.probabilities)
    ends = bootstrap.compute_calibration_intervals(
        predictions.labels,
        predictions.probabilities,
        predictions.groups,
        num_resamples=num_resamples,
    )
    axes.plot([0, 1], [0, 1], ":", color=_GRAY, linewidth=1)
    for index in np.unique(in_bin):
        members = in_bin == index
        at = predictions.probabilities[members].mean()
        share = predictions.labels[members].mean()
        # Areas are proportional to the number of images.
        axes.scatter(at, share, 20 + 500 * members.mean(), color=_FAKE, alpha=0.6)
        axes.plot([at, at], ends[index], color=_FAKE, linewidth=1)
    axes.set(xlabel="predicted probability", ylabel="share of fakes")
    axes.set(xlim=(0, 1), ylim=(-0.03, 1.03))
    return _encode(figure)


def draw_scores(predictions: Predictions, title: str) -> bytes:
    """Draws the distributions of the probabilities of reals and of fakes as PNG."""
    figure, axes = _make_axes(title)
    edges = np.linspace(0, 1, _NUM_SCORE_BINS + 1)
    for label, color in ((label_names.REAL, _REAL), (label_names.FAKE, _FAKE)):
        chosen = predictions.probabilities[predictions.labels == label]
        name = f"{label_names.NAMES[label]} ({len(chosen):,})"
        shares = np.full(len(chosen), 1 / max(len(chosen), 1))
        axes.hist(
            chosen, edges.tolist(), weights=shares, color=color, alpha=0.55, label=name
        )
    axes.axvline(0.5, color=_GRAY, linewidth=0.6)
    axes.set(xlabel="predicted probability", ylabel="share of the class", xlim=(0, 1))
    axes.legend(fontsize=8)
    return _encode(figure)


def _draw_roc_curve(
    axes: Axes, labels: np.ndarray, probabilities: np.ndarray, color: str, name: str
) -> None:
    false_positives, true_positives, _ = sklearn.metrics.roc_curve(
        labels, probabilities, pos_label=label_names.FAKE
    )
    axes.plot(false_positives, true_positives, color=color, label=name)


def _finish_roc(figure: matplotlib.figure.Figure, axes: Axes) -> bytes:
    axes.plot([0, 1], [0, 1], ":", color=_GRAY, linewidth=1)
    axes.axvline(bootstrap.MAX_FALSE_POSITIVE_RATE, color=_GRAY, linewidth=0.6)
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
    axes.set(xlim=(-0.01, 1), ylim=(0, 1.01))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(title="area, 95 % interval", loc="lower right", fontsize=8)
    return _encode(figure)


def _make_axes(title: str) -> tuple[matplotlib.figure.Figure, Axes]:
    figure = matplotlib.figure.Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=9, wrap=True, parse_math=False)
    axes.grid(alpha=0.3)
    return figure, axes


def _encode(figure: matplotlib.figure.Figure) -> bytes:
    figure.dpi = 130
    return drawing.encode_figure(figure)
