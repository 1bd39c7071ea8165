"""Opens clips and decodes them with FFmpeg, by PyAV: every clip is read through here.

OpenCV's reader is not used: its releases from 4.13 on return frames of memory that was
never written where FFmpeg refuses to convert an interlaced frame, and they know neither
pixel aspect nor codec names. PyAV raises an error instead.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import NoReturn

import av

from dfdetect.media import (
    clip_frame,
    file_kinds,
    image_status,
    packet_bounds,
    source_files,
)

# Formats of local files. Others, such as playlists, could make FFmpeg open more files.
_FORMATS = (
    "mov,matroska,avi,asf,flv,live_flv,kux,mpeg,mpegts,ogg,mxf,dv,gif,apng,"
    "yuv4mpegpipe,nut,ivf,obu,av1,mjpeg,h264,hevc,vvc,m4v,mpegvideo,vc1,rm,gxf,wtv,"
    "nsv,mpegtsraw,h263,lxf,dhav,ty,pva"
)
# Formats without a container, which FFmpeg sees in much that is no clip at all.
_BARE_FORMATS = frozenset(
    "av1 h263 h264 hevc m4v mjpeg mpegtsraw mpegvideo obu vc1 vvc".split()
)
# Suffixes that make FFmpeg read a file as an image sequence.
_SEQUENCE_SUFFIXES = (*source_files.IMAGE_SUFFIXES, ".tif", ".tiff", ".jp2", ".avif")

_STREAM_OPTIONS = {"rtsp_transport": "tcp"}
_STREAM_TIMEOUT = 30.0  # Seconds, to open a stream or to wait for more data.

# Frame rates outside this range are errors of the header.
_MIN_RATE, _MAX_RATE = 0.1, 240.0

# Pixel aspect ratios beyond this are errors of the header.
_MAX_PIXEL_ASPECT = 8.0

# Patterns of the codec name in MP4, AVI and Matroska.
_STORED_CODECS = (
    rb"vmhd.*?stsd.{12}([ -~]{4})",
    rb"strh.{4}vids([ -~]{4})",
    rb"(V_[A-Z0-9/_]+)",
)
_HEADER_BYTES = 2**20  # Read at both ends of a file.


class UnreadableClipError(ValueError):
    """A file cannot be decoded as a clip.

    Args:
        name: Name of the file.
        detail: Known cause, or "".

    Attributes:
        reason: The message without the file name.
    """

    def __init__(self, name: str, detail: str = "") -> None:
        self.reason = "no clip that can be decoded" + (f": {detail}" if detail else "")
        super().__init__(f"{name}: {self.reason}.")


class OpenClip:
    """An open clip, closed by `close` or at the end of a `with` block.

    Args:
        path: Path of the clip, or URL of a stream.

    Attributes:
        name: The path as a string.
        container: PyAV's container.
        stream: Its best video stream.
        codec: FFmpeg's name of the codec.
        size: Stored width and height in pixels, from the header.
        interval: Seconds between frames, from the header; 0 if the header has no rate.
        num_damaged: Number of packets and frames that could not be decoded so far.

    Raises:
        UnreadableClipError: The file cannot be decoded as a clip.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.name = os.fspath(path)
        self.num_damaged = 0
        try:
            self.container = _open(self.name)
        except (av.FFmpegError, OSError) as error:
            detail = _system_error(error) or _describe_file(self.name)
            raise UnreadableClipError(self.name, detail) from error
        stream = self.container.streams.best("video")
        if not isinstance(stream, av.VideoStream) or _is_cover(stream):
            self._refuse("it has no moving images")
        self.stream = stream
        context = stream.codec_context
        if context is None:
            self._refuse(f"no decoder for its codec {_stored_codec(self.name)}")
        self.codec = context.codec.canonical_name
        self.size = (context.width, context.height)
        # Clips are decoded in parallel, so threads within one clip would not help.
        stream.thread_type = "NONE"
        context.thread_count = 1
        context.options = {"max_pixels": str(image_status.MAX_PIXELS)}
        rate = float(stream.guessed_rate or stream.average_rate or 0)
        self.interval = 1 / rate if _MIN_RATE <= rate <= _MAX_RATE else 0.0
        aspect = float(stream.sample_aspect_ratio or 1)
        is_valid = 1 / _MAX_PIXEL_ASPECT <= aspect <= _MAX_PIXEL_ASPECT
        self._pixel_aspect = aspect if is_valid else 1.0
        self.problem = ""  # Why no more packets could be read, short of the end.

    def __enter__(self) -> "OpenClip":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self.container.close()

    def packets(self, video_only: bool = True) -> Iterator[av.Packet]:
        """Yields the packets in file order, up to the first that cannot be read."""
        streams = [self.stream] if video_only else []
        try:
            yield from self.container.demux(*streams)
        except av.FFmpegError as error:
            self.problem = error.strerror or str(error)

    def frames(self) -> Iterator[clip_frame.DecodedFrame]:
        """Yields the frames in display order.

        Frames that the decoder reports as damaged, and those of `packet_bounds`, are
        skipped and counted. Interlaced clips are deinterlaced.
        """
        for frame in self._progressive_frames():
            yield clip_frame.DecodedFrame(frame, self._pixel_aspect)

    def _progressive_frames(self) -> Iterator[av.VideoFrame]:
        deinterlacer = None
        for frame in self._intact_frames():
            if deinterlacer is not None and not deinterlacer.fits(frame):
                yield from self._deinterlaced(deinterlacer, None)
                deinterlacer = None
            if deinterlacer is None and frame.interlaced_frame:
                # The filter takes no frames of less than three rows or columns.
                with contextlib.suppress(av.FFmpegError):
                    deinterlacer = _Deinterlacer(frame)
            if deinterlacer is None:
                yield frame
            else:
                yield from self._deinterlaced(deinterlacer, frame)
        if deinterlacer is not None:
            yield from self._deinterlaced(deinterlacer, None)

    def _deinterlaced(
        self, deinterlacer: "_Deinterlacer", frame: av.VideoFrame | None
    ) -> Iterator[av.VideoFrame]:
        try:
            yield from deinterlacer.push(frame)
        except av.FFmpegError:
            self.num_damaged += 1

    def _intact_frames(self) -> Iterator[av.VideoFrame]:
        is_bounded = packet_bounds.is_bounded(self.codec)
        for packet in self.packets():
            if is_bounded and packet_bounds.takes_too_long(self.codec, bytes(packet)):
                self.num_damaged += 1
                continue
            if packet.size == 0 and (packet.pts is not None or packet.dts is not None):
                continue  # Repeats the last frame; the decoder rejects empty packets.
            try:
                frames = packet.decode()
            except (av.FFmpegError, ValueError):
                self.num_damaged += 1
                continue
            for frame in frames:
                # Parts of its memory may be uninitialized.
                if frame.is_corrupt:
                    self.num_damaged += 1
                else:
                    yield frame

    def _refuse(self, detail: str) -> NoReturn:
        self.close()
        raise UnreadableClipError(self.name, detail)


