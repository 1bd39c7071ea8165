"""The small JPEGs of a report, and how large they may be.

The fewer the files, the larger their images: together they have at most 68 MB, or
91 MB as base64, so that a page of 1,000 files stays below 100 MB.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import cv2
import numpy as np

from dfdetect import boxes as box_format
from dfdetect import labels
from dfdetect.media import drawing

# `explainer.Explainer`: maps an image and its boxes to regions and heat maps.
Explainer = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

MAX_BYTES = 68 * 10**6  # of all images of a report, up to `_MAX_FILES`
_MAX_FILES = 4000  # With more, what is left for each would show nothing.
_MAX_BYTES_OF_FILE = 400_000

_SIDE, _LARGE_SIDE = 640, 1024  # pixels, of the longer side
_LARGE_FROM = 150_000  # bytes of a file
_HEAD_SIDE = 112
_FRAME_SIDE = 320
_FRAMES = 12  # of a clip
_EXPLAINED_TRACKS = 4  # of a clip

# Key frames and frames of a result are the same if their times differ by no more.
SAME_SECONDS = 0.02

_QUALITIES = (82, 70, 58)
_SMALLEST_SIDE = 80


@dataclasses.dataclass(frozen=True)
class HeadImages:
    """JPEGs of one head; b"" for none.

    Attributes:
        crop: What the classifier saw.
        heat: The same below its heat map.
        nearest: The known images that are most like it, by the label's name.
    """

    crop: bytes = b""
    heat: bytes = b""
    nearest: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all of them together."""
        return len(self.crop) + len(self.heat) + sum(map(len, self.nearest.values()))


@dataclasses.dataclass(frozen=True)
class Thumbnails:
    """The images of one file in a report.

    Attributes:
        image: A JPEG of an image, without marks, or b"".
        heads: Images of heads, by their places in the result line.
        key_frames: Frames of a clip: seconds and a JPEG of any size, without marks.
    """

    image: bytes = b""
    heads: Mapping[int, HeadImages] = dataclasses.field(default_factory=dict)
    key_frames: Sequence[tuple[float, bytes]] = ()


