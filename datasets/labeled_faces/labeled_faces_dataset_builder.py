"""Any folder of face images with a `labels.csv` as a TFDS dataset."""

import collections
import csv
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import images, labels

_COLUMNS = ("path", "label", "split", "group")
_LABELS = {"real": labels.REAL, "fake": labels.FAKE, "0": labels.REAL, "1": labels.FAKE}
_SPLITS = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}
_MAX_LISTED = 100  # Names of unreadable images kept in the metadata.

# What training could not decode must not become a record.
_decode = tf.function(
    images.decode_image, input_signature=[tf.TensorSpec([], tf.string)]
)


class Builder(tfds.core.GeneratorBasedBuilder):
    """Labelled face images; the source folder is only read, never changed.

    The metadata holds `counts` by split and label, `n_groups` by split,
    `n_split_by_hash` (images whose group names no split), `n_unreadable` and the
    names in `unreadable`, and a `fingerprint` of what went in: the SHA-256 over the
    sorted digests of (path, label, split, group, file content).
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Give a folder of images with a labels.csv. Its columns are path (from the folder),
    label (real, fake, 0 or 1), split (train, val, validation or test; may be empty or
    absent) and group (images that belong together, such as one video; may be empty).
    """
    pkg_dir_path = tfds.core.Path(__file__).parent

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "image/filename": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=labels.NAMES),
                    "group": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        root = dl_manager.manual_dir
        rows = _read_rows(root)
        named = _named_splits(root, rows)
        by_split: dict[str, list[_Row]] = {}
        for row in rows:
            split = named.get(row.group) or _split_by_hash(row.group)
            by_split.setdefault(split, []).append(row)
        self.info.metadata.clear()
        self.info.metadata.update(
            counts={},
            n_groups={},
            n_split_by_hash=sum(row.group not in named for row in rows),
            n_unreadable=0,
            unreadable=[],
            fingerprint="",
        )
        digests: list[bytes] = []
        return {
            split: self._generate_examples(root, split, by_split[split], digests)
            for split in ("train", "validation", "test")
            if split in by_split
        }

    def _generate_examples(
        self,
        root: tfds.core.Path,
        split: str,
        rows: list["_Row"],
        digests: list[bytes],
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        metadata = self.info.metadata
        counts = collections.Counter(dict.fromkeys(labels.NAMES, 0))
        groups = set()
        for row in rows:
            image_bytes = (root / row.path).read_bytes()
            try:
                _decode(image_bytes)
            except tf.errors.InvalidArgumentError:
                metadata["n_unreadable"] += 1
                if len(metadata["unreadable"]) < _MAX_LISTED:
                    metadata["unreadable"].append(row.path)
                continue
            name = labels.NAMES[row.label]
            counts[name] += 1
            groups.add(row.group)
            digest = hashlib.sha256(
                "\0".join((row.path, name, split, row.group, "")).encode()
            )
            digest.update(hashlib.sha256(image_bytes).digest())
            digests.append(digest.digest())
            yield (
                row.path,
                {
                    "image": image_bytes,
                    "image/filename": row.path,
                    "label": row.label,
                    "group": row.group,
                },
            )
        if not groups:
            raise ValueError(f"No image of the split {split} can be read in {root}.")
        metadata["counts"][split] = dict(counts)
        metadata["n_groups"][split] = len(groups)
        metadata["fingerprint"] = hashlib.sha256(b"".join(sorted(digests))).hexdigest()


@dataclasses.dataclass(frozen=True)
class _Row:
    line: int
    path: str
    label: int
    split: str  # Empty if the file does not say.
    group: str


def _read_rows(root: tfds.core.Path) -> list[_Row]:
    """Reads and checks `labels.csv`; errors name the file and the line."""
    path = root / "labels.csv"
    rows = []
    line_of: dict[str, int] = {}
    # utf-8-sig: spreadsheets put a byte order mark before the first column's name.
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restkey="")
        _check_columns(f"{path}:1", reader.fieldnames or ())
        for fields in reader:
            row = _row(root, f"{path}:{reader.line_num}", reader.line_num, fields)
            if row.path in line_of:
                raise ValueError(
                    f"{path}:{row.line}: {row.path!r} stands in line "
                    f"{line_of[row.path]} already."
                )
            line_of[row.path] = row.line
            rows.append(row)
    if not rows:
        raise ValueError(f"{path}: no images listed.")
    return rows


def _check_columns(where: str, columns: Sequence[str]) -> None:
    missing = [name for name in _COLUMNS if name not in columns and name != "split"]
    unknown = [name for name in columns if name not in _COLUMNS]
    if missing or unknown or len(set(columns)) < len(columns):
        raise ValueError(
            f"{where}: columns must be {','.join(_COLUMNS)} (split may be absent), "
            f"got {','.join(columns) or 'none'}."
        )


def _row(root: tfds.core.Path, where: str, line: int, fields: dict[str, Any]) -> _Row:
    if "" in fields or None in fields.values():
        raise ValueError(f"{where}: the number of fields differs from the header's.")
    path, label = fields["path"], fields["label"]
    split, group = fields.get("split", ""), fields["group"]
    if label not in _LABELS:
        raise ValueError(f"{where}: label must be real, fake, 0 or 1, got {label!r}.")
    if split and split not in _SPLITS:
        raise ValueError(
            f"{where}: split must be train, val, validation, test or empty, "
            f"got {split!r}."
        )
    relative = tfds.core.Path(path)
    if not path or relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"{where}: path must lead into the folder, got {path!r}.")
    if not (root / path).is_file():
        raise ValueError(f"{where}: there is no file {path!r} in {root}.")
    # An image without a group is a group by itself.
    return _Row(line, path, _LABELS[label], _SPLITS.get(split, ""), group or path)


def _named_splits(root: tfds.core.Path, rows: list[_Row]) -> dict[str, str]:
    """The split of each group whose rows name one; two of them are an error."""
    named: dict[str, _Row] = {}
    for row in rows:
        if not row.split:
            continue
        first = named.setdefault(row.group, row)
        if first.split != row.split:
            raise ValueError(
                f"{root / 'labels.csv'}:{row.line}: group {row.group!r} stands in "
                f"{first.split} (line {first.line}) and in {row.split}."
            )
    return {group: row.split for group, row in named.items()}


def _split_by_hash(group: str) -> str:
    """80 % train, 10 % validation, 10 % test; the same at any time and place."""
    percent = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") % 100
    return "train" if percent < 80 else "validation" if percent < 90 else "test"
