"""Face images with labels, as a table, lists or text files beside them name them.

Each function lists the images below a folder, or returns nothing where the folder is
not laid out so. No files are opened but those that hold labels. `known_face_sets` does
the same for FaceForensics++ and Celeb-DF.

Sources: data_list_creator.py and dataset_creator.py of the reference project.
"""

import dataclasses
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from dfdetect import labels
from dfdetect.data import label_table
from dfdetect.data.builders import archives, base
from dfdetect.media import file_kinds, source_files

NO_BOX = (0.0,) * 4

_LISTS = tuple(f"{name}.txt" for name in ("train", "val", "validation", "test"))
# Folders of a frame's clip that say nothing of it.
_CLIP_FOLDERS = ("frames", "videos")
_FRAMES_FILE = "extract_frames.json"  # In a folder that `extract_frames` filled.
# The path of a frame: its clip, its number, and the rate factor of `extract_frames`.
FRAME_PATH = re.compile(
    r"(?P<clip>.+)/(?P<frame>\d+)(?:\.(?P<compression>crf\d+))?\.[A-Za-z]+"
)


@dataclasses.dataclass(frozen=True)
class FaceRow(label_table.Row):
    """An image. `group` is never empty: without one it is a group by itself.

    Attributes:
        source: Where it comes from; "" if unknown, also in the other texts.
        method: Who or what made it.
        box: ymin, xmin, ymax, xmax, see `boxes`; may reach beyond the image.
        compression: Compression of the clip that it is a frame of.
        clip: Name of that clip.
        frame: Number of the frame in the clip; -1 if it is not a frame.
        columns: Further columns of a table, by name.
    """

    source: str = ""
    method: str = ""
    box: tuple[float, ...] = NO_BOX
    compression: str = ""
    clip: str = ""
    frame: int = -1
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def fingerprinted(self) -> tuple[object, ...]:
        """Returns what else goes into the fingerprint; empty where nothing is known."""
        known: tuple[object, ...] = (self.source, self.method, *self.box)
        of_clip = (self.compression, self.clip, self.frame)
        if of_clip != ("", "", -1) or self.columns:
            known += (*of_clip, *sorted(self.columns.items()))
        return known if any(known) else ()


def find_frames(root: str | os.PathLike, path: str) -> list[str]:
    """Finds the images in the folder that `extract_frames` makes of a clip.

    Args:
        root: The folder.
        path: Path of the clip in it; the folder has that name, mostly without its
            ending.
    """
    for folder in (posixpath.splitext(path)[0], path):
        place = os.path.join(os.fspath(root), folder)
        if os.path.isdir(place):
            names = sorted(filter(is_face_image, os.listdir(place)))
            return [posixpath.join(folder, name) for name in names]
    return []


def name_frame(row: FaceRow) -> FaceRow:
    """Returns a row with the clip, number and compression that its path tells.

    A clip that the row names stays, and `crf30` is added to its compression. The row
    itself where the path is not that of a frame.
    """
    match = FRAME_PATH.fullmatch(row.path)
    if not match:
        return row
    *folders, name = match["clip"].split("/")
    kept = [folder for folder in folders if folder not in _CLIP_FOLDERS]
    compression = filter(None, (row.compression, match["compression"]))
    return dataclasses.replace(
        row,
        clip=row.clip or "/".join([*kept, name]),
        frame=int(match["frame"]),
        compression="+".join(compression),
    )


def name_frames(rows: Sequence[FaceRow], paths: Sequence[str]) -> list[FaceRow]:
    """Returns rows with the clip of each image that is surely a frame.

    A number for a name is not enough: photographs have that, too. It is a frame where
    `extract_frames` filled the folder or gave the name, or where the clip's folder is
    in `frames` or `videos`. A frame that would be a group by itself goes by its clip.

    Args:
        rows: The images; what names its clip is left alone.
        paths: Files of the folder, see `archives.list_members`.
    """
    filled = tuple(
        path.removesuffix(_FRAMES_FILE)
        for path in paths
        if posixpath.basename(path) == _FRAMES_FILE
    )
    named = []
    for row in rows:
        match = FRAME_PATH.fullmatch(row.path)
        folders = match["clip"].split("/")[:-1] if match else []
        is_frame = match and (
            match["compression"]
            or row.path.startswith(filled)
            or (folders and folders[-1] in _CLIP_FOLDERS)
        )
        if is_frame and not row.clip:
            row = name_frame(row)
            if row.group == row.path:
                row = dataclasses.replace(row, group=row.clip)
        named.append(row)
    return named