def compute_max_bytes(num_files: int) -> int:
    """Returns how many bytes the images of each of so many files may have."""
    return min(_MAX_BYTES_OF_FILE, MAX_BYTES // min(max(num_files, 1), _MAX_FILES))


def make_thumbnails(
    image: np.ndarray,
    heads: Sequence[Mapping],
    *,
    margin: float | None,
    max_bytes: int,
    explainer: Explainer | None = None,
    thumbnails: Mapping[str, bytes] | None = None,
) -> Thumbnails:
    """Makes JPEGs of an image, and of its most suspicious heads while there is room.

    Args:
        image: `[height, width, 3]` uint8 RGB.
        heads: Heads of the result line; `fake_probability` is None where not judged.
        margin: Crop margin of the graph's classifier; see `boxes.crop_regions`.
        max_bytes: Limit for all JPEGs together.
        explainer: Makes the heat maps; None for none.
        thumbnails: JPEGs of the known images, by the id of their entry.
    """
    side = _LARGE_SIDE if max_bytes >= _LARGE_FROM else _SIDE
    whole_image = encode_jpeg(image, side, max_bytes * 3 // 5)
    left = max_bytes - len(whole_image)
    judged = [i for i, head in enumerate(heads) if head["fake_probability"] is not None]
    boxes = np.array([heads[i]["box"] for i in judged], np.float32).reshape(-1, 4)
    if explainer and judged:
        regions, maps = explainer(image, boxes)
    else:
        height, width = image.shape[:2]
        regions = np.asarray(box_format.crop_regions(boxes, height, width, margin))
        maps = None
    shown: dict[int, HeadImages] = {}
    for k in sorted(
        range(len(judged)), key=lambda k: -heads[judged[k]]["fake_probability"]
    ):
        y, x, height, width = (int(value) for value in regions[k])
        crop = _shrink(image[y : y + height, x : x + width], 2 * _HEAD_SIDE)
        whole = np.array([[0, 0, *crop.shape[:2]]], np.int32)
        head = HeadImages(
            encode_jpeg(crop, _HEAD_SIDE, left),
            b""
            if maps is None
            else encode_jpeg(
                drawing.overlay_heat_maps(crop, whole, maps[k : k + 1]),
                _HEAD_SIDE,
                left,
            ),
            _find_nearest(heads[judged[k]], thumbnails or {}),
        )
        left -= head.size
        if left < 0:
            break
        shown[judged[k]] = head
    return Thumbnails(whole_image, shown)


def choose_key_times(result: Mapping) -> list[float]:
    """Chooses the frames of a clip that a report shows, at most 12, by their seconds.

    Those of the most suspicious head of each track come first, beginning with the
    tracks that matter and the most suspicious ones; the rest is spread evenly.

    Args:
        result: Result of a video; see `page.ReportPage.add`.
    """
    aside = find_set_aside(result)
    suspicious = sorted(
        result["heads"],
        key=lambda head: (head.get("track") in aside, -(head["fake_probability"] or 0)),
    )
    times = list(dict.fromkeys(head["time"] for head in suspicious))[:_FRAMES]
    others = [x["time"] for x in result["frames"] if x["time"] not in times]
    count = min(_FRAMES - len(times), len(others))
    # The middles of as many equal parts.
    places = (np.arange(count) + 0.5) * len(others) / max(count, 1)
    return sorted(times + [others[int(place)] for place in places])


def find_set_aside(result: Mapping) -> set[int]:
    """Returns the numbers of a clip's tracks that do not matter.

    It is empty for result lines of earlier versions, which do not tell.
    """
    return {x["track"] for x in result["tracks"] if not x.get("matters", True)}


def crop_tracks(
    heads: Sequence[Mapping],
    frames: Sequence[tuple[float, bytes]],
    *,
    margin: float | None,
    max_bytes: int,
    explainer: Explainer | None = None,
    thumbnails: Mapping[str, bytes] | None = None,
    aside: Collection[int] = (),
) -> dict[int, HeadImages]:
    """Crops the most suspicious head of each track of a clip, while there is room.

    Args:
        heads: Heads of the result line, with `time`.
        frames: Seconds and a JPEG of any size; a head without its frame has no crop.
        margin: Crop margin of the graph's classifier; see `boxes.crop_regions`.
        max_bytes: Limit for all JPEGs together.
        explainer: Makes the heat maps of the first four; None for none.
        thumbnails: JPEGs of the known images, by the id of their entry.
        aside: Numbers of tracks that come after all others.
    """
    shown: dict[int, HeadImages] = {}
    judged = [i for i, head in enumerate(heads) if head["fake_probability"] is not None]
    for i in sorted(
        judged,
        key=lambda i: (heads[i].get("track") in aside, -heads[i]["fake_probability"]),
    ):
        explained = explainer if len(shown) < _EXPLAINED_TRACKS else None
        head = HeadImages()
        for time, content in frames:
            if abs(time - heads[i]["time"]) > SAME_SECONDS:
                continue
            image = _decode(content)
            if image is not None:
                found = make_thumbnails(
                    image,
                    [heads[i]],
                    margin=margin,
                    max_bytes=MAX_BYTES,
                    explainer=explained,
                )
                head = found.heads[0]
        nearest = _find_nearest(heads[i], thumbnails or {})
        head = dataclasses.replace(head, nearest=nearest)
        max_bytes -= head.size
        if max_bytes < 0:
            break
        if head.size:
            shown[i] = head
    return shown


def shrink_key_frames(
    frames: Sequence[tuple[float, bytes]], max_bytes: int
) -> list[tuple[float, bytes]]:
    """Chooses at most 12 of the frames, evenly by their number, and shrinks them.

    Args:
        frames: Seconds and a JPEG of any size; what cannot be decoded is left out.
        max_bytes: Limit for all JPEGs together.
    """
    count = min(len(frames), _FRAMES)
    chosen = np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int))
    small = []
    for i in chosen:
        time, content = frames[i]
        image = _decode(content)
        if image is not None:
            small.append((time, encode_jpeg(image, _FRAME_SIDE, max_bytes // count)))
    return small


def encode_jpeg(image: np.ndarray, side: int, max_bytes: int) -> bytes:
    """Encodes an image as JPEG, shrinking it until it has few enough bytes.

    Args:
        image: `[height, width, 3]` uint8 RGB.
        side: Limit of the longer side in pixels; a smaller image is not enlarged.
        max_bytes: Limit of the file, not held by images of at most 80 pixels a side.
    """
    while True:
        small = _shrink(image, side)
        for quality in _QUALITIES:
            content = drawing.encode_image(small, ".jpg", quality)
            if len(content) <= max_bytes:
                return content
        if side <= _SMALLEST_SIDE:
            return content
        side = max(_SMALLEST_SIDE, min(side, max(small.shape[:2])) * 3 // 4)


def _shrink(image: np.ndarray, side: int) -> np.ndarray:
    """Shrinks an image to at most `side` pixels on its longer side."""
    scale = min(1.0, side / max(image.shape[:2]))
    size = tuple(max(1, round(length * scale)) for length in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _decode(content: bytes) -> np.ndarray | None:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return None if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _find_nearest(head: Mapping, thumbnails: Mapping[str, bytes]) -> dict[str, bytes]:
    """Finds the thumbnails of the known images that are most like a head."""
    known = {name: head.get(f"nearest_{name}") or {} for name in labels.NAMES}
    return {
        name: thumbnails[nearest["id"]]
        for name, nearest in known.items()
        if thumbnails.get(nearest.get("id", ""))
    }
