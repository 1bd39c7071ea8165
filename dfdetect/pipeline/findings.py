"""Files to findings: one result line for each, in their order."""

import concurrent.futures
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from dfdetect import files, iterators
from dfdetect.iterators import batched
from dfdetect.media import exif, file_kinds, headers, source_files
from dfdetect.metrics import calibration
from dfdetect.pipeline import result_lines

Result = result_lines.Result
Graph = Callable[[tf.Tensor], dict[str, tf.Tensor]]
# `clips.ClipJudge`: a path, to its result line and why there is no answer.
ClipJudge = Callable[[str], tuple[Result, str]]
_CALLS_AT_ONCE = 2  # Of the graph.
# Statuses of what could not be read.
UNREAD = ("unreadable", "too_large")


@dataclasses.dataclass(frozen=True)
class Finding:
    """What became of one source.

    Attributes:
        source: Where it came from.
        content: The bytes of the image; empty when it could not be read, and of a
            clip.
        result: The result line.
        problem: Why there is no answer, or "".
    """

    source: source_files.Source
    content: bytes
    result: Result
    problem: str


def findings(
    graph: Graph,
    sources: Sequence[source_files.Source],
    thresholds: calibration.Thresholds,
    batch_size: int = 8,
    judge_clip: ClipJudge | None = None,
) -> Iterator[Finding]:
    """Runs the graph over files, and yields what it found in their order.

    Args:
        graph: The signature `serving_default`.
        sources: What to read.
        thresholds: See `calibration.decide_verdict`.
        batch_size: Images that are judged at once.
        judge_clip: For sources that are clips.
    """
    for is_clip, alike in itertools.groupby(sources, lambda source: source.is_clip):
        if is_clip and judge_clip:
            for source in alike:
                yield Finding(source, b"", *judge_clip(source.path))
        else:
            yield from _of_images(graph, list(alike), thresholds, batch_size)


def _of_images(
    graph: Graph,
    sources: Sequence[source_files.Source],
    thresholds: calibration.Thresholds,
    batch_size: int,
) -> Iterator[Finding]:
    def judge(batch: Sequence[source_files.Source]) -> list[Finding]:
        contents, problems = zip(*(read(source) for source in batch), strict=True)
        rows = iter(_rows(graph, [c for c in contents if c is not None]))
        found = []
        for source, content, problem in zip(batch, contents, problems, strict=True):
            row = {} if content is None else next(rows)
            result = result_lines.result_line(source.path, row, thresholds)
            problem = problem or source_files.describe_unread(
                result["status"], content or b""
            )
            if not problem and file_kinds.is_animated(content or b""):
                result["warning"] = "animated: only its first frame was judged"
            found.append(Finding(source, content or b"", result, problem))
        return found

    # In halves: while one is read, decoded and cut out, the models judge the other.
    halves = batched(sources, max(batch_size // _CALLS_AT_ONCE, 1))
    # TensorFlow optimises a graph in its first call: once is enough.
    for batch in itertools.islice(halves, 1):
        yield from judge(batch)
    for found in iterators.parallel_map(judge, halves, min(batch_size, _CALLS_AT_ONCE)):
        yield from found


def read(source: source_files.Source) -> tuple[bytes | None, str]:
    """The bytes of a source and "", or None and why it cannot be read."""
    if source.problem:
        return None, source.problem
    try:
        return files.read(source.path), ""
    except OSError as error:
        return None, error.strerror or str(error)


def _rows(graph: Graph, contents: list[bytes]) -> list[dict[str, np.ndarray]]:
    """The outputs and sizes of each image."""
    if not contents:
        return []
    image_bytes = tf.constant(contents, tf.string)
    # To trace the small function takes a second, while TensorFlow optimises the graph.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        sizes = pool.submit(_upright_sizes, image_bytes)
        outputs = {name: value.numpy() for name, value in graph(image_bytes).items()}
    outputs["height"], outputs["width"] = sizes.result().numpy().T
    return [
        {name: value[i] for name, value in outputs.items()}
        for i in range(len(contents))
    ]


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
def _upright_sizes(image_bytes: tf.Tensor) -> tf.Tensor:
    """Heights and widths `[B, 2]` by the headers; 0 where there is none."""
    return exif.upright_extent(headers.read_batch(image_bytes))
