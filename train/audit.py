"""Audits a prepared data set before a model is trained on it.

    python train/audit.py --data_dir=DATA --dataset=NAME [--embeddings]
        [--output=audit.json]

It finds (a) groups (videos, actors, films) in two splits, or that images were split one
by one (`--leaky_random_split`), (b) near-duplicate images in two splits, by perceptual
hash, (c) how well trees without pixels predict the label, and with --embeddings (d)
images in two splits with the same content. The exit code is 3 if (a) or (b) found any,
2 for a usage error, 1 if the audit failed; (c) and (d) only warn: a shortcut may lie in
the nature of the data, and similarity does not prove a copy.
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

# The graph runs on TensorFlow, whichever backend Keras is set to.
os.environ["KERAS_BACKEND"] = "tensorflow"

import absl.logging
import numpy as np
import tensorflow_datasets as tfds
from absl import flags

from dfdetect import console, files, script
from dfdetect.data import prepared
from dfdetect.evaluation.audit import (
    embedded_duplicates,
    metadata_baseline,
    near_duplicates,
    scan,
)
from dfdetect.evaluation.audit import leaks as groups
from dfdetect.evaluation.audit.survey import Survey

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets.", required=True
)
_DATASET = flags.DEFINE_string(
    "dataset", None, "A prepared data set; NAME or NAME/CONFIG.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file of all findings.")
_MAX_DISTANCE = flags.DEFINE_integer(
    "max_distance",
    near_duplicates.MAX_DISTANCE,
    "Number of bits, of 256, in which the hashes of near duplicates may differ.",
    lower_bound=0,
    upper_bound=128,
)
_EMBEDDINGS = flags.DEFINE_bool(
    "embeddings", False, "Look for near duplicates by embedding as well; takes minutes."
)
_MIN_SIMILARITY = flags.DEFINE_float(
    "min_similarity",
    embedded_duplicates.MIN_SIMILARITY,
    "Smallest cosine of the embeddings of near duplicates.",
    lower_bound=0.0,
    upper_bound=1.0,
)
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "Exported graph that embeds, or a folder of its versions; by default our weights.",
)
_LISTED = flags.DEFINE_integer(
    "num_listed",
    20,
    "Findings of each kind to print; the JSON file has all.",
    lower_bound=0,
)


def audit() -> dict[str, Any]:
    """Runs all checks; see the module."""
    builder = prepared.open_builder(os.path.expanduser(_DATA_DIR.value), _DATASET.value)
    total = sum(info.num_examples for info in builder.info.splits.values())
    with console.Progress(total, script.say, noun="image") as bar:
        survey = scan.scan_dataset(builder, bar.count)
    duplicates = _find_duplicates(builder, survey, total) if _EMBEDDINGS.value else None
    return {
        "data": prepared.describe_dataset(builder),
        "num_flat": int((~survey.comparable).sum()),
        "group_leaks": groups.find_all(builder, survey),
        "near_duplicates": near_duplicates.find_pairs(survey, _MAX_DISTANCE.value),
        "max_distance": _MAX_DISTANCE.value,
        "no_pixel_baseline": metadata_baseline.measure_baseline(survey),
        "embedded_duplicates": duplicates,
    }


def _find_duplicates(
    builder: tfds.core.DatasetBuilder, survey: Survey, total: int
) -> list[dict[str, Any]]:
    # Imported late: a graph takes a while to build.
    from dfdetect.export import saved_pipeline
    from dfdetect.pipeline import build

    model: Any = (
        saved_pipeline.load(_MODEL.value, script.say)
        if _MODEL.value
        else build.build_from_directories()
    )

    def embed(contents: Sequence[bytes]) -> np.ndarray:
        return model.embed_content(np.array(contents, object))["embedding"].numpy()

    with console.Progress(total, script.say, noun="image") as bar:
        return embedded_duplicates.find_pairs(
            builder,
            survey,
            embed=embed,
            min_similarity=_MIN_SIMILARITY.value,
            count=bar.count,
        )


def show(found: dict[str, Any]) -> None:
    """Prints the findings for a person."""
    sizes = ", ".join(f"{n:,} {name}" for name, n in found["data"]["splits"].items())
    print(f"# {_DATASET.value}: {sizes}\n")
    leaks = found["group_leaks"]
    print(f"## (a) Groups in two splits: {len(leaks):,}\n")
    _print_rows(
        ("kind", "name", "records"),
        [
            (
                leak["kind"],
                leak["name"],
                ", ".join(f"{n} {split}" for split, n in leak["splits"].items()),
            )
            for leak in leaks
        ],
    )
    pairs = found["near_duplicates"]
    print(
        f"## (b) Near duplicates in two splits: {len(pairs):,} pairs within "
        f"{found['max_distance']} of 256 bits; {found['num_flat']:,} flat images "
        "were not compared\n"
    )
    _print_rows(
        ("bits", "image", "near duplicate"),
        [
            (
                str(pair["distance"]),
                *(
                    f"{split}: {name}"
                    for split, name in zip(pair["split"], pair["filename"], strict=True)
                ),
            )
            for pair in pairs
        ],
    )
    _show_baseline(found["no_pixel_baseline"])
    if found["embedded_duplicates"] is not None:
        _show_duplicates(found["embedded_duplicates"])


def _show_duplicates(pairs: list[dict[str, Any]]) -> None:
    print(
        f"## (d) Alike by embedding in two splits: {len(pairs):,} pairs of a cosine of "
        f"{_MIN_SIMILARITY.value} or more; look at them\n"
    )
    _print_rows(
        ("cosine", "image", "like it"),
        [
            (
                f"{pair['similarity']:.3f}",
                *(
                    f"{split}: {name}"
                    for split, name in zip(pair["split"], pair["filename"], strict=True)
                ),
            )
            for pair in pairs
        ],
    )


def _show_baseline(baseline: dict[str, Any]) -> None:
    if "reason" in baseline:
        print(f"## (c) Without pixels: no figure, as {baseline['reason']}")
        return
    low, high = baseline["interval"]
    print(
        f"## (c) Without pixels: AUC {baseline['auc']:.3f} [{low:.3f}, {high:.3f}], "
        f"accuracy {baseline['accuracy']:.3f} (majority "
        f"{baseline['majority_share']:.3f})\n"
    )
    if baseline["warning"]:
        print(f"**WARNING: {baseline['warning']}**\n")
    _print_rows(
        ("feature", "AUC alone"),
        [(name, f"{auc:.3f}") for name, auc in baseline["single"].items()],
    )


def _print_rows(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    if not rows or not _LISTED.value:
        return
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows[: _LISTED.value]:
        print("| " + " | ".join(row) + " |")
    if len(rows) > _LISTED.value:
        print(f"\n... and {len(rows) - _LISTED.value:,} more")
    print()


def main(argv: list[str]) -> None:
    """Audits, prints, and writes the findings if --output asks for them."""
    absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS warns about its internals.
    found = audit()
    show(found)
    if _OUTPUT.value:
        text = json.dumps(found, indent=2, ensure_ascii=False)
        files.write(_OUTPUT.value, f"{text}\n".encode())
    sys.exit(3 if found["group_leaks"] or found["near_duplicates"] else 0)


if __name__ == "__main__":
    script.run_main(main)
