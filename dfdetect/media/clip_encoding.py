"""Writes clips as MPEG-4 files with FFmpeg, by PyAV.

OpenCV's writer is not used: it reports no errors, not even of a full disk, and rejects
some file names.
"""

import contextlib
import errno
import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np

from dfdetect import files

# MPEG-4 part 2 at a constant quality; every build of FFmpeg can write it.
_CODEC = "mpeg4"
_QUANTIZER = 4  # 1 to 31; lower is better quality and larger files.
_LAMBDA = 118  # FF_QP2LAMBDA: FFmpeg's unit of quantizers.
_MAX_DENOMINATOR = 1001  # Of the frame rate; MPEG-4 stores 16 bits.


class ClipWriter:
    """Encodes frames into an open file; see `open_clip_writer`.

    Args:
        container: PyAV container, open for writing.
        rate: Frames per second.
        size: Width and height in pixels, both even.
    """

    def __init__(
        self,
        container: av.container.OutputContainer,
        rate: float,
        size: tuple[int, int],
    ) -> None:
        self._container = container
        self.num_written = 0
        stream = container.add_stream(
            _CODEC,
            rate=Fraction(rate).limit_denominator(_MAX_DENOMINATOR),
            options={"flags": "+qscale", "global_quality": str(_QUANTIZER * _LAMBDA)},
        )
        self._stream = cast(av.VideoStream, stream)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"

    def write(self, image: np.ndarray) -> None:
        """Adds a frame.

        Args:
            image: uint8 `[height, width, 3]`, RGB.

        Raises:
            OSError: The file cannot be written.
        """
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
        frame.pts = self.num_written
        self._container.mux(self._stream.encode(frame))
        self.num_written += 1

    def finish(self) -> None:
        """Flushes the encoder."""
        self._container.mux(self._stream.encode(None))


class _Unbuffered:
    """A file for PyAV that raises an error once, at the write that caused it.

    Args:
        file: Unbuffered file, open for writing.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def write(self, content: bytes) -> int:
        """Writes all of `content`; see `files.write_all`."""
        files.write_all(self._file, content)
        return len(content)


@contextlib.contextmanager
def open_clip_writer(
    path: str, rate: float, size: tuple[int, int]
) -> Iterator[ClipWriter]:
    """Opens a clip for writing to a temporary file, which is renamed when complete.

    Args:
        path: Path of the file, MPEG-4 without sound.
        rate: See `ClipWriter`.
        size: See `ClipWriter`.

    Raises:
        OSError: The file cannot be written; names `path`, and nothing is left behind.
    """
    try:
        with files.open_atomic(path) as file:
            container = av.open(_Unbuffered(file.raw), "w", format="mp4")
            try:
                writer = ClipWriter(container, rate, size)
                yield writer
                writer.finish()
            except BaseException:
                # Closing writes the end of the file; an error would hide the first one.
                with contextlib.suppress(OSError, av.FFmpegError):
                    container.close()
                raise
            container.close()
            _check(file, writer.num_written)
    except av.FFmpegError as error:
        raise OSError(f"{path!r}: {error}") from error


def _check(file: io.BufferedWriter, num_frames: int) -> None:
    """Checks the number of frames in the header, which is written last.

    Raises:
        OSError: The header states another number.
    """
    with open(file.name, "rb") as written:
        with av.open(written, format="mp4") as container:
            found = container.streams.video[0].frames
    if found != num_frames:
        raise OSError(errno.EIO, f"{found} of {num_frames} frames were written")
