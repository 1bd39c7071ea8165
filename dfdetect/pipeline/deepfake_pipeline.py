"""The whole of dfdetect as one graph: encoded bytes in, heads and probabilities out."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from dfdetect.media import decode, image_status
from dfdetect.models import weights
from dfdetect.pipeline import (
    chunking,
    embedding,
    given_crops,
    head_detection,
    image_batch,
    interfaces,
    model_functions,
)

# They bound the memory that a call takes, whatever its batch: so many decoded images
# and their heads, so many of them in the detector, and so many crops in the classifier.
# Models gain little beyond.
_IMAGES_AT_ONCE = 8
_IMAGES_IN_DETECTOR = 4
_CROPS_AT_ONCE = 8


def _signature(spec: tf.TensorSpec) -> Callable:
    # There is no Python control flow to convert, and looking for it takes seconds.
    return tf.function(input_signature=[spec], autograph=False)


class DeepfakePipeline(tf.Module):
    """Finds heads and says how likely each one is a deepfake.

    The methods of `SIGNATURES` and, with an index, `neighbours` are the signatures of
    the graph that `export.saved_pipeline.save` writes.

    Args:
        detector: Letterboxed images `[B, S, S, 3]` to `(class_logits, box_offsets)`,
            with its `anchors`; see `models.efficientdet`.
        classifier: Head crops to fake logits `[B, 1]`; see `models.classifier`.
        description: Manifest of kind "pipeline". Its `min_head_size` is the least
            longer side, in pixels of the original, of a head that is judged.
        index: Known images in whose midst `neighbours` looks for heads.
        functions: Of the two models, without variables, see `export.freezing.freeze`;
            made of the models when absent.

    Attributes:
        manifest: `description`, with what it says of embeddings and of the index.
        functions: Of the two models.
        index: As given.
        model_variables: Those of both models that the functions need.
        neighbours: The signature of this name, or None without an index.

    Raises:
        ValueError: The manifest is incomplete or disagrees with a model, or the index
            was made with another model.
    """

    def __init__(
        self,
        detector: keras.Model,
        classifier: keras.Model,
        description: dict[str, Any],
        index: interfaces.NeighbourIndex | None = None,
        functions: model_functions.ModelFunctions | None = None,
    ) -> None:
        super().__init__(name="deepfake_pipeline")
        interfaces.check(description)
        parts = {"detector": detector, "classifier": classifier}
        for part, model in parts.items():
            side = description[part]["image_size"]
            if tuple(model.input_shape[1:]) != (side, side, 3):
                raise ValueError(
                    f"{part} must take images of {side} pixels, as its manifest "
                    f"says, got {model.input_shape}."
                )
        # The variables alone, not the models: of a tracked Keras model TensorFlow
        # saves a second set, and TensorFlow Serving would restore only that.
        self.model_variables = [
            variable.value
            for model in (() if functions else (detector, classifier))
            for variable in model.variables
        ]
        # Behind a function, so that the models themselves are not tracked.
        self._models = lambda: (detector, classifier)
        self.functions = functions or model_functions.of(
            detector, classifier, description
        )
        fingerprint = weights.fingerprint(classifier)
        self.manifest: dict[str, Any] = {
            **description,
            # What an index must know of them, by their names.
            "embeddings": {
                kind: {"fingerprint": fingerprint, "dimension": dimension}
                for kind, dimension in self.functions.dimensions.items()
            },
        }
        self.index = index
        self.neighbours: Callable[[tf.Tensor], chunking.Outputs] | None = None
        if index is not None:
            margin = description["classifier"]["crop_margin"]
            embedding.check(
                index.embedding,
                embedding.description(
                    self.manifest, index.embedding.get("kind", ""), margin
                ),
            )
            self.manifest["index"] = index.describe()
            spec = tf.TensorSpec([None], tf.string, "image_bytes")
            self.neighbours = _signature(spec)(self._neighbours)

    @property
    def detector(self) -> keras.Model:
        """The detector that it was made of."""
        return self._models()[0]

    @property
    def classifier(self) -> keras.Model:
        """The classifier that it was made of."""
        return self._models()[1]

    @_signature(tf.TensorSpec([None], tf.string, "image_bytes"))
    def detect(self, image_bytes: tf.Tensor) -> chunking.Outputs:
        """Finds and judges the heads of encoded images.

        Args:
            image_bytes: string `[B]`; see `decode.decode`.

        Returns:
            With N, the most heads of an image, fixed, and padding of zeros:
            `num_heads` int32 `[B]`; `boxes` float32 `[B, N, 4]`, best first;
            `head_scores` and `fake_probabilities` float32 `[B, N]`, NaN for a head that
            is too small to be judged; `fake_probability` float32 `[B]`, that of the
            most suspicious head, NaN without one; `status` int32 `[B]`, see
            `image_status`.
        """
        return self._in_groups(
            lambda group: self._analyse(*self._read(group)), image_bytes
        )

    @_signature(tf.TensorSpec([None] * 3 + [3], tf.uint8, "frames"))
    def detect_frames(self, frames: tf.Tensor) -> chunking.Outputs:
        """Finds and judges the heads of images of one size.

        Args:
            frames: uint8 `[B, H, W, 3]`, upright RGB.

        Returns:
            As `detect`.
        """

        def analyse(group: tf.Tensor) -> chunking.Outputs:
            packed = chunking.map_rows(decode.pack, group, tf.TensorSpec([], tf.string))
            status = tf.fill(tf.shape(packed), image_status.OK)
            return self._analyse(image_batch.whole(packed), status)

        return self._in_groups(analyse, frames)

    @_signature(tf.TensorSpec([None], tf.string, "image_bytes"))
    def classify_crops(self, image_bytes: tf.Tensor) -> chunking.Outputs:
        """Judges encoded images of one head each, cut with the margin of training.

        Returns:
            `fake_probability` float32 `[B]`, NaN where the `status` int32 `[B]` is not
            `image_status.OK`.
        """

        specs = {"fake_probability": _spec()}
        size = self.manifest["classifier"]["image_size"]
        found = given_crops.call(self.functions.judge, image_bytes, size, specs)
        return given_crops.nan_unless_read(found)

    @_signature(tf.TensorSpec([None], tf.string, "image_bytes"))
    def explain(self, image_bytes: tf.Tensor) -> chunking.Outputs:
        """Shows where in encoded images of one head each a fake is seen.

        Returns:
            `heat_map` float32 `[B, S, S]`, over the whole of each image, S the side
            of the classifier's crops, see
            `grad_cam.build_heat_maps_function`; zeros where `status` is not
            `image_status.OK`. The rest as `classify_crops`.
        """
        size = self.manifest["classifier"]["image_size"]
        specs = {"heat_map": _spec([size, size]), "fake_probability": _spec()}
        found = given_crops.call(self.functions.explain, image_bytes, size, specs)
        return given_crops.nan_unless_read(found)

    @_signature(tf.TensorSpec([None], tf.string, "image_bytes"))
    def embed(self, image_bytes: tf.Tensor) -> chunking.Outputs:
        """Describes encoded images of one head each by what they are judged by.

        Returns:
            `embedding` float32 `[B, D]` of unit length; zeros for an image that cannot
            be decoded, which are like nothing else.
        """
        return self._embed("forgery", image_bytes)

    @_signature(tf.TensorSpec([None], tf.string, "image_bytes"))
    def embed_content(self, image_bytes: tf.Tensor) -> chunking.Outputs:
        """As `embed`, by what images show, see `models.content_embedding`."""
        return self._embed("content", image_bytes)

    def _neighbours(self, image_bytes: tf.Tensor) -> chunking.Outputs:
        """Finds heads of encoded images, and known images that are like them.

        Returns:
            `num_heads`, `boxes` and `status` as `detect`; for each head what
            `interfaces.NeighbourIndex.search` gives, `[B, N, K]`: "", NaN and -1 for a
            head that is too small to be judged, and as padding.
        """
        assert self.index is not None
        head_specs = self._head_specs()
        specs = {name: head_specs[name] for name in ("num_heads", "boxes", "status")}
        num_boxes = self.manifest["max_detections"]
        for name, spec in self.index.specs.items():
            shape = [None, num_boxes, *spec.shape[1:]]
            specs[name] = tf.TensorSpec(shape, spec.dtype)
        return chunking.by_chunks(
            lambda group: self._look_up(*self._read(group)),
            [image_bytes],
            _IMAGES_AT_ONCE,
            specs,
        )

    def _in_groups(
        self, function: Callable[..., chunking.Outputs], batch: tf.Tensor
    ) -> chunking.Outputs:
        return chunking.by_chunks(
            function, [batch], _IMAGES_AT_ONCE, self._head_specs()
        )

    def _head_specs(self) -> dict[str, tf.TensorSpec]:
        """What `detect` returns."""
        num_boxes = self.manifest["max_detections"]
        return {
            "num_heads": _spec(dtype=tf.int32),
            "boxes": _spec([num_boxes, 4]),
            "head_scores": _spec([num_boxes]),
            "fake_probabilities": _spec([num_boxes]),
            "fake_probability": _spec(),
            "status": _spec(dtype=tf.int32),
        }

    def _read(self, image_bytes: tf.Tensor) -> tuple[image_batch.ImageBatch, tf.Tensor]:
        return image_batch.read(
            image_bytes, model_functions.detector_settings(self.manifest)
        )

    def _analyse(
        self, read: image_batch.ImageBatch, status: tf.Tensor
    ) -> chunking.Outputs:
        """The outputs of `detect` for some images of `image_batch.read`."""
        found = self._find(read, status)
        judged = found.judged
        probabilities = chunking.by_chunks(
            self.functions.judge,
            [found.crops],
            _CROPS_AT_ONCE,
            {"fake_probability": _spec()},
        )
        of_heads = tf.tensor_scatter_nd_update(
            tf.where(found.is_head, float("nan"), 0.0),
            tf.where(judged),
            probabilities["fake_probability"],
        )
        any_judged = tf.reduce_any(judged, axis=1)
        highest = tf.reduce_max(tf.where(judged, of_heads, 0.0), axis=1)
        highest = tf.where(any_judged, highest, float("nan"))
        return {
            "num_heads": found.among_all(found.num_heads),
            "boxes": found.among_all(found.boxes),
            "head_scores": found.among_all(found.scores),
            "fake_probabilities": found.among_all(of_heads),
            "fake_probability": found.among_all(highest, float("nan")),
            "status": found.outcome(),
        }

    def _look_up(
        self, read: image_batch.ImageBatch, status: tf.Tensor
    ) -> chunking.Outputs:
        """The outputs of `neighbours` for some images of `image_batch.read`."""
        assert self.index is not None
        found = self._find(read, status)
        describe = self.functions.describe[self.index.embedding["kind"]]
        specs = {"embedding": _spec([self.index.embedding["dimension"]])}
        crops = chunking.by_chunks(describe, [found.crops], _CROPS_AT_ONCE, specs)
        outputs = {
            "num_heads": found.among_all(found.num_heads),
            "boxes": found.among_all(found.boxes),
            "status": found.outcome(),
        }
        for name, value in self.index.search(crops["embedding"]).items():
            nothing = self.index.NOTHING[name]
            shape = tf.concat([tf.shape(found.judged), tf.shape(value)[1:]], 0)
            of_heads = tf.tensor_scatter_nd_update(
                tf.fill(shape, tf.constant(nothing, value.dtype)),
                tf.where(found.judged),
                value,
            )
            outputs[name] = found.among_all(of_heads, nothing)
        return outputs

    def _find(
        self, read: image_batch.ImageBatch, status: tf.Tensor
    ) -> head_detection.Found:
        """Finds the heads of some images of `image_batch.read`, and cuts them out."""
        readable = tf.where(status == image_status.OK)
        read = read.at(readable)
        found = head_detection.find(
            self.functions.find_heads,
            read,
            model_functions.detector_settings(self.manifest),
            _IMAGES_IN_DETECTOR,
        )
        boxes, num_heads = found["boxes"], found["num_heads"]
        is_head = tf.range(tf.shape(boxes)[1]) < num_heads[:, None]
        judged = is_head & (found["sides"] >= self.manifest["min_head_size"])
        described = self.manifest["classifier"]
        crops = head_detection.crops(
            read, boxes, judged, described["image_size"], described["crop_margin"]
        )
        return head_detection.Found(
            *(status, readable, boxes, found["scores"], num_heads),
            *(is_head, judged, crops),
        )

    def _embed(self, kind: str, image_bytes: tf.Tensor) -> chunking.Outputs:
        specs = {"embedding": _spec([self.manifest["embeddings"][kind]["dimension"]])}
        size = self.manifest["classifier"]["image_size"]
        describe = self.functions.describe[kind]
        found = given_crops.call(describe, image_bytes, size, specs)
        return {"embedding": found["embedding"]}


def _spec(
    shape: list[int] | None = None, dtype: tf.DType = tf.float32
) -> tf.TensorSpec:
    return tf.TensorSpec([None, *(shape or [])], dtype)
