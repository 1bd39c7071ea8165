"""HollywoodHeads, or any folder in its layout, as a TFDS dataset."""

import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect.data.builders import archives, base, class_names, head_boxes
from dfdetect.data.builders.account import Account

_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_LAYOUT = "JPEGImages/*.jpeg, Annotations/*.xml and Splits/{train,val,test}.txt"
_PAGE = "https://www.di.ens.fr/willow/research/headdetection/"
_URL = f"{_PAGE}release/HollywoodHeads.zip"
# Every count is in the metadata, also those that stay at zero.
_COUNTS = (
    "n_frames",
    *head_boxes.COUNTS,
    "n_damaged",
    "n_size_mismatch",
    "n_consecutive",
    "n_thinned",
    "n_missing_image",
    "n_missing_annotation",
    "n_unreadable",
)
_NAMES = class_names.ClassNames()


class Builder(base.Builder):
    """Frames with head boxes; the source folder is only read, never changed.

    Args:
        frame_stride: Training frames of one film are at least so many frames apart.
        download: Fetch the ZIP file instead of reading one, or a folder.
        url: Where to fetch it.
        sha256: What the fetched file must hash to; the authors publish none. What came
            is in the metadata as `archive_sha256`.
        **kwargs: Arguments of `dfdetect.data.builders.base.Builder`.
    """

    VERSION = tfds.core.Version("1.2.0")
    RELEASE_NOTES = {
        "1.2.0": "Frames with damaged labels are left out and named.",
        "1.1.0": "Another fingerprint and clearer counts; reads ZIP files.",
        "1.0.0": "First release.",
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""
    Get HollywoodHeads.zip from {_PAGE} and give the folder that holds it, or the folder
    HollywoodHeads of its content, or one that contains that. It has {_LAYOUT}.
    """
    pkg_dir_path = tfds.core.Path(__file__).parent

    def __init__(
        self,
        *,
        frame_stride: int = 1,
        download: bool = False,
        url: str = _URL,
        sha256: str = "",
        **kwargs: Any,
    ) -> None:
        if frame_stride < 1:
            raise ValueError(f"frame_stride must be at least 1, got {frame_stride}.")
        self._frame_stride = frame_stride
        self._download = download
        self._url = url
        self._sha256 = sha256
        super().__init__(**kwargs)

    def settings(self) -> dict[str, Any]:
        """Settings that shape the records besides the files."""
        return {"frame_stride": self._frame_stride}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=head_boxes.build_features(
                movie=tfds.features.Text(), frame=tfds.features.Scalar(tf.int64)
            ),
            homepage=_PAGE,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Any]:
        if self._download:
            archive = self._fetch(dl_manager)
            files, root = set(archives.list_members(archive)), archive
        else:
            root, files = _find_source(dl_manager.manual_dir)
        folder = _folder(root, files)
        stems = {
            split: _read_stems(root, f"{folder}Splits/{name}.txt")
            for split, name in _SPLITS.items()
        }
        _check_disjoint(stems)
        accounts = {
            split: self.new_account(**dict.fromkeys(_COUNTS, 0)) for split in stems
        }
        tasks = {
            split: base.cut_into_chunks(
                self._chosen(split, listed, folder, files, accounts[split])
            )
            for split, listed in stems.items()
        }
        process = functools.partial(_records, root=str(root), folder=folder)
        return self.records(tasks, process, accounts)

    def _fetch(self, dl_manager: tfds.download.DownloadManager) -> tfds.core.Path:
        archive = dl_manager.download(self._url)
        came = archives.hash_file(archive).hex()
        if self._sha256 and came != self._sha256.lower():
            raise ValueError(
                f"The SHA-256 of {self._url} must be {self._sha256}, got {came}."
            )
        self.info.metadata["archive_sha256"] = came
        return archive

    def _chosen(
        self,
        split: str,
        listed: Sequence[str],
        folder: str,
        files: set[str],
        account: Account,
    ) -> list[str]:
        """The stems of a split that are there, thinned where they are for training."""
        stride = self._frame_stride if split == "train" else 1
        chosen = []
        previous = last = ("", -1)
        for stem in sorted(listed, key=lambda stem: (*_movie_and_frame(stem), stem)):
            if f"{folder}JPEGImages/{stem}.jpeg" not in files:
                account.counts["n_missing_image"] += 1
                account.skip(stem, "listed, but there is no image")
            elif f"{folder}Annotations/{stem}.xml" not in files:
                account.counts["n_missing_annotation"] += 1
                account.skip(stem, "listed, but there is no annotation")
            else:
                movie, frame = _movie_and_frame(stem)
                account.counts["n_consecutive"] += previous == (movie, frame - 1)
                previous = (movie, frame)
                near = frame >= 0 and last[0] == movie and frame - last[1] < stride
                if near and stride > 1:
                    account.counts["n_thinned"] += 1
                else:
                    last = (movie, frame)
                    chosen.append(stem)
        return chosen


def _records(
    stems: Sequence[str], account: Account, root: str, folder: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    for stem in stems:
        try:
            image_bytes = archives.read_member(root, f"{folder}JPEGImages/{stem}.jpeg")
            annotation_bytes = archives.read_member(
                root, f"{folder}Annotations/{stem}.xml"
            )
            height, width = base.measure_extent(image_bytes)
            annotation = head_boxes.parse_voc(annotation_bytes)
            heads, counts = head_boxes.choose_heads(annotation, height, width, _NAMES)
        except head_boxes.DamagedLabelError as error:
            account.counts["n_damaged"] += 1
            account.skip(stem, str(error))
            continue
        except ValueError as error:
            account.counts["n_unreadable"] += 1
            account.skip(stem, str(error))
            continue
        movie, frame = _movie_and_frame(stem)
        account.counts["n_frames"] += 1
        # Boxes are pixels of the image, whatever the annotation says its size was.
        account.counts["n_size_mismatch"] += annotation.extent != (height, width)
        account.counts.update(counts)
        account.take(stem, annotation_bytes, image_bytes)
        yield (
            stem,
            {
                "image": image_bytes,
                "image/filename": f"{stem}.jpeg",
                "movie": movie,
                "frame": frame,
                "objects": [head.to_record() for head in heads],
            },
        )


def _find_source(
    manual_dir: tfds.core.Path,
) -> tuple[tfds.core.Path, set[str]]:
    """The folder or ZIP file of the dataset, and the names of what lies in it."""
    archive = manual_dir / "HollywoodHeads.zip"
    unpacked = any(
        (manual_dir / name).exists() for name in ("HollywoodHeads", "Splits")
    )
    root = archive if archive.exists() and not unpacked else manual_dir
    return root, set(archives.list_members(root))


def _folder(root: tfds.core.Path, files: set[str]) -> str:
    """Where in the source the three parts lie: "" or "HollywoodHeads/"."""
    folder = "HollywoodHeads/"
    if not any(name.startswith(folder) for name in files):
        folder = ""
    wanted = [f"Splits/{name}.txt" for name in _SPLITS.values()]
    missing = [part for part in wanted if folder + part not in files]
    found = [part for part in wanted if part not in missing]
    for part in ("JPEGImages", "Annotations"):
        there = any(name.startswith(f"{folder}{part}/") for name in files)
        (found if there else missing).append(part)
    if missing:
        raise FileNotFoundError(
            f"{root} lacks {', '.join(missing)} (found: {', '.join(found) or 'none'})."
            f" Wanted: {_LAYOUT}. The dataset is at {_PAGE}; --download fetches it."
        )
    return folder


def _read_stems(root: tfds.core.Path, name: str) -> list[str]:
    return archives.read_member(root, name).decode().split()


def _check_disjoint(stems: dict[str, list[str]]) -> None:
    split_of: dict[str, str] = {}
    for split, listed in stems.items():
        for stem in listed:
            if stem in split_of:
                raise ValueError(
                    f"{stem} is listed twice: in {split_of[stem]} and in {split}."
                )
            split_of[stem] = split


def _movie_and_frame(stem: str) -> tuple[str, int]:
    """`mov_016_005374` -> `("mov_016", 5374)`; without a number the frame is -1."""
    match = re.fullmatch(r"(.+)_(\d+)", stem)
    return (match[1], int(match[2])) if match else (stem, -1)
