"""Draws clips with FFmpeg, of kinds that OpenCV cannot write."""

import subprocess

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
