"""Draws clips with FFmpeg, of kinds that OpenCV cannot write."""

import subprocess
from fractions import Fraction

import av
import imageio_ffmpeg
import numpy as np


def draw(path, *options, rate=25, seconds=1, size="160x120", source="testsrc2"):
    """Writes a clip of a moving test card; returns the path."""
    what = f"{source}=size={size}:rate={rate}:duration={seconds}"
    return convert(path, "-f", "lavfi", "-i", what, *options)


def convert(path, *options):
    """Runs FFmpeg to write a file; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"]
    command = [*program, *map(str, options), str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def write_stills(path, images, times, end):
    """Writes images that are shown from these seconds on, the last until `end`."""
    millisecond = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"qscale": "2"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.time_base = "yuv420p", millisecond
        stream.codec_context.time_base = millisecond
        stamps = [round(1000 * time) for time in (*times, end)]
        packets = []
        for image, stamp in zip(images, stamps, strict=False):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = stamp, millisecond
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for number, packet in enumerate(packets):
            packet.duration = stamps[number + 1] - stamps[number]
            container.mux(packet)
    return path


def decode(path, height, width, *options):
    """Decodes the frames of a clip with FFmpeg's program, RGB."""
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(path)]
    raw = ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run([*program, *options, *raw], check=True, capture_output=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


def draw_hdr(path):
    """Writes a clip of high dynamic range (PQ); returns the path."""
    of_hdr = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
    options = "-c:v libx265 -pix_fmt yuv420p10 -x265-params".split()
    return draw(path, *options, of_hdr)
