"""Any folder of images with head boxes as a TFDS dataset."""

import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from dfdetect.data.builders import (
    archives,
    base,
    class_names,
    coco_layout,
    head_boxes,
    labeled_images,
    voc_layout,
)
from dfdetect.data.builders.account import Account

_LAYOUTS = (
    "Annotations/*.xml with the images in JPEGImages/ or beside them (PASCAL VOC), or "
    "annotations*.json or instances_*.json with the images anywhere below (COCO)"
)
# Every count is in the metadata, also those that stay at zero.
_COUNTS = (
    "n_images",
    *head_boxes.COUNTS,
    "n_groups",
    "n_split_by_hash",
    "n_damaged",
    "n_unreadable",
    "n_missing_image",
    "n_missing_annotation",
)


class Builder(base.Builder):
    """Images with head boxes; the source folder is only read, never changed.

    The config is any name: each folder has its own, and `labeled_heads/NAME` opens it.

    Args:
        head_names: Classes that count as heads.
        other_names: Classes of things that are not heads and are ignored. The
            categories of COCO files are known without being named here.
        sv: Percent of the groups for validation, where no list names the splits.
        st: Percent of the groups for the test, likewise.
        **kwargs: Arguments of `dfdetect.data.builders.base.Builder`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""
    Give a folder with {_LAYOUTS}.
    Splits/ or ImageSets/Main/ may hold train.txt, val.txt and test.txt; groups.csv may
    name images that belong together, with the columns path and group.
    """
    pkg_dir_path = tfds.core.Path(__file__).parent
    any_config = True

    def __init__(
        self,
        *,
        head_names: Sequence[str] = ("head",),
        other_names: Sequence[str] = (),
        sv: int = 10,
        st: int = 10,
        **kwargs: Any,
    ) -> None:
        if min(sv, st) < 0 or sv + st >= 100:
            raise ValueError(
                f"sv and st must be percentages that leave some for training, got {sv} "
                f"and {st}."
            )
        self._names = class_names.ClassNames(tuple(head_names), tuple(other_names))
        self._sv, self._st = sv, st
        super().__init__(**kwargs)

    def settings(self) -> dict[str, Any]:
        """Settings that shape the records besides the files."""
        return {
            "head_names": list(self._names.heads),
            "other_names": list(self._names.others),
            "sv": self._sv,
            "st": self._st,
        }

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=head_boxes.build_features(group=tfds.features.Text()),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Any]:
        root = dl_manager.manual_dir
        listing = _list_images(root, self._names)
        shared, num_drawn = labeled_images.assign_splits(
            listing.images,
            functools.partial(base.split_by_hash, validation=self._sv, test=self._st),
        )
        accounts = {
            split: self.new_account(**dict.fromkeys(_COUNTS, 0)) for split in shared
        }
        for split, images in shared.items():
            accounts[split].counts["n_groups"] = len({i.group for i in images})
            accounts[split].counts["n_split_by_hash"] = num_drawn[split]
        for split, count, name, reason in listing.missing:
            # The account of the first split lists what belongs to no split.
            account = accounts[split or "train"]
            account.counts[count] += 1
            account.skip(name, reason)
        process = functools.partial(
            _records,
            root=str(root),
            names=self._names.with_others(listing.categories),
        )
        tasks = {}
        for split, images in shared.items():
            # TFDS writes no empty split. Most often this reads the first image only.
            tried = self.new_account()
            if next(process(images, tried), None) is None:
                accounts[split].add(tried)
                images = []
            tasks[split] = base.cut_into_chunks(images)
        return self.records(tasks, process, accounts)


def _list_images(
    root: str | os.PathLike, names: class_names.ClassNames
) -> labeled_images.Listing:
    """Lists the images of a folder, whichever layout it has, with their groups."""
    files = archives.list_members(root)
    voc = [path for path in files if voc_layout.is_annotation(path)]
    coco = [path for path in files if coco_layout.is_annotation(path)]
    if not voc and not coco:
        raise FileNotFoundError(f"{root} has no annotations. Wanted: {_LAYOUTS}.")
    if voc and coco:
        raise ValueError(
            f"{root} has annotations in two layouts, {voc[0]} and {coco[0]}; one is "
            "wanted."
        )
    if coco:
        listing = coco_layout.list_images(root, files, names)
    else:
        listing = voc_layout.list_images(root, files)
    if labeled_images.GROUPS_FILE in files:
        labeled_images.apply_groups(root, listing)
    return listing


def _records(
    images: Sequence[labeled_images.LabeledImage],
    account: Account,
    root: str,
    names: class_names.ClassNames,
) -> Iterator[tuple[str, dict[str, Any]]]:
    for image in images:
        try:
            annotation = image.annotation
            if isinstance(annotation, str):
                annotation = head_boxes.parse_voc(
                    archives.read_member(root, annotation)
                )
            image_bytes = archives.read_member(root, image.path)
            height, width = base.measure_extent(image_bytes)
            annotation.check_extent(height, width)
            heads, counts = head_boxes.choose_heads(annotation, height, width, names)
        except head_boxes.DamagedLabelError as error:
            account.counts["n_damaged"] += 1
            account.skip(image.where, str(error))
            continue
        except ValueError as error:
            account.counts["n_unreadable"] += 1
            account.skip(image.path, str(error))
            continue
        base.tell_animated(image.path, image_bytes, account)
        account.counts["n_images"] += 1
        account.counts.update(counts)
        account.take(
            image.name,
            image.group,
            annotation,
            image_bytes,
            *_fingerprinted_names(annotation, names),
        )
        yield (
            image.name,
            {
                "image": image_bytes,
                "image/filename": image.name,
                "group": image.group,
                "objects": [head.to_record() for head in heads],
            },
        )


def _fingerprinted_names(
    annotation: head_boxes.Annotation, names: class_names.ClassNames
) -> list[str]:
    """Returns the classes whose boxes are heads, for the fingerprint.

    Empty where they are those of the default `head_names`: data sets of before stay
    what they are.
    """
    present = {item.name for item in annotation.objects}
    heads = present.intersection(names.heads)
    if heads == present.intersection(class_names.ClassNames().heads):
        return []
    return ["head_names", *sorted(heads)]
