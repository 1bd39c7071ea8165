"""Any folder of face images with their labels as a TFDS dataset."""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.data import label_table, split_leaks
from dfdetect.data.builders import archives, base, face_rows, known_face_sets
from dfdetect.data.builders.account import Account
from dfdetect.media import file_kinds, source_files

_TEXTS = ("source", "method", "compression", "clip")
_SIDES = ("ymin", "xmin", "ymax", "xmax")
_NO_BOX = face_rows.NO_BOX
_MARGIN = "margin"  # Column of tables of crops, see `train/crop_heads.py`.
_Row = face_rows.FaceRow
_FARTHEST = 4.0  # Sides of an image; what is farther away is in pixels.


class Builder(base.Builder):
    """Labeled face images; the source folder is only read, never changed.

    The config is any name or none: each folder has its own, and `labeled_faces/NAME` or
    `labeled_faces` opens it.

    Args:
        leaky_random_split: Share out images that name neither a group nor a split one
            by one. Images of one video or person then stand in training and in the
            test, and every figure is too good.
        columns: Further columns of labels.csv to keep, as texts.
        lists: Paths of train.txt, val.txt and test.txt, lines of `path label`; by
            default those in the folder.
        **kwargs: Arguments of `dfdetect.data.builders.base.Builder`.
    """

    VERSION = tfds.core.Version("1.3.0")
    RELEASE_NOTES = {
        "1.3.0": "Compression, clip, frame, further columns; lists, known data sets.",
        "1.2.0": "Source, method and head box of each image; configs of any name.",
        "1.1.0": "Another fingerprint; folders real/ and fake/ without a labels.csv.",
        "1.0.0": "First release.",
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Give a folder of images with a labels.csv. Its columns are path (from the folder),
    label (real, fake, 0 or 1), split (train, val, validation or test; may be empty or
    absent) and group (images that belong together, such as one video; may be empty).
    Columns that may be absent: source and method (who or what made the image),
    compression, clip and frame (of what it is a frame), and ymin, xmin, ymax, xmax (the
    box of the head, relative to height and width); others are ignored, or kept by
    --columns. A path may be that of a clip whose frames extract_frames.py has written.
    Or give a folder with train.txt, val.txt and test.txt (lines of path and label, as
    export_lists.py writes them); with a text file of 0 or 1 beside each image; with the
    frames of FaceForensics++ and Celeb-DF as DeepfakeBench or extract_frames.py writes
    them; or with the folders real/ and fake/, in train/, val/ and test/ where the split
    is known; folders within them are groups.
    """
    pkg_dir_path = tfds.core.Path(__file__).parent
    any_config = True
    needs_config = False

    def __init__(
        self,
        *,
        leaky_random_split: bool = False,
        columns: Sequence[str] = (),
        lists: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        self._leaky_random_split = leaky_random_split
        self._columns = tuple(name.strip().casefold() for name in columns)
        self._lists = tuple(lists)
        taken = {*label_table.COLUMNS, *_TEXTS, *_SIDES, "frame", "image", "video"}
        if taken & {*self._columns}:
            raise ValueError(
                f"columns must be others than {', '.join(sorted(taken))}, "
                f"got {', '.join(self._columns)}."
            )
        super().__init__(**kwargs)

    def settings(self) -> dict[str, Any]:
        """Settings that shape the records besides the files."""
        further = {"columns": list(self._columns), "lists": list(self._lists)}
        chosen = {name: value for name, value in further.items() if value}
        return {"leaky_random_split": self._leaky_random_split, **chosen}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=base.build_labeled_features(
                **{n: tfds.features.Text() for n in (*_TEXTS, *self._columns)},
                frame=tfds.features.Scalar(tf.int64),
                **{side: tfds.features.Scalar(tf.float32) for side in _SIDES},
            ),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Any]:
        root = dl_manager.manual_dir
        passed_over: collections.Counter[str] = collections.Counter()
        rows = self._rows(root, passed_over)
        if passed_over:
            base.warn(file_kinds.describe_passed_over(passed_over))
        if not self._leaky_random_split:
            _check_grouped(rows)
        named = _named_splits(rows)
        by_split: dict[str, list[_Row]] = {
            split: [] for split in ("train", "validation", "test")
        }
        for row in rows:
            split = named.get(row.group) or base.split_by_hash(row.group)
            by_split[split].append(row)
        is_leaky = self._leaky_random_split
        accounts = {
            split: self.new_account(
                real=0,
                fake=0,
                n_groups=len({row.group for row in listed}),
                n_split_by_hash=sum(row.group not in named for row in listed),
                **({split_leaks.NUM_ALONE: _count_alone(listed)} if is_leaky else {}),
            )
            for split, listed in by_split.items()
            if listed
        }
        # Nobody knows of what split they would have been.
        next(iter(accounts.values())).counts.update(
            {f"passed_over/{kind}": number for kind, number in passed_over.items()}
        )
        tasks = {split: base.cut_into_chunks(by_split[split]) for split in accounts}
        process = functools.partial(_records, root=str(root), columns=self._columns)
        return self.records(tasks, process, accounts)

    def _rows(
        self, root: tfds.core.Path, passed_over: collections.Counter[str]
    ) -> list[_Row]:
        """The images, by whatever in the folder names their labels."""
        paths = archives.list_members(root)
        has_table = (root / label_table.FILE_NAME).exists()
        if has_table and not self._lists:
            rows = _read_rows(root, self._columns)
            face_rows.count_unlabeled(root, paths, rows, passed_over)
            return rows
        if rows := face_rows.read_lists(root, self._lists, paths):
            face_rows.count_unlabeled(root, paths, rows, passed_over)
            known = (
                _read_rows(root, self._columns)
                if has_table
                else known_face_sets.read_known(
                    root, paths, left_out=collections.Counter(), official=False
                )
            )
            return face_rows.name_frames(face_rows.describe_listed(rows, known), paths)
        if rows := known_face_sets.read_known(root, paths, left_out=passed_over):
            return rows
        if rows := face_rows.read_numbered(root, paths):
            face_rows.count_unlabeled(root, paths, rows, passed_over)
        rows = rows or _rows_of_folders(root, passed_over)
        return face_rows.name_frames(rows, paths)


def _records(
    rows: Sequence[_Row], account: Account, root: str, columns: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in rows:
        try:
            image_bytes = archives.read_member(root, row.path)
            base.measure_extent(image_bytes)
        except ValueError as error:
            account.skip(row.path, str(error))
            continue
        base.tell_animated(row.path, image_bytes, account)
        account.counts[labels.NAMES[row.label]] += 1
        account.take(row.path, row.label, row.group, image_bytes, *row.fingerprinted())
        yield (
            row.path,
            {
                "image": image_bytes,
                "image/filename": row.path,
                "label": row.label,
                "group": row.group,
                **{name: getattr(row, name) for name in _TEXTS},
                **{name: row.columns.get(name, "") for name in columns},
                "frame": row.frame,
                **dict(zip(_SIDES, row.box, strict=True)),
            },
        )


def _read_rows(root: tfds.core.Path, columns: Sequence[str]) -> list[_Row]:
    """Reads and checks `labels.csv`; errors name the file and the line."""
    path = root / label_table.FILE_NAME
    rows = label_table.read_table(
        path.read_bytes(),
        str(path),
        exists=lambda name: (
            (root / name).is_file() or bool(face_rows.find_frames(root, name))
        ),
        needed=("path", "label", "group"),
        say=base.warn,
        further=(*_TEXTS, *_SIDES, _MARGIN, "frame", *columns),
    )
    found = {*rows[0].further}
    sides = [name for name in _SIDES if name in found]
    if len(sides) not in (0, len(_SIDES)):
        raise ValueError(
            f"{path}:1: columns may be all of {','.join(_SIDES)} or none, "
            f"got {','.join(sides)}."
        )
    if not {*columns} <= found:
        raise ValueError(
            f"{path}:1: has no column {min({*columns} - found)!r} for --columns."
        )
    return [each for row in rows for each in _images_of(row, root, columns)]


def _images_of(
    row: label_table.Row, root: tfds.core.Path, columns: Sequence[str]
) -> Iterator[_Row]:
    """The image of a row, or the frames of the clip that it names."""
    text = row.further.get("frame", "") or "-1"
    if not re.fullmatch(r"-?\d+", text):
        raise ValueError(f"{row.where}: frame must be a whole number, got {text!r}.")
    texts: dict[str, Any] = {name: row.further.get(name, "") for name in _TEXTS}
    sides = [row.further.get(side, "") for side in _SIDES]
    # The box of a crop is that of the head in the image which it was cut of.
    is_crop = bool(row.further.get(_MARGIN))
    known = _Row(
        where=row.where,
        path=row.path,
        label=row.label,
        split=row.split,
        group=row.group or row.path,
        box=_NO_BOX if is_crop else _read_box(row.where, sides),
        frame=int(text),
        columns={name: row.further[name] for name in columns},
        **texts,
    )
    if (root / row.path).is_file():
        yield known
        return
    for path in face_rows.find_frames(root, row.path):
        yield face_rows.name_frame(dataclasses.replace(known, path=path))


def _read_box(where: str, texts: Sequence[str]) -> tuple[float, ...]:
    """Returns the box of a head in float32; `_NO_BOX` where the four texts are empty.

    Raises:
        ValueError: A text is not a number, or the box has no area within the image or
            is in pixels.
    """
    if not any(texts):
        return _NO_BOX
    try:
        box = tuple(float(np.float32(text)) for text in texts)
    except ValueError:
        box = (math.inf,) * 4
    if not any(box) or all(map(math.isnan, box)):
        return _NO_BOX
    ymin, xmin, ymax, xmax = box
    is_inside = ymin < min(ymax, 1) and max(ymin, 0) < ymax
    is_inside = is_inside and xmin < min(xmax, 1) and max(xmin, 0) < xmax
    if not is_inside or max(map(abs, box)) > _FARTHEST:
        raise ValueError(
            f"{where}: {','.join(_SIDES)} must be a box relative to height and width "
            "of the image (0 to 1, beyond where the head does), "
            f"got {','.join(texts)}."
        )
    return box


def _rows_of_folders(
    root: tfds.core.Path, passed_over: collections.Counter[str]
) -> list[_Row]:
    """The images in `[SPLIT/]{real,fake}/[GROUP/]`, which name all there is to know.

    Args:
        root: The folder that these are in.
        passed_over: Counts, by kind, the files that are not images; added to.
    """
    rows = []
    strange = []
    for path in archives.list_members(root):
        kind = file_kinds.identify_bytes(archives.read_head(root, path))
        if not (file_kinds.is_image(kind) or source_files.has_image_suffix(path)):
            passed_over[file_kinds.name_passed_over(path, kind)] += 1
            continue
        *folders, _ = path.split("/")
        split = label_table.parse_split(folders[0]) if folders else None
        if split:
            folders.pop(0)
        if not folders or folders[0] not in labels.NAMES:
            strange.append(path)
            continue
        rows.append(
            _Row(
                where=str(root / path),
                path=path,
                label=labels.NAMES.index(folders[0]),
                split=split or "",
                group="/".join(folders[1:]) or path,
            )
        )
    if not rows or strange:
        raise ValueError(
            f"{root} must have a labels.csv, or its images in real/ and fake/ (these "
            f"in train/, val/ and test/ where the split is known); "
            f"{f'elsewhere lies {strange[0]}' if strange else 'there are none'}. "
            "Of DeepfakeBench's frames, FaceForensics++ (with FaceShifter) and "
            "Celeb-DF are read as they are; name those of other sets in a labels.csv."
        )
    return rows


def _is_alone(row: _Row) -> bool:
    """Whether an image names neither a group nor a split."""
    return not row.split and row.group == row.path


def _count_alone(rows: list[_Row]) -> int:
    return sum(map(_is_alone, rows))


def _check_grouped(rows: list[_Row]) -> None:
    alone = [row for row in rows if _is_alone(row)]
    if alone:
        raise ValueError(
            f"{alone[0].where}: {alone[0].path!r} names neither a group nor a split, "
            f"nor do {len(alone) - 1:,} others. A random split of images leaks: those "
            "of one video or person stand in training and in the test, and every "
            "figure is too good. Put what belongs together into a folder "
            "(real/NAME/0.png), split into train/, val/ and test/, or name a group in "
            "labels.csv; --leaky_random_split does without."
        )


def _named_splits(rows: list[_Row]) -> dict[str, str]:
    """The split of each group whose rows name one; two of them are an error."""
    named: dict[str, _Row] = {}
    for row in rows:
        if not row.split:
            continue
        first = named.setdefault(row.group, row)
        if first.split != row.split:
            raise ValueError(
                f"{row.where}: group {row.group!r} stands in {first.split} "
                f"({first.where}) and in {row.split}."
            )
    return {group: row.split for group, row in named.items()}
