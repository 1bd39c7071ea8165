"""All of dfdetect as one graph: encoded bytes in, heads and probabilities out."""

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
    head_outputs,
    image_batch,
    interfaces,
    model_functions,
)

# They bound the memory of a call, whatever its batch: decoded images and their heads,
# images in the detector, and crops in the classifier. Larger chunks gain little speed.
_IMAGES_AT_ONCE = 8
_IMAGES_IN_DETECTOR = 8
_CROPS_AT_ONCE = 8


def _signature(*specs: tf.TensorSpec) -> Callable:
    # AutoGraph would take seconds, and there is no Python control flow to convert.
    return tf.function(input_signature=list(specs), autograph=False)


class DeepfakePipeline(tf.Module):
    """Finds heads and says how likely each one is a deepfake.

    The methods of `interfaces.SIGNATURES` and `interfaces.BOX_SIGNATURES` and, with an
    index, `neighbours` are the signatures of the graph that
    `export.saved_pipeline.save` writes.

    Args:
        detector: From letterboxed images `[B, S, S, 3]` to `(class_logits,
            box_offsets)`, with its `anchors`; see `models.efficientdet`.
        classifier: From head crops to fake logits `[B, 1]`; see `models.classifier`.
        content_network: From images to the maps that describe what they show; see
            `models.content_embedding`.
        description: Manifest of kind "pipeline". Heads are judged whose longer side has
            at least `min_head_size` pixels of the original.
        index: Known images among which `neighbours` looks heads up.
        functions: Functions of the models without variables, see
            `export.freezing.freeze`; built from the models by default.

    Attributes:
        manifest: `description` with entries for the embeddings and the index.
        functions: Functions of the models.
        index: As given.
        model_variables: Variables of the models that the functions need.
        neighbours: The signature of this name; None without an index.

    Raises:
        ValueError: The manifest is incomplete or disagrees with a model, or the index
            was made with another model.
    """

    def __init__(
        self,
        detector: keras.Model,
        classifier: keras.Model,
        content_network: keras.Model,
        description: dict[str, Any],
        index: interfaces.NeighbourIndex | None = None,
        functions: model_functions.ModelFunctions | None = None,
    ) -> None:
        super().__init__(name="deepfake_pipeline")
        interfaces.check(description)
        model_functions.check_image_sizes(detector, classifier, description)
        models = (detector, classifier, content_network)
        # The variables alone, not the models: TensorFlow saves a second set for a
        # tracked Keras model, and TensorFlow Serving would restore only that one.
        self.model_variables = [
            variable.value
            for model in (() if functions else models)
            for variable in model.variables
        ]
        # A function hides the models from tracking.
        self._models = lambda: models
        self._detector_settings = model_functions.read_detector_settings(description)
        self.functions = functions or model_functions.build_model_functions(
            *models, description
        )
        fingerprints = {
            "forgery": weights.fingerprint(classifier),
            "content": weights.fingerprint(content_network),
        }
        self.manifest: dict[str, Any] = {
            **description,
            # An index checks them: see `embedding.check`.
            "embeddings": {
                kind: {"fingerprint": fingerprints[kind], "dimension": dimension}
                for kind, dimension in self.functions.dimensions.items()
            },
        }
        self.index = index
        self.neighbours: Callable[[tf.Tensor], chunking.Outputs] | None = None
        if index is not None:
            margin = description["classifier"]["crop_margin"]
            embedding.check(
                index.embedding,
                embedding.describe(
                    self.manifest, index.embedding.get("kind", ""), margin
                ),
            )
            self.manifest["index"] = index.describe()
            spec = tf.TensorSpec([None], tf.string, "image_bytes")
            self.neighbours = _signature(spec)(self._neighbours)

    @property
    def detector(self) -> keras.Model:
        """The detector that the graph was built from."""
        return self._models()[0]

    @property
    def classifier(self) -> keras.Model:
        """The classifier that the graph was built from."""
        return self._models()[1]

    @property
    def content_network(self) -> keras.Model:
        """The network that the embedding of content was built from."""
        return self._models()[2]

    @_signature(tf.TensorSpec([None], tf.string, "image_bytes"))
    def detect(self, image_bytes: tf.Tensor) -> chunking.Outputs:
        """Finds and judges the heads of encoded images.

        Args:
            image_bytes: string `[B]`; see `decode.decode`.

        Returns:
            Outputs for N heads, the fixed most of an image, padded with zeros:
            `num_heads` int32 `[B]`; `boxes` float32 `[B, N, 4]`, best first;
            `head_scores` and `fake_probabilities` float32 `[B, N]`, NaN for a head that
            is too small to be judged; `fake_probability` float32 `[B]`, that of the
            most suspicious head, NaN without one; `status` int32 `[B]`, see
            `image_status`.
        """
        return self._map_groups(
            lambda group: self._judge(*self._read(group)), image_bytes
        )

    @_signature(tf.TensorSpec([None] * 3 + [3], tf.uint8, "frames"))
    def detect_frames(self, frames: tf.Tensor) -> chunking.Outputs:
        """Finds and judges the heads of images of one size.

        Args:
            frames: uint8 `[B, H, W, 3]`, upright RGB.

        Returns:
            See `detect`.
        """

        def judge(group: tf.Tensor) -> chunking.Outputs:
            packed = chunking.map_rows(decode.pack, group, tf.TensorSpec([], tf.string))
            status = tf.fill(tf.shape(packed), image_status.OK)
            return self._judge(image_batch.wrap_whole(packed), status)

        return self._map_groups(judge, frames)

    @_signature(tf.TensorSpec([None], tf.string, "image_bytes"))
    def classify_crops(self, image_bytes: tf.Tensor) -> chunking.Outputs:
        """Judges encoded images of one head each, cropped with the margin of training.

        Returns:
            `fake_probability` float32 `[B]`, NaN where the `status` int32 `[B]` is not
            `image_status.OK`.
        """

        specs = {"fake_probability": _spec()}
        size = self.manifest["classifier"]["image_size"]
        found = given_crops.map_crops(self.functions.judge, image_bytes, size, specs)
        return given_crops.mask_unread(found)

    @_signature(tf.TensorSpec([None], tf.string, "image_bytes"))
    def explain(self, image_bytes: tf.Tensor) -> chunking.Outputs:
        """Shows which parts of encoded images of one head each look fake.

        Returns:
            `heat_map` float32 `[B, S, S]`, which covers the whole image, S being the
            side of the classifier's crops, see `grad_cam.build_heat_maps_function`;
            zeros where `status` is not `image_status.OK`. Besides, the outputs of
            `classify_crops`.
        """
        size = self.manifest["classifier"]["image_size"]
        specs = {"heat_map": _spec([size, size]), "fake_probability": _spec()}
        found = given_crops.map_crops(self.functions.explain, image_bytes, size, specs)
        return given_crops.mask_unread(found)

    @_signature(
        tf.TensorSpec([None], tf.string, "image_bytes"),
        tf.TensorSpec([None, 4], tf.float32, "boxes"),
    )
    def explain_heads(
        self, image_bytes: tf.Tensor, boxes: tf.Tensor
    ) -> chunking.Outputs:
        """Shows where a fake is seen in one head of each encoded image.

        The head is cut out as `detect` cuts it, so that a box of `detect` gets the fake
        probability that `detect` gave it.

        Args:
            image_bytes: string `[B]`; see `decode.decode`.
            boxes: float32 `[B, 4]`, one box of each image, in the format of
                `dfdetect.boxes`.

        Returns:
            As `explain`; `heat_map` is over the square that was cut out, see
            `boxes.square_crops`.
        """
        described = self.manifest["classifier"]
        size = described["image_size"]
        specs = {"heat_map": _spec([size, size]), "fake_probability": _spec()}

        def explain(image_bytes: tf.Tensor, boxes: tf.Tensor) -> chunking.Outputs:
            read, status = self._read(image_bytes)
            readable = tf.where(status == image_status.OK)
            boxes = tf.gather_nd(boxes, readable)[:, None]
            chosen = tf.ones(tf.shape(boxes)[:2], tf.bool)
            crops = head_detection.cut_heads(
                read.gather(readable), boxes, chosen, size, described["crop_margin"]
            )
            found = chunking.map_chunks(
                self.functions.explain, [crops], _CROPS_AT_ONCE, specs
            )
            return {
                **given_crops.scatter_to_batch(found, readable, status),
                "status": status,
            }

        all_specs = {**specs, "status": _spec(dtype=tf.int32)}
        return given_crops.mask_unread(
            chunking.map_chunks(
                explain, [image_bytes, boxes], _IMAGES_AT_ONCE, all_specs
            )
        )

    @_signature(tf.TensorSpec([None], tf.string, "image_bytes"))
    def embed(self, image_bytes: tf.Tensor) -> chunking.Outputs:
        """Embeds encoded images of one head each by what they are judged by.

        Returns:
            `embedding` float32 `[B, D]` of unit length; zeros, which are similar to
            nothing, for an image that cannot be decoded.
        """
        return self._embed("forgery", image_bytes)

    @_signature(tf.TensorSpec([None], tf.string, "image_bytes"))
    def embed_content(self, image_bytes: tf.Tensor) -> chunking.Outputs:
        """Embeds images as `embed`, but by what they show; see `content_embedding`."""
        return self._embed("content", image_bytes)

    def _neighbours(self, image_bytes: tf.Tensor) -> chunking.Outputs:
        """Finds the heads of encoded images, and known images that are similar.

        Returns:
            `num_heads`, `boxes` and `status` of `detect`; and for each head the outputs
            of `interfaces.NeighbourIndex.search`, `[B, N, K]`: "", NaN and -1 for a
            head that is too small to be judged, and as padding.
        """
        assert self.index is not None
        head_specs = self._head_specs()
        specs = {name: head_specs[name] for name in head_outputs.OF_ALL_SIGNATURES}
        num_boxes = self.manifest["max_detections"]
        for name, spec in self.index.specs.items():
            shape = [None, num_boxes, *spec.shape[1:]]
            specs[name] = tf.TensorSpec(shape, spec.dtype)
        return chunking.map_chunks(
            lambda group: self._look_up(*self._read(group)),
            [image_bytes],
            _IMAGES_AT_ONCE,
            specs,
        )

    def _map_groups(
        self, function: Callable[..., chunking.Outputs], batch: tf.Tensor
    ) -> chunking.Outputs:
        return chunking.map_chunks(
            function, [batch], _IMAGES_AT_ONCE, self._head_specs()
        )

    def _head_specs(self) -> dict[str, tf.TensorSpec]:
        return head_outputs.describe_outputs(self.manifest["max_detections"])

    def _read(self, image_bytes: tf.Tensor) -> tuple[image_batch.ImageBatch, tf.Tensor]:
        return image_batch.read(image_bytes, self._detector_settings)

    def _judge(
        self, read: image_batch.ImageBatch, status: tf.Tensor
    ) -> chunking.Outputs:
        """Computes the outputs of `detect` for images of `image_batch.read`."""
        found = self._find(read, status)
        specs = {"fake_probability": _spec()}
        judged = chunking.map_chunks(
            self.functions.judge, [found.crops], _CROPS_AT_ONCE, specs
        )
        return head_outputs.build_verdicts(found, judged["fake_probability"])

    def _look_up(
        self, read: image_batch.ImageBatch, status: tf.Tensor
    ) -> chunking.Outputs:
        """Computes the outputs of `neighbours` for images of `image_batch.read`."""
        assert self.index is not None
        found = self._find(read, status)
        describe = self.functions.describe[self.index.embedding["kind"]]
        specs = {"embedding": _spec([self.index.embedding["dimension"]])}
        crops = chunking.map_chunks(describe, [found.crops], _CROPS_AT_ONCE, specs)
        return head_outputs.build_neighbours(
            found, self.index.search(crops["embedding"]), self.index.NOTHING
        )

    def _find(
        self, read: image_batch.ImageBatch, status: tf.Tensor
    ) -> head_detection.FoundHeads:
        """Finds the heads of some images of `image_batch.read`, and crops them."""
        readable = tf.where(status == image_status.OK)
        read = read.gather(readable)
        found = head_detection.find_heads(
            self.functions.find_heads,
            read,
            self._detector_settings,
            _IMAGES_IN_DETECTOR,
        )
        boxes, num_heads = found["boxes"], found["num_heads"]
        is_head = tf.range(tf.shape(boxes)[1]) < num_heads[:, None]
        judged = is_head & (found["sides"] >= self.manifest["min_head_size"])
        described = self.manifest["classifier"]
        crops = head_detection.cut_heads(
            read, boxes, judged, described["image_size"], described["crop_margin"]
        )
        return head_detection.FoundHeads(
            status=status,
            readable=readable,
            boxes=boxes,
            scores=found["scores"],
            num_heads=num_heads,
            is_head=is_head,
            judged=judged,
            crops=crops,
        )

    def _embed(self, kind: str, image_bytes: tf.Tensor) -> chunking.Outputs:
        specs = {"embedding": _spec([self.manifest["embeddings"][kind]["dimension"]])}
        size = self.manifest["classifier"]["image_size"]
        describe = self.functions.describe[kind]
        found = given_crops.map_crops(describe, image_bytes, size, specs)
        return {"embedding": found["embedding"]}


def _spec(
    shape: list[int] | None = None, dtype: tf.DType = tf.float32
) -> tf.TensorSpec:
    return tf.TensorSpec([None, *(shape or [])], dtype)
