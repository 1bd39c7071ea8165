"""Labeled face images as a table, lists, frames of clips or a known data set say them.

Each function lists the images below a folder, or returns nothing where the folder is
not laid out so. Files are not opened, but for those that hold labels.

Sources: data_list_creator.py and dataset_creator.py of the reference project;
preprocessing/preprocess.py and rearrange.py of SCLBD/DeepfakeBench;
List_of_testing_videos.txt of Celeb-DF.
"""

import dataclasses
import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dfdetect import labels
from dfdetect.data import label_table
from dfdetect.data.builders import archives, base
from dfdetect.media import source_files

NO_BOX = (0.0,) * 4

_TEST_LIST = "List_of_testing_videos.txt"
_LISTS = tuple(f"{name}.txt" for name in ("train", "val", "validation", "test"))
# Folders of a frame's clip that say nothing of it.
_CLIP_FOLDERS = ("frames", "videos")
_FRAME = re.compile(r"(?P<clip>.+)/(?P<frame>\d+)\.[A-Za-z]+")
_FACEFORENSICS = re.compile(
    r"(?:.*/)?(?:original_sequences/(?P<real>\w+)|manipulated_sequences/(?P<fake>\w+))/"
    r"(?P<compression>raw|c0|c23|c40)/(?:frames|videos)/(?P<clip>[^/]+)"
)
_CELEB = re.compile(
    r"(?:.*/)?(?P<source>Celeb-real|YouTube-real|Celeb-synthesis)/"
    r"(?:(?:frames|videos)/)?(?P<clip>[^/]+)"
)
_CELEB_FAKE = re.compile(r"(?P<target>id\d+)_id\d+_(?P<scene>\d+)")
_PAIR = re.compile(r"(\d{3})_(\d{3})")


@dataclasses.dataclass(frozen=True)
class FaceRow(label_table.Row):
    """An image. `group` is never empty: without one it is a group by itself.

    Attributes:
        source: Where it comes from, "" where that is not known; as the following.
        method: Who or what made it.
        box: ymin, xmin, ymax, xmax, see `boxes`; may reach beyond the image.
        compression: Of the clip that it is a frame of.
        clip: Name of that.
        frame: Its number in the clip; -1 for none.
        columns: Further ones of a table, by name.
    """

    source: str = ""
    method: str = ""
    box: tuple[float, ...] = NO_BOX
    compression: str = ""
    clip: str = ""
    frame: int = -1
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def fingerprinted(self) -> tuple[object, ...]:
        """What counts for the fingerprint besides; empty where nothing is known."""
        known: tuple[object, ...] = (self.source, self.method, *self.box)
        of_clip = (self.compression, self.clip, self.frame)
        if of_clip != ("", "", -1) or self.columns:
            known += (*of_clip, *sorted(self.columns.items()))
        return known if any(known) else ()


def find_frames(root: str | os.PathLike, path: str) -> list[str]:
    """Images in the folder that `extract_frames` makes of a clip.

    Args:
        root: The folder.
        path: Of the clip from there on; the folder has that name, mostly without its
            ending.
    """
    for folder in (posixpath.splitext(path)[0], path):
        place = os.path.join(os.fspath(root), folder)
        if os.path.isdir(place):
            names = sorted(filter(_is_image, os.listdir(place)))
            return [posixpath.join(folder, name) for name in names]
    return []


def number(path: str) -> tuple[str, int]:
    """The clip of a frame, and its number in it; "" and -1 of what is no frame."""
    match = _FRAME.fullmatch(path)
    if not match:
        return "", -1
    *folders, name = match["clip"].split("/")
    kept = [folder for folder in folders if folder not in _CLIP_FOLDERS]
    return "/".join([*kept, name]), int(match["frame"])


