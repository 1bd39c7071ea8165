"""Writes a prepared data set of labelled images as files and lists of them.

The folder that it makes holds

* `images/<split>/...`: the bytes of each record, unchanged, with the ending of their
  format; names keep what can be printed of the record's, behind its number;
* `labels/<split>/...txt`: `0` (real) or `1` (fake), for each of `images/`;
* `train.txt`, `val.txt`, `test.txt`: a line `path label` an image, the path from the
  folder on. It may hold spaces: the label is what follows the last one;
* `lists.json`: the settings with the data set's name, version and fingerprint, and the
  counts by split and label.
"""

import array
import hashlib
from collections.abc import Callable

import tensorflow_datasets as tfds

from dfdetect import console, labels, resumable
from dfdetect.data import prepared, records
from dfdetect.data.builders import base

SUMMARY = "lists.json"

Choice = Callable[[records.Record], bool]

_LIST_NAMES = {"validation": "val"}  # Others go by the name of their split.
_AT_ONCE = 64  # Images of one line in the journal.


def export(
    builder: tfds.core.DatasetBuilder,
    output: str,
    say: Callable[[str], None],
    balanced: bool = False,
    seed: int = 0,
) -> None:
    """Fills `output`, see the module, or goes on where a run with these settings ended.

    Args:
        builder: A prepared data set of labelled images.
        output: The folder.
        say: Prints a line.
        balanced: Take as many real as fake images of each split. Which of the larger
            class stay depends on their names and the seed alone.
        seed: Of that choice.

    Raises:
        ValueError: The data set cannot be used.
        OSError: See `resumable.Output`.
    """
    records.check(builder)
    settings = {"dataset": prepared.describe(builder), "balanced": balanced}
    if balanced:
        settings["seed"] = seed
    with resumable.Output(output, SUMMARY, settings) as folder:
        if folder.finished:
            say(f"{output} is finished already.")
            return
        choices = {
            split: _balance(builder, split, seed) if balanced else lambda _: True
            for split in builder.info.splits
        }
        _write_images(builder, choices, folder, say)
        _write_lists(list(choices), folder)
        say(f"{output} is finished.")


def _write_images(
    builder: tfds.core.DatasetBuilder,
    choices: dict[str, Choice],
    folder: resumable.Output,
    say: Callable[[str], None],
) -> None:
    """Writes the files of all records that the journal does not have yet."""
    done = {step["split"]: step["read"] for step in folder.steps()}
    splits = builder.info.splits
    total = sum(info.num_examples for info in splits.values())
    with console.Progress(total, say, "image", sum(done.values())) as shown:
        for split, info in splits.items():
            written = []
            for record in records.read(builder, split, done.get(split, 0)):
                chosen = choices[split](record)
                if chosen:
                    written.append([_write(record, folder), record.label])
                read = record.index + 1
                if read % _AT_ONCE == 0 or read == info.num_examples:
                    folder.append({"split": split, "read": read, "pictures": written})
                    written = []
                shown.count("written" if chosen else "left out")


def _write(record: records.Record, folder: resumable.Output) -> str:
    """Writes the two files of a record; returns the path of the image."""
    stem = records.path_stem(record)
    ending = base.image_format(record.image_bytes).lower() or "bin"
    path = f"images/{stem}.{ending}"
    folder.write(path, record.image_bytes)
    folder.write(f"labels/{stem}.txt", f"{record.label}\n".encode())
    return path


def _balance(builder: tfds.core.DatasetBuilder, split: str, seed: int) -> Choice:
    """Whether a record is among as many of its class as the smaller class has.

    Raises:
        ValueError: A class is missing.
    """
    ranks = [array.array("Q") for _ in labels.NAMES]
    for record in records.read(builder, split, with_images=False):
        ranks[record.label].append(_rank(record, seed))
    smaller = min(map(len, ranks))
    if not smaller:
        name = labels.NAMES[min(range(len(ranks)), key=lambda i: len(ranks[i]))]
        raise ValueError(f"{split} cannot be balanced: it has no {name} images.")
    highest = [sorted(of_label)[smaller - 1] for of_label in ranks]
    return lambda record: _rank(record, seed) <= highest[record.label]


def _rank(record: records.Record, seed: int) -> int:
    """A number that is as good as random, and the same wherever the record stands."""
    digest = hashlib.sha256(f"{seed}\0{record.filename}".encode()).digest()
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
