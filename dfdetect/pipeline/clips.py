"""What is said of a clip: frames judged, heads joined to tracks, and one verdict."""

import collections
import math
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from dfdetect.iterators import prefetch
from dfdetect.media import clip_decoding, image_status, video
from dfdetect.metrics import calibration
from dfdetect.pipeline import aggregation, deciding_tracks, embedding, tracking

Result = dict[str, Any]

# On the main person of the seven clips of FaceForensics++ that we have, all have the
# same AUC (.67), and the mean has a log-loss of .97, the median of 1.00, top_k of 1.17,
# max of 1.39, confident of .95: too few to choose by, so the simplest.
DEFAULT_AGGREGATE = "mean"

_DIGITS = 6  # Of a float32.
_TIME_DIGITS = 3


class ClipJudge:
    """Judges clips, one after the other.

    A thread reads ahead while the graph runs; memory holds some batches of frames
    however long the clip.

    Args:
        model: A `deepfake_pipeline.DeepfakePipeline` or
            `saved_pipeline.LoadedPipeline`. Without content embeddings, as graphs of
            earlier versions, tracks go by overlap alone.
        thresholds: See `calibration.decide_verdict`.
        sampling: Which frames are judged.
        aggregate: How a track's probability is made of its heads', one of
            `aggregation.METHODS`.
        batch_size: Frames in one call of the graph.
        lookup: `retrieval.lookup.Lookup`, which adds to each judged head what is known
            that is like it.

    Attributes:
        seconds: By stage, of all clips so far: `read` on the thread, `wait` for it,
            `graph`, and `tracks` with the embeddings.
    """

    def __init__(
        self,
        model: Any,
        thresholds: calibration.Thresholds,
        sampling: video.Sampling | None = None,
        aggregate: str = DEFAULT_AGGREGATE,
        batch_size: int = 8,
        lookup: Callable[[np.ndarray, np.ndarray], list[Result]] | None = None,
    ) -> None:
        aggregation.aggregate([], aggregate)  # Refuses an unknown one.
        self._model = model  # Its functions alone do not keep it alive.
        self._graph = model.detect_frames
        self._thresholds = thresholds
        self._sampling = sampling or video.Sampling()
        self._aggregate = aggregate
        self._batch_size = batch_size
        self._lookup = lookup
        self._embedder = None
        if "content" in model.manifest.get("embeddings", {}):
            self._embedder = embedding.Embedder(model, "content", of_heads=True)
        self.seconds: dict[str, float] = collections.defaultdict(float)

    def __call__(self, path: str) -> tuple[Result, str]:
        """Judges one clip.

        Args:
            path: Of the clip.

        Returns:
            The result line, see README.md, with `warning` where something is wrong with
            the clip; and why there is no answer, or "".
        """
        try:
            # Others, a pipe say, might be waited for without end.
            if not stat.S_ISREG(os.stat(path).st_mode):
                return self._line(path, "unreadable"), "no file"
            with open(path, "rb"):
                pass
            reader = video.Reader(path, self._sampling)
        except OSError as error:
            return self._line(path, "unreadable"), error.strerror or str(error)
        except clip_decoding.UnreadableClipError as error:
            return self._line(path, "unreadable"), error.reason
        width, height = reader.size
        if width * height > image_status.MAX_PIXELS:
            problem = f"more than {image_status.MAX_PIXELS // 10**6} megapixels"
            return self._line(path, "too_large", (width, height)), problem
        line, problem = self.of_frames(path, reader)
        if not problem:
            line["duration"] = round(reader.duration, _TIME_DIGITS)
            if reader.warning:
                line["warning"] = reader.warning
        return line, problem

    def of_frames(self, name: str, frames: Iterable[video.Frame]) -> tuple[Result, str]:
        """Judges a clip by its frames; as `__call__`, with the time of the last one.

        Args:
            name: That the result line gets for a path.
            frames: In order; iterated over on a thread.
        """
        line = self._line(name, "no_head")
        for frame, heads in self.judged(frames):
            line["height"], line["width"] = frame.image.shape[:2]
            line["duration"] = round(frame.time, _TIME_DIGITS)
            line["frames"].append(frame_line(frame, heads))
        if not line["frames"]:
            return self._line(name, "unreadable"), "no frame that can be decoded"
        return conclude(line, self._aggregate, self._thresholds), ""

    def judged(
        self, frames: Iterable[video.Frame]
    ) -> Iterator[tuple[video.Frame, list[Result]]]:
        """Yields each frame with its heads, as the result line has them.

        Args:
            frames: Of one clip, in order; iterated over on a thread.
        """
        tracker = tracking.Tracker()
        waiting = prefetch(self._timed(frames), self._batch_size)
        try:
            for batch in self._batches(waiting):
                start = time.perf_counter()
                outputs = self._graph(tf.constant(np.stack([x.image for x in batch])))
                found = {name: value.numpy() for name, value in outputs.items()}
                self.seconds["graph"] += time.perf_counter() - start
                for place, frame in enumerate(batch):
                    start = time.perf_counter()
                    row = {name: value[place] for name, value in found.items()}
                    heads = self._heads(frame, row, tracker)
                    self.seconds["tracks"] += time.perf_counter() - start
                    yield frame, heads
        finally:
            waiting.close()

    def _heads(
        self, frame: video.Frame, row: dict[str, np.ndarray], tracker: tracking.Tracker
    ) -> list[Result]:
        boxes = row["boxes"][: row["num_heads"]]
        embeddings = None
        if self._embedder:
            embeddings = self._embedder.of_boxes(frame.image, boxes)
        numbers = tracker.update(frame.time, frame.shot, boxes, embeddings)
        heads: list[Result] = [
            {
                "box": [_number(x) for x in boxes[i]],
                "score": _number(row["head_scores"][i]),
                "fake_probability": _number(row["fake_probabilities"][i]),
                "track": number,
            }
            for i, number in enumerate(numbers)
        ]
        if self._lookup:
            judged = [
                i for i, x in enumerate(heads) if x["fake_probability"] is not None
            ]
            if judged:
                known = self._lookup(frame.image, boxes[judged])
                for i, of_head in zip(judged, known, strict=True):
                    heads[i].update(of_head)
        return heads

    def _batches(self, frames: Iterator[video.Frame]) -> Iterator[list[video.Frame]]:
        """Frames of one size each; that of a stream may change."""
        batch: list[video.Frame] = []
        while True:
            start = time.perf_counter()
            frame = next(frames, None)
            self.seconds["wait"] += time.perf_counter() - start
            if batch and (frame is None or frame.image.shape != batch[0].image.shape):
                yield batch
                batch = []
            if frame is None:
                return
            batch.append(frame)
            if len(batch) == self._batch_size:
                yield batch
                batch = []

    def _timed(self, frames: Iterable[video.Frame]) -> Iterator[video.Frame]:
        iterator = iter(frames)
        while True:
            start = time.perf_counter()
            frame = next(iterator, None)
            self.seconds["read"] += time.perf_counter() - start
            if frame is None:
                return
            yield frame

    def _line(
        self, path: str, status: str, size: tuple[int, int] | None = None
    ) -> Result:
        """A result line of which nothing more is known."""
        return {
            "path": path,
            "kind": "video",
            "status": status,
            "width": size[0] if size else None,
            "height": size[1] if size else None,
            "heads": [],
            "fake_probability": None,
            "verdict": None,
            "duration": None,
            "frames": [],
            "tracks": [],
            "deciding_track": None,
            "main_person": None,
        }


