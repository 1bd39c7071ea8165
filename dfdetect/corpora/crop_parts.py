"""The Beam pipeline that cuts heads out of a prepared data set: parts of it to crops.

Workers cut `data.crop_heads`'s crops into the folder that all of them share, and leave
for each part of the data set a file of steps. These are joined to the journal of the
folder in their order, from which the tables are made as by one process.
"""

import dataclasses
import functools
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference import base as inference

from dfdetect import files, resumable
from dfdetect.corpora import process_handler, shards
from dfdetect.data import crop_heads, head_tables, prepared, records

_PARTS = ".parts"
_PART_NAME = re.compile(r"(.+)-(\d{9,})-(\d{9,})\.jsonl")
_MOST_IN_PART = 1024  # Images by default.


@dataclasses.dataclass(frozen=True)
class Part:
    """Records of a split that are cut, written and tried again together.

    Attributes:
        split: The split.
        start: Number of the first record.
        stop: Number after that of the last one.
    """

    split: str
    start: int
    stop: int

    def name(self, output: str) -> str:
        """Names the file of the part's steps."""
        name = f"{self.split}-{self.start:09d}-{self.stop:09d}.jsonl"
        return os.path.join(output, _PARTS, name)


@dataclasses.dataclass(frozen=True)
class _Source:
    data_dir: str
    dataset: str
    output: str
    settings: crop_heads.CropSettings


class _PartCutter:
    """Cuts parts; loads detector and data set once a process."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._builder = prepared.open_builder(source.data_dir, source.dataset)
        self._cutter = source.settings.build_cutter()

    def cut(self, part: Part) -> list[dict[str, Any]]:
        """Writes the crops of a part; returns its steps."""
        found = records.read_records(self._builder, part.split, part.start)
        wanted = itertools.islice(found, part.stop - part.start)
        steps = []
        while batch := list(itertools.islice(wanted, self._source.settings.batch_size)):
            steps.append(
                crop_heads.cut_batch(self._cutter, part.split, batch, self._write)
            )
        return steps

    def _write(self, path: str, content: bytes) -> None:
        files.write(os.path.join(self._source.output, path), content)


def crop_on_beam(
    data_dir: str,
    dataset: str,
    output: str,
    settings: crop_heads.CropSettings,
    *,
    run: Callable[[Callable[[beam.Pipeline], Any]], None],
    images_per_part: int | None = None,
) -> bool:
    """Fills `output` as `crop_heads.crop_heads` does, or resumes such a run.

    Args:
        data_dir: Folder of prepared data sets, which all workers see.
        dataset: NAME or NAME/CONFIG.
        output: The folder, which all workers see.
        settings: Which heads are cut, and how.
        run: Runs a pipeline to which the function that it is given adds transforms.
        images_per_part: Images that are cut, and after a failure cut again, together;
            by default at most 1,024.

    Returns:
        Whether something was left to do.

    Raises:
        OSError: See `resumable.Output`.
    """
    builder = prepared.open_builder(data_dir, dataset)
    source = _Source(data_dir, dataset, output, settings)
    with crop_heads.open_output(builder, output, settings) as folder:
        if folder.finished:
            return False
        done = _count_done(folder)

        def build(pipeline: beam.Pipeline) -> None:
            size = _choose_size(pipeline, builder, settings, images_per_part)
            _build(pipeline, list(_list_missing(builder, done, output, size)), source)

        if any(_list_missing(builder, done, output, size=1)):
            run(build)
        lacking = next(_list_missing(builder, done, output, size=1), None)
        if lacking is not None:
            raise FileNotFoundError(
                f"{lacking.name(output)} is missing: all workers must see {output}."
            )
        _append_steps(builder, done, folder)
        fields = records.list_further_fields(builder)
        head_tables.write_tables(folder, settings.margin, fields)
    shutil.rmtree(os.path.join(output, _PARTS), ignore_errors=True)
    return True


def count_finished(output: str) -> int:
    """Counts the parts that are finished in the folder of the crops."""
    return len(_match_parts(output))


def _build(pipeline: beam.Pipeline, parts: Sequence[Part], source: _Source) -> Any:
    handler = process_handler.ProcessHandler(
        functools.partial(_PartCutter, source),
        _PartCutter.cut,
        process_handler.count_threads(pipeline),
    )
    return (
        pipeline
        | "Parts" >> beam.Create(parts)
        | "Share" >> beam.Reshuffle()
        | "Cut" >> inference.RunInference(handler)
        | "Write" >> beam.Map(_write_steps, source.output)
    )


def _write_steps(prediction: Any, output: str) -> None:
    part: Part = prediction.example
    # ASCII, as names of files need not be UTF-8.
    text = "".join(f"{json.dumps(step)}\n" for step in prediction.inference)
    files.write(part.name(output), text.encode())


def _count_done(folder: resumable.Output) -> dict[str, int]:
    """Counts by split the images that the journal has already."""
    done: dict[str, int] = {}
    for step in folder.steps():
        split = step["split"]
        done[split] = done.get(split, 0) + len(step["pictures"])
    return done


def _append_steps(builder: Any, done: dict[str, int], folder: resumable.Output) -> None:
    """Appends the steps of all parts to the journal, in the order of the data set."""
    for split in builder.info.splits:
        for part in _list_finished(split, done, folder.folder):
            with open(part.name(folder.folder), encoding="utf-8") as file:
                for line in file:
                    folder.append(json.loads(line))


def _choose_size(
    pipeline: beam.Pipeline,
    builder: Any,
    settings: crop_heads.CropSettings,
    images_per_part: int | None,
) -> int:
    """Chooses how many images a part has, in full batches."""
    num_images = sum(info.num_examples for info in builder.info.splits.values())
    total = shards.Division(
        batch_size=settings.batch_size,
        most=_MOST_IN_PART,
        files_per_shard=images_per_part,
        num_processes=process_handler.count_processes(pipeline),
    ).choose_total(num_images)
    # Batches as those of one process: neither they nor parts cross splits.
    batches = math.ceil(num_images / total / settings.batch_size)
    return batches * settings.batch_size


def _list_finished(split: str, done: dict[str, int], output: str) -> Iterator[Part]:
    """Yields the parts of a split whose steps are there, in their order.

    Args:
        split: The split.
        done: By split, the images that the journal has already.
        output: The folder.
    """
    place = done.get(split, 0)
    for match in _match_parts(output):
        start, stop = int(match[2]), int(match[3])
        # Others overlap, of a run that was interrupted between steps of a part.
        if match[1] == split and start >= place:
            yield Part(split, start, stop)
            place = stop


def _match_parts(output: str) -> list[re.Match[str]]:
    """Returns the matches of the names of finished parts, sorted."""
    folder = os.path.join(output, _PARTS)
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [match for name in names if (match := _PART_NAME.fullmatch(name))]


def _list_missing(
    builder: Any, done: dict[str, int], output: str, size: int
) -> Iterator[Part]:
    """Yields parts of so many images at most that lie between the finished ones."""
    for split, info in builder.info.splits.items():
        place = done.get(split, 0)
        end = Part(split, info.num_examples, info.num_examples)
        for part in (*_list_finished(split, done, output), end):
            for start in range(place, part.start, size):
                yield Part(split, start, min(start + size, part.start))
            place = part.stop
