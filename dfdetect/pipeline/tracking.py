"""Joins the heads of a clip to tracks: one for each person in each shot."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.optimize

from dfdetect import boxes as box_format

# Cosines of content embeddings. In seven clips of FaceForensics++ and four of a studio,
# heads of one person, a 24th of the clip apart, seldom have less than .94 (worst .90),
# heads of two persons seldom more than .81 (worst .88).
_STRANGER, _SAME = 0.8, 0.95
# Least agreement, in [0, 1], of a head and its track.
_LEAST_AGREEMENT = 0.25
# Weight of the overlap in the agreement: half at first, and less by a factor of e after
# each of so many seconds, as a head moves on.
_PLACE_SHARE, _PLACE_SECONDS = 0.5, 1.0
# How far a head may move at once and per second, in sides of its box.
_REACH_AT_ONCE, _REACH_PER_SECOND = 1.0, 4.0
# How long a head may be missing: the longer of the two.
_GAP_SECONDS, _GAP_FRAMES = 3.0, 4
_MOTION_SECONDS = 0.5  # For so long, the motion of a head is extrapolated.
_MEMORY = 0.8  # Weight of the past in the mean embedding of a track.


@dataclasses.dataclass
class _Track:
    number: int
    box: np.ndarray
    time: float
    frame: int
    velocity: np.ndarray  # Change of the box per second.
    embedding: np.ndarray | None

    def predict_box(self, time: float) -> np.ndarray:
        """Extrapolates the box to a time in seconds."""
        return self.box + self.velocity * min(time - self.time, _MOTION_SECONDS)

    def add(
        self, time: float, frame: int, box: np.ndarray, embedding: np.ndarray | None
    ) -> None:
        elapsed = time - self.time
        if 0 < elapsed <= _MOTION_SECONDS:
            self.velocity = (self.velocity + (box - self.box) / elapsed) / 2
        else:
            self.velocity = np.zeros(4)
        self.box, self.time, self.frame = box, time, frame
        if self.embedding is not None and embedding is not None:
            mean = _MEMORY * self.embedding + (1 - _MEMORY) * embedding
            self.embedding = mean / max(float(np.linalg.norm(mean)), 1e-9)


class Tracker:
    """Assigns heads to tracks, numbered from 1, frame by frame.

    Heads of a frame and tracks are matched so that their agreement in all is highest.
    It rests on the overlap with the predicted box and, the longer a head was missing
    the more so, on the similarity of embeddings. A track survives a few frames without
    its head, but no cut.
    """

    def __init__(self) -> None:
        self._active: list[_Track] = []
        self._num_tracks = 0
        self._num_frames = 0
        self._shot = 0

    def update(
        self,
        time: float,
        shot: int,
        boxes: np.ndarray,
        embeddings: np.ndarray | None = None,
    ) -> list[int]:
        """Assigns the heads of the next frame.

        Args:
            time: Time of the frame in seconds, rising.
            shot: Number of its shot, see `shots`.
            boxes: `[K, 4]` in the format of `dfdetect.boxes`; K may be 0.
            embeddings: `[K, D]` of unit length, that tell persons apart; without them
                overlap alone decides.

        Returns:
            The number of the track of each of the K heads.

        Raises:
            ValueError: There are not as many embeddings as boxes.
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        if embeddings is not None and len(embeddings) != len(boxes):
            raise ValueError(
                f"{len(boxes)} boxes need as many embeddings, got {len(embeddings)}."
            )
        self._num_frames += 1
        if shot != self._shot:
            self._shot, self._active = shot, []
        self._active = [
            track
            for track in self._active
            if time - track.time <= _GAP_SECONDS
            or self._num_frames - track.frame <= _GAP_FRAMES
        ]
        head_embeddings: list[np.ndarray | None] = [None] * len(boxes)
        if embeddings is not None:
            head_embeddings = list(embeddings)
        agreement = _compute_agreement(self._active, time, boxes, head_embeddings)
        rows, columns = scipy.optimize.linear_sum_assignment(-agreement)
        owners: dict[int, _Track] = {}
        for row, column in zip(rows, columns, strict=True):
            if agreement[row, column] >= _LEAST_AGREEMENT:
                owners[column] = self._active[row]
        numbers = []
        for place, (box, embedding) in enumerate(
            zip(boxes, head_embeddings, strict=True)
        ):
            track = owners.get(place)
            if track is None:
                self._num_tracks += 1
                track = _Track(
                    number=self._num_tracks,
                    box=box,
                    time=time,
                    frame=self._num_frames,
                    velocity=np.zeros(4),
                    embedding=embedding,
                )
                self._active.append(track)
            else:
                track.add(time, self._num_frames, box, embedding)
            numbers.append(track.number)
        return numbers


def _compute_agreement(
    tracks: Sequence[_Track],
    time: float,
    boxes: np.ndarray,
    embeddings: Sequence[np.ndarray | None],
) -> np.ndarray:
    """Computes `[num_tracks, K]` in [0, 1]; 0 where a head is too far away."""
    if not tracks or not len(boxes):
        return np.zeros((len(tracks), len(boxes)))
    expected = np.array([track.predict_box(time) for track in tracks])
    overlap = np.asarray(box_format.iou(expected, boxes), np.float64)
    elapsed = np.array([[time - track.time] for track in tracks])
    agreement = overlap.copy()
    for row, track in enumerate(tracks):
        for column, embedding in enumerate(embeddings):
            if track.embedding is None or embedding is None:
                continue
            cosine = float(track.embedding @ embedding)
            looks = np.clip((cosine - _STRANGER) / (_SAME - _STRANGER), 0, 1)
            share = _PLACE_SHARE * np.exp(-elapsed[row, 0] / _PLACE_SECONDS)
            agreement[row, column] += (1 - share) * (looks - overlap[row, column])
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    expected_centers = (expected[:, :2] + expected[:, 2:]) / 2
    sides = (boxes[:, 2:] - boxes[:, :2]).clip(1e-9)
    moved = np.abs(expected_centers[:, None] - centers) / sides
    is_near = moved.max(-1) <= _REACH_AT_ONCE + _REACH_PER_SECOND * elapsed
    return np.where(is_near, agreement, 0.0)
