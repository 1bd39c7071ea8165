"""Report of a classifier's evaluation: `report.md`, its plots and `report.html`."""

import os
from collections.abc import Sequence
from typing import Any

from dfdetect import files
from dfdetect.evaluation.classifiers import Result
from dfdetect.reports import (
    classification_plots,
    classification_tables,
    document,
    robustness_report,
)


def write_report(
    folder: str,
    results: Sequence[Result],
    leading: Sequence[document.Section] = (),
) -> None:
    """Writes `report.md` with its images, `report.html` and `predictions.csv`.

    Each of several results has its own images and table of predictions, whose names
    begin with its number.

    Args:
        folder: Existing folder to write to.
        results: Results, one for each model and data set.
        leading: Sections about all results, which come first.
    """
    many = len(results) > 1
    sections = [
        *leading,
        *([classification_tables.build_matrix(results)] if many else []),
    ]
    for place, result in enumerate(results):
        prefix = f"{place + 1}_" if many else ""
        sections.append(
            _section(result, classification_tables.format_title(results, place), prefix)
        )
        table = result.predictions.to_csv(result.figures["leaky_split"])
        files.write(os.path.join(folder, f"{prefix}predictions.csv"), table)
    sections.append(classification_tables.explain_figures())
    names = sorted({result.figures["data"]["name"] for result in results})
    title = f"Deepfake classification: {', '.join(names)}"
    if any(result.figures["leaky_split"] for result in results):
        title += " (LEAKY SPLIT)"
    pages = {
        "report.md": document.to_markdown(title, sections).encode(),
        "report.html": document.to_html(title, sections).encode(),
    }
    for name, content in {**document.collect_images(sections), **pages}.items():
        files.write(os.path.join(folder, name), content)


def _section(result: Result, title: str, prefix: str) -> document.Section:
    figures, predictions = result.figures, result.predictions
    of_plots = f"{result.model} on {result.data}"
    if figures["leaky_split"]:
        of_plots += "\nLEAKY SPLIT"
    drawn = {
        "roc": (
            classification_plots.draw_roc(
                predictions, figures, result.metadata_probabilities, of_plots
            ),
            "ROC curve",
        ),
        "reliability": (
            classification_plots.draw_reliability(
                predictions, figures["num_resamples"], of_plots
            ),
            "Reliability: predicted probability and share of fakes",
        ),
        "scores": (
            classification_plots.draw_scores(predictions, of_plots),
            "Distribution of the probabilities",
        ),
    }
    return document.Section(
        title,
        [
            *(document.Text(w, is_warning=True) for w in figures["warnings"]),
            document.Table([], _facts(figures)),
            classification_tables.tabulate_figures(
                figures, classification_tables.COLUMNS, "Figures"
            ),
            *(
                document.Image(f"{prefix}{name}.png", content, caption)
                for name, (content, caption) in drawn.items()
            ),
            classification_tables.tabulate_figures(
                figures,
                classification_tables.FURTHER_COLUMNS,
                "Further figures, at a threshold of .5",
            ),
            *(
                classification_tables.tabulate_strata(figures, field)
                for field in figures["strata"]
            ),
            *(
                robustness_report.build_blocks(figures["robustness"], prefix)
                if "robustness" in figures
                else ()
            ),
        ],
    )


def _facts(figures: dict[str, Any]) -> list[list[str]]:
    data, counts = figures["data"], figures
    trained = [
        f"{_data_name(each)}, "
        + ("this set" if each["fingerprint"] == data["fingerprint"] else "another set")
        for each in figures["classifier"]["trained_on"]
    ]
    size = figures["classifier"]["image_size"]
    rows = {
        "model": f"{figures['model']} ({figures['classifier']['model']}"
        + (f", {size} px)" if size else ")"),
        "trained on": "; ".join(trained) or "unknown",
        "data": _data_name(data),
        "fingerprint": str(data["fingerprint"]),
        "split": f"{figures['split']}; all: "
        + ", ".join(f"{count:,} {name}" for name, count in data["splits"].items()),
        "chosen": " and ".join(figures["where"]) or "all records",
        "images": f"{counts['num_images']:,}: {counts['num_real']:,} real, "
        f"{counts['num_fake']:,} fake",
        "videos, groups": f"{counts['num_videos']:,}, {counts['num_groups']:,}",
        "groups in two splits": f"{counts['num_leaks']:,}; looked at: "
        + ", ".join(figures["leak_kinds"]),
        "resamples": f"{counts['num_resamples']:,}, whole groups",
        "date": figures["date"],
    }
    for name, label in classification_tables.BASELINES.items():
        found = figures["baselines"][name]
        rows[label] = found.get("about") or f"no figures: {found['reason']}"
    return [[name, value] for name, value in rows.items()]


def _data_name(data: dict[str, Any]) -> str:
    named = data.get("name"), data.get("config"), data.get("version")
    return " ".join(filter(None, named))
