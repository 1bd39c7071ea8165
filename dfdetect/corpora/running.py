"""Runs Beam pipelines, and starts them again where a runner gives up."""

from collections.abc import Callable, Sequence

import apache_beam as beam
from apache_beam.options import pipeline_options

# Beam knows it by its full name only.
_DASK_RUNNER = "apache_beam.runners.dask.dask_runner.DaskRunner"
_PARTITIONS = ("dask_partition_size", "dask_npartitions")


def run(
    build: Callable[[beam.Pipeline], object], runner: str, options: Sequence[str]
) -> None:
    """Runs a pipeline to its end.

    Args:
        build: Adds the transforms to a pipeline.
        runner: Name of Beam's runner.
        options: Options of the runner, without the leading "--".

    Raises:
        RuntimeError: It failed; runners raise errors of other types, too.
    """
    arguments = ["default_sdk_harness_log_level=WARNING", *options]
    if runner == "DirectRunner":
        # Otherwise Beam may try to download a runner of another language.
        arguments.append("allow_unsafe_triggers")
    elif runner == "DaskRunner":
        runner = _DASK_RUNNER
        # Elements of one partition, 128 by default, stay in one process.
        if not any(one.startswith(_PARTITIONS) for one in options):
            arguments.append("dask_partition_size=1")
    parsed = pipeline_options.PipelineOptions([f"--{one}" for one in arguments])
    pipeline = beam.Pipeline(runner=runner, options=parsed)
    build(pipeline)
    state = pipeline.run().wait_until_finish()
    if state != "DONE":
        raise RuntimeError(f"the pipeline ended as {state}.")


def divides_first(pipeline: beam.Pipeline) -> bool:
    """Whether a corpus must be divided before the pipeline runs.

    The DaskRunner leaves what follows a GroupByKey in as many partitions as there were
    before, of which a few patterns are one, and computes side inputs within tasks.
    """
    return type(pipeline.runner).__name__ == _DASK_RUNNER.rpartition(".")[2]


def run_until_done(
    run_once: Callable[[], None], attempts: int, say: Callable[[str], None]
) -> None:
    """Calls a function that goes on where it failed before, up to a number of times.

    Args:
        run_once: Runs a pipeline that passes over what is finished.
        attempts: Number of calls.
        say: Prints a line.

    Raises:
        RuntimeError: The last attempt failed.
    """
    for attempt in range(1, attempts + 1):
        try:
            return run_once()
        # Runners raise whatever they like.
        except Exception as error:
            reason = " ".join(str(error).split())[-300:]
            if attempt == attempts:
                raise RuntimeError(
                    f"the run failed {attempt} times, at last by: {reason}"
                ) from error
            say(f"attempt {attempt} of {attempts} failed: {reason}")
