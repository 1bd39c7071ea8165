"""The training images of the ICIAP 2021 deepfake challenge as a TFDS dataset."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.data.builders import archives, base
from dfdetect.data.builders.account import Account
from dfdetect.media import source_files

# The names of the folders and ZIP files; the digit is the label.
_PARTS = (
    "0-CelebA",
    "0-FFHQ",
    "1-ATTGAN",
    "1-GDWCT",
    "1-StarGAN",
    "1-STYLEGAN",
    "1-STYLEGAN2",
)
_PAGE = "https://iplab.dmi.unict.it/Deepfakechallenge"


class Builder(base.Builder):
    """Faces of up to seven sources; the source files are only read, never changed."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""
    Get the ZIP files of the training set from {_PAGE} and give the folder that holds
    them, or what was unpacked from them; any subset of {", ".join(_PARTS)}.
    """
    pkg_dir_path = tfds.core.Path(__file__).parent

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=base.build_labeled_features(
                source=tfds.features.Text(),
                width=tfds.features.Scalar(tf.int64),
                height=tfds.features.Scalar(tf.int64),
                format=tfds.features.Text(),
                num_bytes=tfds.features.Scalar(tf.int64),
            ),
            homepage=_PAGE,
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Any]:
        tasks: dict[str, list[Any]] = {"train": [], "validation": [], "test": []}
        for part, root in _find(dl_manager.manual_dir).items():
            by_split: dict[str, list[str]] = {split: [] for split in tasks}
            for member in archives.list_members(root):
                if member.lower().endswith(source_files.IMAGE_SUFFIXES):
                    by_split[base.split_by_hash(_group(part, member))].append(member)
            if not any(by_split.values()):
                raise ValueError(f"There is no image in {root}.")
            for split, found in by_split.items():
                tasks[split] += [
                    (part, str(root), chunk) for chunk in base.cut_into_chunks(found)
                ]
        return self.records(tasks, _records)


def _find(manual_dir: tfds.core.Path) -> dict[str, tfds.core.Path]:
    """The folder or ZIP file of each part; says once what is there and what is not."""
    found = {}
    for part in _PARTS:
        for path in (manual_dir / part, manual_dir / f"{part}.zip"):
            if part not in found and path.exists():
                found[part] = path
    missing = [part for part in _PARTS if part not in found]
    message = (
        f"{manual_dir} has {', '.join(path.name for path in found.values()) or 'none'} "
        f"of the parts; missing: {', '.join(missing)}. Wanted: any of "
        f"{', '.join(_PARTS)}, as folders of images or as the ZIP files of {_PAGE}."
    )
    if not found:
        raise FileNotFoundError(message)
    if missing:
        base.warn(message)
    return found


def _group(part: str, member: str) -> str:
    """`0-CelebA`, `0-CelebA/000050.jpg` -> `CelebA/000050`."""
    return f"{part[2:]}/{pathlib.PurePosixPath(member).stem}"


def _records(
    task: tuple[str, str, Sequence[str]], account: Account
) -> Iterator[tuple[str, dict[str, Any]]]:
    part, root, members = task
    label = int(part[0])
    for member in members:
        # The ZIP files may or may not have the folder inside.
        name = f"{part}/{member.removeprefix(f'{part}/')}"
        try:
            image_bytes = archives.read_member(root, member)
            height, width = base.measure_extent(image_bytes)
        except ValueError as error:
            account.skip(name, str(error))
            continue
        account.counts[labels.NAMES[label]] += 1
        account.counts[f"source/{part[2:]}"] += 1
        account.take(name, image_bytes)
        yield (
            name,
            {
                "image": image_bytes,
                "image/filename": name,
                "label": label,
                "group": _group(part, member),
                "source": part[2:],
                "width": width,
                "height": height,
                "format": base.identify_format(image_bytes),
                "num_bytes": len(image_bytes),
            },
        )
