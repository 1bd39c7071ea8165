"""Tables of makers against sources of reals, for a classifier's report."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dfdetect.reports import classification_tables, document

_BASELINES = {"low_level": "low level", "no_pixels": "no pixels"}

_ABOUT = (
    "AUC of the fakes of each maker against the reals of each source. Low level: a "
    "logistic regression of mean color, sharpness and spectrum slope of the same "
    "crops; no pixels: trees on size, format and compression of the files; both judge "
    "groups that they were not fitted to. Where a baseline's AUC is high, the model "
    "may rely on the same shortcut."
)
_ABOUT_LEFT_OUT = (
    "Each row is a maker, judged by a model that was, or was not, trained on its "
    "fakes. Rely only on the least figure of a row."
)


def build_sections(figures: Mapping[str, Any]) -> list[document.Section]:
    """Builds the sections about makers and sources; empty without pairs.

    Args:
        figures: See `maker_evaluation.measure_makers`.
    """
    if "reason" in figures["source_pairs"]:
        return []
    sections = [list_pairs(x["model"], x["pairs"]) for x in figures["source_pairs"]]
    if "leave_one_out" in figures:
        sections.insert(0, show_left_out(figures["leave_one_out"]))
    return sections


def list_pairs(name: str, pairs: Sequence[Mapping[str, Any]]) -> document.Section:
    """Lists the pairs of one model.

    Args:
        name: Name of the model.
        pairs: See `source_pairs.measure_pairs`.
    """
    title = f"Makers against sources of reals: {name}"
    rows = [
        [
            pair["maker"],
            pair["source"],
            f"{pair['num_fake']:,}",
            f"{pair['num_real']:,}",
            classification_tables.format_figure(dict(pair), "auc"),
            *(_baseline(pair.get(key, {})) for key in _BASELINES),
        ]
        for pair in pairs
    ]
    columns = ["maker", "reals of", "fakes", "reals", "AUC", *_BASELINES.values()]
    return document.Section(
        title, [document.Table(columns, rows), document.Text(_ABOUT)]
    )


def show_left_out(measured: Mapping[str, Any]) -> document.Section:
    """Shows the matrix of `leave_one_out.measure_left_out`, unseen makers first."""
    blocks: list[document.Block] = [document.Text(_ABOUT_LEFT_OUT)]
    for kind in ("unseen", "seen"):
        of_kind = measured[kind]
        if not of_kind["rows"]:
            blocks.append(document.Text(f"No maker of these sets is {kind}."))
            continue
        sources = list(of_kind["rows"][0]["against"])
        mean = f"mean of the least: {of_kind['mean_least']:.3f}"
        blocks.append(
            document.Table(
                ["maker", "model", *sources, "least"],
                list(_rows(of_kind["rows"])),
                f"AUC of {kind} makers; {mean}",
            )
        )
    return document.Section(f"Leave one {measured['field']} out", blocks)


def summarize_left_out(measured: Mapping[str, Any]) -> list[str]:
    """Summarizes the least figure of each row and their mean, a line each."""
    lines = []
    for kind in ("unseen", "seen"):
        for row in measured[kind]["rows"]:
            least = classification_tables.format_figure(row["least"], "auc")
            lines.append(
                f"{row['maker']} ({kind}) by {row['model']}: at least {least}, "
                f"against {row['least']['source']}"
            )
        if not math.isnan(measured[kind]["mean_least"]):
            lines.append(
                f"mean of the least, {kind}: {measured[kind]['mean_least']:.3f}"
            )
    return lines


def _rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for row in rows:
        yield [
            row["maker"],
            row["model"],
            *(
                classification_tables.format_figure(figures, "auc")
                for figures in row["against"].values()
            ),
            f"{row['least']['auc']:.3f}",
        ]


def _baseline(found: Mapping[str, Any]) -> str:
    return (
        classification_tables.format_figure(dict(found), "auc")
        if "auc" in found
        else "–"
    )