def frame_line(frame: video.Frame, heads: list[Result]) -> Result:
    """A frame as the result line has it."""
    return {
        "index": frame.index,
        "time": round(frame.time, _TIME_DIGITS),
        "shot": frame.shot,
        "heads": heads,
    }


def conclude(
    line: Result,
    aggregate: str,
    thresholds: calibration.Thresholds,
    rule: deciding_tracks.Rule = deciding_tracks.DEFAULT_RULE,
) -> Result:
    """Completes the result line of a clip by what follows from its frames.

    Args:
        line: With its `frames`; left as it is.
        aggregate: See `ClipJudge`.
        thresholds: See `calibration.decide_verdict`.
        rule: Which tracks may decide.

    Returns:
        The line with `status`, `heads`, `tracks`, `fake_probability`, `verdict`,
        `deciding_track` and `main_person`.
    """
    seen: dict[int, list[Result]] = {}
    for frame in line["frames"]:
        for head in frame["heads"]:
            seen.setdefault(head["track"], []).append({**head, "time": frame["time"]})
    summaries = deciding_tracks.summarize(line["frames"])
    reasons = deciding_tracks.set_aside(summaries, rule)
    found = {}
    for summary in summaries:
        heads = seen[summary.number]
        judged = [x["fake_probability"] for x in heads]
        judged = [x for x in judged if x is not None]
        probability = aggregation.aggregate(judged, aggregate)
        found[summary.number] = {
            "track": summary.number,
            "first_time": heads[0]["time"],
            "last_time": heads[-1]["time"],
            "num_heads": summary.num_heads,
            "fake_probability": _number(probability),
            "verdict": calibration.doubt_unfamiliar(
                calibration.decide_verdict(probability, thresholds),
                _is_unfamiliar(heads),
            ),
            "size": _number(summary.size),
            "score": _number(summary.score),
            "matters": not reasons[summary.number],
            "set_aside": reasons[summary.number],
        }
    mattering = [track for track in found.values() if track["matters"]]
    deciding = max(mattering, key=_suspicion, default=None)
    main = deciding_tracks.find_main_person(summaries)
    status = "no_head"
    if seen:
        status = "ok" if deciding else "head_too_small"
    return {
        **line,
        "status": status,
        "heads": [max(heads, key=_suspicion) for heads in seen.values()],
        "tracks": list(found.values()),
        "fake_probability": deciding["fake_probability"] if deciding else None,
        "verdict": deciding["verdict"] if deciding else None,
        "deciding_track": deciding["track"] if deciding else None,
        "main_person": main
        and {
            key: found[main.number][key]
            for key in ("track", "fake_probability", "verdict")
        },
    }


def _is_unfamiliar(heads: list[Result]) -> bool:
    """Whether more than half of the judged heads of a track are like nothing known."""
    judged = [x for x in heads if x["fake_probability"] is not None]
    return 2 * sum(x.get("unfamiliar", False) for x in judged) > len(judged)


def _suspicion(judged: Result) -> float:
    probability = judged["fake_probability"]
    return -1.0 if probability is None else probability


def _number(value: float) -> float | None:
    value = round(float(value), _DIGITS)
    return None if math.isnan(value) else value
