"""Frames of FaceForensics++ and Celeb-DF, with labels, groups and official splits.

Sources: preprocessing/preprocess.py and rearrange.py of SCLBD/DeepfakeBench;
List_of_testing_videos.txt of Celeb-DF.
"""

import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from dfdetect import labels
from dfdetect.data import label_table
from dfdetect.data.builders import archives, base, face_rows

# DeepfakeBench's other sets, mostly.
_UNKNOWN = (
    "images of neither FaceForensics++ nor Celeb-DF (name those of other sets in a "
    "labels.csv)"
)
_TEST_LIST = "List_of_testing_videos.txt"
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


def read_known(
    root: str | os.PathLike,
    paths: Sequence[str],
    *,
    left_out: Counter[str],
    official: bool = True,
) -> list[face_rows.FaceRow]:
    """Reads frames of FaceForensics++ and Celeb-DF, as DeepfakeBench prepares them.

    Both may lie side by side, as in its folder `rgb`. Images of its other sets are
    counted in `left_out` where one of the two is there.

    Frames that `extract_frames` makes of the clips of these sets are read as well.

    Args:
        root: The folder.
        paths: Files in the folder.
        left_out: Counts, by reason, the images that no split can hold; added to.
        official: Whether the sets' own lists name the splits; else none is named, and
            no frame is left out for the sake of theirs.

    Raises:
        ValueError: A list of the set cannot be read.
    """
    images = [*filter(face_rows.is_face_image, paths)]
    frames = [
        (match["clip"], path)
        for path in images
        if (match := face_rows.FRAME_PATH.fullmatch(path))
    ]
    before = left_out.total()
    rows = [
        row
        for read in (_read_faceforensics, _read_celeb)
        for row in read(os.fspath(root), frames, paths, left_out, official)
    ]
    unknown = len(images) - len(rows) - (left_out.total() - before)
    if rows and unknown:
        left_out[_UNKNOWN] += unknown
    return rows


def _read_faceforensics(
    root: str,
    frames: Sequence[tuple[str, str]],
    paths: Sequence[str],
    left_out: Counter[str],
    official: bool,
) -> Iterator[face_rows.FaceRow]:
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
            split_of.get(pair, "") if official else "",
            pair,
            source="" if match["fake"] else method,
            method=method,
            compression=match["compression"].replace("c0", "raw"),
        )


def _pairs(
    root: str, paths: Sequence[str], clips: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the split of each pair of clips, and the pair of each clip.

    They come from the official lists train.json, val.json and test.json if these are in
    the folder; else the fakes tell which clips are paired, and no split is known.
    """
    split_of: dict[str, str] = {}
    pair_of: dict[str, str] = {}
    for path in paths:
        split = label_table.parse_split(posixpath.basename(path).removesuffix(".json"))
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
        return json.loads(archives.read_member(root, path))
    except ValueError as error:
        raise ValueError(f"{os.path.join(root, path)}: not JSON ({error}).") from error


def _read_celeb(
    root: str,
    frames: Sequence[tuple[str, str]],
    paths: Sequence[str],
    left_out: Counter[str],
    official: bool,
) -> Iterator[face_rows.FaceRow]:
    found = [(m, p) for c, p in frames if (m := _CELEB.fullmatch(c))]
    listed = _test_clips(root, paths) if found and official else set()
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
    """Reads folder and name of each clip of the official test: `1 FOLDER/CLIP.mp4`.

    1 is real there; the folders say that as well.
    """
    found = set()
    for path in paths:
        if posixpath.basename(path) != _TEST_LIST:
            continue
        lines = archives.read_member(root, path).decode(errors="replace").splitlines()
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
    """Names the real clip that a fake is made from, or the real clip itself."""
    fake = _CELEB_FAKE.fullmatch(clip)
    if fake:
        return f"{fake['target']}_{fake['scene']}"
    return f"youtube_{clip}" if source == "YouTube-real" else clip


def _frame_row(
    root: str, path: str, label: int, split: str, group: str, **further: Any
) -> face_rows.FaceRow:
    where = os.path.join(root, path)
    return face_rows.name_frame(
        face_rows.FaceRow(where, path, label, split, group, **further)
    )
