"""Writes a prepared data set of labeled images as files and lists of them.

The folder that it makes holds

* `images/<split>/...`: the bytes of each record, unchanged, with the ending of their
  format; names keep what can be printed of the record's, behind its number;
* `labels/<split>/...txt`: `0` (real) or `1` (fake), for each of `images/`;
* `train.txt`, `val.txt`, `test.txt`: a line `path label` an image, the path from the
  folder on. It may hold spaces: the label is what follows the last one;
* `labels.csv`: of every image the path, label, split and group, and what else its
  record says in a word or a number, for `labeled_faces` and for spreadsheets;
* `lists.json`: the settings with the data set's name, version and fingerprint, and the
  counts by split and label.
"""

import array
import csv
import hashlib
from collections.abc import Callable
from typing import Any

import tensorflow_datasets as tfds

from dfdetect import console, labels, resumable
from dfdetect.data import given_heads, label_table, prepared, records
from dfdetect.data.builders import base

SUMMARY = "lists.json"

Choice = Callable[[records.Record], bool]

_LIST_NAMES = {"validation": "val"}  # Others go by the name of their split.
_AT_ONCE = 64  # Images of one line in the journal.


def export_dataset(
    builder: tfds.core.DatasetBuilder,
    output: str,
    *,
    say: Callable[[str], None],
    balanced: bool = False,
    seed: int = 0,
) -> None:
    """Fills `output`, see the module, or resumes a run with the same settings.

    Args:
        builder: A prepared data set of labeled images.
        output: The folder.
        say: Prints a line.
        balanced: Take as many real as fake images of each split. Which of the larger
            class stay depends on their names and the seed alone.
        seed: Seed of that choice.

    Raises:
        ValueError: The data set cannot be used.
        OSError: See `resumable.Output`.
    """
    records.check_labeled(builder)
    settings = {"dataset": prepared.describe_dataset(builder), "balanced": balanced}
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
        _write_table(records.list_further_fields(builder), folder)
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
    with console.Progress(total, say, noun="image", done=sum(done.values())) as shown:
        for split, info in splits.items():
            written = []
            for record in records.read_records(builder, split, done.get(split, 0)):
                chosen = choices[split](record)
                if chosen:
                    path = _write(record, folder)
                    written.append([path, record.label, _described(record)])
                read = record.index + 1
                if read % _AT_ONCE == 0 or read == info.num_examples:
                    folder.append({"split": split, "read": read, "pictures": written})
                    written = []
                shown.count("written" if chosen else "left out")


def _write(record: records.Record, folder: resumable.Output) -> str:
    """Writes the two files of a record; returns the path of the image."""
    stem = records.build_path_stem(record)
    ending = base.identify_format(record.image_bytes).lower() or "bin"
    path = f"images/{stem}.{ending}"
    folder.write(path, record.image_bytes)
    folder.write(f"labels/{stem}.txt", f"{record.label}\n".encode())
    return path


def _described(record: records.Record) -> list[records.Scalar]:
    """The group, the clip of a frame, and the further fields in their order."""
    clip = record.fields.get("clip", "")
    if not clip and int(record.fields.get("frame", -1)) >= 0:
        clip = record.filename.rpartition("/")[0]
    return [record.group, clip, *(record.fields[x] for x in sorted(record.fields))]


def _write_table(fields: list[str], folder: resumable.Output) -> None:
    """Writes the table of all records, in the order of the journal."""
    left_out = {"clip"}
    if "margin" in fields:
        # The image is cut already, by a box in another one.
        left_out.update(given_heads.SIDES)
    others = [place for place, name in enumerate(fields) if name not in left_out]
    with folder.text(label_table.FILE_NAME) as file:
        table = csv.writer(file, lineterminator="\n")
        columns = [fields[place] for place in others]
        table.writerow(["path", "label", "split", "group", "clip", *columns])
        for step in folder.steps():
            split = _LIST_NAMES.get(step["split"], step["split"])
            for path, label, described in step["pictures"]:
                group, clip, *values = described
                row: list[Any] = [path, labels.NAMES[label], split, group, clip]
                table.writerow([*row, *(values[place] for place in others)])


def _balance(builder: tfds.core.DatasetBuilder, split: str, seed: int) -> Choice:
    """Returns a choice of as many records of each class as the smaller class has.

    Raises:
        ValueError: A class is missing.
    """
    ranks = [array.array("Q") for _ in labels.NAMES]
    for record in records.read_records(builder, split, with_images=False):
        ranks[record.label].append(_rank(record, seed))
    smaller = min(map(len, ranks))
    if not smaller:
        name = labels.NAMES[min(range(len(ranks)), key=lambda i: len(ranks[i]))]
        raise ValueError(f"{split} cannot be balanced: it has no {name} images.")
    highest = [sorted(of_label)[smaller - 1] for of_label in ranks]
    return lambda record: _rank(record, seed) <= highest[record.label]


def _rank(record: records.Record, seed: int) -> int:
    """Hashes the name of a record to a pseudo-random number."""
    digest = hashlib.sha256(f"{seed}\0{record.filename}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _write_lists(splits: list[str], folder: resumable.Output) -> None:
    counts = {split: dict.fromkeys(labels.NAMES, 0) for split in splits}
    for split in splits:
        with folder.text(f"{_LIST_NAMES.get(split, split)}.txt") as file:
            for step in folder.steps():
                listed = step["pictures"] if step["split"] == split else ()
                for path, label, _ in listed:
                    file.write(f"{path} {label}\n")
                    counts[split][labels.NAMES[label]] += 1
    folder.finish({"counts": counts})
