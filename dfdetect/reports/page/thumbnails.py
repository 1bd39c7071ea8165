"""The small JPEGs of a report, and how large they may be.

The fewer files, the larger: together the images of a report have at most 68 MB,
which base64 makes 91 MB, so that a page of 1,000 files stays below 100 MB.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import cv2
import numpy as np

from dfdetect import boxes as box_format
from dfdetect import labels
from dfdetect.media import drawing

# `explainer.Explainer`: an image and its boxes, to regions and heat maps.
Explainer = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

MOST_BYTES = 68 * 10**6  # of all images of a report, up to `_MOST_FILES`
_MOST_FILES = 4000  # With more, what is left for each would show nothing.
_MOST_OF_A_FILE = 400_000

_SIDE, _LARGE_SIDE = 640, 1024  # pixels, of the longer side
_LARGE_FROM = 150_000  # bytes of a file
_HEAD_SIDE = 112
_FRAME_SIDE = 320
_FRAMES = 12  # of a clip
_EXPLAINED_TRACKS = 4  # of a clip

# Key frames and frames of a result are the same where their times are so near.
SAME_SECONDS = 0.02

_QUALITIES = (82, 70, 58)
_SMALLEST_SIDE = 80


@dataclasses.dataclass(frozen=True)
class Head:
    """JPEGs of one head; b"" for none.

    Attributes:
        crop: What the classifier saw.
        heat: The same below its heat map.
        nearest: Of the known images that are most like it, by the label's name.
    """

    crop: bytes = b""
    heat: bytes = b""
    nearest: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return len(self.crop) + len(self.heat) + sum(map(len, self.nearest.values()))


@dataclasses.dataclass(frozen=True)
class Thumbnails:
    """What a report shows of one file.

    Attributes:
        image: A JPEG of an image, without marks, or b"".
        heads: Of heads of an image, by their place in the result line.
        key_frames: Of a clip: seconds and a JPEG of any size, without marks.
    """

    image: bytes = b""
    heads: Mapping[int, Head] = dataclasses.field(default_factory=dict)
    key_frames: Sequence[tuple[float, bytes]] = ()


def bytes_of_a_file(num_files: int) -> int:
    """Most bytes of the images of one of so many files."""
    return min(_MOST_OF_A_FILE, MOST_BYTES // min(max(num_files, 1), _MOST_FILES))


def of_image(
    image: np.ndarray,
    heads: Sequence[Mapping],
    margin: float | None,
    most_bytes: int,
    explainer: Explainer | None = None,
    thumbnails: Mapping[str, bytes] | None = None,
) -> Thumbnails:
    """The image, and its most suspicious heads while there is room.

    Args:
        image: `[height, width, 3]` uint8 RGB.
        heads: Of the result line; those that were judged have a `fake_probability`.
        margin: That of the graph's classifier, or None; see `boxes.crop_regions`.
        most_bytes: Of all JPEGs together.
        explainer: What makes the heat maps, or None for none.
        thumbnails: JPEGs of the known images, by the id of their entry.
    """
    side = _LARGE_SIDE if most_bytes >= _LARGE_FROM else _SIDE
    whole_image = jpeg(image, side, most_bytes * 3 // 5)
    left = most_bytes - len(whole_image)
    judged = [i for i, head in enumerate(heads) if head["fake_probability"] is not None]
    boxes = np.array([heads[i]["box"] for i in judged], np.float32).reshape(-1, 4)
    if explainer and judged:
        regions, maps = explainer(image, boxes)
    else:
        height, width = image.shape[:2]
        regions = np.asarray(box_format.crop_regions(boxes, height, width, margin))
        maps = None
    shown: dict[int, Head] = {}
    for k in sorted(
        range(len(judged)), key=lambda k: -heads[judged[k]]["fake_probability"]
    ):
        y, x, height, width = (int(value) for value in regions[k])
        crop = _shrunk(image[y : y + height, x : x + width], 2 * _HEAD_SIDE)
        whole = np.array([[0, 0, *crop.shape[:2]]], np.int32)
        head = Head(
            jpeg(crop, _HEAD_SIDE, left),
            b""
            if maps is None
            else jpeg(
                drawing.overlay_heat_maps(crop, whole, maps[k : k + 1]),
                _HEAD_SIDE,
                left,
            ),
            _nearest(heads[judged[k]], thumbnails or {}),
        )
        left -= head.size
        if left < 0:
            break
        shown[judged[k]] = head
    return Thumbnails(whole_image, shown)


def key_times(result: Mapping) -> list[float]:
    """Of which frames of a clip a report shall show images, by their seconds.

    At most 12: those of the most suspicious head of each track, first the tracks that
    matter, the most suspicious before others; and then more in even steps.

    Args:
        result: Of a video; see `page.Report.add`.
    """
    aside = set_aside(result)
    suspicious = sorted(
        result["heads"],
        key=lambda head: (head.get("track") in aside, -(head["fake_probability"] or 0)),
    )
    times = list(dict.fromkeys(head["time"] for head in suspicious))[:_FRAMES]
    others = [x["time"] for x in result["frames"] if x["time"] not in times]
    count = min(_FRAMES - len(times), len(others))
    # In the middle of so many parts.
    places = (np.arange(count) + 0.5) * len(others) / max(count, 1)
    return sorted(times + [others[int(place)] for place in places])


def set_aside(result: Mapping) -> set[int]:
    """The numbers of a clip's tracks that do not matter; none of earlier lines."""
    return {x["track"] for x in result["tracks"] if not x.get("matters", True)}


