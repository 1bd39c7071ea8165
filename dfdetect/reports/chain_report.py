"""Report of the evaluation of a whole chain: `report.md`, its plots, `report.html`."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from dfdetect import files
from dfdetect import labels as label_names
from dfdetect.evaluation.chain_evaluation import VERDICTS, ChainResult
from dfdetect.reports import classification_plots, document
from dfdetect.reports.classification_tables import format_figure

_COLUMNS = {
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
}
_WAYS = {"chain": "whole images", "crops": "given heads", "gap": "gap"}
_HEADS = {"one": "exactly one", "none": "none", "several": "several"}
_STRATA = {
    "dataset": "By data set",
    "source": "By source",
    "head_size": "By the deciding head's share of the image's longer side",
    "given_head_size": "By the given head's share of the image's longer side",
}
_MEANINGS = {
    "whole images": "each image goes through the whole graph, as dfdetect detect sends "
    "it: the detector finds heads, the most suspicious one decides",
    "given heads": "the same images and the same classifier, but the head is the one "
    "that the data set gives: its box, cut with the graph's margin, or the whole image "
    "where there is no box",
    "gap": "whole images minus given heads, over the same resamples: what finding "
    "heads costs or gains",
    "no answer": "an image without a judged head counts as a guess: a fake probability "
    "of .5, and half correct at the threshold; 'answered' leaves such images out",
    "interval": "95 %, in brackets: percentiles over resamples in which whole groups "
    "(such as a video and the fakes made of it) are drawn with replacement; a dash "
    "where a figure is undefined",
    "AUC": "area under the ROC curve: how often a fake scores above a real",
    "balanced accuracy": "mean of the shares of reals and of fakes classified "
    "correctly at .5",
    "accuracy": "share classified correctly at .5",
    "exactly one, none, several": "shares of the images with one head, according to "
    "the data set, in which so many are found",
    "verdict": "by the graph's thresholds: fake, uncertain or real, or why there is "
    "none",
    "by source": "fakes of one source are compared with all reals of their data set; "
    "heads and numbers of images are those of the source",
    "deciding head": "the most suspicious head of an image; where none is large enough "
    "to be judged, the one with the best score",
}


def write_report(
    folder: str, together: ChainResult, results: Sequence[ChainResult]
) -> None:
    """Writes `report.md` with its plots, `report.html` and `predictions.csv`.

    Args:
        folder: Existing folder to write to.
        together: Result on all images; for a single data set, its result.
        results: Result on each data set.
    """
    shown = [together, *results] if len(results) > 1 else results
    sections = [
        _section(result, f"{place}_" if len(shown) > 1 else "")
        for place, result in enumerate(shown)
    ]
    meanings = [[name, meaning] for name, meaning in _MEANINGS.items()]
    sections.append(
        document.Section("What the figures mean", [document.Table([], meanings)])
    )
    names = sorted(set(together.answers.datasets.tolist()))
    title = f"Whole images through the chain: {', '.join(names)}"
    leaky = together.figures["leaky_split"]
    if leaky:
        title += " (LEAKY SPLIT)"
    pages = {
        "report.md": document.to_markdown(title, sections).encode(),
        "report.html": document.to_html(title, sections).encode(),
        "predictions.csv": together.answers.to_csv(together.thresholds, leaky),
    }
    for name, content in {**document.collect_images(sections), **pages}.items():
        files.write(os.path.join(folder, name), content)


def _section(result: ChainResult, prefix: str) -> document.Section:
    figures, answers = result.figures, result.answers
    ways = {
        _WAYS["chain"]: (answers.probabilities, figures["chain"]),
        _WAYS["crops"]: (answers.crop_probabilities, figures["crops"]),
    }
    guesses = {
        name: (np.nan_to_num(probabilities, nan=0.5), of_way)
        for name, (probabilities, of_way) in ways.items()
    }
    title = f"{figures['model']}\n{result.title}"
    if figures["leaky_split"]:
        title += "\nLEAKY SPLIT"
    curves = classification_plots.compare_roc(answers.labels, guesses, title)
    return document.Section(
        result.title,
        [
            *(document.Text(w, is_warning=True) for w in figures["warnings"]),
            document.Table([], _facts(figures)),
            _tabulate_ways(figures),
            _tabulate_heads(figures),
            _tabulate_verdicts(figures),
            *(
                _tabulate_strata(strata, _STRATA[name])
                for name, strata in figures["strata"].items()
            ),
            document.Image(
                f"{prefix}roc.png", curves, "ROC curves of whole images, given heads"
            ),
        ],
    )


def _facts(figures: dict[str, Any]) -> list[list[str]]:
    rows = {"model": figures["model"]}
    if "data" in figures:
        data = figures["data"]
        named = (data["name"], data["config"], data["version"])
        rows |= {
            "data": " ".join(filter(None, named)),
            "fingerprint": str(data["fingerprint"]),
            "chosen": " and ".join(figures["where"]) or "all records",
            "groups in two splits": f"{figures['num_leaks']:,}",
        }
    else:
        rows["data"] = "; ".join(figures["datasets"])
    band = figures["thresholds"]
    rows |= {
        "split": figures["split"],
        "images": f"{figures['num_images']:,}: {figures['num_real']:,} real, "
        f"{figures['num_fake']:,} fake",
        "groups": f"{figures['num_groups']:,}",
        "verdicts": f"fake from {band['fake_from']:.3f} on, "
        f"real below {band['real_below']:.3f}",
        "resamples": f"{figures['num_resamples']:,}, whole groups",
        "date": figures["date"],
    }
    return [[name, value] for name, value in rows.items()]


def _tabulate_ways(figures: dict[str, Any]) -> document.Table:
    """Tabulates whole images, given heads and the gap, of all and answered images."""
    rows = []
    for of, suffix in ((figures, ""), (figures["answered"], ", answered")):
        for way, label in _WAYS.items():
            cells = [format_figure(of[way], name) for name in _COLUMNS]
            rows.append([f"{label}{suffix}", f"{of['num_images']:,}", *cells])
    return document.Table(["", "images", *_COLUMNS.values()], rows, "Real or fake")


def _tabulate_heads(figures: dict[str, Any]) -> document.Table:
    heads = figures["heads"]
    rows = [
        [
            "images that hold one head",
            f"{heads['num_one_head']:,}",
            *(format_figure(heads, name) for name in _HEADS),
        ],
        [
            "all images",
            f"{figures['num_images']:,}",
            *(f"{heads['counts'][name]:,}" for name in _HEADS),
        ],
    ]
    return document.Table(["", "images", *_HEADS.values()], rows, "Heads found")


def _tabulate_verdicts(figures: dict[str, Any]) -> document.Table:
    given = [
        name
        for name in VERDICTS
        if any(
            counts[name]
            for of_way in figures["verdicts"].values()
            for counts in of_way.values()
        )
    ]
    rows = [
        [f"{label}, {_WAYS[way]}", *(f"{of_way[label][name]:,}" for name in given)]
        for label in label_names.NAMES
        for way, of_way in figures["verdicts"].items()
    ]
    columns = ["", *(name.replace("_", " ") for name in given)]
    return document.Table(columns, rows, "Verdicts")


def _tabulate_strata(strata: dict[str, Any], caption: str) -> document.Table:
    rows = []
    for value, stratum in strata.items():
        reals = " (+ all reals)" if stratum["against"] == "all reals" else ""
        heads = stratum["heads"]
        rows.append(
            [
                value or "none",
                f"{stratum['num_real']:,}{reals}",
                f"{stratum['num_fake']:,}",
                *(format_figure(heads, name) for name in _HEADS),
                *(format_figure(stratum[way], "auc") for way in _WAYS),
                *(
                    format_figure(stratum[way], "accuracy")
                    for way in ("chain", "crops")
                ),
            ]
        )
    columns = [
        "",
        "reals",
        "fakes",
        *_HEADS.values(),
        *(f"AUC, {label}" for label in _WAYS.values()),
        f"accuracy, {_WAYS['chain']}",
        f"accuracy, {_WAYS['crops']}",
    ]
    return document.Table(columns, rows, caption)
