"""Head boxes of annotation files: parsed, checked and clipped to their image.

What is damaged is never dropped in silence: an image whose boxes are incomplete would
teach a detector that heads are background. Such an image is left out as a whole.
"""

import dataclasses
import math
from collections import Counter
from typing import Any
from xml.etree import ElementTree

import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect.data.builders import class_names

# Counted by `choose_heads`, also those that stay at zero.
COUNTS = (
    "n_heads",
    "n_difficult",
    "n_empty",
    "n_dropped_other_name",
    "n_clipped",
    "n_touching_zero",
    "n_missing_difficult",
    "n_repeated",
)

_DIFFICULT = {"1": True, "true": True, "0": False, "false": False, "": False}


class DamagedLabelError(ValueError):
    """An annotation of which it is not sure which heads it means."""


@dataclasses.dataclass(frozen=True)
class LabeledObject:
    """One object as an annotation states it; nothing is checked yet.

    Attributes:
        where: Which one of the annotation, for messages.
        name: Class name; "" where there is none.
        box: ymin, xmin, ymax, xmax: edges in pixels from the image's upper left corner.
        difficult: As stated; "" where it is not.
        problem: Why `box` is not to be used; "" where it is.
    """

    where: str
    name: str
    box: tuple[float, float, float, float]
    difficult: str = ""
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Annotation:
    """Objects and size that an annotation states for one image.

    Attributes:
        objects: In the order of the file.
        extent: Stated height and width of the image in pixels; NaN where missing.
        group: Stated group of the image; "" where there is none.
        filename: Stated name of the image file; "" where there is none.
    """

    objects: tuple[LabeledObject, ...]
    extent: tuple[float, float] = (math.nan, math.nan)
    group: str = ""
    filename: str = ""

    def check_extent(self, height: int, width: int) -> None:
        """Checks the stated extent against that of the upright image.

        Raises:
            DamagedLabelError: They differ, so the boxes are those of another image.
        """
        stated = self.extent
        if all(side > 0 for side in stated) and stated != (height, width):
            raise DamagedLabelError(
                f"the boxes are of an image of {stated[1]:g} x {stated[0]:g} pixels, "
                f"but upright this one has {width} x {height}"
            )


@dataclasses.dataclass(frozen=True)
class Head:
    """A head in relative coordinates, see `dfdetect.boxes`."""

    ymin: float
    xmin: float
    ymax: float
    xmax: float
    is_difficult: bool

    def to_record(self) -> dict[str, Any]:
        """Returns the head as an element of the feature `objects`."""
        return {
            "bbox": tfds.features.BBox(self.ymin, self.xmin, self.ymax, self.xmax),
            "label": "head",
            "is_difficult": self.is_difficult,
        }


