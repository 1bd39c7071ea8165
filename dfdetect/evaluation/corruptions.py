"""Corruptions of images as they meet them on the Internet, at five strengths.

Rotation, mirroring, Gaussian blur, scaling, cropping and JPEG are the alterations of
the ICIAP deepfake challenge; noise, gamma, gray and H.264 are ours. For evaluation
only, so plain NumPy and OpenCV: nothing here is ever in a graph.

| name     | a strength is                             | 1    | 2   | 3   | 4   | 5  |
|----------|-------------------------------------------|------|-----|-----|-----|----|
| rotation | degrees, counter-clockwise                | 3    | 6   | 12  | 25  | 45 |
| mirror   | left to right; there is but one           | 1    |     |     |     |    |
| blur     | sigma of a Gaussian in pixels             | .5   | 1   | 2   | 3   | 5  |
| scaling  | share the sides are reduced to, then back | .75  | .5  | .35 | .2  | .1 |
| cropping | share of the sides cut away at the edges  | .05  | .1  | .2  | .3  | .4 |
| jpeg     | quality of OpenCV's encoder, 4:2:0        | 95   | 75  | 50  | 30  | 10 |
| noise    | sigma of white noise in gray levels       | 2    | 5   | 10  | 20  | 40 |
| gamma    | exponent of the pixels in [0, 1]: darker  | 1.25 | 1.5 | 2   | 2.5 | 3  |
| gray     | no color is left; there is but one        | 1    |     |     |     |    |
| h264     | constant rate factor of x264              | 18   | 23  | 30  | 40  | 45 |

Pixels are those of the image as it is stored. Rate factors 23 and 40 are c23 and c40
of FaceForensics++ (Roessler et al., ICCV 2019).

Source: Guarnera et al., The Face Deepfake Detection Challenge, J. Imaging 8(10), 2022.
"""

import dataclasses
import functools
import os
import shutil
import subprocess
from collections.abc import Callable

import cv2
import numpy as np

STRENGTHS = 5

# x264 spends more on what later frames are predicted from; a still clip of a few frames
# goes through both kinds of frame.
_CLIP_FRAMES = 3


@dataclasses.dataclass(frozen=True)
class Corruption:
    """One way to corrupt an image.

    Attributes:
        unit: Unit of the values, in a word or two.
        values: Values of strength 1, 2 and so on, from the mildest to the harshest.
        apply: Takes uint8 `[H, W, 3]`, a value and a seed; returns a corrupted image.
    """

    unit: str
    values: tuple[float, ...]
    apply: Callable[[np.ndarray, float, int], np.ndarray]


