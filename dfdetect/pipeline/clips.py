"""Judges clips: frames to heads, heads to tracks, tracks to one verdict."""

import collections
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf

from dfdetect.iterators import prefetch
from dfdetect.media import clip_decoding, image_status, video
from dfdetect.metrics import calibration
from dfdetect.pipeline import (
    aggregation,
    deciding_tracks,
    embedding,
    interfaces,
    result_lines,
    tracking,
)
from dfdetect.pipeline.result_lines import Head, ResultLine

# On the main person of seven clips of FaceForensics++, all methods have the same AUC
# (.67); the log-loss is .97 for mean, 1.00 for median, 1.17 for top_k, 1.39 for max and
# .95 for confident. Seven clips are too few to choose by, so it is the simplest.
DEFAULT_AGGREGATE = "mean"


class ClipJudge:
    """Judges clips, one after the other.

    A thread reads ahead while the graph runs; memory holds a few batches of frames,
    whatever the length of the clip.

    Args:
        model: Finds and judges the heads. Without content embeddings, as in graphs of
            earlier versions, heads are joined to tracks by overlap alone.
        thresholds: See `calibration.decide_verdict`.
        sampling: Which frames are judged.
        aggregate: How the probability of a track follows from those of its heads, one
            of `aggregation.METHODS`.
        batch_size: Frames in one call of the graph.
        lookup: A `retrieval.lookup.Lookup`, which adds known images to judged heads.

    Attributes:
        seconds: Seconds by stage, of all clips so far: `read` on the thread, `wait` for
            it, `graph`, and `tracks` with the embeddings.
    """

    def __init__(
        self,
        model: interfaces.Pipeline,
        thresholds: calibration.Thresholds,
        sampling: video.Sampling | None = None,
        *,
        aggregate: str = DEFAULT_AGGREGATE,
        batch_size: int = 8,
        lookup: Callable[[np.ndarray, np.ndarray], list[result_lines.KnownImages]]
        | None = None,
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

    def __call__(self, path: str) -> tuple[ResultLine, str]:
        """Judges one clip.

        Args:
            path: Path of the clip.

        Returns:
            The result line, with `warning` where something is wrong with the clip; and
            why there is no answer, or "".
        """
        try:
            # Others, such as a pipe, might never end.
            if not stat.S_ISREG(os.stat(path).st_mode):
                return result_lines.build_clip_line(path, "unreadable"), "no file"
            with open(path, "rb"):
                pass
            reader = video.Reader(path, self._sampling)
        except OSError as error:
            return result_lines.build_clip_line(
                path, "unreadable"
            ), error.strerror or str(error)
        except clip_decoding.UnreadableClipError as error:
            return result_lines.build_clip_line(path, "unreadable"), error.reason
        if reader.is_too_large:
            line = result_lines.build_clip_line(path, "too_large", reader.size)
            return line, image_status.TOO_LARGE_REASON
        line, problem = self.judge_frames(path, reader)
        if not problem:
            line["duration"] = result_lines.round_time(reader.duration)
            if reader.warning:
                line["warning"] = reader.warning
        return line, problem

    def judge_frames(
        self, name: str, frames: Iterable[video.Frame]
    ) -> tuple[ResultLine, str]:
        """Judges a clip by its frames, with the time of the last one as duration.

        Args:
            name: The `path` of the result line.
            frames: Frames in order; iterated over on a thread.

        Returns:
            See `__call__`.
        """
        line = result_lines.build_clip_line(name, "no_head")
        for frame, heads in self.find_heads(frames):
            line["height"], line["width"] = frame.image.shape[:2]
            line["duration"] = result_lines.round_time(frame.time)
            line["frames"].append(result_lines.build_frame(frame, heads))
        if not line["frames"]:
            return result_lines.build_clip_line(
                name, "unreadable"
            ), "no frame that can be decoded"
        return conclude(line, self._aggregate, self._thresholds), ""

    def find_heads(
        self, frames: Iterable[video.Frame]
    ) -> Iterator[tuple[video.Frame, list[Head]]]:
        """Yields each frame with its heads, as the result line has them.

        Args:
            frames: Frames of one clip, in order; iterated over on a thread.
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
                    heads = self._track_heads(frame, row, tracker)
                    self.seconds["tracks"] += time.perf_counter() - start
                    yield frame, heads
        finally:
            waiting.close()

    def _track_heads(
        self, frame: video.Frame, row: dict[str, np.ndarray], tracker: tracking.Tracker
    ) -> list[Head]:
        """Builds the heads of a frame, each with its track and known images."""
        boxes = row["boxes"][: row["num_heads"]]
        embeddings = None
        if self._embedder:
            embeddings = self._embedder.embed_boxes(frame.image, boxes)
        numbers = tracker.update(frame.time, frame.shot, boxes, embeddings)
        heads = result_lines.build_heads(row)
        for head, number in zip(heads, numbers, strict=True):
            head["track"] = number
        judged = [i for i, x in enumerate(heads) if x["fake_probability"] is not None]
        if self._lookup and judged:
            known = self._lookup(frame.image, boxes[judged])
            for i, known_of_head in zip(judged, known, strict=True):
                heads[i].update(known_of_head)
        return heads

    def _batches(self, frames: Iterator[video.Frame]) -> Iterator[list[video.Frame]]:
        """Batches frames of one size; the size of a stream may change."""
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


def conclude(
    line: ResultLine,
    aggregate: str,
    thresholds: calibration.Thresholds,
    rule: deciding_tracks.Rule = deciding_tracks.DEFAULT_RULE,
) -> ResultLine:
    """Completes the result line of a clip with what follows from its frames.

    Args:
        line: The line with its `frames`; it is not changed.
        aggregate: See `ClipJudge`.
        thresholds: See `calibration.decide_verdict`.
        rule: Which tracks may decide.

    Returns:
        The line with `status`, `heads`, `tracks`, `fake_probability`, `verdict`,
        `deciding_track` and `main_person`.
    """
    heads_by_track: dict[int, list[Head]] = {}
    for frame in line["frames"]:
        for head in frame["heads"]:
            seen: Head = {**head, "time": frame["time"]}
            heads_by_track.setdefault(head["track"], []).append(seen)
    summaries = deciding_tracks.summarize(line["frames"])
    reasons = deciding_tracks.set_aside(summaries, rule)
    tracks = {
        summary.number: _build_track(
            summary,
            heads_by_track[summary.number],
            reasons[summary.number],
            aggregate,
            thresholds,
        )
        for summary in summaries
    }
    mattering = [track for track in tracks.values() if track["matters"]]
    deciding = max(mattering, key=_suspicion, default=None)
    main = deciding_tracks.find_main_person(summaries)
    status = "no_head"
    if tracks:
        status = "ok" if deciding else "head_too_small"
    return {
        **line,
        "status": status,
        "heads": [max(heads, key=_suspicion) for heads in heads_by_track.values()],
        "tracks": list(tracks.values()),
        "fake_probability": deciding["fake_probability"] if deciding else None,
        "verdict": deciding["verdict"] if deciding else None,
        "deciding_track": deciding["track"] if deciding else None,
        "main_person": _verdict_of_track(tracks[main.number]) if main else None,
    }


def _build_track(
    summary: deciding_tracks.TrackSummary,
    heads: list[Head],
    reasons: list[str],
    aggregate: str,
    thresholds: calibration.Thresholds,
) -> result_lines.Track:
    """Builds one of the `tracks` of a clip from its heads and why it is set aside."""
    judged = [x["fake_probability"] for x in heads if x["fake_probability"] is not None]
    probability = aggregation.aggregate(judged, aggregate)
    return {
        "track": summary.number,
        "first_time": heads[0]["time"],
        "last_time": heads[-1]["time"],
        "num_heads": summary.num_heads,
        "fake_probability": result_lines.round_or_none(probability),
        "verdict": calibration.doubt_unfamiliar(
            calibration.decide_verdict(probability, thresholds), _is_unfamiliar(heads)
        ),
        "size": result_lines.round_or_none(summary.size),
        "score": result_lines.round_or_none(summary.score),
        "matters": not reasons,
        "set_aside": reasons,
    }


def _verdict_of_track(track: result_lines.Track) -> result_lines.TrackVerdict:
    return {
        "track": track["track"],
        "fake_probability": track["fake_probability"],
        "verdict": track["verdict"],
    }


def _is_unfamiliar(heads: list[Head]) -> bool:
    """Returns whether more than half of the judged heads are unlike anything known."""
    judged = [x for x in heads if x["fake_probability"] is not None]
    return 2 * sum(x.get("unfamiliar", False) for x in judged) > len(judged)


def _suspicion(judged: Head | result_lines.Track) -> float:
    probability = judged["fake_probability"]
    return -1.0 if probability is None else probability
