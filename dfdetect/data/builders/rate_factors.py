"""Frames as they look after their clip was compressed by H.264 at a rate factor.

A platform compresses what is sent to it. A frame goes through the encoder with those
before it, from which it is predicted, as it is in a file.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

import av
import numpy as np

from dfdetect.media import video

_HIGHEST = 51  # Of x264, for 8 bits; 18 is nearly lossless, 23 its default.
_TIME_BASE = Fraction(1, 25)  # A constant rate: of no consequence for the quality.
_RUN_IN = 12  # Frames before it; half a second.
_BLOCK = 16  # Pixels; frames are made whole blocks.
# With the tree of macroblocks, x264 gives other frames in another run.
_OPTIONS = {"preset": "fast", "x264-params": "mbtree=0"}


def parse_rate_factors(rate_factors: Sequence[int | str]) -> tuple[int, ...]:
    """Parses constant rate factors.

    Raises:
        ValueError: A factor is not a whole number from 0 to 51, or x264 is missing.
    """
    found = []
    for factor in rate_factors:
        text = str(factor)
        if not text.isdecimal() or int(text) > _HIGHEST:
            raise ValueError(
                f"rate_factors must be whole numbers from 0 to {_HIGHEST}, "
                f"got {text!r}."
            )
        found.append(int(text))
    if found:
        _encoder(_BLOCK, _BLOCK, found[0])  # Fail before the slow part.
    return tuple(found)


def compress_frames(
    frames: Iterable[video.Frame], factors: Mapping[int, int]
) -> Iterator[video.Frame]:
    """Yields frames of a clip as they look after the clip was compressed.

    Each is encoded and decoded together with the frames before it, from which it is
    predicted as in a file; memory holds no more than these.

    Args:
        frames: All frames of a clip from the first on.
        factors: Rate factors by the positions of the wanted frames.

    Yields:
        The wanted frames, in order.
    """
    before: collections.deque[video.Frame] = collections.deque(maxlen=_RUN_IN + 1)
    for frame in frames:
        # The size of a stream may change.
        if before and before[-1].image.shape != frame.image.shape:
            before.clear()
        before.append(frame)
        factor = factors.get(frame.index)
        if factor is not None:
            image = _compress_last([x.image for x in before], factor)
            yield dataclasses.replace(frame, image=image)


def _compress_last(images: Sequence[np.ndarray], rate_factor: int) -> np.ndarray:
    """The last of some frames in succession, encoded with them and decoded."""
    height, width = images[0].shape[:2]
    more = -height % _BLOCK, -width % _BLOCK
    encoder = _encoder(height + more[0], width + more[1], rate_factor)
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    packets: list[av.Packet | None] = []
    for place, image in enumerate(images):
        whole = np.pad(image, [(0, more[0]), (0, more[1]), (0, 0)], "edge")
        frame = av.VideoFrame.from_ndarray(whole, "rgb24").reformat(format="yuv420p")
        frame.pts = place
        packets += encoder.encode(frame)
    packets += [*encoder.encode(None), None]
    last = [frame for packet in packets for frame in decoder.decode(packet)][-1]
    found = last.to_ndarray(format="rgb24")[:height, :width]
    return found.copy()


def _encoder(height: int, width: int, rate_factor: int) -> av.VideoCodecContext:
    try:
        encoder = av.CodecContext.create("libx264", "w")
    except av.FFmpegError as error:
        raise ValueError("rate_factors need a PyAV with libx264.") from error
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width = height, width
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = _TIME_BASE
    encoder.thread_count = 1  # Clips are read side by side already.
    encoder.options = {**_OPTIONS, "crf": str(rate_factor)}
    return encoder