def describe_listed(
    listed: Sequence[FaceRow], known: Sequence[FaceRow]
) -> list[FaceRow]:
    """Adds to the images of lists what else is known of them, such as their groups.

    Args:
        listed: The images, with the label and the split that count.
        known: Rows of the same folder, of all images or some.

    Raises:
        ValueError: The label of an image is another one; file and line.
    """
    known_of = {row.path: row for row in known}
    rows = []
    for row in listed:
        found = known_of.get(row.path, row)
        if found.label != row.label:
            raise ValueError(
                f"{row.where}: {row.path!r} is {labels.NAMES[row.label]} here and "
                f"{labels.NAMES[found.label]} by {found.where}."
            )
        rows.append(dataclasses.replace(found, where=row.where, split=row.split))
    return rows


def read_lists(
    root: str | os.PathLike, names: Sequence[str], paths: Sequence[str]
) -> list[FaceRow]:
    """Reads lists of `path label`, one for each split.

    Args:
        root: The folder of the images.
        names: Paths of the lists; empty for those in the folder.
        paths: Files of the folder, see `archives.list_members`.

    Returns:
        Rows whose paths lead from the folder: a list of another machine may have
        others, of which the longest end counts that is there.

    Raises:
        ValueError: A line is wrong, or an image stands in two lists; file and line.
    """
    known = {*paths}
    if not names:
        names = [os.path.join(root, name) for name in _LISTS if name in known]
    rows: list[FaceRow] = []
    where_of: dict[str, str] = {}
    for name in names:
        split = label_table.parse_split(posixpath.splitext(os.path.basename(name))[0])
        if split is None:
            raise ValueError(
                f"{name}: a list must be called train.txt, val.txt or test.txt."
            )
        with open(name, "rb") as file:
            text = label_table.decode_text(file.read(), str(name), base.warn)
        lines = text.splitlines()
        for place, line in enumerate(lines, 1):
            where = f"{name}:{place}"
            path, _, text = line.rstrip().rpartition(" ")
            if not line.strip():
                continue
            label = label_table.parse_label(text)
            if not path or label is None:
                raise ValueError(f"{where}: must be PATH LABEL, got {line!r}.")
            found = _longest_end(path.replace("\\", "/"), known)
            if found is None:
                raise ValueError(f"{where}: there is no file {path!r} in {root}.")
            if found in where_of:
                raise ValueError(f"{where}: {path!r} stands in {where_of[found]}, too.")
            where_of[found] = where
            rows.append(FaceRow(where, found, label, split, found))
    return rows


def read_numbered(root: str | os.PathLike, paths: Sequence[str]) -> list[FaceRow]:
    """Reads images that each have a text file beside them with 0 (real) or 1 (fake).

    Raises:
        ValueError: A text is neither.
    """
    known = {*paths}
    rows = []
    for path in paths:
        beside = _text_beside(path)
        if beside not in known or not _holds_face_image(root, path):
            continue
        text = archives.read_member(root, beside).decode(errors="replace").strip()
        label = label_table.parse_label(text)
        if label is None:
            raise ValueError(
                f"{os.path.join(root, beside)}: must be 0 (real) or 1 (fake), "
                f"got {text[:20]!r}."
            )
        split = label_table.parse_split(path.split("/")[0]) or ""
        rows.append(FaceRow(os.path.join(root, path), path, label, split, path))
    return rows


def count_unlabeled(
    root: str | os.PathLike,
    paths: Iterable[str],
    rows: Iterable[FaceRow],
    passed_over: Counter[str],
) -> None:
    """Counts the files that are neither images of rows nor say their labels.

    Args:
        root: The folder.
        paths: Its files, see `archives.list_members`.
        rows: What is known of it.
        passed_over: Counts by kind; added to.
    """
    images = {row.path for row in rows}
    known = images | {_text_beside(path) for path in images}
    for path in paths:
        if path in known or _tells_of_images(path):
            continue
        kind = file_kinds.identify_bytes(archives.read_head(root, path))
        name = file_kinds.name_passed_over(path, kind)
        passed_over[
            f"{name} without a label" if file_kinds.is_image(kind) else name
        ] += 1


def is_face_image(path: str) -> bool:
    """Whether a file is an image by its ending, and no mask by its folders."""
    return source_files.has_image_suffix(path) and not _is_mask(path)


def _holds_face_image(root: str | os.PathLike, path: str) -> bool:
    """Like `is_face_image`, by the first bytes where the ending says nothing."""
    if source_files.has_image_suffix(path) or _is_mask(path):
        return is_face_image(path)
    return file_kinds.is_image(
        file_kinds.identify_bytes(archives.read_head(root, path))
    )


def _is_mask(path: str) -> bool:
    return "masks" in path.split("/")[:-1]


def _tells_of_images(path: str) -> bool:
    """Whether a file has labels, splits or settings by its name."""
    name = posixpath.basename(path)
    return name in (label_table.FILE_NAME, *_LISTS) or name.endswith(".json")


def _text_beside(path: str) -> str:
    return f"{posixpath.splitext(path)[0]}.txt"


def _longest_end(path: str, known: set[str]) -> str | None:
    parts = path.split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end in known), None)
