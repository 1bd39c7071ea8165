"""The `ModelHandler` of all pipelines: what works is loaded once a process."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import apache_beam as beam
from apache_beam.ml.inference import base as inference
from apache_beam.options import pipeline_options

from dfdetect.export import runtime

_Element = TypeVar("_Element")
_Worker = TypeVar("_Worker")


class ProcessHandler(
    inference.ModelHandler[_Element, inference.PredictionResult, _Worker],
    Generic[_Element, _Worker],
):
    """Loads a worker once a process, and gives it one element after the other.

    An element, such as a shard, is what is tried again and has many files, so that its
    worker batches them within.

    Args:
        load: Loads the worker, an object that RunInference refers to weakly.
        work: What the worker makes of an element.
        threads: Threads of TensorFlow's operations in the process; None for the number
            of cores. See `count_threads`.
    """

    def __init__(
        self,
        load: Callable[[], _Worker],
        work: Callable[[_Worker, _Element], Any],
        threads: int | None,
    ) -> None:
        super().__init__()
        self._load = load
        self._work = work
        self._threads = threads

    def load_model(self) -> _Worker:
        # Here, as the process may not have imported TensorFlow yet.
        runtime.set_variables(self._threads)
        runtime.use_single_malloc_arena()
        return self._load()

    def should_skip_batching(self) -> bool:
        # Batches of RunInference are held until a bundle ends; what comes then, the
        # DaskRunner of Beam 2.77 drops.
        return True

    def get_preprocess_fns(self) -> Iterable[Callable[[Any], Any]]:
        return [_put_alone]

    def run_inference(
        self,
        batch: Sequence[_Element],
        model: _Worker,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[inference.PredictionResult]:
        for element in batch:
            yield inference.PredictionResult(element, self._work(model, element))

    def get_metrics_namespace(self) -> str:
        return "dfdetect"


def _put_alone(element: _Element) -> list[_Element]:
    """Makes a batch of one element."""
    return [element]


def count_processes(pipeline: beam.Pipeline) -> int:
    """Counts the processes of this machine that share the work; 1 if others decide."""
    if not _starts_processes(pipeline):
        return 1
    direct = pipeline.options.view_as(pipeline_options.DirectOptions)
    return direct.direct_num_workers or runtime.count_cores()


def count_threads(pipeline: beam.Pipeline) -> int | None:
    """Counts the threads of a process that leave the others of its machine theirs.

    Threads of two processes on the same cores are in each other's way. Runners of many
    machines start a process for each core.

    Returns:
        The number, or None where one process has all cores.
    """
    if not isinstance(pipeline.runner, beam.runners.DirectRunner):
        return 1
    if not _starts_processes(pipeline):
        return None
    return max(1, runtime.count_cores() // count_processes(pipeline))


def _starts_processes(pipeline: beam.Pipeline) -> bool:
    """Whether the DirectRunner starts processes of this machine."""
    direct = pipeline.options.view_as(pipeline_options.DirectOptions)
    return (
        isinstance(pipeline.runner, beam.runners.DirectRunner)
        and direct.direct_running_mode == "multi_processing"
    )