def build_features(
    **further: tfds.features.FeatureConnector,
) -> tfds.features.FeaturesDict:
    """Returns the fields of an image with head boxes, and more."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "image/filename": tfds.features.Text(),
            **further,
            "objects": tfds.features.Sequence(
                {
                    "bbox": tfds.features.BBoxFeature(),
                    "label": tfds.features.ClassLabel(names=["head"]),
                    "is_difficult": tfds.features.Scalar(tf.bool),
                }
            ),
        }
    )


def parse_voc(content: bytes) -> Annotation:
    """Parses an annotation file of PASCAL VOC.

    An empty `<object/>`, as HollywoodHeads writes for images without heads, is passed
    over.

    Raises:
        ValueError: The content is not XML.
        DamagedLabelError: It is XML of another kind.
    """
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError) as error:
        raise ValueError(f"the annotation is not XML ({error})") from error
    if root.tag != "annotation":
        raise DamagedLabelError(f"the root must be <annotation>, got <{root.tag}>")
    objects: list[LabeledObject] = []
    for element in root:
        if element.tag != "object" and class_names.is_near(element.tag, "object"):
            raise DamagedLabelError(
                f"<{element.tag}> is not a known name; nearest: object"
            )
        if element.tag == "object" and (len(element) or (element.text or "").strip()):
            objects.append(_voc_object(f"object {len(objects) + 1}", element))
    return Annotation(
        tuple(objects),
        extent=(_side(root, "size/height"), _side(root, "size/width")),
        group=(root.findtext("group") or "").strip(),
        filename=(root.findtext("filename") or "").strip(),
    )


def choose_heads(
    annotation: Annotation, height: int, width: int, names: class_names.ClassNames
) -> tuple[list[Head], Counter[str]]:
    """Checks the objects of one image and clips its heads to it.

    A head with exactly the box of one before it is the same one and counts once.
    Objects of other classes are ignored, unless they are all that there is and their
    class is not in `names.others`: nobody has said that such an image shows no head.

    Args:
        annotation: Annotation of the image.
        height: Height of the upright image in pixels.
        width: Width of the upright image in pixels.
        names: Which classes are heads.

    Returns:
        The heads, and how often each of `COUNTS` and each ignored class (as
        `other_name/CLASS`) was met.

    Raises:
        DamagedLabelError: An object is damaged or of a doubtful class; says which one,
            what is wrong and the nearest known name.
    """
    counts = Counter(dict.fromkeys(COUNTS, 0))
    heads: list[Head] = []
    boxes = set()
    unknown = []
    for item in annotation.objects:
        if item.name in names.heads:
            head = _clip(item, height, width, counts)
            if item.box in boxes:
                counts["n_repeated"] += 1
                continue
            boxes.add(item.box)
            heads.append(head)
            continue
        if item.name not in names.others:
            _check_far(item, names)
            unknown.append(item)
        counts["n_dropped_other_name"] += 1
        counts[f"other_name/{item.name}"] += 1
    if unknown and not heads:
        name = unknown[0].name
        raise DamagedLabelError(
            f"{unknown[0].where} is a {name!r}, and there is no head; nearest known "
            f"name: {names.nearest(name)!r}. Name it in head_names or in other_names"
        )
    counts["n_heads"] = len(heads)
    counts["n_difficult"] = sum(head.is_difficult for head in heads)
    counts["n_empty"] = int(not heads)
    return heads, counts


def parse_number(value: object) -> float:
    """Returns a number of an annotation; NaN if it is not one."""
    if isinstance(value, bool) or "_" in str(value):  # Python takes True and 1_0.
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _check_far(item: LabeledObject, names: class_names.ClassNames) -> None:
    if not item.name:
        raise DamagedLabelError(f"{item.where}: {item.problem or 'it has no name'}")
    if names.is_near_head(item.name):
        raise DamagedLabelError(
            f"{item.where} is named {item.name!r}; nearest known name: "
            f"{names.nearest(item.name)!r}"
        )


def _voc_object(where: str, element: ElementTree.Element) -> LabeledObject:
    name = (element.findtext("name") or "").strip()
    difficult = (element.findtext("difficult") or "").strip()
    sides = ("ymin", "xmin", "ymax", "xmax")
    texts = [element.findtext(f"bndbox/{side}") for side in sides]
    ymin, xmin, ymax, xmax = box = tuple(map(parse_number, texts))
    wrong = [
        f"{side} is {text!r}" if text else f"{side} is missing"
        for side, text, number in zip(sides, texts, box, strict=True)
        if not math.isfinite(number)
    ]
    problem = f"{', '.join(wrong)}; a number is wanted" if wrong else ""
    count = len(element.findall("bndbox"))
    if count > 1:
        problem = f"it has {count} boxes; one is wanted"
    return LabeledObject(where, name, (ymin, xmin, ymax, xmax), difficult, problem)


def _side(root: ElementTree.Element, path: str) -> float:
    return parse_number(root.findtext(path) or math.nan)


def _clip(item: LabeledObject, height: int, width: int, counts: Counter[str]) -> Head:
    """Checks one head; returns what of it lies inside the image."""
    ymin, xmin, ymax, xmax = item.box
    corners = f"ymin {ymin:g}, xmin {xmin:g}, ymax {ymax:g}, xmax {xmax:g}"
    if item.problem:
        raise DamagedLabelError(f"{item.where}: {item.problem}")
    if ymax < ymin or xmax < xmin:
        raise DamagedLabelError(f"{item.where} has swapped corners ({corners})")
    if ymax - ymin < 1 or xmax - xmin < 1:
        raise DamagedLabelError(
            f"{item.where} has no area: it is smaller than a pixel ({corners})"
        )
    top, bottom = max(ymin, 0.0), min(ymax, float(height))
    left, right = max(xmin, 0.0), min(xmax, float(width))
    if bottom <= top or right <= left:
        raise DamagedLabelError(
            f"{item.where} lies outside the image of {width} x {height} pixels "
            f"({corners})"
        )
    is_difficult = _DIFFICULT.get(item.difficult.casefold())
    if is_difficult is None:
        raise DamagedLabelError(
            f"{item.where}: difficult must be 0 or 1, got {item.difficult!r}"
        )
    # The files do not say whether pixels count from 0 or 1. Coordinates are taken as
    # edges from 0, at most one pixel off; a 0 shows that they cannot be from 1.
    counts["n_touching_zero"] += min(item.box) == 0
    counts["n_clipped"] += (top, left, bottom, right) != item.box
    counts["n_missing_difficult"] += not item.difficult
    return Head(
        top / height, left / width, bottom / height, right / width, is_difficult
    )
