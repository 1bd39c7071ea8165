"""The layout of PASCAL VOC: one XML file an image, and lists of the splits.

`JPEGImages/a.jpg` goes with `Annotations/a.xml`; both may as well be side by side, or
the images beside `Annotations/`. All may lie in a folder, or in several.
"""

import os
from collections.abc import Mapping, Sequence

from dfdetect.data.builders import archives, head_boxes
from dfdetect.data.builders.labeled_images import (
    SPLIT_NAMES,
    LabeledImage,
    Listing,
    drop_ending,
    drop_folder,
    find_split,
    is_image,
    read_text,
    warn_unlisted,
)

_LIST_FOLDERS = ("Splits", "ImageSets/Main")  # The first that has lists counts.

# Any other file may be an image: the decoder goes by content, not by the ending.
_NO_IMAGES = (".xml", ".txt", ".csv", ".json", ".md", ".html", ".yaml", ".yml")


def is_annotation(path: str) -> bool:
    """Whether a file of the layout is an annotation, by its ending."""
    return path.lower().endswith(".xml")


def list_images(root: str | os.PathLike, files: Sequence[str]) -> Listing:
    """Pairs the images of a folder with their annotations.

    Args:
        root: The folder.
        files: Paths of all files in it, relative and with slashes.

    Raises:
        ValueError: Two annotations are those of one image, or a list names an image
            twice.
    """
    annotations: dict[str, str] = {}
    images: dict[str, list[str]] = {}
    for path in files:
        if is_annotation(path):
            key = drop_ending(drop_folder(path, ("annotations",)))
            if key in annotations:
                raise ValueError(
                    f"{annotations[key]} and {path} are annotations of one image."
                )
            annotations[key] = path
        elif not path.lower().endswith(_NO_IMAGES):
            images.setdefault(drop_ending(drop_folder(path)), []).append(path)
    lists = _find_lists(files)
    listing = Listing()
    if lists:
        split_of = _read_lists(root, lists, {*annotations, *images})
        listing.num_unlisted = len(annotations.keys() - split_of.keys())
        warn_unlisted(listing, lists)
    else:
        # Other folders, such as those of masks, are not meant to have annotations.
        folders = {_folder(p) for key in annotations for p in images.get(key, ())}
        seen = {
            key
            for key, paths in images.items()
            if any(is_image(path) and _folder(path) in folders for path in paths)
        }
        split_of = {key: find_split(key) for key in {*annotations, *seen}}
    for key, split in sorted(split_of.items()):
        annotation = annotations.get(key, "")
        _add(listing, root, key, split, annotation, images.get(key, []))
    return listing


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _add(
    listing: Listing,
    root: str | os.PathLike,
    key: str,
    split: str,
    annotation: str,
    paths: Sequence[str],
) -> None:
    """Adds one image to the listing, or says what of it is missing."""
    if not annotation:
        name = paths[0] if paths else key
        reason = (
            "there is no annotation; an image without heads needs one without objects"
        )
        listing.missing.append((split, "n_missing_annotation", name, reason))
        return
    try:
        stated = head_boxes.parse_voc(archives.read_member(root, annotation))
    except ValueError:  # Reported where the records are made.
        stated = head_boxes.Annotation(())
    if len(paths) > 1:
        paths = [p for p in paths if p.split("/")[-1] == stated.filename] or paths
    if len(paths) != 1:
        found = f"there are {len(paths)} ({', '.join(paths)})" if paths else "none"
        reason = f"one image of this name is wanted, found {found}"
        listing.missing.append((split, "n_missing_image", annotation, reason))
        return
    listing.images.append(
        LabeledImage(
            name=drop_folder(paths[0], ("jpegimages",)),
            path=paths[0],
            where=annotation,
            annotation=annotation,
            group=stated.group or key,
            split=split,
        )
    )


def _find_lists(files: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Returns folder and split by the path of each list."""
    for lists in _LIST_FOLDERS:
        found = {}
        for path in files:
            folder, _, name = path.rpartition("/")
            split = SPLIT_NAMES.get(drop_ending(name))
            if split and name.endswith(".txt") and f"/{folder}".endswith(f"/{lists}"):
                found[path] = folder.removesuffix(lists), split
        if found:
            return found
    return {}


def _read_lists(
    root: str | os.PathLike,
    lists: Mapping[str, tuple[str, str]],
    known: set[str],
) -> dict[str, str]:
    """Returns the split of each image that a list names."""
    split_of: dict[str, str] = {}
    list_of: dict[str, str] = {}
    for path, (folder, split) in lists.items():
        lines = read_text(root, path).splitlines()
        for line in filter(None, map(str.strip, lines)):
            key = folder + line
            if key not in known:  # Some lists name the file instead of its stem.
                shorter = drop_ending(drop_folder(key))
                key = shorter if shorter in known else key
            if key in list_of:
                raise ValueError(
                    f"{line!r} is listed twice: in {list_of[key]} and in {path}."
                )
            list_of[key], split_of[key] = path, split
    return split_of
