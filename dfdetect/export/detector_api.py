"""The Python interface of dfdetect: `dfdetect.load` and the `Detector` it returns."""

import dataclasses
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import cv2
import numpy as np

from dfdetect.export import graph_cache, graph_folder
from dfdetect.iterators import batched
from dfdetect.media import source_files, video
from dfdetect.metrics import calibration
from dfdetect.pipeline import (
    clips,
    embedding,
    findings,
    given_crops,
    interfaces,
    result_lines,
)

# The path of a file, or an image as uint8 RGB `[height, width, 3]`.
Input: TypeAlias = str | os.PathLike[str] | np.ndarray

_log = logging.getLogger("dfdetect")


class Detector:
    """Finds heads in images and clips and judges them.

    Inputs are files or arrays: one, or an iterable of them, which is iterated over as
    its images are judged. An array is an upright RGB image, uint8 `[height, width, 3]`;
    it is judged as a lossless file of the same pixels would be.

    Args:
        model: The graph, see `load`.

    Attributes:
        manifest: Manifest of the graph: sizes, thresholds, data and versions.
    """

    def __init__(self, model: interfaces.Pipeline) -> None:
        self._model = model
        self.manifest = model.manifest

    def detect(
        self,
        inputs: Input | Iterable[Input],
        *,
        threshold: float | None = None,
        batch_size: int = 8,
        frames: int = 32,
        every: float | None = None,
        aggregate: str = clips.DEFAULT_AGGREGATE,
    ) -> Iterator[result_lines.ResultLine]:
        """Finds and judges the heads of images and clips.

        Args:
            inputs: Images, clips and arrays. A folder stands for the images and clips
                in it, recursively, and a pattern such as "photos/*.jpg" for what it
                matches, as for `dfdetect detect`.
            threshold: Fake probability in [0, 1] from which on the verdict is "fake",
                else "real"; by default those of the model, with "uncertain" between.
            batch_size: Images, or frames of a clip, that are judged at once.
            frames: Frames of each clip that are judged, spread over its time; -1 for
                all.
            every: Seconds between the frames of a clip that are judged, instead of
                `frames`.
            aggregate: How the probability of a person in a clip follows from those of
                the frames, one of `aggregation.METHODS`.

        Returns:
            The lines that `dfdetect detect` prints, one for each file or array in their
            order. The `path` of an array is "". A file that cannot be read has the
            status "unreadable" or "too_large", and no verdict.

        Raises:
            FileNotFoundError: There is no image or clip in a folder or for a pattern.
            TypeError: An input is neither a path nor an array.
            ValueError: An array is not uint8 `[height, width, 3]`, or an option is out
                of range.
        """
        thresholds = self._thresholds(threshold)
        judge_clip = clips.ClipJudge(
            self._model,
            thresholds,
            video.Sampling(frames, every),
            aggregate=aggregate,
            batch_size=batch_size,
        )
        return _judge(
            self._model.detect,
            _list_sources(inputs, with_clips=True),
            thresholds,
            batch_size,
            judge_clip,
        )

    def classify_crops(
        self,
        inputs: Input | Iterable[Input],
        *,
        threshold: float | None = None,
        batch_size: int = 8,
    ) -> Iterator[result_lines.ResultLine]:
        """Judges images that show one head each, without looking for heads.

        The crops should have the margin of the classifier,
        `manifest["classifier"]["crop_margin"]`.

        Args:
            inputs: Images and arrays; folders and patterns as in `detect`.
            threshold: See `detect`.
            batch_size: Images that are judged at once.

        Returns:
            The lines that `dfdetect detect --crops` prints: as of `detect`, with one
            head each, whose box is the whole image. A clip is "unreadable".

        Raises:
            FileNotFoundError: There is no image in a folder or for a pattern.
            TypeError: An input is neither a path nor an array.
            ValueError: An array is not uint8 `[height, width, 3]`, or an option is out
                of range.
        """
        return _judge(
            given_crops.as_detections(self._model.classify_crops),
            _list_sources(inputs, with_clips=False),
            self._thresholds(threshold),
            batch_size,
            None,
        )

    def embed(
        self,
        inputs: Input | Iterable[Input],
        *,
        kind: str = "content",
        batch_size: int = 8,
    ) -> np.ndarray:
        """Embeds images that show one head each, or any images as a whole.

        Args:
            inputs: Images and arrays. Folders and patterns are refused, as rows would
                not tell their files.
            kind: "content", by which copies and fakes of the same image are near, or
                "forgery", by which fakes of one method are near.
            batch_size: Images that are embedded at once.

        Returns:
            float32 `[N, D]`, a row of unit length for each input, so that the product
            of two rows is their cosine similarity. A file that cannot be read has a row
            of zeros.

        Raises:
            TypeError: An input is neither a path nor an array.
            ValueError: There is no such kind, an array is not uint8
                `[height, width, 3]`, or an input is a folder or pattern.
        """
        embedder = embedding.Embedder(self._model, kind)
        _check_batch_size(batch_size)
        rows = [np.zeros((0, embedder.dimension), np.float32)]
        sources = _list_sources(inputs, with_clips=False, one_file_each=True)
        for batch in batched(sources, batch_size):
            contents = [_read(source)[0] or b"" for source in batch]
            rows.append(embedder.embed_whole(contents))
        return np.concatenate(rows)

    def _thresholds(self, threshold: float | None) -> calibration.Thresholds:
        if threshold is None:
            return self.manifest["classifier"]["thresholds"]
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be in [0, 1], got {threshold}.")
        return calibration.single_threshold(threshold)


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    classifier: str | os.PathLike[str] | None = None,
    tile: bool = False,
) -> Detector:
    """Loads the default detector, or an exported one.

    The graph of the default weights is built once, which takes about a minute, and kept
    in `$XDG_CACHE_HOME/dfdetect`; the logger "dfdetect" tells of it.

    Args:
        path: Folder of a graph that `serve/export.py` wrote, or of its versions, of
            which the newest is taken, as the logger tells; by default the weights that
            come with dfdetect.
        classifier: Packed file or model directory of a classifier that judges instead
            of the default one; not with `path`.
        tile: Whether to search overlapping tiles of large images for small heads as
            well, which is slower; not with `path`, where the export decides.

    Raises:
        FileNotFoundError: A file is missing.
        ImportError: Keras is imported with another backend than TensorFlow, or ScaNN,
            which the index of the graph needs, is missing.
        ValueError: The path is not a graph of dfdetect, or the classifier does not fit.
    """
    if path is not None and (classifier is not None or tile):
        raise ValueError("classifier and tile must be absent where path is given.")
    exported = None if path is None else os.fspath(path)
    model = graph_cache.load(
        # Which version is taken is told to all, also without a handler.
        graph_folder.find_graph(exported, _log.warning),
        _log.info,
        tile,
        None if classifier is None else os.fspath(classifier),
    )
    return Detector(model)


