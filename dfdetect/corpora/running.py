"""Runs Beam pipelines, and starts them again where a runner gives up."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam
from apache_beam.options import pipeline_options

from dfdetect.corpora import worker_processes

# Beam knows it by its full name only.
_DASK_RUNNER = "apache_beam.runners.dask.dask_runner.DaskRunner"
_PARTITIONS = ("dask_partition_size", "dask_npartitions")


def run(
    build: Callable[[beam.Pipeline], object], runner: str, options: Sequence[str]
) -> None:
    """Runs a pipeline to its end.

    SIGTERM interrupts it as SIGINT does, so that it ends its processes.

    Args:
        build: Adds the transforms to a pipeline.
        runner: Name of Beam's runner.
        options: Options of the runner, without the leading "--".

    Raises:
        RuntimeError: It failed; runners raise errors of other types, too.
        KeyboardInterrupt: It was interrupted.
    """
    if runner == "DaskRunner":
        runner = _DASK_RUNNER
        if not any(one.startswith(_PARTITIONS) for one in options):
            # Elements of one partition, 128 by default, stay in one process.
            options = [*options, "dask_partition_size=1"]
    pipeline = beam.Pipeline(runner=runner, options=parse_options(runner, options))
    build(pipeline)
    with _interrupted_by_sigterm(), worker_processes.watched():
        state = pipeline.run().wait_until_finish()
    if state != "DONE":
        raise RuntimeError(f"the pipeline ended as {state}.")


def parse_options(
    runner: str, options: Sequence[str]
) -> pipeline_options.PipelineOptions:
    """Returns the options of a runner, with those that it needs to run here.

    Args:
        runner: See `run`.
        options: See `run`.
    """
    arguments = ["default_sdk_harness_log_level=WARNING", *options]
    if runner == "DirectRunner":
        # Otherwise Beam may try to download a runner of another language.
        arguments.append("allow_unsafe_triggers")
    return pipeline_options.PipelineOptions([f"--{one}" for one in arguments])


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM raise KeyboardInterrupt within the block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets no other thread set what a signal does.
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def divides_first(pipeline: beam.Pipeline) -> bool:
    """Whether a corpus must be divided before the pipeline runs.

    The DaskRunner leaves what follows a GroupByKey in as many partitions as there were
    before, of which a few patterns are one, and computes side inputs within tasks.
    """
    return type(pipeline.runner).__name__ == _DASK_RUNNER.rpartition(".")[2]


def run_until_done(
    run_once: Callable[[], None],
    attempts: int,
    say: Callable[[str], None],
    count_finished: Callable[[], int],
) -> None:
    """Calls a function that goes on where it failed before, as long as it gets on.

    Args:
        run_once: Runs a pipeline that passes over what is finished.
        attempts: Number of calls in a row that may fail without finishing anything.
        say: Prints a line.
        count_finished: Counts what is finished, such as shards.

    Raises:
        FileExistsError: What is there is of another run, which no attempt changes.
        OSError: The last attempt failed.
    """
    failed, finished = 0, count_finished()
    while True:
        try:
            return run_once()
        except FileExistsError:
            raise
        # Runners raise whatever they like.
        except Exception as error:
            before, finished = finished, count_finished()
            failed = 1 if finished > before else failed + 1
            reason = " ".join(str(error).split())[-300:]
            if failed == attempts:
                raise OSError(
                    f"the run failed {attempts} times, at last by: {reason}; what was "
                    "finished stays, and --verbose shows the messages of all processes"
                ) from error
            say(f"attempt {failed} of {attempts} failed: {reason}")
