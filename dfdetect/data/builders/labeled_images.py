"""Images with head boxes as a layout lists them, their groups and their splits."""

import csv
import dataclasses
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from dfdetect.data import label_table
from dfdetect.data.builders import archives, base
from dfdetect.data.builders.head_boxes import Annotation
from dfdetect.media import source_files

GROUPS_FILE = "groups.csv"

# What files and folders call a split.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}

# Folders that say nothing of an image but that it is one.
_IMAGE_FOLDERS = ("jpegimages", "images")


@dataclasses.dataclass(frozen=True)
class LabeledImage:
    """One image and where its annotation is.

    Attributes:
        name: Path from the source folder, without the folder `JPEGImages`.
        path: Path from the source folder.
        where: Where its annotation is, for messages.
        annotation: The annotation, or the path of the file that holds nothing else.
        group: Images of one group are never in two splits.
        split: train, validation or test; "" where nothing names one.
    """

    name: str
    path: str
    where: str
    annotation: Annotation | str
    group: str
    split: str


@dataclasses.dataclass
class Listing:
    """Images that a layout lists, and files without their counterpart.

    Attributes:
        images: With image and annotation.
        missing: Split ("" for none), count, file and reason of what has only one of
            them.
        num_unlisted: Images that no split list or COCO file names.
        categories: Classes that the files declare.
    """

    images: list[LabeledImage] = dataclasses.field(default_factory=list)
    missing: list[tuple[str, str, str, str]] = dataclasses.field(default_factory=list)
    num_unlisted: int = 0
    categories: list[str] = dataclasses.field(default_factory=list)


def is_image(path: str) -> bool:
    """Whether a file is an image, by its ending."""
    return path.lower().endswith(source_files.IMAGE_SUFFIXES)


def read_text(root: str | os.PathLike, name: str) -> str:
    """Returns the text of a file, without a byte order mark.

    Raises:
        ValueError: It is not UTF-8, or cannot be read.
    """
    content = archives.read_member(root, name)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{os.path.join(root, name)}:{line}: must be UTF-8 text; save it as UTF-8."
        ) from error


def drop_ending(path: str) -> str:
    """Returns a path without the ending of its file: `a/b.c.jpg` -> `a/b.c`."""
    return os.path.splitext(path)[0]


def drop_folder(path: str, names: Iterable[str] = _IMAGE_FOLDERS) -> str:
    """Returns a path without the folders of these names, in any case of letters."""
    *folders, file = path.split("/")
    return "/".join([f for f in folders if f.casefold() not in names] + [file])


def find_split(path: str) -> str:
    """Returns the split that a folder of the path names, "" for none."""
    for folder in path.casefold().split("/")[:-1]:
        match = re.fullmatch(r"([a-z]+)\d*(?:[_-]?images)?", folder)  # train2017
        if match and match[1] in SPLIT_NAMES:
            return SPLIT_NAMES[match[1]]
    return ""


def apply_groups(root: str | os.PathLike, listing: Listing) -> None:
    """Gives the images of `listing` the groups that `groups.csv` names.

    Its columns are path and group; others are ignored. A path is that of the image from
    the source folder, with or without `JPEGImages/` and the ending.

    Raises:
        ValueError: A column is missing, or a row names no image or one of two groups.
    """
    path = os.path.join(root, GROUPS_FILE)
    images = {
        alias: image
        for image in listing.images
        for alias in (drop_ending(image.name), image.name, image.path)
    }
    # Rows about images that are left out for another reason are not mistakes.
    left_out = {drop_ending(drop_folder(name)) for _, _, name, _ in listing.missing}
    group_of: dict[str, str] = {}
    text = io.StringIO(read_text(root, GROUPS_FILE), newline="")
    reader = csv.DictReader(text, skipinitialspace=True)
    if not {"path", "group"} <= set(reader.fieldnames or ()):
        raise ValueError(
            f"{path}:1: columns must be path,group, "
            f"got {','.join(reader.fieldnames or ()) or 'none'}."
        )
    for row in label_table.iterate_rows(reader, path):
        name, group = (row["path"] or "").strip(), (row["group"] or "").strip()
        image = images.get(name) or images.get(drop_ending(name))
        if image is None:
            if listing.num_unlisted or drop_ending(drop_folder(name)) in left_out:
                continue
            raise ValueError(f"{path}:{reader.line_num}: there is no image {name!r}.")
        if group and group_of.setdefault(image.path, group) != group:
            raise ValueError(
                f"{path}:{reader.line_num}: group of {name!r} is {group!r}, but "
                f"{group_of[image.path]!r} above."
            )
    listing.images = [
        dataclasses.replace(image, group=group_of.get(image.path, image.group))
        for image in listing.images
    ]


def assign_splits(
    images: Sequence[LabeledImage], choose_split: Callable[[str], str]
) -> tuple[dict[str, list[LabeledImage]], Mapping[str, int]]:
    """Sorts images into splits, so that no group is in two.

    Images without a split follow their group; groups without one go where
    `choose_split` says.

    Returns:
        The images by split, in the order of their names, and for each split the number
        of those that `choose_split` placed.

    Raises:
        ValueError: A group is in two splits.
    """
    named: dict[str, LabeledImage] = {}
    for image in images:
        first = named.setdefault(image.group, image) if image.split else image
        if first.split != image.split:
            raise ValueError(
                f"group {image.group!r} is in {first.split} ({first.name}) and in "
                f"{image.split} ({image.name}); no group may be in two splits."
            )
    shared: dict[str, list[LabeledImage]] = {
        split: [] for split in ("train", "validation", "test")
    }
    num_drawn = dict.fromkeys(shared, 0)
    for image in sorted(images, key=lambda image: image.name):
        first = named.get(image.group, image)
        split = first.split or choose_split(image.group)
        num_drawn[split] += not first.split
        shared[split].append(image)
    return shared, num_drawn


def warn_unlisted(listing: Listing, lists: Iterable[str]) -> None:
    """Tells the person who prepares the set how many images are passed over."""
    if listing.num_unlisted:
        base.warn(
            f"{listing.num_unlisted:,} images are in none of {', '.join(lists)} and "
            "are not taken."
        )
