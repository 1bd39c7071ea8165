"""Writes a prepared data set of labelled pictures as files and lists of them.

    python datasets/export_lists.py --data_dir=DATA --dataset=NAME --output=LISTS

For tools that read no TFDS. LISTS gets

* `images/<split>/...`: the bytes of each record, unchanged, with the ending of their
  format; names keep what can be printed of the record's, behind its number;
* `labels/<split>/...txt`: `0` (real) or `1` (fake), beside each of `images/`;
* `train.txt`, `val.txt`, `test.txt`: a line `path label` a picture, the path from LISTS
  on. It may hold spaces: the label is what follows the last one.
* `lists.json`: what went in, and the counts by split and label.

`--balanced` takes as many real as fake pictures of each split. Which of the larger
class stay depends on their names and `--seed` alone. A run that was stopped goes on
with the same command; the lists come last. The exit code is 2 for a usage error, other
files in LISTS among them, and 1 where the data cannot be used.
"""

import array
import hashlib
import os
from collections.abc import Callable

# Before TensorFlow is imported: its start-up notes would bury the messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow_datasets as tfds
from absl import flags, logging

from dfdetect import data, labels, progress, records, resumable, script
from dfdetect.building import builder as dataset_builder

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets.", required=True
)
_DATASET = flags.DEFINE_string(
    "dataset", None, "A prepared data set; NAME or NAME/CONFIG.", required=True
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of the lists; made when missing.", required=True
)
_BALANCED = flags.DEFINE_bool(
    "balanced", False, "As many real as fake pictures in each split."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the choice for --balanced.")

_LIST_NAMES = {"validation": "val"}  # Others go by the name of their split.
_AT_ONCE = 64  # Pictures of one line in the journal.


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # TFDS warns of its own innards.
    builder = data.open_builder(os.path.expanduser(_DATA_DIR.value), _DATASET.value)
    records.check(builder)
    output = os.path.expanduser(_OUTPUT.value)
    settings = {"dataset": records.describe(builder), "balanced": _BALANCED.value}
    if _BALANCED.value:
        settings["seed"] = _SEED.value
    with resumable.Output(output, "lists.json", settings) as folder:
        if folder.finished:
            script.say(f"{output} is finished already.")
            return
        _write_pictures(builder, folder)
        _write_lists(list(builder.info.splits), folder)
        script.say(f"{output} is finished.")


def _write_pictures(
    builder: tfds.core.DatasetBuilder, folder: resumable.Output
) -> None:
    """Writes the files of all records that the journal does not have yet."""
    done = {step["split"]: step["read"] for step in folder.steps()}
    splits = builder.info.splits
    is_chosen = {
        split: _balance(builder, split) if _BALANCED.value else lambda _: True
        for split in splits
    }
    total = sum(info.num_examples for info in splits.values())
    with progress.Progress(total, script.say, "picture", sum(done.values())) as shown:
        for split, info in splits.items():
            written = []
            for record in records.read(builder, split, done.get(split, 0)):
                chosen = is_chosen[split](record)
                if chosen:
                    written.append([_write(record, folder), record.label])
                read = record.index + 1
                if read % _AT_ONCE == 0 or read == info.num_examples:
                    folder.append({"split": split, "read": read, "pictures": written})
                    written = []
                shown.count("written" if chosen else "left out")


def _write(record: records.Record, folder: resumable.Output) -> str:
    """Writes the two files of a record; returns the path of the picture."""
    stem = records.path_stem(record)
    ending = dataset_builder.image_format(record.image_bytes).lower() or "bin"
    path = f"images/{stem}.{ending}"
    folder.write(path, record.image_bytes)
    folder.write(f"labels/{stem}.txt", f"{record.label}\n".encode())
    return path


def _balance(
    builder: tfds.core.DatasetBuilder, split: str
) -> Callable[[records.Record], bool]:
    """Whether a record is among as many of its class as the smaller class has.

    Raises:
        ValueError: A class is missing.
    """
    ranks = [array.array("Q") for _ in labels.NAMES]
    for record in records.read(builder, split, with_images=False):
        ranks[record.label].append(_rank(record))
    smaller = min(map(len, ranks))
    if not smaller:
        name = labels.NAMES[min(range(len(ranks)), key=lambda i: len(ranks[i]))]
        raise ValueError(f"{split} cannot be balanced: it has no {name} pictures.")
    highest = [sorted(of_label)[smaller - 1] for of_label in ranks]
    return lambda record: _rank(record) <= highest[record.label]


def _rank(record: records.Record) -> int:
    """A number that is as good as random, and the same wherever the record stands."""
    digest = hashlib.sha256(f"{_SEED.value}\0{record.filename}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _write_lists(splits: list[str], folder: resumable.Output) -> None:
    counts = {split: dict.fromkeys(labels.NAMES, 0) for split in splits}
    for split in splits:
        with folder.text(f"{_LIST_NAMES.get(split, split)}.txt") as file:
            for step in folder.steps():
                for path, label in step["pictures"] if step["split"] == split else ():
                    file.write(f"{path} {label}\n")
                    counts[split][labels.NAMES[label]] += 1
    folder.finish({"counts": counts})


if __name__ == "__main__":
    script.run(main)