def read_lists(
    root: str | os.PathLike, names: Sequence[str], paths: Sequence[str]
) -> list[FaceRow]:
    """Reads lists of `path label`, one for each split.

    Args:
        root: The folder of the images.
        names: Paths of the lists; none for those in the folder.
        paths: Files of the folder, see `archives.members`.

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
        split = label_table.split_of(posixpath.splitext(os.path.basename(name))[0])
        if split is None:
            raise ValueError(
                f"{name}: a list must be called train.txt, val.txt or test.txt."
            )
        with open(name, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
        for place, line in enumerate(lines, 1):
            where = f"{name}:{place}"
            path, _, text = line.rstrip().rpartition(" ")
            if not line.strip():
                continue
            label = label_table.label_of(text)
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
    """Images that each have a text file beside them with 0 (real) or 1 (fake).

    Raises:
        ValueError: A text is neither.
    """
    known = {*paths}
    rows = []
    for path in filter(_is_image, paths):
        beside = f"{posixpath.splitext(path)[0]}.txt"
        if beside not in known:
            continue
        text = archives.read(root, beside).decode(errors="replace").strip()
        label = label_table.label_of(text)
        if label is None:
            raise ValueError(
                f"{os.path.join(root, beside)}: must be 0 (real) or 1 (fake), "
                f"got {text[:20]!r}."
            )
        split = label_table.split_of(path.split("/")[0]) or ""
        rows.append(FaceRow(os.path.join(root, path), path, label, split, path))
    return rows


def read_known(
    root: str | os.PathLike, paths: Sequence[str], left_out: Counter[str]
) -> list[FaceRow]:
    """Frames of FaceForensics++ or Celeb-DF, as DeepfakeBench prepares them.

    Frames that `extract_frames` makes of the clips of these sets do as well.

    Args:
        root: The folder.
        paths: Its files.
        left_out: To it, frames are added that no split can hold, by reason.

    Raises:
        ValueError: A list of the set cannot be read.
    """
    frames = [
        (match["clip"], path)
        for path in filter(_is_image, paths)
        if (match := _FRAME.fullmatch(path))
    ]
    for read in (_read_faceforensics, _read_celeb):
        rows = list(read(os.fspath(root), frames, paths, left_out))
        if rows:
            return rows
    return []


def _read_faceforensics(
    root: str,
    frames: Sequence[tuple[str, str]],
    paths: Sequence[str],
    left_out: Counter[str],
) -> Iterator[FaceRow]:
    found = [(m, p) for c, p in frames if (m := _FACEFORENSICS.fullmatch(c))]
    split_of, pair_of = _pairs(root, paths, [match["clip"] for match, _ in found])
    for match, path in found:
        clip = match["clip"]
        pair = pair_of.get(clip.split("_")[0])
        if pair is None or not re.fullmatch(r"\d{3}(_\d{3})?", clip):
            # DeepFakeDetection's are of actors; `faceforensics` knows their split.
            left_out["frames of clips in no pair of FaceForensics++"] += 1
            continue
        method = match["fake"] or match["real"]
        yield _frame_row(
            root,
            path,
            labels.FAKE if match["fake"] else labels.REAL,
            split_of.get(pair, ""),
            pair,
            source="" if match["fake"] else method,
            method=method,
            compression=match["compression"].replace("c0", "raw"),
        )


def _pairs(
    root: str, paths: Sequence[str], clips: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The split of each pair of clips, and the pair of each clip.

    By the official lists train.json, val.json and test.json where these are in the
    folder; else the fakes tell who is paired, and no split is known.
    """
    split_of: dict[str, str] = {}
    pair_of: dict[str, str] = {}
    for path in paths:
        split = label_table.split_of(posixpath.basename(path).removesuffix(".json"))
        if not path.endswith(".json") or split is None:
            continue
        for pair in _read_json(root, path):
            if not (isinstance(pair, list) and len(pair) == 2):
                raise ValueError(
                    f"{os.path.join(root, path)}: must be a list of pairs of clips, "
                    f"got {pair!r}."
                )
            name = "_".join(sorted(map(str, pair)))
            split_of[name] = split
            pair_of.update(dict.fromkeys(map(str, pair), name))
    if not split_of:
        for match in filter(None, map(_PAIR.fullmatch, clips)):
            pair_of.update(
                dict.fromkeys(match.groups(), "_".join(sorted(match.groups())))
            )
        for clip in clips:
            pair_of.setdefault(clip, clip)
    return split_of, pair_of


def _read_json(root: str, path: str) -> Any:
    try:
        return json.loads(archives.read(root, path))
    except ValueError as error:
        raise ValueError(f"{os.path.join(root, path)}: no JSON ({error}).") from error


def _read_celeb(
    root: str,
    frames: Sequence[tuple[str, str]],
    paths: Sequence[str],
    left_out: Counter[str],
) -> Iterator[FaceRow]:
    found = [(m, p) for c, p in frames if (m := _CELEB.fullmatch(c))]
    listed = _test_clips(root, paths) if found else set()
    of_test = {_celeb_group(source, clip) for source, clip in listed}
    for match, path in found:
        source, clip = match["source"], match["clip"]
        group = _celeb_group(source, clip)
        split = ""
        if (source, clip) in listed:
            split = "test"
        elif group in of_test:
            # The same scene with another face: it would tell the test's.
            left_out["frames of a scene whose other clips are in the test"] += 1
            continue
        elif listed:
            split = base.split_by_hash(group, validation=10, test=0)
        is_fake = source == "Celeb-synthesis"
        yield _frame_row(
            root,
            path,
            labels.FAKE if is_fake else labels.REAL,
            split,
            group,
            source="" if is_fake else source,
            method=source,
        )


def _test_clips(root: str, paths: Sequence[str]) -> set[tuple[str, str]]:
    """Folder and name of each clip of the official test, lines of `1 FOLDER/CLIP.mp4`.

    1 is real there; the folders say that as well.
    """
    found = set()
    for path in paths:
        if posixpath.basename(path) != _TEST_LIST:
            continue
        lines = archives.read(root, path).decode(errors="replace").splitlines()
        for place, line in enumerate(filter(str.strip, lines), 1):
            match = re.fullmatch(r"[01]\s+([\w-]+)/([\w-]+)\.\w+\s*", line)
            if not match:
                raise ValueError(
                    f"{os.path.join(root, path)}:{place}: must be LABEL FOLDER/CLIP, "
                    f"got {line!r}."
                )
            found.add((match[1], match[2]))
    if not found:
        base.warn(f"{root} has no {_TEST_LIST}: the split is not that of Celeb-DF.")
    return found


def _celeb_group(source: str, clip: str) -> str:
    """The real clip that a fake is made from, or the real clip itself."""
    fake = _CELEB_FAKE.fullmatch(clip)
    if fake:
        return f"{fake['target']}_{fake['scene']}"
    return f"youtube_{clip}" if source == "YouTube-real" else clip


def _frame_row(
    root: str, path: str, label: int, split: str, group: str, **further: Any
) -> FaceRow:
    clip, frame = number(path)
    return FaceRow(
        *(os.path.join(root, path), path, label, split, group),
        clip=clip,
        frame=frame,
        **further,
    )


def _is_image(path: str) -> bool:
    parts = path.split("/")[:-1]
    return source_files.has_image_suffix(path) and "masks" not in parts


def _longest_end(path: str, known: set[str]) -> str | None:
    parts = path.split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end in known), None)
