"""HollywoodHeads, or any folder in its layout, as a TFDS dataset."""

import collections
import dataclasses
import hashlib
import math
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import images

_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_LAYOUT = "JPEGImages/*.jpeg, Annotations/*.xml and Splits/{train,val,test}.txt"
# Every count is in the metadata, also those that stay at zero.
_COUNTS = (
    "n_frames",
    "n_heads",
    "n_difficult",
    "n_empty",
    "n_dropped_zero_area",
    "n_dropped_malformed",
    "n_dropped_other_name",
    "n_clipped",
    "n_touching_zero",
    "n_missing_difficult",
    "n_size_mismatch",
    "n_consecutive",
    "n_skipped_missing_image",
    "n_skipped_missing_annotation",
    "n_skipped_unreadable",
)

# What training could not decode must not become a record.
_decode = tf.function(
    images.decode_image, input_signature=[tf.TensorSpec([], tf.string)]
)


class Builder(tfds.core.GeneratorBasedBuilder):
    """Frames with head boxes; the source folder is only read, never changed.

    The metadata holds each count of `_COUNTS` over all splits, the same by split
    under `counts`, and a `fingerprint` of what went in: the SHA-256 over the sorted
    digests of (name, split, annotation, image). `README.md` explains the counts.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""
    Unpack HollywoodHeads.zip from
    https://www.di.ens.fr/willow/research/headdetection/ and give the folder
    HollywoodHeads, or the one that contains it. It has {_LAYOUT}.
    """
    pkg_dir_path = tfds.core.Path(__file__).parent

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "image/filename": tfds.features.Text(),
                    "movie": tfds.features.Text(),
                    "frame": tfds.features.Scalar(tf.int64),
                    "objects": tfds.features.Sequence(
                        {
                            "bbox": tfds.features.BBoxFeature(),
                            "label": tfds.features.ClassLabel(names=["head"]),
                            "is_difficult": tfds.features.Scalar(tf.bool),
                        }
                    ),
                }
            ),
            homepage="https://www.di.ens.fr/willow/research/headdetection/",
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        root = _find_root(dl_manager.manual_dir)
        stems = {
            split: _read_stems(root / "Splits" / f"{name}.txt")
            for split, name in _SPLITS.items()
        }
        _check_disjoint(stems)
        present = {path.stem for path in (root / "JPEGImages").glob("*.jpeg")}
        if not any(present.intersection(listed) for listed in stems.values()):
            raise ValueError(
                f"None of the images listed in {root / 'Splits'} is in "
                f"{root / 'JPEGImages'}."
            )
        metadata = self.info.metadata
        metadata.clear()
        metadata.update(dict.fromkeys(_COUNTS, 0), counts={}, fingerprint="")
        digests: list[bytes] = []
        generators = {}
        for split, listed in stems.items():
            counts = collections.Counter(dict.fromkeys(_COUNTS, 0))
            found = [stem for stem in listed if stem in present]
            counts["n_skipped_missing_image"] = len(listed) - len(found)
            if found:  # TFDS cannot write an empty split.
                generators[split] = self._generate_examples(
                    root, split, found, counts, digests
                )
            else:
                self._note(split, counts, digests)
        return generators

    def _generate_examples(
        self,
        root: tfds.core.Path,
        split: str,
        stems: list[str],
        counts: collections.Counter[str],
        digests: list[bytes],
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        previous = ("", -1)
        for stem in stems:
            image_path = root / "JPEGImages" / f"{stem}.jpeg"
            annotation_path = root / "Annotations" / f"{stem}.xml"
            if not annotation_path.exists():
                counts["n_skipped_missing_annotation"] += 1
                continue
            image_bytes = image_path.read_bytes()
            annotation_bytes = annotation_path.read_bytes()
            try:
                height, width = _decode(image_bytes).shape[:2]
                annotation = ElementTree.fromstring(annotation_bytes)
            except (tf.errors.InvalidArgumentError, ElementTree.ParseError):
                counts["n_skipped_unreadable"] += 1
                continue
            movie, frame = _movie_and_frame(stem)
            counts["n_consecutive"] += previous == (movie, frame - 1)
            previous = (movie, frame)
            objects = _objects(annotation, height, width, counts)
            counts["n_frames"] += 1
            counts["n_heads"] += len(objects)
            counts["n_difficult"] += sum(head.is_difficult for head in objects)
            counts["n_empty"] += not objects
            digest = hashlib.sha256(f"{stem}\0{split}\0".encode())
            digest.update(hashlib.sha256(annotation_bytes).digest())
            digest.update(hashlib.sha256(image_bytes).digest())
            digests.append(digest.digest())
            yield (
                stem,
                {
                    "image": image_bytes,
                    "image/filename": image_path.name,
                    "movie": movie,
                    "frame": frame,
                    "objects": [dataclasses.asdict(head) for head in objects],
                },
            )
        if not counts["n_frames"]:
            raise ValueError(f"No frame of the split {split} can be read in {root}.")
        self._note(split, counts, digests)

    def _note(
        self, split: str, counts: collections.Counter[str], digests: list[bytes]
    ) -> None:
        """Adds the counts of one finished split to the metadata."""
        metadata = self.info.metadata
        metadata["counts"][split] = dict(counts)
        for name in _COUNTS:
            metadata[name] += counts[name]
        metadata["fingerprint"] = hashlib.sha256(b"".join(sorted(digests))).hexdigest()


@dataclasses.dataclass(frozen=True)
class _Head:
    bbox: tfds.features.BBox
    is_difficult: bool
    label: str = "head"


def _find_root(manual_dir: tfds.core.Path) -> tfds.core.Path:
    """The folder of the three parts: `manual_dir` or `HollywoodHeads` in it."""
    wanted = ["JPEGImages", "Annotations"]
    wanted += [f"Splits/{name}.txt" for name in _SPLITS.values()]
    nested = manual_dir / "HollywoodHeads"
    root = nested if nested.exists() else manual_dir
    missing = [part for part in wanted if not (root / part).exists()]
    if missing:
        found = [part for part in wanted if part not in missing]
        raise FileNotFoundError(
            f"{root} lacks {', '.join(missing)} (found: {', '.join(found) or 'none'})."
            f" Wanted: {_LAYOUT}."
        )
    return root


def _read_stems(path: tfds.core.Path) -> list[str]:
    return path.read_text().split()


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


def _objects(
    annotation: ElementTree.Element,
    height: int,
    width: int,
    counts: collections.Counter[str],
) -> list[_Head]:
    """The usable heads of one annotation; what is mended or dropped is counted."""
    size = [_number(annotation, f"size/{side}") for side in ("height", "width")]
    # Boxes are pixels of the image, whatever the annotation says its size was.
    counts["n_size_mismatch"] += size != [height, width]
    heads = []
    for element in annotation.findall("object"):
        if len(element) == 0:  # `<object/>` stands for a frame without heads.
            continue
        if element.findtext("name", "head").strip() != "head":
            counts["n_dropped_other_name"] += 1
            continue
        ymin, xmin, ymax, xmax = pixels = tuple(
            _number(element, f"bndbox/{side}")
            for side in ("ymin", "xmin", "ymax", "xmax")
        )
        if not all(map(math.isfinite, pixels)):
            counts["n_dropped_malformed"] += 1
            continue
        # The files do not say whether pixels count from 0 or 1. Coordinates are taken
        # as edges from 0, at most one pixel off; a 0 shows that they cannot be from 1.
        counts["n_touching_zero"] += min(pixels) == 0
        inside = (
            min(max(ymin, 0.0), height),
            min(max(xmin, 0.0), width),
            min(max(ymax, 0.0), height),
            min(max(xmax, 0.0), width),
        )
        if inside[2] <= inside[0] or inside[3] <= inside[1]:
            counts["n_dropped_zero_area"] += 1
            continue
        counts["n_clipped"] += inside != pixels
        difficult = element.findtext("difficult", "").strip()
        counts["n_missing_difficult"] += not difficult
        heads.append(
            _Head(
                bbox=tfds.features.BBox(
                    ymin=inside[0] / height,
                    xmin=inside[1] / width,
                    ymax=inside[2] / height,
                    xmax=inside[3] / width,
                ),
                is_difficult=difficult == "1",
            )
        )
    return heads


def _number(element: ElementTree.Element, path: str) -> float:
    """The number at `path`, NaN where there is none."""
    try:
        return float(element.findtext(path) or "nan")
    except ValueError:
        return math.nan