def corrupt_image(
    image: np.ndarray, name: str, strength: int, seed: int = 0
) -> np.ndarray:
    """Corrupts one image.

    Args:
        image: `[H, W, 3]` uint8 RGB; left as it is.
        name: One of `CORRUPTIONS`.
        strength: 0, which gives `image` back, to the number of its values.
        seed: Seed of noise; the place of the image in its split, so that no two images
            get the same.

    Returns:
        uint8 RGB, `[H, W, 3]` but for "cropping".

    Raises:
        ValueError: No such image, corruption or strength.
        ImportError: `h264` without ffmpeg, see `find_missing`.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}."
        )
    if name not in CORRUPTIONS:
        raise ValueError(f"name must be one of {list(CORRUPTIONS)}, got {name!r}.")
    alteration = CORRUPTIONS[name]
    if not 0 <= strength <= len(alteration.values):
        raise ValueError(
            f"strength of {name} must be 0 to {len(alteration.values)}, got {strength}."
        )
    if not strength:
        return image
    return alteration.apply(image, alteration.values[strength - 1], seed)


def find_missing() -> dict[str, str]:
    """Finds the corruptions that cannot be done here, and why."""
    try:
        _ffmpeg()
    except ImportError as error:
        return {"h264": str(error)}
    return {}


def _rotate(image: np.ndarray, degrees: float, _: int) -> np.ndarray:
    height, width = image.shape[:2]
    center = ((width - 1) / 2, (height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(center, degrees, 1.0)
    # Black corners would be a trace of their own; a reflection goes on with the skin.
    return cv2.warpAffine(
        image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101
    )


def _mirror(image: np.ndarray, *_: float) -> np.ndarray:
    return np.ascontiguousarray(image[:, ::-1])


def _blur(image: np.ndarray, sigma: float, _: int) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma)


def _scale(image: np.ndarray, share: float, _: int) -> np.ndarray:
    height, width = image.shape[:2]
    reduced = (max(1, round(width * share)), max(1, round(height * share)))
    small = cv2.resize(image, reduced, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def _crop(image: np.ndarray, share: float, _: int) -> np.ndarray:
    height, width = (max(1, round(side * (1 - share))) for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _jpeg(image: np.ndarray, quality: float, _: int) -> np.ndarray:
    parameters = [cv2.IMWRITE_JPEG_QUALITY, int(quality)]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def _noise(image: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image + sigma * drawn), 0, 255).astype(np.uint8)


def _gamma(image: np.ndarray, exponent: float, _: int) -> np.ndarray:
    levels = 255 * (np.arange(256) / 255) ** exponent
    return np.rint(levels).astype(np.uint8)[image]


def _gray(image: np.ndarray, *_: float) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _h264(image: np.ndarray, rate_factor: float, _: int) -> np.ndarray:
    """The last frame of a still clip that has been through x264."""
    height, width = image.shape[:2]
    # Half as many colors each way: sides must be even.
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24")
    size = f"{even.shape[1]}x{even.shape[0]}"
    clip = _run_ffmpeg(
        (*raw, "-s", size, "-r", "25"),
        ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", f"{rate_factor:g}")
        + ("-f", "h264"),
        even.tobytes() * _CLIP_FRAMES,
    )
    frames = np.frombuffer(_run_ffmpeg(("-f", "h264"), raw, clip), np.uint8)
    return frames.reshape(-1, *even.shape)[-1, :height, :width].copy()


def _run_ffmpeg(source: tuple[str, ...], output: tuple[str, ...], data: bytes) -> bytes:
    # One thread: the same bytes on any machine, and images are many at once anyway.
    command = [_ffmpeg(), "-nostdin", "-loglevel", "error", "-threads", "1", *source]
    command += ["-i", "pipe:0", "-threads", "1", *output, "pipe:1"]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        raise OSError(f"ffmpeg failed: {done.stderr.decode(errors='replace')}")
    return done.stdout


@functools.cache
def _ffmpeg() -> str:
    """The path of an ffmpeg that has x264."""
    candidates = [shutil.which("ffmpeg")]
    try:
        import imageio_ffmpeg

        candidates.append(imageio_ffmpeg.get_ffmpeg_exe())
    # It raises the second where its package came without a binary.
    except (ImportError, RuntimeError):
        pass
    for path in filter(None, candidates):
        listed = subprocess.run([path, "-encoders"], capture_output=True, check=False)
        if b" libx264 " in listed.stdout:
            return os.fspath(path)
    raise ImportError(
        "no ffmpeg with libx264 here; pip install dfdetect[robustness] brings one"
    )


CORRUPTIONS = {
    "rotation": Corruption("degrees", (3, 6, 12, 25, 45), _rotate),
    "mirror": Corruption("left to right", (1,), _mirror),
    "blur": Corruption("sigma in pixels", (0.5, 1, 2, 3, 5), _blur),
    "scaling": Corruption("share of the sides", (0.75, 0.5, 0.35, 0.2, 0.1), _scale),
    "cropping": Corruption("share cut away", (0.05, 0.1, 0.2, 0.3, 0.4), _crop),
    "jpeg": Corruption("quality", (95, 75, 50, 30, 10), _jpeg),
    "noise": Corruption("sigma in gray levels", (2, 5, 10, 20, 40), _noise),
    "gamma": Corruption("exponent", (1.25, 1.5, 2, 2.5, 3), _gamma),
    "gray": Corruption("no color", (1,), _gray),
    "h264": Corruption("rate factor", (18, 23, 30, 40, 45), _h264),
}
