"""Embeddings of images, or of the heads in them, by a graph of dfdetect.

There are two kinds. "content" describes what is shown and where: near are copies that
were cropped, scaled, mirrored or compressed, and fakes and the images that they were
made from. "forgery" is what the classifier judges by: near are fakes of one method.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dfdetect.media import decode, image_extents, image_status
from dfdetect.pipeline import head_detection, interfaces

KINDS = ("content", "forgery")

_UNITS = {"heads": "heads", "pictures": "whole images"}  # As messages name them.


@dataclasses.dataclass(frozen=True)
class Embedded:
    """The embeddings of one image.

    Attributes:
        status: One of `image_status.STATUS_NAMES`.
        boxes: `[K, 4]`, boxes of the K embedded heads; `[1, 4]`, the whole image,
            where no heads are looked for; `[0, 4]` where there is none.
        embeddings: float32 `[K, D]` of unit length.
    """

    status: str
    boxes: np.ndarray
    embeddings: np.ndarray


class Embedder:
    """Embeds encoded images.

    Args:
        model: Finds the heads and embeds them.
        kind: One of `KINDS`.
        of_heads: Whether to embed each head that the graph judges, rather than whole
            images.
        given_crops: Whether the boxes of `embed_boxes` are crops already, see
            `boxes.crop_regions`.

    Attributes:
        kind: As given.
        of_heads: As given.
        dimension: Numbers of an embedding.

    Raises:
        ValueError: There is no such kind, or the graph is too old to have it.
    """

    def __init__(
        self,
        model: interfaces.Pipeline,
        kind: str = "content",
        of_heads: bool = False,
        given_crops: bool = False,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {kind!r}.")
        margin = model.manifest["classifier"]["crop_margin"]
        self._description = describe(model.manifest, kind, margin)
        self.kind = kind
        self.of_heads = of_heads
        self._detect = model.detect
        embed = model.embed_content if kind == "content" else model.embed
        assert embed is not None  # `describe` has refused graphs without it.
        self._embed = embed
        self._margin = None if given_crops else margin
        self.dimension = self._description["dimension"]

    def describe(self) -> dict[str, Any]:
        """Returns what the manifest of an index says of its embeddings; see `check`."""
        return {**self._description, "unit": "heads" if self.of_heads else "pictures"}

    def __call__(self, contents: Sequence[bytes]) -> list[Embedded]:
        """Embeds images.

        Args:
            contents: Encoded images, at most a batch of them; any may be broken.
        """
        if not contents:
            return []
        if self.of_heads:
            return self._embed_heads(contents)
        return [
            Embedded("ok", np.array([[0.0, 0.0, 1.0, 1.0]]), row[None])
            if row.any()
            else self._mark_unread(content)
            for row, content in zip(self.embed_whole(contents), contents, strict=True)
        ]

    def embed_whole(self, contents: Sequence[bytes]) -> np.ndarray:
        """Embeds whole images.

        Args:
            contents: Encoded images, at most a batch of them; any may be broken.

        Returns:
            float32 `[B, D]` of unit length; zeros for a broken image.
        """
        return self._embed(tf.constant(list(contents), tf.string))["embedding"].numpy()

    def embed_boxes(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Embeds heads of a decoded image.

        Args:
            image: `[height, width, 3]` uint8 RGB, upright.
            boxes: `[K, 4]` in the format of `dfdetect.boxes`; K may be 0.

        Returns:
            float32 `[K, D]` of unit length.
        """
        if not len(boxes):
            return self._no_boxes()[1]
        _, crops = head_detection.encode_crops(image, boxes, self._margin)
        return self._embed(tf.constant(crops, tf.string))["embedding"].numpy()

    def mark_unreadable(self) -> Embedded:
        """Returns what stands for an image that cannot be read."""
        return Embedded("unreadable", *self._no_boxes())

    def _mark_unread(self, content: bytes) -> Embedded:
        """Returns what stands for an image that was not embedded."""
        ((height, width),) = image_extents.read_upright_extents([content])
        if int(height) * int(width) > image_status.MAX_PIXELS:
            return Embedded("too_large", *self._no_boxes())
        return self.mark_unreadable()

    def _embed_heads(self, contents: Sequence[bytes]) -> list[Embedded]:
        outputs = self._detect(tf.constant(list(contents), tf.string))
        outputs = {name: value.numpy() for name, value in outputs.items()}
        statuses = [image_status.STATUS_NAMES[status] for status in outputs["status"]]
        boxes, crops = [], []
        for i, (content, status) in enumerate(zip(contents, statuses, strict=True)):
            found = outputs["boxes"][i][: outputs["num_heads"][i]]
            # Heads that are too small to be judged are too small to tell who they are.
            judged = ~np.isnan(outputs["fake_probabilities"][i][: len(found)])
            boxes.append(found[judged] if status == "ok" else self._no_boxes()[0])
            if len(boxes[-1]):
                image = decode.decode_at_once(tf.constant(content)).numpy()
                encoded = head_detection.encode_crops(image, boxes[-1], self._margin)
                crops += encoded[1]
        embeddings = self._no_boxes()[1]
        if crops:
            # The heads of all images at once.
            embedded = self._embed(tf.constant(crops, tf.string))
            embeddings = embedded["embedding"].numpy()
        ends = np.cumsum([len(of_image) for of_image in boxes])
        rows = np.split(embeddings, ends[:-1])
        return [Embedded(*one) for one in zip(statuses, boxes, rows, strict=True)]

    def _no_boxes(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((0, 4)), np.zeros((0, self.dimension), np.float32)


def describe(manifest: dict[str, Any], kind: str, crop_margin: float) -> dict[str, Any]:
    """Describes an embedding, so that it is compared with none of another meaning.

    Args:
        manifest: Manifest of a graph, of kind "pipeline".
        kind: One of `KINDS`.
        crop_margin: Margin of the embedded heads.

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


def check_unit(described: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuses to join embeddings of whole images with those of heads.

    Args:
        described: The `embedding` of an index.
        wanted: The `embedding` of what it is joined with.

    Raises:
        ValueError: One is of heads, the other of whole images.
    """
    units = [_UNITS.get(str(x.get("unit")), "unknown") for x in (described, wanted)]
    if units[0] != units[1]:
        raise ValueError(
            f"the index holds {units[0]}, what is joined with it {units[1]}: both must "
            "be of whole images, or both of heads."
        )


def check(described: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuses an index whose embeddings mean something else.

    Args:
        described: The `embedding` of the index.
        wanted: What `describe` returns.

    Raises:
        ValueError: The embeddings are of another kind or another model.
    """
    for name in ("kind", "fingerprint", "dimension", "crop_margin"):
        if described.get(name) != wanted[name]:
            raise ValueError(
                f"the index was made with another model: {name} must be "
                f"{wanted[name]}, got {described.get(name)}; make it anew with "
                "train/index.py, or name the graph that it was made with."
            )
