"""Contact sheets of queries beside their nearest known images, a row each."""

import os
from collections.abc import Iterable

import cv2
import numpy as np

from dfdetect import files, labels
from dfdetect.media import drawing
from dfdetect.retrieval import index_building
from dfdetect.retrieval.entries import Neighbour

ROWS = 40  # in one sheet

_SIDE, _CAPTION, _GAP = 112, 30, 6
_WHITE, _INK, _EMPTY = 255, (40, 40, 40), (225, 225, 225)
_LETTERS = 17  # fit below a tile


class Sheets:
    """Contact sheets, written when they are full.

    Args:
        path: File of the first, which ends in .jpg, .jpeg or .png. The next ones have
            numbers before the ending.
        top_k: Number of neighbours in a row.
        spared: Files that no sheet may replace; the number is passed over.
    """

    def __init__(self, path: str, top_k: int, spared: Iterable[str] = ()) -> None:
        self._path = path
        self._spared = {os.path.realpath(each) for each in spared}
        self._top_k = top_k
        self._rows: list[np.ndarray] = []
        self._num_sheets = 0

    def add(
        self, image: np.ndarray, box: np.ndarray, name: str, found: list[Neighbour]
    ) -> None:
        """Adds a row: a part of an image, and its neighbours; writes a full sheet.

        Args:
            image: `[height, width, 3]` uint8 RGB.
            box: Box of the part, in the format of `dfdetect.boxes`.
            name: Caption of the part.
            found: Neighbours, nearest first.

        Raises:
            OSError: A sheet cannot be written; its rows are lost.
        """
        query = _decode(index_building.encode_thumbnail(image, box, _SIDE))
        tiles = [_draw_tile(query, (name, "query"), _INK)]
        for neighbour in found[: self._top_k]:
            entry = neighbour.entry
            known = 0 <= entry.label < len(labels.NAMES)
            label = labels.NAMES[entry.label] if known else ""
            color = drawing.probability_color(float(entry.label)) if known else _INK
            caption = (os.path.basename(entry.source), f"{neighbour.value:.3f} {label}")
            tiles.append(_draw_tile(_decode(entry.thumbnail), caption, color))
        blank = np.full_like(tiles[0], _WHITE)
        tiles += [blank] * (1 + self._top_k - len(tiles))
        self._rows.append(np.concatenate(tiles, axis=1))
        if len(self._rows) == ROWS:
            self.finish()

    def finish(self) -> None:
        """Writes the rows that have not been written yet.

        Raises:
            OSError: They cannot be written, and are lost.
        """
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        content = drawing.encode_image(
            np.concatenate(rows), os.path.splitext(self._path)[1]
        )
        files.write(self._next_path(), content)

    def _next_path(self) -> str:
        """The file of the next sheet, which is none of those to spare."""
        stem, suffix = os.path.splitext(self._path)
        while True:
            self._num_sheets += 1
            number = f"-{self._num_sheets}" if self._num_sheets > 1 else ""
            path = f"{stem}{number}{suffix}"
            if os.path.realpath(path) not in self._spared:
                return path


def _decode(content: bytes) -> np.ndarray | None:
    if not content:
        return None
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return None if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _draw_tile(
    image: np.ndarray | None, caption: tuple[str, str], color: tuple[int, int, int]
) -> np.ndarray:
    """Draws an image in the middle of its tile, a colored frame, and two lines."""
    tile = np.full((_SIDE + _CAPTION + _GAP, _SIDE + _GAP, 3), _WHITE, np.uint8)
    if image is None:
        image = np.full((_SIDE, _SIDE, 3), _EMPTY, np.uint8)
    scale = _SIDE / max(image.shape[:2])
    width, height = (max(1, round(x * scale)) for x in image.shape[1::-1])
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    top, left = (_SIDE - height) // 2, (_SIDE - width) // 2
    tile[top : top + height, left : left + width] = image
    corner = (left + width - 1, top + height - 1)
    cv2.rectangle(tile, (left, top), corner, color, 2)
    for line, text in enumerate(caption):
        place = (2, _SIDE + 12 + 13 * line)
        text = drawing.make_drawable(text)
        text = text if len(text) <= _LETTERS else f"{text[: _LETTERS - 2]}.."
        cv2.putText(
            tile, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.35, _INK, 1, cv2.LINE_AA
        )
    return tile
