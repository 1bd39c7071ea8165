"""The Beam pipeline that judges a corpus: patterns to shards of result lines.

    patterns -> files -> shards of files -> RunInference -> files of results -> summary

A shard is the element that RunInference takes, and that a runner tries again: its
files are read, batched and judged within, so that no image travels between machines,
and its results are written once all are there, under a name that depends on nothing
but the files. So a shard that is judged twice, because a machine was lost, replaces
itself, and what an earlier run has finished is recognized by its file.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference import base as inference

from dfdetect.corpora import (
    accounts,
    copy_paths,
    file_access,
    process_handler,
    running,
    shard_judge,
    shards,
)
from dfdetect.media import source_files

_NAMESPACE = "dfdetect"  # Of the metrics.
_MOST_IN_SHARD = 500  # Images by default: a minute of a process.


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """What is judged, how, and where results go.

    Attributes:
        inputs: See `file_access.list_files`.
        output: Prefix of the files that are written, see `shards`; may be a URL.
        judge: How files are judged.
        files_per_shard: About how many files a shard has; None to choose it by what
            they are, see `shards.Division`.
        total: Number of shards, as an earlier run has it; None to choose it.
        with_parquet: Whether to write Parquet files besides JSON Lines.
    """

    inputs: tuple[str, ...]
    output: str
    judge: shard_judge.JudgeSettings
    files_per_shard: int | None = None
    total: int | None = None
    with_parquet: bool = False


def build(pipeline: beam.Pipeline, settings: RunSettings) -> Any:
    """Adds the transforms of a run to a pipeline.

    Returns:
        A collection of one `accounts.Account`, of all files of all runs.
    """
    division = shards.Division(
        batch_size=settings.judge.batch_size,
        most=_MOST_IN_SHARD,
        files_per_shard=settings.files_per_shard,
        total=settings.total,
        num_processes=process_handler.count_processes(pipeline),
    )
    apart = shards.name_copies(settings.output)
    found = divide(pipeline, settings.inputs, division, apart)
    # Not by tagged outputs, which the DaskRunner mixes.
    divided = found | "Pass over" >> beam.FlatMap(_pass_over, settings)
    earlier = divided | "Earlier" >> beam.Filter(_is_account)
    judged = (
        divided
        | "To do" >> beam.Filter(_is_shard)
        | "Judge" >> inference.RunInference(_build_handler(pipeline, settings))
        | "Write" >> beam.Map(_write_shard, settings)
    )
    return (
        (judged, earlier)
        | "Accounts" >> beam.Flatten()
        # There is one for each shard; a default would be a side input, for which the
        # DaskRunner computes all before once more.
        | "Add up" >> beam.CombineGlobally(_AddUp()).without_defaults()
        | "Summary" >> beam.Map(_write_summary, settings)
    )


def _build_handler(pipeline: beam.Pipeline, settings: RunSettings) -> Any:
    return process_handler.ProcessHandler(
        functools.partial(shard_judge.ShardJudge, settings.judge, settings.output),
        shard_judge.ShardJudge.judge,
        process_handler.count_threads(pipeline),
    )


def divide(
    pipeline: beam.Pipeline,
    inputs: Sequence[str],
    division: shards.Division,
    apart: str = "",
) -> Any:
    """Finds files and divides them into shards.

    Args:
        pipeline: The pipeline, to which transforms are added.
        inputs: See `file_access.list_files`.
        division: Into how many.
        apart: See `file_access.list_files`.

    Returns:
        A collection of `shards.Shard`.
    """
    if running.divides_first(pipeline):
        return pipeline | "Shards" >> beam.Create(list_shards(inputs, division, apart))
    found = (
        pipeline
        | "Patterns" >> beam.Create(inputs)
        | "Find" >> beam.FlatMap(file_access.list_files, apart)
    )
    total: Any = division.total
    if total is None:
        total = beam.pvalue.AsSingleton(
            found
            | "Weigh" >> beam.Map(division.weigh)
            | "Add weights" >> beam.CombineGlobally(sum)
            | "Shards" >> beam.Map(division.choose_total)
        )
    return (
        found
        | "Divide" >> beam.Map(_choose_shard, total)
        | "Collect" >> beam.GroupByKey()
        | "Build" >> beam.MapTuple(_build_shard)
        # Or one worker would have all of them.
        | "Share" >> beam.Reshuffle()
    )


def list_shards(
    inputs: Sequence[str], division: shards.Division, apart: str = ""
) -> list[shards.Shard]:
    """Finds files and divides them into shards, all in this process; see `divide`."""
    found = [one for each in inputs for one in file_access.list_files(each, apart)]
    total = division.choose_total(sum(map(division.weigh, found)))
    by_key: dict[tuple[int, int], list[source_files.FoundFile]] = {}
    for one in found:
        by_key.setdefault(_choose_shard(one, total)[0], []).append(one)
    return [_build_shard(key, by_key[key]) for key in sorted(by_key)]


def _choose_shard(
    found: source_files.FoundFile, total: int
) -> tuple[tuple[int, int], source_files.FoundFile]:
    path = file_access.identify(found.path)
    return (source_files.choose_shard(path, total), total), found


def _build_shard(
    key: tuple[int, int], found: Iterable[source_files.FoundFile]
) -> shards.Shard:
    return shards.build_shard(*key, found)


def _pass_over(shard: shards.Shard, settings: RunSettings) -> Iterator[Any]:
    """Passes over what an earlier run has judged: files in a shard that it finished.

    But those whose copy is wanted and is not there.

    Yields:
        The shard with the files that are left, if any, and an account of the others.
    """
    earlier = _read_earlier(shard, settings.output)
    lines = earlier or {}
    if settings.judge.copies != "none":
        missing = copy_paths.find_missing(
            shard,
            lines,
            shards.name_copies(settings.output),
            write_all=settings.judge.copies == "all",
        )
        # Others have gone since; what is known of them stays.
        missing &= {one.path for one in shard.files}
        lines = {path: line for path, line in lines.items() if path not in missing}
    todo = tuple(one for one in shard.files if one.path not in lines)
    if todo or earlier is None:
        yield dataclasses.replace(shard, files=todo)
    elif settings.with_parquet:
        name = shard.name(settings.output, ".parquet")
        if not file_access.exists(name):
            file_access.write(name, shards.encode_parquet(lines))
    yield accounts.count_earlier(lines)


def _is_shard(one: Any) -> bool:
    return isinstance(one, shards.Shard)


def _is_account(one: Any) -> bool:
    return isinstance(one, accounts.Account)


def _write_shard(prediction: Any, settings: RunSettings) -> accounts.Account:
    """Writes the results of a shard, and counts them as metrics of the runner."""
    shard: shards.Shard = prediction.example
    judged: shard_judge.JudgedShard = prediction.inference
    output = settings.output
    with judged.account.timed("write"):
        earlier = _read_earlier(shard, output)
        lines = {**(earlier or {}), **judged.lines}
        if settings.with_parquet:
            content = shards.encode_parquet(lines)
            file_access.write(shard.name(output, ".parquet"), content)
        # Last, as it says that the shard is finished.
        if judged.lines or earlier is None:
            name = shard.name(output, ".jsonl")
            file_access.write(name, shards.encode_lines(lines))
    for table, numbers in judged.account.tables.items():
        for key, number in numbers.items():
            is_time = table == "seconds"
            name = f"{table}/{key}" + ("_milliseconds" if is_time else "")
            beam.metrics.Metrics.counter(_NAMESPACE, name).inc(
                round(1000 * number) if is_time else int(number)
            )
    return judged.account


def _read_earlier(shard: shards.Shard, output: str) -> dict[str, str] | None:
    """Reads what an earlier run wrote of a shard; None where it wrote none."""
    name = shard.name(output, ".jsonl")
    return shards.read_lines(name) if file_access.exists(name) else None


class _AddUp(beam.CombineFn):
    """Adds accounts up."""

    def create_accumulator(self) -> accounts.Account:
        return accounts.Account()

    def add_input(
        self, total: accounts.Account, account: accounts.Account
    ) -> accounts.Account:
        total.add(account)
        return total

    def merge_accumulators(
        self, totals: Iterable[accounts.Account]
    ) -> accounts.Account:
        merged = accounts.Account()
        for total in totals:
            merged.add(total)
        return merged

    def extract_output(self, total: accounts.Account) -> accounts.Account:
        return total


def _write_summary(account: accounts.Account, settings: RunSettings) -> None:
    text = json.dumps(account.to_json(), indent=2, ensure_ascii=False)
    file_access.write(f"{settings.output}-summary.json", f"{text}\n".encode())
