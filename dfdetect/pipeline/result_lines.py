"""The result lines of `dfdetect detect` and `Detector.detect`: types and builders.

`schema/result.schema.json` describes the same lines as JSON.
"""

import math
from typing import Literal, TypedDict

import numpy as np

from dfdetect.media import image_status, video
from dfdetect.metrics import calibration

_DIGITS = 6  # A float32 has no more.
_TIME_DIGITS = 3


class Nearest(TypedDict):
    """A known image that is like a head.

    Attributes:
        id: Its id in the index.
        similarity: Cosine of the two embeddings.
        source: Where it came from.
    """

    id: str
    similarity: float
    source: str


class KnownImages(TypedDict, total=False):
    """What an index knows that is like a head; see `retrieval.lookup`.

    Attributes:
        nearest_real: The nearest known real image, or None.
        nearest_fake: The nearest known fake, or None.
        familiarity: See `retrieval.familiarity`; None where the index cannot tell.
        unfamiliar: Whether the head is unlike anything in the index.
    """

    nearest_real: Nearest | None
    nearest_fake: Nearest | None
    familiarity: float | None
    unfamiliar: bool


class _JudgedHead(TypedDict):
    box: list[float]
    score: float | None
    fake_probability: float | None


class Head(_JudgedHead, KnownImages, total=False):
    """One head of an image or a frame; with an index, what is known that is like it.

    Attributes:
        box: See `dfdetect.boxes`, relative to the upright image.
        score: Confidence of the detector in [0, 1]; None where no detector ran.
        fake_probability: Calibrated, in [0, 1]; None for a head that is too small.
        track: In clips, number of its track from 1 on.
        time: In `ResultLine.heads` of clips, seconds from the start.
    """

    track: int
    time: float


class Frame(TypedDict):
    """One judged frame of a clip.

    Attributes:
        index: Position in the clip from 0 on.
        time: Seconds from the start.
        shot: Number of the shot from 0 on.
        heads: Each with its `track`.
    """

    index: int
    time: float
    shot: int
    heads: list[Head]


class TrackVerdict(TypedDict):
    """How one person of a clip is judged.

    Attributes:
        track: Number of the track from 1 on.
        fake_probability: In [0, 1]; None where no head was judged.
        verdict: "real", "uncertain" or "fake"; None where no head was judged.
    """

    track: int
    fake_probability: float | None
    verdict: str | None


class Track(TrackVerdict):
    """One person of a clip.

    Attributes:
        first_time: Seconds from the start of the clip.
        last_time: Seconds from the start of the clip.
        num_heads: Judged frames that show the person.
        size: Median of sqrt(height * width) of the boxes, relative to the image.
        score: Mean confidence of the detector.
        matters: Whether the track may decide the verdict of the clip.
        set_aside: Why it does not matter, see `deciding_tracks`; empty where it does.
    """

    first_time: float
    last_time: float
    num_heads: int
    size: float | None
    score: float | None
    matters: bool
    set_aside: list[str]


class _Answer(TypedDict):
    path: str
    kind: Literal["image", "video", "frame"]
    status: str
    width: int | None
    height: int | None
    heads: list[Head]
    fake_probability: float | None
    verdict: str | None


class ResultLine(_Answer, total=False):
    """What is found in one file, array, or frame of a camera.

    Attributes:
        path: Path of the file, "" for an array, number or URL of a camera.
        kind: "image", "video" for clips, "frame" for a frame of a camera.
        status: One of `image_status.STATUS_NAMES`.
        width: Pixels of the upright image; None where it is not known.
        height: Pixels of the upright image; None where it is not known.
        heads: Heads of the image, best first; of a clip, the most suspicious head of
            each track.
        fake_probability: That of the most suspicious head or deciding track, in
            [0, 1]; None where nothing was judged.
        verdict: "real", "uncertain" or "fake"; None where nothing was judged.
        warning: What is wrong with the file or was left out, or why it was not read.
        duration: Of clips, seconds.
        frames: Of clips, the judged frames.
        tracks: Of clips.
        deciding_track: Of clips, number of the track whose verdict is the clip's.
        main_person: Of clips, the most prominent track.
        index: Of frames, see `Frame`.
        time: Of frames, see `Frame`.
        shot: Of frames, see `Frame`.
    """

    warning: str
    duration: float | None
    frames: list[Frame]
    tracks: list[Track]
    deciding_track: int | None
    main_person: TrackVerdict | None
    index: int
    time: float
    shot: int


