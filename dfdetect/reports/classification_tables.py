"""Tables of a classifier's figures with their intervals."""

import math
from collections.abc import Sequence
from typing import Any

from dfdetect.evaluation.classifiers import Result
from dfdetect.reports import document

COLUMNS = {
    "auc": "AUC",
    "ap": "AP",
    "balanced_accuracy": "balanced accuracy",
    "eer": "EER",
    "log_loss": "log-loss",
    "tpr_at_1_percent_fpr": "TPR at 1 % FPR",
    "ece": "ECE",
}
FURTHER_COLUMNS = {
    "accuracy": "accuracy",
    "brier": "Brier",
    "tpr": "TPR",
    "fpr": "FPR",
    "mean_probability": "mean probability",
}
_STRATUM_COLUMNS = {
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "eer": "EER",
    "tpr_at_1_percent_fpr": "TPR at 1 % FPR",
    "tpr": "TPR",
    "fpr": "FPR",
}
_LEVELS = {"metrics": "images", "video_metrics": "videos"}
BASELINES = {"majority": "majority class", "no_pixels": "no pixels"}

_MEANINGS = {
    "video": "its probability is the mean of those of its images; images belong to one "
    "video if a field says so, or if they share group, label, source and method",
    "interval": "95 %, in brackets: percentiles over resamples in which whole groups "
    "(such as a video and the fakes made of it) are drawn with replacement; a dash "
    "where a figure is undefined",
    "AUC": "area under the ROC curve: how often a fake scores above a real",
    "AP": "average precision of finding fakes; the share of fakes when guessing",
    "balanced accuracy": "mean of the shares of reals and of fakes classified "
    "correctly at .5",
    "EER": "error rate where the shares of misjudged reals and fakes are equal, on the "
    "ROC curve with straight lines between thresholds (Fawcett 2006); papers that take "
    "the nearest threshold differ by up to half an example",
    "log-loss": "mean negative logarithm of the true label's probability; .693 for .5",
    "TPR at 1 % FPR": "share of the fakes found when at most 1 of 100 reals is called "
    "fake; with fewer than 100 reals, when none is",
    "ECE": "expected calibration error: mean distance between the predicted "
    "probability and the share of fakes, in 15 bins; noise increases it, so that its "
    "interval is shifted upwards",
    "accuracy": "share classified correctly at .5",
    "Brier": "mean squared distance between probability and label",
    "TPR": "share of the fakes called fake at .5",
    "FPR": "share of the reals called fake at .5",
    "mean probability": "mean fake probability",
    "majority class": "a guess that knows only how frequent fakes are",
    "no pixels": "trees on size, format and compression of the files: how well the "
    "class can be predicted without any pixel",
    "by source, by method": "fakes of one source or method against all reals of the "
    "set; reals of one source alone have an FPR only",
    "head size": "root of the area in pixels of the original, before it is resized; "
    "without the margin where the data give it, and of the image where it is not "
    "cropped",
    "reliability": "a dot's area is its share of the images; lines are intervals",
}


def format_figure(figures: dict[str, Any], name: str) -> str:
    """Formats a figure with its interval, `0.791 [0.752, 0.828]`; NaN as a dash."""
    value = figures[name]
    if math.isnan(value):
        return "–"
    ends = figures[f"{name}_interval"]
    if any(math.isnan(end) for end in ends):
        return f"{value:.3f} [–]"
    # A line must not break within the brackets.
    return f"{value:.3f} [{ends[0]:.3f},\N{NO-BREAK SPACE}{ends[1]:.3f}]"


def format_title(results: Sequence[Result], place: int) -> str:
    """Formats the heading of a result, with its number where there are several."""
    named = f"{results[place].model} on {results[place].data}"
    return f"{place + 1}. {named}" if len(results) > 1 else named


def build_matrix(results: Sequence[Result]) -> document.Section:
    """Builds tables of AUC of each model on each set, by image and by video."""
    models = list(dict.fromkeys(result.model for result in results))
    sets = list(dict.fromkeys(result.data for result in results))
    blocks: list[document.Text | document.Table] = []
    for name in sets:
        of_set = [r.figures for r in results if r.data == name]
        for warning in dict.fromkeys(
            w for figures in of_set for w in figures["warnings"]
        ):
            blocks.append(document.Text(f"{name}: {warning}", is_warning=True))
    for level, noun in _LEVELS.items():
        rows: list[list[str | document.Link]] = []
        cells = {
            (result.model, result.data): document.Link(
                format_figure(result.figures[level], "auc"),
                format_title(results, place),
            )
            for place, result in enumerate(results)
        }
        rows += [[model, *(cells[model, name] for name in sets)] for model in models]
        for baseline, label in BASELINES.items():
            found = {r.data: r.figures["baselines"][baseline] for r in results}
            rows.append([label, *(_format_baseline_auc(found[n], level) for n in sets)])
        caption = f"AUC of {noun}"
        blocks.append(document.Table(["model", *sets], rows, caption))
    return document.Section("All models on all sets", blocks)


def _format_baseline_auc(baseline: dict[str, Any], level: str) -> str:
    return format_figure(baseline[level], "auc") if level in baseline else "–"


def tabulate_figures(
    figures: dict[str, Any], columns: dict[str, str], caption: str
) -> document.Table:
    """Tabulates the figures of model and baselines, by image and by video."""
    levels, rows = _choose_levels(figures), []
    for level, noun in levels.items():
        rows.append(
            [f"model, {noun}", *(format_figure(figures[level], c) for c in columns)]
        )
    for name, label in BASELINES.items():
        of = figures["baselines"][name]
        rows += [
            [f"{label}, {noun}", *(format_figure(of[level], c) for c in columns)]
            for level, noun in levels.items()
            if level in of
        ]
    return document.Table(["", *columns.values()], rows, caption)


def _choose_levels(figures: dict[str, Any]) -> dict[str, str]:
    """Chooses the levels to show: a single one where each image is its own video."""
    if figures["num_videos"] == figures["num_images"]:
        return {"metrics": "images = videos"}
    return _LEVELS


def tabulate_strata(figures: dict[str, Any], field: str) -> document.Table:
    """Tabulates the figures of each value of a field."""
    levels, rows = _choose_levels(figures), []
    for name, stratum in figures["strata"][field].items():
        reals = " (all)" if stratum["against"] == "all reals" else ""
        for level, noun in levels.items():
            of_level = stratum[level]
            rows.append(
                [
                    f"{name or 'none'}, {noun}",
                    f"{of_level['num_real']:,}{reals}",
                    f"{of_level['num_fake']:,}",
                    *(format_figure(of_level, column) for column in _STRATUM_COLUMNS),
                ]
            )
    columns = ["", "reals", "fakes", *_STRATUM_COLUMNS.values()]
    return document.Table(columns, rows, f"By {field.replace('_', ' ')}")


def explain_figures() -> document.Section:
    """Builds the section that explains each figure in a line."""
    rows = [[name, meaning] for name, meaning in _MEANINGS.items()]
    return document.Section("What the figures mean", [document.Table([], rows)])
