"""Challenge images and FaceForensics++ frames in one TFDS dataset."""

import csv
import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.data import head_tables
from dfdetect.data.builders import archives, base
from dfdetect.data.builders.account import Account

_SPLITS = ("train", "validation", "test")
_EXAMPLES_AT_ONCE = 64
# What the table of the crops must say; the rest is not needed here.
_COLUMNS = (
    *head_tables.HEAD_COLUMNS,
    "dataset",
    "source",
    "target_id",
    "source_id",
    "frame",
)


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """Whole images, or the heads in them."""


class Builder(base.Builder):
    """Two prepared datasets as one, split by group.

    Args:
        sv: Percent of the groups for validation; for `full`.
        st: Percent of the groups for the test; for `full`.
        compression: Config of `faceforensics` to take; for `full`.
        **kwargs: Arguments of `dfdetect.data.builders.base.Builder`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Config(name="full", description="Whole images and frames."),
        Config(name="cropped", description="Every head that the detector found."),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    For full: the folder into which deepfake_challenge and faceforensics (one is enough)
    were prepared. For cropped: the folder that train/crop_heads.py made of cvcs/full.
    """
    pkg_dir_path = tfds.core.Path(__file__).parent

    def __init__(
        self, *, sv: int = 10, st: int = 10, compression: str = "c23", **kwargs: Any
    ) -> None:
        if min(sv, st) < 0 or sv + st >= 100:
            raise ValueError(
                f"sv and st must be percentages that leave some for training, got {sv} "
                f"and {st}."
            )
        self._sv, self._st = sv, st
        self._compression = compression
        super().__init__(**kwargs)

    def settings(self) -> dict[str, Any]:
        """Settings that shape the records besides the files."""
        if self.builder_config.name == "cropped":
            return {}
        return {"sv": self._sv, "st": self._st, "compression": self._compression}

    def _info(self) -> tfds.core.DatasetInfo:
        further = {
            "dataset": tfds.features.Text(),
            "source": tfds.features.Text(),
            "target_id": tfds.features.Text(),
            "source_id": tfds.features.Text(),
            "frame": tfds.features.Scalar(tf.int64),
        }
        if self.builder_config.name == "cropped":
            further |= {
                "box": tfds.features.BBoxFeature(),
                "score": tfds.features.Scalar(tf.float32),
                "margin": tfds.features.Scalar(tf.float32),
                "head": tfds.features.Scalar(tf.int64),
            }
        return self.dataset_info_from_configs(
            features=base.build_labeled_features(**further),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Any]:
        if self.builder_config.name == "cropped":
            return self._cropped(dl_manager.manual_dir)
        return self._full(dl_manager.manual_dir)

    def _full(self, data_dir: tfds.core.Path) -> dict[str, Any]:
        names = _find(data_dir, self._compression)
        split_of = functools.partial(_split, validation=self._sv, test=self._st)
        accounts = {split: self.new_account() for split in _SPLITS}
        slices: list[_Slice] = []
        some = set()
        for name in names:
            source = base.open_prepared(name, str(data_dir))
            for split, info in source.info.splits.items():
                for start in range(0, info.num_examples, _EXAMPLES_AT_ONCE):
                    stop = min(start + _EXAMPLES_AT_ONCE, info.num_examples)
                    slices.append(_Slice(str(data_dir), name, split, start, stop))
            for identities, count in _identities(source).items():
                split = split_of(identities)
                some.add(split)
                if not split:
                    accounts["train"].counts["n_crossing"] += count
        # A split is found by going through all records: hashes have scattered them.
        tasks = {
            split: [(piece, split) for piece in slices] if split in some else []
            for split in _SPLITS
        }
        process = functools.partial(_whole, split_of=split_of)
        return self.records(tasks, process, accounts)

    def _cropped(self, folder: tfds.core.Path) -> dict[str, Any]:
        tasks: dict[str, list[Any]] = {split: [] for split in _SPLITS}
        for piece, splits in _pieces(folder):
            for split in splits:
                tasks[split].append((piece, split))
        return self.records(tasks, _heads)


# --- full ---


@dataclasses.dataclass(frozen=True)
class _Slice:
    """Some records of a prepared dataset."""

    data_dir: str
    name: str
    split: str
    start: int
    stop: int


def _find(data_dir: tfds.core.Path, compression: str) -> list[str]:
    wanted = ("deepfake_challenge", f"faceforensics/{compression}")
    found = [name for name in wanted if (data_dir / name).is_dir()]
    if not found:
        raise FileNotFoundError(
            f"Neither {' nor '.join(wanted)} is prepared in {data_dir}; "
            "datasets/prepare.py does that first."
        )
    return found


def _identities(source: tfds.core.DatasetBuilder) -> dict[frozenset[str], int]:
    """Counts the records of each set of identities that must stay in one split."""
    wanted = {"group", "target_id", "source_id"} & set(source.info.features)
    found: dict[frozenset[str], int] = {}
    for split in source.info.splits:
        records = source.as_dataset(
            split=split,
            decoders=tfds.decode.PartialDecoding(dict.fromkeys(wanted, True)),
            read_config=tfds.ReadConfig(try_autocache=False),
        )
        for record in records.as_numpy_iterator():
            identities = _identities_of(record)
            found[identities] = found.get(identities, 0) + 1
    return found


