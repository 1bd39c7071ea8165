"""Embeddings of images, or of the heads in them, by a graph of dfdetect.

There are two kinds. "content" says what is shown and where: copies that were cut,
scaled, mirrored or compressed, and fakes and the images that they were made from, are
near. "forgery" is what the classifier judges by: fakes of one make are near.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dfdetect.media import decode, image_status
from dfdetect.pipeline import head_detection

KINDS = ("content", "forgery")


@dataclasses.dataclass(frozen=True)
class Embedded:
    """What became of one image.

    Attributes:
        status: One of `image_status.STATUS_NAMES`.
        boxes: `[K, 4]` of the K embedded heads; `[1, 4]`, all of it, of a whole
            image; `[0, 4]` where there is none.
        embeddings: float32 `[K, D]` of unit length.
    """

    status: str
    boxes: np.ndarray
    embeddings: np.ndarray


class Embedder:
    """Embeds encoded images.

    Args:
        model: A `deepfake_pipeline.DeepfakePipeline` or
            `saved_pipeline.LoadedPipeline`.
        kind: One of `KINDS`.
        of_heads: Whether to embed each head that the graph judges, rather than the
            whole of an image.
        given_crops: Whether the boxes of `of_boxes` are crops already, see
            `boxes.crop_regions`.

    Raises:
        ValueError: There is no such kind, or the graph is too old to have it.
    """

    def __init__(
        self,
        model: Any,
        kind: str = "content",
        of_heads: bool = False,
        given_crops: bool = False,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {kind!r}.")
        margin = model.manifest["classifier"]["crop_margin"]
        self._description = description(model.manifest, kind, margin)
        self.kind = kind
        self.of_heads = of_heads
        self._detect = model.detect
        self._embed = {"content": model.embed_content, "forgery": model.embed}[kind]
        self._margin = None if given_crops else margin
        self.dimension = self._description["dimension"]

    def describe(self) -> dict[str, Any]:
        """What an index keeps of it: see `check`."""
        return {**self._description, "unit": "heads" if self.of_heads else "pictures"}

    def __call__(self, contents: Sequence[bytes]) -> list[Embedded]:
        """Embeds images.

        Args:
            contents: Encoded images, at most a batch of them; any may be broken.
        """
        if not contents:
            return []
        if self.of_heads:
            return self._of_heads(contents)
        embeddings = self._embed(tf.constant(list(contents), tf.string))["embedding"]
        return [
            Embedded("ok", np.array([[0.0, 0.0, 1.0, 1.0]]), row[None])
            if row.any()
            else self.unreadable()
            for row in embeddings.numpy()
        ]

    def of_boxes(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Embeds heads of a decoded image.

        Args:
            image: `[height, width, 3]` uint8 RGB, upright.
            boxes: `[K, 4]` in the format of `dfdetect.boxes`; K may be 0.

        Returns:
            float32 `[K, D]` of unit length.
        """
        if not len(boxes):
            return self._nothing()[1]
        _, crops = head_detection.encoded_crops(image, boxes, self._margin)
        return self._embed(tf.constant(crops, tf.string))["embedding"].numpy()

    def unreadable(self) -> Embedded:
        """What becomes of an image that cannot be read."""
        return Embedded("unreadable", *self._nothing())

    def _of_heads(self, contents: Sequence[bytes]) -> list[Embedded]:
        outputs = self._detect(tf.constant(list(contents), tf.string))
        outputs = {name: value.numpy() for name, value in outputs.items()}
        found = []
        for i, content in enumerate(contents):
            status = image_status.STATUS_NAMES[outputs["status"][i]]
            if status != "ok":
                found.append(Embedded(status, *self._nothing()))
                continue
            boxes = outputs["boxes"][i][: outputs["num_heads"][i]]
            # Those that are too small to be judged say as little of who they are.
            judged = ~np.isnan(outputs["fake_probabilities"][i][: len(boxes)])
            image = decode.decode_image(tf.constant(content)).numpy()
            embeddings = self.of_boxes(image, boxes[judged])
            found.append(Embedded(status, boxes[judged], embeddings))
        return found

    def _nothing(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((0, 4)), np.zeros((0, self.dimension), np.float32)


def description(
    manifest: dict[str, Any], kind: str, crop_margin: float
) -> dict[str, Any]:
    """What tells an embedding from others that it must not be compared with.

    Args:
        manifest: Of a graph, of kind "pipeline".
        kind: One of `KINDS`.
        crop_margin: Of heads.

    Raises:
        ValueError: There is no such kind, or the graph is too old to have it.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, got {kind!r}.")
    if kind not in manifest.get("embeddings", {}):
        raise ValueError(
            f"the graph must have the embedding {kind!r}, got one that was exported "
            "before there was: export it anew."
        )
    return {"kind": kind, "crop_margin": crop_margin, **manifest["embeddings"][kind]}


def check(described: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuses an index whose embeddings mean something else.

    Args:
        described: The index's `embedding`.
        wanted: See `description`.

    Raises:
        ValueError: They are of another kind or another model.
    """
    for name in ("kind", "fingerprint", "dimension", "crop_margin"):
        if described.get(name) != wanted[name]:
            raise ValueError(
                f"the index was made with another model: {name} must be "
                f"{wanted[name]}, got {described.get(name)}; make it anew with "
                "train/index.py, or name the graph that it was made with."
            )