def of_tracks(
    heads: Sequence[Mapping],
    frames: Sequence[tuple[float, bytes]],
    margin: float | None,
    most_bytes: int,
    explainer: Explainer | None = None,
    thumbnails: Mapping[str, bytes] | None = None,
    aside: Collection[int] = (),
) -> dict[int, Head]:
    """The most suspicious head of each track of a clip, while there is room.

    Args:
        heads: Of the result line, with `time`.
        frames: Seconds and a JPEG of any size; a head without its frame has no crop.
        margin: That of the graph's classifier, or None; see `boxes.crop_regions`.
        most_bytes: Of all together.
        explainer: What makes the heat maps of the first four, or None.
        thumbnails: JPEGs of the known images, by the id of their entry.
        aside: Numbers of tracks that come after all others.
    """
    shown: dict[int, Head] = {}
    judged = [i for i, head in enumerate(heads) if head["fake_probability"] is not None]
    for i in sorted(
        judged,
        key=lambda i: (heads[i].get("track") in aside, -heads[i]["fake_probability"]),
    ):
        explained = explainer if len(shown) < _EXPLAINED_TRACKS else None
        head = Head()
        for time, content in frames:
            if abs(time - heads[i]["time"]) > SAME_SECONDS:
                continue
            image = _decoded(content)
            if image is not None:
                found = of_image(image, [heads[i]], margin, MOST_BYTES, explained)
                head = found.heads[0]
        nearest = _nearest(heads[i], thumbnails or {})
        head = dataclasses.replace(head, nearest=nearest)
        most_bytes -= head.size
        if most_bytes < 0:
            break
        if head.size:
            shown[i] = head
    return shown


def key_frames(
    frames: Sequence[tuple[float, bytes]], most_bytes: int
) -> list[tuple[float, bytes]]:
    """At most 12 of the frames, in even steps of their number, made small.

    Args:
        frames: Seconds and a JPEG of any size; what cannot be decoded is left out.
        most_bytes: Of all together.
    """
    count = min(len(frames), _FRAMES)
    chosen = np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int))
    small = []
    for i in chosen:
        time, content = frames[i]
        image = _decoded(content)
        if image is not None:
            small.append((time, jpeg(image, _FRAME_SIDE, most_bytes // count)))
    return small


def jpeg(image: np.ndarray, side: int, most_bytes: int) -> bytes:
    """A JPEG of at most so many pixels a side, and smaller until it has few bytes.

    Args:
        image: `[height, width, 3]` uint8 RGB.
        side: Most pixels of the longer side; a smaller image stays as it is.
        most_bytes: Of the file; below 80 pixels a side it may have more.
    """
    while True:
        small = _shrunk(image, side)
        for quality in _QUALITIES:
            content = drawing.encode_image(small, ".jpg", quality)
            if len(content) <= most_bytes:
                return content
        if side <= _SMALLEST_SIDE:
            return content
        side = max(_SMALLEST_SIDE, min(side, max(small.shape[:2])) * 3 // 4)


def _shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """The image with at most so many pixels on its longer side."""
    scale = min(1.0, side / max(image.shape[:2]))
    size = tuple(max(1, round(length * scale)) for length in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _decoded(content: bytes) -> np.ndarray | None:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return None if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _nearest(head: Mapping, thumbnails: Mapping[str, bytes]) -> dict[str, bytes]:
    """The thumbnails of the known images that are most like a head."""
    known = {name: head.get(f"nearest_{name}") or {} for name in labels.NAMES}
    return {
        name: thumbnails[nearest["id"]]
        for name, nearest in known.items()
        if thumbnails.get(nearest.get("id", ""))
    }
