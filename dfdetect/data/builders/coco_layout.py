"""The layout of COCO: JSON files with images, annotations and categories."""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dfdetect.data.builders import archives
from dfdetect.data.builders.class_names import ClassNames
from dfdetect.data.builders.head_boxes import Annotation, LabeledObject, parse_number
from dfdetect.data.builders.labeled_images import (
    SPLIT_NAMES,
    LabeledImage,
    Listing,
    drop_ending,
    drop_folder,
    find_split,
    is_image,
    warn_unlisted,
)

_NAMES = re.compile(r"_?annotations.*\.json|instances_.*\.json", re.IGNORECASE)
_PARTS = ("images", "annotations", "categories")

_NO_BOX = (math.nan, math.nan, math.nan, math.nan)


def is_annotation(path: str) -> bool:
    """Whether a file is one of annotations, by its name."""
    return _NAMES.fullmatch(path.rpartition("/")[2]) is not None


def list_images(
    root: str | os.PathLike, files: Sequence[str], names: ClassNames
) -> Listing:
    """Pairs the images of a folder with the annotations of its JSON files.

    Args:
        root: The folder.
        files: Paths of all files in it, relative and with slashes.
        names: Which categories are heads.

    Raises:
        ValueError: A file is not a COCO file, has objects but no category of heads, or
            lists an image twice.
    """
    by_name: dict[str, list[str]] = {}
    for path in files:
        by_name.setdefault(path.rpartition("/")[2], []).append(path)
    listing = Listing()
    listed_in: dict[str, str] = {}
    for path in filter(is_annotation, files):
        content = _read(root, path)
        categories = {c["id"]: str(c["name"]) for c in content["categories"]}
        if content["annotations"] and not set(names.heads) & set(categories.values()):
            raise ValueError(
                f"{path} has no category {' or '.join(map(repr, names.heads))}, but "
                f"{', '.join(map(repr, categories.values())) or 'none'}; head_names "
                "must say which are heads."
            )
        listing.categories += categories.values()
        objects = _objects_by_image(path, content, categories, listing)
        for fields in content["images"]:
            image = _find_image(path, fields, objects, by_name, listing)
            if image is None:
                continue
            if image.path in listed_in:
                raise ValueError(
                    f"{image.path} is listed twice: in {listed_in[image.path]} and in "
                    f"{path}."
                )
            listed_in[image.path] = path
            listing.images.append(image)
    listing.num_unlisted = len(set(filter(is_image, files)) - listed_in.keys())
    warn_unlisted(listing, filter(is_annotation, files))
    return listing


def _read(root: str | os.PathLike, path: str) -> dict[str, Any]:
    try:
        content = json.loads(archives.read_member(root, path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}).") from error
    missing = [
        part
        for part in _PARTS
        if not isinstance(content, dict) or not isinstance(content.get(part), list)
    ]
    if missing:
        raise ValueError(
            f"{path} must have the lists {', '.join(_PARTS)}; it lacks "
            f"{', '.join(missing)}."
        )
    for part, keys in (("images", ("id", "file_name")), ("categories", ("id", "name"))):
        seen = set()
        for fields in content[part]:
            if (
                not isinstance(fields, dict)
                or any(key not in fields for key in keys)
                or not _is_id(fields["id"])
            ):
                raise ValueError(
                    f"{path}: each of {part} must have {' and '.join(keys)}, "
                    f"got {str(fields)[:80]}."
                )
            if fields["id"] in seen:
                raise ValueError(f"{path}: {part} has the id {fields['id']!r} twice.")
            seen.add(fields["id"])
    return content


def _objects_by_image(
    path: str,
    content: Mapping[str, Any],
    categories: Mapping[Any, str],
    listing: Listing,
) -> dict[Any, list[LabeledObject]]:
    """Sorts the annotations by image; those of no image are told in the listing.

    Of an annotation that names no image at all, any image may be the one it means that
    has none: it gets an object that is not to be used, so that it is left out.
    """
    objects: dict[Any, list[LabeledObject]] = {f["id"]: [] for f in content["images"]}
    # Some programs write numbers as texts in one of the two places.
    ids = {str(image): image for image in objects}
    stray = ""
    for fields in content["annotations"]:
        image = fields.get("image_id") if isinstance(fields, dict) else None
        known = ids.get(str(image)) if _is_id(image) else None
        if known is None:
            reason = f"an annotation of the image {image!r}, which is not listed"
            split = _split_of(path)
            listing.missing.append((split, "n_missing_image", path, reason))
            stray = stray if _is_id(image) else reason
        else:
            objects[known].append(_object(fields, categories))
    if stray:
        problem = f"there is none, but also {stray}"
        for found in objects.values():
            if not found:
                found.append(LabeledObject("objects", "", _NO_BOX, problem=problem))
    return objects


def _is_id(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _object(fields: Mapping[str, Any], categories: Mapping[Any, str]) -> LabeledObject:
    category = fields.get("category_id")
    known = isinstance(category, int | str) and category in categories
    box = fields.get("bbox")
    sides = [parse_number(n) for n in box] if isinstance(box, list) else []
    problem = ""
    if not known:
        problem = f"category_id is {category!r}, which is not a category"
    elif len(sides) != 4 or not all(map(math.isfinite, sides)):
        problem = f"bbox must be four numbers, got {box!r}"
        sides = [math.nan] * 4
    xmin, ymin, width, height = sides if len(sides) == 4 else [math.nan] * 4
    crowd = fields.get("iscrowd")
    return LabeledObject(
        where=f"annotation {fields.get('id', 'without id')}",
        name=categories[category] if known else "",
        box=(ymin, xmin, ymin + height, xmin + width),
        difficult="" if crowd is None else str(crowd),
        problem=problem,
    )


def _find_image(
    path: str,
    fields: Mapping[str, Any],
    objects: Mapping[Any, list[LabeledObject]],
    by_name: Mapping[str, Sequence[str]],
    listing: Listing,
) -> LabeledImage | None:
    """Finds the file of one image; tells in the listing where there is none."""
    name = str(fields["file_name"]).replace("\\", "/").removeprefix("./")
    split = _split_of(path)
    found = [
        file
        for file in by_name.get(name.rpartition("/")[2], ())
        if f"/{file}".endswith(f"/{name}")
    ]
    if len(found) > 1:  # Splits may use the same names in folders of their own.
        folder = path.rpartition("/")[0]
        found = (
            [file for file in found if file == f"{folder}/{name}".lstrip("/")]
            or [file for file in found if split and find_split(file) == split]
            or found
        )
    if len(found) != 1:
        reason = f"{path} lists it, but there is no such image"
        if found:
            reason = f"{path} lists it, and it may be {' or '.join(found)}"
        listing.missing.append((split, "n_missing_image", name, reason))
        return None
    extent = (parse_number(fields.get("height")), parse_number(fields.get("width")))
    group = str(fields.get("group") or "").strip()
    image_name = drop_folder(found[0], ("jpegimages",))
    return LabeledImage(
        name=image_name,
        path=found[0],
        where=f"{found[0]} in {path}",
        annotation=Annotation(tuple(objects[fields["id"]]), extent),
        group=group or drop_ending(image_name),
        split=split,
    )


def _split_of(path: str) -> str:
    """Returns the split that a file is named after, as in `instances_val2017.json`."""
    words = re.findall(r"[a-z]+", drop_ending(path.rpartition("/")[2]).lower())
    named = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
    return named[0] if named else find_split(path)
