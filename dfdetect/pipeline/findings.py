"""Judges files: one finding with a result line for each, in their order."""

import concurrent.futures
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from dfdetect import files, iterators
from dfdetect.iterators import batched
from dfdetect.media import decode, file_kinds, image_extents, source_files
from dfdetect.metrics import calibration
from dfdetect.pipeline import interfaces, result_lines

# `clips.ClipJudge`: a path, to its result line and why there is no answer.
ClipJudge = Callable[[str], tuple[result_lines.ResultLine, str]]
# Statuses of files that could not be read.
UNREAD = ("unreadable", "too_large")

_CALLS_AT_ONCE = 2  # Calls of the graph that run at the same time.


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was found in one source.

    Attributes:
        source: Where it came from.
        content: The bytes of the image; empty for a clip, and where the image could
            not be read.
        result: The result line; where there is no answer, its `warning` says why.
        problem: Why there is no answer, or "".
    """

    source: source_files.Source
    content: bytes
    result: result_lines.ResultLine
    problem: str

    @functools.cached_property
    def image(self) -> np.ndarray:
        """The decoded image, `[height, width, 3]` uint8 RGB, upright.

        It is decoded when it is asked for first, so that a lookup, a copy and a report
        share it.

        Raises:
            tf.errors.InvalidArgumentError: The source is a clip or could not be read.
        """
        return decode.decode_image(tf.constant(self.content)).numpy()


def find_in_sources(
    detect: interfaces.Signature,
    sources: Iterable[source_files.Source],
    thresholds: calibration.Thresholds,
    *,
    batch_size: int = 8,
    judge_clip: ClipJudge | None = None,
    read_source: Callable[[source_files.Source], tuple[bytes | None, str]]
    | None = None,
) -> Iterator[Finding]:
    """Runs the graph over files and yields what it finds, in their order.

    Args:
        detect: The signature `serving_default`.
        sources: The files; iterated over as they are judged.
        thresholds: See `calibration.decide_verdict`.
        batch_size: Images that are judged at once.
        judge_clip: Judges the sources that are clips.
        read_source: Reads the sources that are images; `read` by default.
    """
    for is_clip, group in itertools.groupby(sources, lambda source: source.is_clip):
        if is_clip and judge_clip:
            for source in group:
                result, problem = judge_clip(source.path)
                if problem:
                    result["warning"] = problem
                yield Finding(source, b"", result, problem)
        else:
            yield from _find_in_images(
                detect, group, thresholds, batch_size, read_source or read
            )


def _find_in_images(
    detect: interfaces.Signature,
    sources: Iterable[source_files.Source],
    thresholds: calibration.Thresholds,
    batch_size: int,
    read_source: Callable[[source_files.Source], tuple[bytes | None, str]],
) -> Iterator[Finding]:
    def judge(batch: Sequence[source_files.Source]) -> list[Finding]:
        contents, problems = zip(*map(read_source, batch), strict=True)
        rows = iter(_detect_rows(detect, [c for c in contents if c is not None]))
        found = []
        for source, content, problem in zip(batch, contents, problems, strict=True):
            row = {} if content is None else next(rows)
            result = result_lines.build_image_line(source.path, row, thresholds)
            problem = problem or source_files.describe_unread(
                result["status"], content or b""
            )
            if problem:
                result["warning"] = problem
            elif warning := file_kinds.describe_animated(content or b"", "judged"):
                result["warning"] = warning
            found.append(Finding(source, content or b"", result, problem))
        return found

    # Two halves: while one is read, decoded and cropped, the models judge the other.
    halves = batched(sources, max(batch_size // _CALLS_AT_ONCE, 1))
    # TensorFlow optimizes a graph in its first call: once is enough.
    first = map(judge, itertools.islice(halves, 1))
    others = iterators.parallel_map(judge, halves, min(batch_size, _CALLS_AT_ONCE))
    for found in itertools.chain(first, others):
        found.reverse()
        while found:
            yield found.pop()  # Not kept, as its decoded image may be large.


def read(
    source: source_files.Source, read_file: Callable[[str], bytes] = files.read
) -> tuple[bytes | None, str]:
    """Returns the bytes of a source and "", or None and why it cannot be read."""
    if source.problem:
        return None, source.problem
    try:
        return read_file(source.path), ""
    except OSError as error:
        return None, error.strerror or str(error)


def _detect_rows(
    detect: interfaces.Signature, contents: list[bytes]
) -> list[dict[str, np.ndarray]]:
    """Returns the outputs of the graph and the upright size of each image."""
    if not contents:
        return []
    image_bytes = tf.constant(contents, tf.string)
    # Tracing the small functions takes a moment: meanwhile, TensorFlow prepares the
    # graph.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        extents = pool.submit(image_extents.read_upright_extents, contents)
        outputs = {name: value.numpy() for name, value in detect(image_bytes).items()}
    outputs["height"], outputs["width"] = extents.result().T
    return [
        {name: value[i] for name, value in outputs.items()}
        for i in range(len(contents))
    ]