def build_heads(row: dict[str, np.ndarray]) -> list[Head]:
    """Builds the heads of one image or frame.

    Args:
        row: Its outputs of the graph, see `deepfake_pipeline.DeepfakePipeline.detect`.
    """
    return [
        {
            "box": [round_number(x) for x in row["boxes"][i].tolist()],
            "score": round_or_none(row["head_scores"][i]),
            "fake_probability": round_or_none(row["fake_probabilities"][i]),
        }
        for i in range(row["num_heads"])
    ]


def build_image_line(
    path: str, row: dict[str, np.ndarray], thresholds: calibration.Thresholds
) -> ResultLine:
    """Builds the line of one image.

    Args:
        path: Path of the image.
        row: Its outputs of the graph and its upright `width` and `height`; empty when
            the file could not be read.
        thresholds: See `calibration.decide_verdict`.
    """
    status = image_status.STATUS_NAMES[
        row["status"] if row else image_status.UNREADABLE
    ]
    # A header may promise a size for an image that cannot be decoded.
    size_known = bool(row) and status != "unreadable"
    probability = float(row["fake_probability"]) if row else math.nan
    return {
        "path": path,
        "kind": "image",
        "status": status,
        "width": int(row["width"]) if size_known else None,
        "height": int(row["height"]) if size_known else None,
        "heads": build_heads(row) if row else [],
        "fake_probability": round_or_none(probability),
        "verdict": calibration.decide_verdict(probability, thresholds),
    }


def build_clip_line(
    path: str, status: str, size: tuple[int, int] | None = None
) -> ResultLine:
    """Builds the line of a clip of which no frame has been judged yet.

    Args:
        path: Path of the clip.
        status: One of `image_status.STATUS_NAMES`.
        size: Width and height in pixels, where they are known.
    """
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


def build_frame(frame: video.Frame, heads: list[Head]) -> Frame:
    """Builds one of the `frames` of a clip."""
    return {
        "index": frame.index,
        "time": round_time(frame.time),
        "shot": frame.shot,
        "heads": heads,
    }


def build_frame_line(
    path: str,
    frame: video.Frame,
    heads: list[Head],
    thresholds: calibration.Thresholds,
) -> ResultLine:
    """Builds the line of one frame of a camera or stream.

    Args:
        path: Number of the camera, or URL of the stream.
        frame: The frame.
        heads: Its heads.
        thresholds: See `calibration.decide_verdict`.
    """
    judged = [x["fake_probability"] for x in heads if x["fake_probability"] is not None]
    verdict = calibration.decide_verdict(max(judged, default=math.nan), thresholds)
    is_unfamiliar = any(x.get("unfamiliar") for x in heads)
    height, width = frame.image.shape[:2]
    return {
        "path": path,
        "kind": "frame",
        "status": "ok" if judged else "head_too_small" if heads else "no_head",
        "width": width,
        "height": height,
        **build_frame(frame, heads),
        "fake_probability": max(judged, default=None),
        "verdict": calibration.doubt_unfamiliar(verdict, is_unfamiliar),
    }


def round_number(value: float) -> float:
    """Rounds to the digits that are certain in a float32."""
    return round(float(value), _DIGITS)


def round_or_none(value: float) -> float | None:
    """Rounds as `round_number`; None for NaN, which JSON lacks."""
    return None if math.isnan(value) else round_number(value)


def round_time(seconds: float) -> float:
    """Rounds a time to milliseconds."""
    return round(seconds, _TIME_DIGITS)
