"""Measures simple methods on a prepared data set of labeled images.

    python train/baseline.py --data_dir=DATA --dataset=NAME [--output=measured]

Trains on `train`, chooses settings on `validation` and measures on `--split`. It needs
only `pip install dfdetect`.

With --retrieval it measures instead how often altered copies find their originals, and
fakes their sources, by visual words of Harris corners and by a perceptual hash (pip
install dfdetect[audit]); `train/evaluate_retrieval.py` measures our embeddings in the
same way.
"""

import os
from typing import Any

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import absl.logging
import tensorflow_datasets as tfds
from absl import flags

from dfdetect import console, files, script
from dfdetect.data import prepared, records
from dfdetect.evaluation import baselines, hand_crafted_features, retrieval_evaluation
from dfdetect.evaluation.audit import near_duplicates
from dfdetect.evaluation.figures import to_json

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets.", required=True
)
_DATASET = flags.DEFINE_string(
    "dataset", None, "A prepared data set; NAME or NAME/CONFIG.", required=True
)
_SPLIT = flags.DEFINE_string("split", "test", "The split to measure on.")
flags.register_validator(
    "split", lambda split: split != "train", "must not be train, which is trained on."
)
_METHOD = flags.DEFINE_list(
    "method",
    list(baselines.METHODS),
    f"Some of {','.join(baselines.METHODS)}, separated by commas.",
)
flags.register_validator(
    "method",
    lambda names: names and set(names) <= set(baselines.METHODS),
    f"must be some of {','.join(baselines.METHODS)}.",
)
_RETRIEVAL = flags.DEFINE_bool(
    "retrieval", False, "Measure lookup instead of classification."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of vocabulary, forest and intervals.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder for baselines.json and baselines.md, or a .json file."
)


def main(argv: list[str]) -> None:
    absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS warns about its internals.
    if _RETRIEVAL.value:
        _measure_lookup()
        return
    names = list(dict.fromkeys(_METHOD.value))
    features = sorted({baselines.METHODS[name].feature for name in names})
    builder = prepared.open_builder(os.path.expanduser(_DATA_DIR.value), _DATASET.value)
    splits = {"train": "train", "test": _SPLIT.value}
    # Settings are not chosen on the measured split.
    if "validation" in builder.info.splits and _SPLIT.value != "validation":
        splits["validation"] = "validation"
    total = sum(
        builder.info.splits[split].num_examples
        for split in splits.values()
        if split in builder.info.splits
    )
    with console.Progress(total, script.say, noun="image") as bar:
        surveys = {
            role: hand_crafted_features.build_feature_table(
                builder, split, features, bar.count
            )
            for role, split in splits.items()
        }
    measured = baselines.measure_baselines(
        surveys["train"],
        surveys.get("validation"),
        surveys["test"],
        names,
        _SEED.value,
        script.say,
    )
    _report(builder, baselines.format_table(measured), measured)


def _measure_lookup() -> None:
    builder = prepared.open_builder(os.path.expanduser(_DATA_DIR.value), _DATASET.value)
    records.check_labeled(builder)
    sizes = {x: info.num_examples for x, info in builder.info.splits.items()}
    total = sizes.get("train", 0) + sum(sizes.values())
    with console.Progress(total, script.say, noun="image") as bar:
        descriptions = {
            "harris": baselines.build_harris_description(
                builder, _SEED.value, bar.count
            ),
            "perceptual_hash": near_duplicates.describe,
        }
        measured = retrieval_evaluation.measure_descriptions(
            builder,
            _SPLIT.value,
            descriptions=descriptions,
            seed=_SEED.value,
            count=bar.count,
        )
    _report(builder, retrieval_evaluation.format_table(measured), measured)


def _report(
    builder: tfds.core.DatasetBuilder, lines: list[str], measured: dict[str, Any]
) -> None:
    """Prints the table, and writes it if --output asks for it."""
    print("\n".join(lines))
    output = _OUTPUT.value or ""
    if output and not output.endswith(".json"):
        os.makedirs(output, exist_ok=True)
        heading = [f"# Baselines on {_DATASET.value}, {_SPLIT.value}", ""]
        text = "\n".join([*heading, *lines, ""])
        files.write(os.path.join(output, "baselines.md"), text.encode())
        output = os.path.join(output, "baselines.json")
    if output:
        figures = {
            "split": _SPLIT.value,
            "data": prepared.describe_dataset(builder),
            "seed": _SEED.value,
            **measured,
        }
        files.write(output, f"{to_json(figures)}\n".encode())


if __name__ == "__main__":
    script.run_main(main)