@dataclasses.dataclass(frozen=True)
class _ArraySource(source_files.Source):
    """An image in memory.

    Attributes:
        pixels: uint8 `[height, width, 3]`, RGB.
    """

    pixels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))


def _judge(
    detect: interfaces.Signature,
    sources: Iterable[source_files.Source],
    thresholds: calibration.Thresholds,
    batch_size: int,
    judge_clip: findings.ClipJudge | None,
) -> Iterator[result_lines.ResultLine]:
    _check_batch_size(batch_size)
    found = findings.find_in_sources(
        detect,
        sources,
        thresholds,
        batch_size=batch_size,
        judge_clip=judge_clip,
        read_source=_read,
    )
    return (finding.result for finding in found)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be from 1 on, got {batch_size}.")


def _read(source: source_files.Source) -> tuple[bytes | None, str]:
    """Reads a source as `findings.read`; arrays become files without loss."""
    if not isinstance(source, _ArraySource):
        return findings.read(source)
    # BMP takes a copy, where PNG would take seconds for a large image.
    _, encoded = cv2.imencode(".bmp", source.pixels[..., ::-1])
    return encoded.tobytes(), ""


def _list_sources(
    inputs: Input | Iterable[Input], *, with_clips: bool, one_file_each: bool = False
) -> Iterator[source_files.Source]:
    """Lists the files and arrays that inputs name, in their order.

    Those of a sequence are checked at once, those of an iterator as it goes.
    """
    if isinstance(inputs, str | os.PathLike):
        inputs = [inputs]
    elif isinstance(inputs, np.ndarray):
        inputs = list(inputs) if inputs.ndim == 4 else [inputs]
    elif not isinstance(inputs, Iterable):
        raise TypeError(f"inputs must be paths or arrays, got {type(inputs).__name__}.")
    listed = (
        source for one in inputs for source in _expand(one, with_clips, one_file_each)
    )
    return iter(list(listed)) if isinstance(inputs, Sequence) else listed


def _expand(
    one: Input, with_clips: bool, one_file_each: bool
) -> list[source_files.Source]:
    if isinstance(one, np.ndarray):
        if one.dtype != np.uint8 or one.ndim != 3 or one.shape[2] != 3 or not one.size:
            raise ValueError(
                "an array must be uint8 [height, width, 3], RGB, "
                f"got {one.dtype} {list(one.shape)}."
            )
        return [_ArraySource("", "", pixels=one)]
    if not isinstance(one, str | os.PathLike):
        raise TypeError(f"an input must be a path or an array, got {one!r}.")
    path = os.fspath(one)
    found, _ = source_files.find_sources([path], clips=with_clips)
    if one_file_each and [source.path for source in found] != [path]:
        raise ValueError(f"an input must be a file or an array, got {path!r}.")
    if not found:
        wanted = "images or clips" if with_clips else "images"
        raise FileNotFoundError(f"no {wanted} in {path}")
    return found
