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

from dfdetect.media import clip_frame, file_kinds, image_status, source_files

# Of local files; others, playlists say, could make FFmpeg open other files.
_FORMATS = (
    *("mov", "matroska", "avi", "asf", "flv", "live_flv", "kux", "mpeg", "mpegts"),
    *("ogg", "mxf", "dv", "gif", "apng", "yuv4mpegpipe", "nut", "ivf", "obu", "av1"),
    *("mjpeg", "h264", "hevc", "vvc", "m4v", "mpegvideo", "vc1", "rm", "gxf", "wtv"),
    *("nsv", "mpegtsraw", "h263", "lxf", "dhav", "ty", "pva"),
)
# Endings by which FFmpeg takes a file for a sequence of images.
_ENDINGS_OF_SEQUENCES = (*source_files.IMAGE_SUFFIXES, ".tif", ".tiff", ".jp2", ".avif")

_OPTIONS_OF_STREAMS = {"rtsp_transport": "tcp"}
_SECONDS_TO_WAIT = 30.0  # For a stream to be opened, or to send more.

# Rates of headers outside of these are of no use.
_LEAST_RATE, _MOST_RATE = 0.1, 240.0
_DEFAULT_INTERVAL = 0.04  # Seconds; of clips that tell no rate.

# Pixels more oblong than that are an error of the header.
_MOST_OBLONG = 8.0

# The names of codecs in MP4, in AVI and in Matroska.
_STORED_CODECS = (
    rb"vmhd.*?stsd.{12}([ -~]{4})",
    rb"strh.{4}vids([ -~]{4})",
    rb"(V_[A-Z0-9/_]+)",
)
_MOST_OF_HEADER = 2**20  # Bytes, at both ends of a file.


class UnreadableClipError(ValueError):
    """A file is no clip that can be decoded.

    Args:
        name: Of the file.
        detail: What is known about why, or "".

    Attributes:
        reason: The message without the name.
    """

    def __init__(self, name: str, detail: str = "") -> None:
        self.reason = "no clip that can be decoded" + (f": {detail}" if detail else "")
        super().__init__(f"{name} is {self.reason}.")


class OpenClip:
    """A clip that is open, to be closed by `close` or `with`.

    Args:
        path: Of the clip, or the URL of a stream.

    Attributes:
        name: The path.
        container: What FFmpeg knows of the file.
        stream: The best of its video streams.
        codec: FFmpeg's name of the codec.
        size: Width and height in pixels as stored, by the header.
        interval: Seconds from frame to frame, by the header; 0 where it tells none.
        num_damaged: How many packets and frames could not be decoded so far.

    Raises:
        UnreadableClipError: It is no clip that can be decoded.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.name = os.fspath(path)
        self.num_damaged = 0
        try:
            self.container = _open(self.name)
        except (av.FFmpegError, OSError) as error:
            detail = _system_error(error) or _other_kind(self.name)
            raise UnreadableClipError(self.name, detail) from error
        stream = self.container.streams.best("video")
        if not isinstance(stream, av.VideoStream) or _is_cover(stream):
            self._refuse("there are no moving images in it")
        self.stream = stream
        context = stream.codec_context
        if context is None:
            self._refuse(f"no decoder for its codec {_stored_codec(self.name)}")
        self.codec = context.codec.canonical_name
        self.size = (context.width, context.height)
        # Clips are read beside each other; threads within one only wait for another.
        stream.thread_type = "NONE"
        context.thread_count = 1
        context.options = {"max_pixels": str(image_status.MAX_PIXELS)}
        rate = float(stream.guessed_rate or stream.average_rate or 0)
        self.interval = 1 / rate if _LEAST_RATE <= rate <= _MOST_RATE else 0.0
        aspect = float(stream.sample_aspect_ratio or 1)
        is_sound = 1 / _MOST_OBLONG <= aspect <= _MOST_OBLONG
        self._pixel_aspect = aspect if is_sound else 1.0

    def __enter__(self) -> "OpenClip":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self.container.close()

    def packets(self, video_only: bool = True) -> Iterator[av.Packet]:
        """Yields what is stored, in its order; what cannot be read is the end."""
        streams = [self.stream] if video_only else []
        with contextlib.suppress(av.FFmpegError):
            yield from self.container.demux(*streams)

    def frames(self) -> Iterator[clip_frame.DecodedFrame]:
        """Yields the frames in the order in which they are shown.

        What the decoder knows to be damaged is left out and counted. Interlaced clips
        are deinterlaced.
        """
        for frame in self._progressive_frames():
            yield clip_frame.DecodedFrame(frame, self._pixel_aspect)

    def _progressive_frames(self) -> Iterator[av.VideoFrame]:
        deinterlacer = None
        for frame in self._sound_frames():
            if deinterlacer is not None and not deinterlacer.fits(frame):
                yield from self._deinterlaced(deinterlacer, None)
                deinterlacer = None
            if deinterlacer is None and frame.interlaced_frame:
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

    def _sound_frames(self) -> Iterator[av.VideoFrame]:
        for packet in self.packets():
            if packet.size == 0 and (packet.pts is not None or packet.dts is not None):
                continue  # The frame before is shown on; the decoder refuses such.
            try:
                frames = packet.decode()
            except (av.FFmpegError, ValueError):
                self.num_damaged += 1
                continue
            for frame in frames:
                # Parts of it may never have been written.
                if frame.is_corrupt:
                    self.num_damaged += 1
                else:
                    yield frame

    def _refuse(self, detail: str) -> NoReturn:
        self.close()
        raise UnreadableClipError(self.name, detail)


class _Deinterlacer:
    """FFmpeg's `bwdif`: a frame for each frame, which needs those before and behind.

    Args:
        frame: One that all others are to be of the size and format of.
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
        """Whether a frame is of the size and format of the first."""
        return _layout(frame) == self._layout

    def push(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Takes a frame, or None behind the last, and yields those that are done."""
        self._graph.vpush(frame)
        # It has no more to give for now, or never again.
        with contextlib.suppress(av.BlockingIOError, av.EOFError):
            while True:
                yield self._graph.vpull()


def _system_error(error: Exception) -> str:
    """What kept a file from being read, or "" where its content did."""
    return os.strerror(error.errno or 0) if isinstance(error, OSError) else ""


def _other_kind(name: str) -> str:
    """What a file is that is no clip, or ""."""
    kind = file_kinds.of_file(name)
    return "" if file_kinds.is_clip(kind) else file_kinds.describe(kind)


def _is_cover(stream: av.VideoStream) -> bool:
    """Whether all there is to see is the cover of a piece of music."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _stored_codec(name: str) -> str:
    """What a clip itself calls its video codec, or "(unnamed)"."""
    with contextlib.suppress(OSError), open(name, "rb") as file:
        content = file.read(_MOST_OF_HEADER)
        # MP4 may end with its header.
        file.seek(max(os.path.getsize(name) - _MOST_OF_HEADER, 0))
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
            options=_OPTIONS_OF_STREAMS,
            metadata_errors="replace",
            timeout=_SECONDS_TO_WAIT,
        )
    # Lists of a container's own formats hold commas, and any part of them counts.
    options = {"format_whitelist": ",".join(_FORMATS)}
    with _openable(name) as where:
        return av.open(where, options=options, metadata_errors="replace")


@contextlib.contextmanager
def _openable(name: str) -> Iterator[str]:
    """A name of the same file that FFmpeg can take."""
    if _is_utf8(name) and not name.lower().endswith(_ENDINGS_OF_SEQUENCES):
        # FFmpeg takes what stands before a colon for a protocol.
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
