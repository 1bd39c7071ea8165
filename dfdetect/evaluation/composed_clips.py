"""Composes clips from photographs, in which it is known who counts.

Heads are cut out of portraits and moved over a room: who speaks, who stands beside, and
what must never decide a verdict, such as a face on a poster.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

import cv2
import numpy as np

from dfdetect.media import drawing, video

_HEIGHT, _WIDTH = 720, 1280
_RATE = 10.0  # Frames a second.
_CUT = 1.25  # Sides of a head that are cut out around it.
_SWAY, _BREATH = 0.08, 0.04  # Of a side; how far a head moves, and grows.
_QUALITY = 75  # Of the JPEG that stands for a codec.


@dataclasses.dataclass(frozen=True)
class Part:
    """One head of a scene.

    Attributes:
        counts: Whether its track should decide.
        side: Height of the head as a share of the height of the frame.
        center: Its place, (y, x), as shares of the frame.
        share: Share of the frames in which it is seen, up to the end.
        still: Whether it never moves and has a frame around it, as a poster.
        framed: Whether it moves within a frame, as an inset.
    """

    counts: bool
    side: float
    center: tuple[float, float]
    share: float = 1.0
    still: bool = False
    framed: bool = False


_SPEAKER = Part(True, 0.4, (0.45, 0.4))

# By name; the first part of each is the main person.
SCENES: dict[str, tuple[Part, ...]] = {
    "speaker": (_SPEAKER,),
    "poster": (_SPEAKER, Part(False, 0.11, (0.2, 0.8), still=True)),
    "inset": (_SPEAKER, Part(False, 0.14, (0.2, 0.85), framed=True)),
    "pair": (_SPEAKER, Part(True, 0.36, (0.5, 0.75))),
    "behind": (_SPEAKER, Part(True, 0.22, (0.4, 0.75))),
    "entering": (_SPEAKER, Part(True, 0.36, (0.5, 0.75), share=0.4)),
    "passing": (_SPEAKER, Part(False, 0.36, (0.5, 0.75), share=0.1)),
}


@dataclasses.dataclass(frozen=True)
class Portrait:
    """A photograph and where its head is.

    Attributes:
        image: uint8 RGB `[height, width, 3]`.
        box: The head's ymin, xmin, ymax and xmax in pixels.
    """

    image: np.ndarray
    box: np.ndarray


@dataclasses.dataclass(frozen=True)
class Truth:
    """A head that is in a frame.

    Attributes:
        box: `[4]` in the format of `dfdetect.boxes`.
        part: Number of the part of the scene.
        counts: Whether its track should decide.
    """

    box: np.ndarray
    part: int
    counts: bool


def read_images(folder: str, split: str) -> Iterator[Portrait]:
    """Reads a folder of VOC layout, and yields each image with its first head.

    Args:
        folder: With `JPEGImages`, `Annotations` and `Splits`.
        split: A file of `Splits`, without its ending.

    Yields:
        In the order of the split; `box` is zeros of an image without heads.
    """
    with open(os.path.join(folder, "Splits", f"{split}.txt"), encoding="utf-8") as file:
        stems = file.read().split()
    names = {os.path.splitext(x)[0]: x for x in os.listdir(f"{folder}/JPEGImages")}
    for stem in stems:
        image = cv2.imread(os.path.join(folder, "JPEGImages", names[stem]))
        if image is None:
            raise OSError(
                f"{folder}: {names[stem]} is not an image that can be decoded."
            )
        tree = ElementTree.parse(os.path.join(folder, "Annotations", f"{stem}.xml"))
        box = np.zeros(4)
        found = tree.find("object/bndbox")
        if found is not None:
            edges = ("ymin", "xmin", "ymax", "xmax")
            box = np.array([float(found.findtext(edge, "0")) for edge in edges])
        yield Portrait(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), box)


def compose_clip(
    parts: Sequence[Part],
    portraits: Sequence[Portrait],
    *,
    room: np.ndarray,
    num_frames: int = 32,
    seed: int = 0,
) -> Iterator[tuple[video.Frame, list[Truth]]]:
    """Yields the frames of a clip of 1280 x 720 pixels, and what is in them.

    Args:
        parts: The scene; see `SCENES`.
        portraits: One for each part.
        room: Background, uint8 RGB `[height, width, 3]` of any size.
        num_frames: Number of frames, ten a second.
        seed: Seed of the motion and the noise.
    """
    if len(portraits) != len(parts):
        raise ValueError(
            f"{len(parts)} parts need as many portraits, got {len(portraits)}."
        )
    random = np.random.default_rng(seed)
    ground = cv2.resize(room, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA)
    phases = random.uniform(0, 2 * np.pi, (len(parts), 3))
    for index in range(num_frames):
        canvas = ground.copy()
        truths = []
        for number, (part, portrait) in enumerate(zip(parts, portraits, strict=True)):
            if index < round((1 - part.share) * num_frames):
                continue
            angles = phases[number] + 2 * np.pi * index / _RATE * np.array(
                [0.3, 0.2, 1]
            )
            motion = np.zeros(3) if part.still else np.sin(angles)
            box = _paste(canvas, part, portrait, motion)
            truths.append(Truth(box, number, part.counts))
        noisy = canvas + random.normal(0, 3, canvas.shape)
        content = drawing.encode_image(
            noisy.clip(0, 255).astype(np.uint8), ".jpg", _QUALITY
        )
        coded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert coded is not None  # It was encoded here.
        image = cv2.cvtColor(coded, cv2.COLOR_BGR2RGB)
        yield video.Frame(index, index / _RATE, image), truths


def _paste(
    canvas: np.ndarray, part: Part, portrait: Portrait, motion: np.ndarray
) -> np.ndarray:
    """Draws a head into the canvas; returns its box."""
    top, left, bottom, right = portrait.box
    side = part.side * _HEIGHT * (1 + _BREATH * motion[2])
    scale = side / (bottom - top)
    center = np.array(part.center) * (_HEIGHT, _WIDTH) + _SWAY * side * motion[:2]
    middle = np.array([top + bottom, left + right]) / 2
    shift = center - scale * middle  # Of the portrait's corner, y and x.
    matrix = np.array([[scale, 0, shift[1]], [0, scale, shift[0]]])
    placed = cv2.warpAffine(portrait.image, matrix, (_WIDTH, _HEIGHT))
    extent = np.array([bottom - top, right - left]) * scale
    mask: np.ndarray = np.zeros((_HEIGHT, _WIDTH), np.float32)
    height, width = (int(round(x)) for x in extent * _CUT / 2)
    y, x = (int(round(value)) for value in center)
    if part.still or part.framed:
        edge = ((x - width, y - height), (x + width, y + height))
        cv2.rectangle(mask, *edge, 1.0, -1)
    else:
        cv2.ellipse(mask, (x, y), (width, height), 0, 0, 360, 1.0, -1)
        mask = cv2.GaussianBlur(mask, (0, 0), 0.03 * side)
    inside = np.full(portrait.image.shape[:2], 1.0, np.float32)
    mask = (mask * cv2.warpAffine(inside, matrix, (_WIDTH, _HEIGHT)))[..., None]
    canvas[:] = (canvas * (1 - mask) + placed * mask).round().astype(np.uint8)
    if part.still or part.framed:
        cv2.rectangle(canvas, *edge, (240, 240, 240), 4)
    box = np.concatenate([center - extent / 2, center + extent / 2])
    return (box / np.array([_HEIGHT, _WIDTH] * 2)).clip(0, 1)
