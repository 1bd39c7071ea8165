"""Summaries of evaluations for a terminal: the figures to look at first, by line."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dfdetect.reports import classification_tables

Row = tuple[str, str]

_OF_CLASSIFIER = ("auc", "balanced_accuracy", "eer", "tpr_at_1_percent_fpr")
_OF_DETECTOR = {"ap": "AP at IoU .5", "voc_ap": "VOC AP (HollywoodHeads' protocol)"}
_OF_COCO = {"ap": "COCO AP, IoU .50:.95", "ap75": "COCO AP, IoU .75"}
_WAYS = {"chain": "whole images", "crops": "given heads", "gap": "gap"}
_MAKERS = ("source", "method")  # Strata that name makers, the first of them is shown.


def summarize_figures(figures: Mapping[str, Any]) -> list[str]:
    """Summarizes the figures of any task of `train/evaluate.py`.

    Args:
        figures: What `metrics.json` gets, with NaN where it has null.

    Returns:
        Lines of text: a title, and figures by name with their 95 % intervals, for each
        model and data set.
    """
    summarize = {
        "classify": _summarize_classifiers,
        "detect": _summarize_detector,
        "video": _summarize_clips,
        "chain": _summarize_chain,
    }
    return list(summarize[figures["task"]](figures))


def _summarize_classifiers(figures: Mapping[str, Any]) -> Iterator[str]:
    for place, result in enumerate(figures.get("results", [figures])):
        if place:
            yield ""
        yield _format_title(result)
        counted = "images", "videos", "groups"
        numbers = ", ".join(f"{result[f'num_{x}']:,} {x}" for x in counted)
        yield f"  {numbers}; {result['num_real']:,} real, {result['num_fake']:,} fake"
        yield from _align(_list_classifier_rows(result))
    yield from _align(_list_lowest_pairs(figures))


def _list_classifier_rows(result: Mapping[str, Any]) -> Iterator[Row]:
    levels = {"metrics": ""}
    if result["num_videos"] != result["num_images"]:
        levels["video_metrics"] = ", of videos"
    for level, suffix in levels.items():
        for name in _OF_CLASSIFIER:
            label = classification_tables.COLUMNS[name]
            yield f"{label}{suffix}", _format(result[level], name)
    blind = result["baselines"]["no_pixels"]
    if "metrics" in blind:
        yield "AUC without pixels", _format(blind["metrics"], "auc")
    field = next((name for name in _MAKERS if name in result["strata"]), None)
    if field is not None:
        strata = result["strata"][field]
        areas = {name: strata[name]["metrics"]["auc"] for name in strata}
        known = [name for name in areas if not math.isnan(areas[name])]
        if known:
            lowest = min(known, key=lambda name: areas[name])
            yield (
                f"lowest AUC by {field}",
                f"{_format(strata[lowest]['metrics'], 'auc')}: {lowest or 'none'}",
            )


def _list_lowest_pairs(figures: Mapping[str, Any]) -> Iterator[Row]:
    """Yields each model's lowest AUC of a maker's fakes against a source's reals."""
    pairs = figures.get("source_pairs", {})
    for one in () if "reason" in pairs else pairs:
        # With one maker and one source it is the AUC above.
        if len(one["pairs"]) > 1:
            lowest = min(one["pairs"], key=lambda pair: pair["auc"])
            yield (
                f"lowest pair of {one['model']}",
                f"{_format(lowest, 'auc')}: {lowest['maker']} against reals of "
                f"{lowest['source']}",
            )


def _summarize_detector(figures: Mapping[str, Any]) -> Iterator[str]:
    metrics = figures["metrics"]
    yield _format_title(figures)
    yield f"  {metrics['num_images']:,} images, {metrics['num_true']:,} heads to find"
    rows = [(label, _format(metrics, name)) for name, label in _OF_DETECTOR.items()]
    rows += [
        (label, f"{metrics['coco'][name]:.3f}") for name, label in _OF_COCO.items()
    ]
    rows += [
        (f"recall at {rate} false boxes an image", f"{value:.3f}")
        for rate, value in metrics["recall_at_fppi"].items()
    ]
    threshold = (
        f"{metrics['f1']:.3f} from a score of {metrics['f1_score_threshold']:.2f}"
    )
    yield from _align([*rows, ("highest F1", threshold)])


def _summarize_clips(figures: Mapping[str, Any]) -> Iterator[str]:
    metrics = figures["metrics"]
    yield _format_title(figures)
    yield (
        f"  {figures['num_clips']:,} clips, {metrics['num_groups']:,} groups; with an "
        f"answer {metrics['num_real']:,} real, {metrics['num_fake']:,} fake"
    )
    rows = [
        (classification_tables.COLUMNS[name], _format(metrics, name))
        for name in _OF_CLASSIFIER
    ]
    main = figures["main_person"]["metrics"]
    rows.append(("AUC of main persons", _format(main, "auc")))
    rows += [
        (f"no answer: {name}", str(n)) for name, n in figures["unanswered"].items()
    ]
    yield from _align(rows)


def _summarize_chain(figures: Mapping[str, Any]) -> Iterator[str]:
    yield _format_title(figures)
    answered = figures["answered"]["num_images"]
    yield (
        f"  {figures['num_images']:,} images, {figures['num_groups']:,} groups; "
        f"{figures['num_real']:,} real, {figures['num_fake']:,} fake; "
        f"{answered:,} with an answer"
    )
    names = {"auc": "AUC", "balanced_accuracy": "balanced accuracy"}
    rows = [
        (f"{label}, {way}", _format(figures[key], name))
        for name, label in names.items()
        for key, way in _WAYS.items()
    ]
    for field in ("dataset", *_MAKERS):
        for value, stratum in figures["strata"].get(field, {}).items():
            if not math.isnan(stratum["chain"]["auc"]):
                name = value or f"no {field}"
                rows.append((f"AUC, {name}", _format(stratum["chain"], "auc")))
    yield from _align(rows)


def _format_title(figures: Mapping[str, Any]) -> str:
    if "datasets" in figures:
        data = ", ".join(figures["datasets"])
    elif "data" in figures:
        named = figures["data"]["name"], figures["data"]["config"]
        data = f"{'/'.join(filter(None, named))}, {figures['split']}"
    else:
        data = figures["clips"]
    conditions = "".join(f", where {c}" for c in figures.get("where", ()))
    step = f" step {figures['step']}" if figures.get("step") else ""
    leak = " (LEAKY SPLIT)" if figures.get("leaky_split") else ""
    return f"{figures['model']}{step} on {data}{conditions}{leak}"


def _format(figures: Mapping[str, Any], name: str) -> str:
    return classification_tables.format_figure(dict(figures), name).replace("\xa0", " ")


def _align(rows: Iterator[Row] | Sequence[Row]) -> list[str]:
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    return [f"  {name:{width}}  {value}" for name, value in listed]