def _identities_of(record: dict[str, Any]) -> frozenset[str]:
    """The group; both actors where the group is only one of them."""
    group = record["group"].decode()
    if group.startswith("actor_") and record["source_id"]:
        return frozenset((group, f"actor_{record['source_id'].decode()}"))
    return frozenset((group,))


def _split(identities: frozenset[str], validation: int, test: int) -> str:
    """The split of a record; "" where its identities fall into several."""
    splits = {base.split_by_hash(name, validation, test) for name in identities}
    return splits.pop() if len(splits) == 1 else ""


def _whole(
    task: tuple[_Slice, str], account: Account, split_of: Any
) -> Iterator[tuple[str, dict[str, Any]]]:
    piece, split = task
    dataset = piece.name.split("/")[0]
    records = base.open_prepared(piece.name, piece.data_dir).as_dataset(
        split=tfds.core.ReadInstruction(
            piece.split, from_=piece.start, to=piece.stop, unit="abs"
        ),
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    for record in records.as_numpy_iterator():
        if split_of(_identities_of(record)) != split:
            continue
        name = f"{dataset}/{record['image/filename'].decode()}"
        source = record.get("source", record.get("method")).decode()
        label = int(record["label"])
        group = record["group"].decode()
        account.counts[labels.NAMES[label]] += 1
        account.counts[f"source/{source}"] += 1
        account.take(name, label, group, record["image"])
        yield (
            name,
            {
                "image": record["image"],
                "image/filename": name,
                "label": label,
                "group": group,
                "dataset": dataset,
                "source": source,
                "target_id": record.get("target_id", b"").decode(),
                "source_id": record.get("source_id", b"").decode(),
                "frame": int(record.get("frame", -1)),
            },
        )


# --- cropped ---


@dataclasses.dataclass(frozen=True)
class _Piece:
    """Some rows of the table of crops, by their bytes: it may be of any length."""

    folder: str
    columns: tuple[str, ...]
    start: int
    stop: int


def _pieces(folder: tfds.core.Path) -> Iterator[tuple[_Piece, set[str]]]:
    """Cuts the table of crops up; says which splits are in each piece."""
    path = folder / head_tables.HEADS
    if not path.exists():
        raise FileNotFoundError(
            f"There is no {path}: train/crop_heads.py makes it of cvcs/full."
        )
    with path.open("rb") as file:
        rows = _rows(file)
        start, header = next(rows, (0, []))
        columns = tuple(header)
        missing = [name for name in _COLUMNS if name not in columns]
        if missing:
            raise ValueError(f"{path}: columns {', '.join(missing)} are missing.")
        splits: set[str] = set()
        count, stop = 0, start
        for stop, row in rows:
            splits.add(row[columns.index("split")])
            count += 1
            if count == _EXAMPLES_AT_ONCE:
                yield _Piece(str(folder), columns, start, stop), splits
                start, splits, count = stop, set(), 0
        if count:
            yield _Piece(str(folder), columns, start, stop), splits


def _rows(file: Iterable[bytes]) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file, each with the position behind it."""
    position, text = 0, b""
    for line in file:
        position += len(line)
        text += line
        if text.count(b'"') % 2 == 0:  # A name may have a line break in it.
            yield position, next(csv.reader([text.decode()]))
            text = b""


def _heads(
    task: tuple[_Piece, str], account: Account
) -> Iterator[tuple[str, dict[str, Any]]]:
    piece, split = task
    with (tfds.core.Path(piece.folder) / head_tables.HEADS).open("rb") as file:
        file.seek(piece.start)
        lines = file.read(piece.stop - piece.start).splitlines(keepends=True)
    for _, values in _rows(lines):
        row = dict(zip(piece.columns, values, strict=True))
        if row["split"] != split:
            continue
        name, label = row["path"], int(row["label"])
        try:
            image_bytes = archives.read_member(piece.folder, name)
            base.measure_extent(image_bytes)
        except ValueError as error:
            account.skip(name, str(error))
            continue
        account.counts[labels.NAMES[label]] += 1
        account.counts[f"source/{row['source']}"] += 1
        account.take(name, label, row["group"], image_bytes)
        sides = (float(row[side]) for side in ("ymin", "xmin", "ymax", "xmax"))
        yield (
            name,
            {
                "image": image_bytes,
                "image/filename": name,
                "label": label,
                "group": row["group"],
                "dataset": row["dataset"],
                "source": row["source"],
                "target_id": row["target_id"],
                "source_id": row["source_id"],
                "frame": int(row["frame"]),
                "box": tfds.features.BBox(*sides),
                "score": float(row["score"]),
                "margin": float(row["margin"]),
                "head": int(row["head"]),
            },
        )
