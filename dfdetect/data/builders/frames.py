"""Encodes frames of clips as image files."""

import collections
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from dfdetect.data.builders import rate_factors
from dfdetect.media import clip_decoding, image_status, video

# What a frame may be kept as, lossless or at quality 95, and how its file ends.
ENDINGS = {"png": ".png", "jpeg": ".jpg"}

_PARAMETERS = {"png": [], "jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95]}

# Position, seconds from the start, bytes of an image file.
Encoded = tuple[int, float, bytes]


class EncodedClip(NamedTuple):
    """Frames of a clip as image files.

    Attributes:
        wanted: Positions of the frames.
        frames: The frames; streamed if all are wanted.
        warning: What is wrong with the clip, or "".
    """

    wanted: list[int]
    frames: Iterable[Encoded]
    warning: str


def encode_frames(
    path: str | os.PathLike,
    count: int,
    frame_format: str,
    factors: Sequence[int] = (),
) -> EncodedClip:
    """Encodes frames of a complete clip.

    Args:
        path: Path of the clip.
        count: Number of frames, at the centers of equal parts; -1 for all.
        frame_format: One of `ENDINGS`.
        factors: Constant rate factors, see `rate_factors.parse_rate_factors`. Each
            frame looks as it does after its clip was compressed at the factor of the
            frame, see `choose_factor`. Empty: frames stay as the clip has them.

    Raises:
        ValueError: The clip cannot be decoded, is cut short or has too large frames.
    """
    try:
        # All are too many to hold: a pass before the first says if they are there.
        reader = video.Reader(path, video.Sampling(1 if count < 0 else count))
        if reader.is_too_large:
            raise ValueError(image_status.TOO_LARGE_REASON)
        if count < 0:
            collections.deque(reader, maxlen=0)
            wanted = list(range(reader.num_read))
            frames: Iterable[Encoded] = _encoded(
                video.read_frames(path, wanted), frame_format
            )
        else:
            frames = list(_encoded(reader, frame_format))
            wanted = [index for index, _, _ in frames]
    except clip_decoding.UnreadableClipError as error:
        raise ValueError(error.reason) from error
    if reader.is_cut_short or not wanted:
        raise ValueError(reader.warning or "no frame that can be decoded")
    if factors:
        by_index = {x: choose_factor(place, factors) for place, x in enumerate(wanted)}
        whole = video.read_frames(path, range(wanted[-1] + 1))
        frames = _encoded(rate_factors.compress_frames(whole, by_index), frame_format)
    return EncodedClip(wanted, frames, reader.warning)


def choose_factor(place: int, factors: Sequence[int]) -> int:
    """Chooses the rate factor of a frame by its place among the wanted ones.

    Factors take turns, so that a real and its fakes are compressed alike: else it would
    tell which is which.
    """
    return factors[place % len(factors)]


def encode_image(image: np.ndarray, frame_format: str) -> bytes:
    """Encodes an RGB `[height, width, 3]` or gray `[height, width]` image as a file.

    Args:
        image: uint8.
        frame_format: One of `ENDINGS`.
    """
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(ENDINGS[frame_format], image, _PARAMETERS[frame_format])
    return data.tobytes()


def _encoded(frames: Iterable[video.Frame], frame_format: str) -> Iterator[Encoded]:
    for frame in frames:
        yield frame.index, frame.time, encode_image(frame.image, frame_format)