def is_container(path: str | os.PathLike) -> bool:
    """Whether FFmpeg sees a container format with moving images in a file."""
    try:
        with OpenClip(path) as clip:
            return clip.container.format.name not in _BARE_FORMATS
    except UnreadableClipError:
        return False


class _Deinterlacer:
    """FFmpeg's `bwdif` filter: one output per frame, using the frames around it.

    Args:
        frame: A frame with the size and format of all that follow.
    """

    def __init__(self, frame: av.VideoFrame) -> None:
        self._layout = _layout(frame)
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        self._graph.link_nodes(
            self._graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=frame.time_base,
            ),
            self._graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced"),
            self._graph.add("buffersink"),
        ).configure()

    def fits(self, frame: av.VideoFrame) -> bool:
        """Whether a frame has the size and format of the first."""
        return _layout(frame) == self._layout

    def push(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Takes a frame, or None after the last, and yields the finished frames."""
        self._graph.vpush(frame)
        # Raised when the filter needs more input, or has ended.
        with contextlib.suppress(av.BlockingIOError, av.EOFError):
            while True:
                yield self._graph.vpull()


def _system_error(error: Exception) -> str:
    """The system error that kept a file from being read, or ""."""
    return os.strerror(error.errno or 0) if isinstance(error, OSError) else ""


def _describe_file(name: str) -> str:
    """Describes a file that FFmpeg does not open; "" for a stream."""
    if not os.path.isfile(name):
        return ""
    kind = file_kinds.identify_file(name)
    if file_kinds.is_clip(kind):
        return f"{kind}, cut short or damaged"
    return file_kinds.describe_other(kind, file_kinds.WANTED_CLIPS)


def _is_cover(stream: av.VideoStream) -> bool:
    """Whether the only image is the cover art of an audio file."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _stored_codec(name: str) -> str:
    """Reads the name of the video codec from the file, or returns "(unnamed)"."""
    with contextlib.suppress(OSError), open(name, "rb") as file:
        content = file.read(_HEADER_BYTES)
        # The header of an MP4 may be at its end.
        file.seek(max(os.path.getsize(name) - _HEADER_BYTES, 0))
        content += file.read()
        for pattern in _STORED_CODECS:
            if found := re.search(pattern, content, re.DOTALL):
                return found[1].decode("latin-1").strip()
    return "(unnamed)"


def _layout(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


def _open(name: str) -> av.container.InputContainer:
    if "://" in name:
        return av.open(
            name,
            options=_STREAM_OPTIONS,
            metadata_errors="replace",
            timeout=_STREAM_TIMEOUT,
        )
    # A format such as "mov,mp4,m4a" is allowed if any part of its name is listed.
    options = {"format_whitelist": _FORMATS}
    with _openable(name) as where:
        return av.open(where, options=options, metadata_errors="replace")


@contextlib.contextmanager
def _openable(name: str) -> Iterator[str]:
    """Yields a name of the file that FFmpeg accepts."""
    if _is_utf8(name) and not name.lower().endswith(_SEQUENCE_SUFFIXES):
        # In a relative path, FFmpeg reads the text before a colon as a protocol.
        yield os.path.abspath(name)
        return
    descriptor = os.open(name, os.O_RDONLY)
    try:
        yield f"/dev/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
