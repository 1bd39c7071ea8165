"""The whole of dfdetect as one graph: encoded bytes in, heads and probabilities out."""

import os
import shutil
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from dfdetect import (
    chunks,
    explain,
    freezing,
    heads,
    images,
    manifest,
    model_directory,
)
from dfdetect.models import classifier as classifiers

FORMAT = 1  # Of the graph's signatures and manifest.

# They bound the memory that a call takes, whatever its batch: so many decoded pictures
# and their heads, and so many crops in the classifier. Models gain little beyond.
_PICTURES_AT_ONCE = 8
_CROPS_AT_ONCE = 16


def _signature(spec: tf.TensorSpec) -> Callable:
    # There is no Python control flow to convert, and looking for it takes seconds.
    return tf.function(input_signature=[spec], autograph=False)


class DeepfakePipeline(tf.Module):
    """Finds heads and says how likely each one is a deepfake.

    The methods `detect`, `detect_frames`, `classify_crops`, `embed` and `explain` are
    the signatures `serving_default`, `frames`, `classify_crops`, `embed` and `explain`
    of the graph that `save` writes.

    Args:
        detector: Letterboxed pictures `[B, S, S, 3]` to `(class_logits, box_offsets)`,
            with its `anchors`; see `models.efficientdet`.
        classifier: Head crops to fake logits `[B, 1]`; see `models.classifier`.
        description: Manifest of kind "pipeline". Its `min_head_size` is the least
            longer side, in pixels of the original, of a head that is judged.

    Raises:
        ValueError: The manifest is incomplete or disagrees with a model.
    """

    def __init__(
        self,
        detector: keras.Model,
        classifier: keras.Model,
        description: dict[str, Any],
    ) -> None:
        super().__init__(name="deepfake_pipeline")
        _check(description)
        parts = {"detector": detector, "classifier": classifier}
        for part, model in parts.items():
            side = description[part]["image_size"]
            if tuple(model.input_shape[1:]) != (side, side, 3):
                raise ValueError(
                    f"{part} must take pictures of {side} pixels, as its manifest "
                    f"says, got {model.input_shape}."
                )
        self.manifest = description
        # The variables alone, not the models: of a tracked Keras model TensorFlow
        # saves a second set, and TensorFlow Serving would restore only that.
        self._variables = [
            variable.value
            for model in (detector, classifier)
            for variable in model.variables
        ]
        # Behind a function, so that the models themselves are not tracked.
        self._models = lambda: (detector, classifier)
        embedder = classifiers.embedding_model(classifier)
        self._embedding_size = embedder.output_shape[-1]
        # The pipeline decides how many heads there may be.
        self._detector_manifest = {
            **description["detector"],
            "max_detections": description["max_detections"],
        }
        self._find_heads = heads.detector_function(
            detector,
            self._detector_manifest,
            description["detector"]["score_threshold"],
        )
        self._judge = self._classifier_function(classifier)
        self._describe = self._embedder_function(embedder)
        self._explain = self._explainer_function(classifier)

    @property
    def classifier(self) -> keras.Model:
        """The classifier that it was made of."""
        return self._models()[1]

    @_signature(tf.TensorSpec([None], tf.string, "image_bytes"))
    def detect(self, image_bytes: tf.Tensor) -> chunks.Outputs:
        """Finds and judges the heads of encoded pictures.

        Args:
            image_bytes: string `[B]`; see `images.decode`.

        Returns:
            With N, the most heads of a picture, fixed, and padding of zeros:
            `num_heads` int32 `[B]`; `boxes` float32 `[B, N, 4]`, best first;
            `head_scores` and `fake_probabilities` float32 `[B, N]`, NaN for a head that
            is too small to be judged; `fake_probability` float32 `[B]`, that of the
            most suspicious head, NaN without one; `status` int32 `[B]`, see `images`.
        """
        return self._in_groups(
            lambda group: self._analyse(*images.decode(group)), image_bytes
        )

    @_signature(tf.TensorSpec([None] * 3 + [3], tf.uint8, "frames"))
    def detect_frames(self, frames: tf.Tensor) -> chunks.Outputs:
        """Finds and judges the heads of pictures of one size.

        Args:
            frames: uint8 `[B, H, W, 3]`, upright RGB.

        Returns:
            As `detect`.
        """

        def analyse(group: tf.Tensor) -> chunks.Outputs:
            packed = chunks.one_by_one(images.pack, group, tf.TensorSpec([], tf.string))
            return self._analyse(packed, tf.zeros(tf.shape(packed), tf.int32))

        return self._in_groups(analyse, frames)

    @_signature(tf.TensorSpec([None], tf.string, "image_bytes"))
    def classify_crops(self, image_bytes: tf.Tensor) -> chunks.Outputs:
        """Judges encoded pictures of one head each, cut with the margin of training.

        Returns:
            `fake_probability` float32 `[B]`, NaN where the `status` int32 `[B]` is not
            `images.OK`.
        """

        specs = {"fake_probability": _spec()}
        found = self._of_crops(self._judge, image_bytes, specs)
        return _nan_unless_read(found)

    @_signature(tf.TensorSpec([None], tf.string, "image_bytes"))
    def explain(self, image_bytes: tf.Tensor) -> chunks.Outputs:
        """Shows where in encoded pictures of one head each a fake is seen.

        Returns:
            `heat_map` float32 `[B, S, S]`, over the whole of each picture, S the side
            of the classifier's crops, see `explain.heat_maps`; zeros where `status`
            is not `images.OK`. The rest as `classify_crops`.
        """
        size = self.manifest["classifier"]["image_size"]
        specs = {"heat_map": _spec([size, size]), "fake_probability": _spec()}
        found = self._of_crops(self._explain, image_bytes, specs)
        return _nan_unless_read(found)

    @_signature(tf.TensorSpec([None], tf.string, "image_bytes"))
    def embed(self, image_bytes: tf.Tensor) -> chunks.Outputs:
        """Describes encoded pictures of one head each.

        Returns:
            `embedding` float32 `[B, D]` of unit length; zeros for a picture that cannot
            be decoded, which are like nothing else.
        """
        specs = {"embedding": _spec([self._embedding_size])}
        found = self._of_crops(self._describe, image_bytes, specs)
        return {"embedding": found["embedding"]}

    def folded(self, precision: str = "float32") -> "DeepfakePipeline":
        """The same graph with its weights as constants; see `freezing`.

        With "bfloat16", embeddings and explanations stay in float32: an index made with
        either precision stays valid, and a gradient needs the digits.

        Args:
            precision: One of `freezing.PRECISIONS`; its manifest tells.
        """
        described = {**self.manifest, "precision": precision}
        other = DeepfakePipeline(*self._models(), described)
        other._find_heads = freezing.fold(self._find_heads, precision)
        other._judge = freezing.fold(self._judge, precision)
        other._describe = freezing.fold(self._describe)
        other._explain = freezing.fold(self._explain)
        other._variables = []
        return other

    def save(self, directory: str) -> None:
        """Writes the graph, aside and then renamed, with its manifest in the assets.

        Args:
            directory: New folder; a number for TensorFlow Serving.

        Raises:
            FileExistsError: The folder is there already.
        """
        directory = os.path.abspath(directory)
        if os.path.exists(directory):
            raise FileExistsError(f"{directory} is there already.")
        parent, name = os.path.split(directory)
        # Not a number, so that no server takes it for a version.
        aside = os.path.join(parent, f".{name}.{os.getpid()}.tmp")
        signatures = {
            "serving_default": self.detect,
            "frames": self.detect_frames,
            "classify_crops": self.classify_crops,
            "embed": self.embed,
            "explain": self.explain,
        }
        try:
            tf.saved_model.save(self, aside, signatures=signatures)
            manifest.write(os.path.join(aside, "assets"), self.manifest)
            os.rename(aside, directory)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _in_groups(
        self, function: Callable[..., chunks.Outputs], batch: tf.Tensor
    ) -> chunks.Outputs:
        num_boxes = self.manifest["max_detections"]
        specs = {
            "num_heads": _spec(dtype=tf.int32),
            "boxes": _spec([num_boxes, 4]),
            "head_scores": _spec([num_boxes]),
            "fake_probabilities": _spec([num_boxes]),
            "fake_probability": _spec(),
            "status": _spec(dtype=tf.int32),
        }
        return chunks.by_chunks(function, [batch], _PICTURES_AT_ONCE, specs)

    def _analyse(self, packed: tf.Tensor, status: tf.Tensor) -> chunks.Outputs:
        """The outputs of `detect` for some pictures of `images.decode`."""
        readable = tf.where(status == images.OK)
        packed = tf.gather_nd(packed, readable)
        heads_found = heads.find(
            self._find_heads, packed, self._detector_manifest, _PICTURES_AT_ONCE
        )
        boxes, num_heads = heads_found["boxes"], heads_found["num_heads"]
        is_head = tf.range(tf.shape(boxes)[1]) < num_heads[:, None]
        judged = is_head & (heads_found["sides"] >= self.manifest["min_head_size"])

        specs = {"fake_probability": _spec()}
        crops = self._crops(packed, boxes, judged)
        probabilities = chunks.by_chunks(self._judge, [crops], _CROPS_AT_ONCE, specs)
        found = tf.tensor_scatter_nd_update(
            tf.where(is_head, float("nan"), 0.0),
            tf.where(judged),
            probabilities["fake_probability"],
        )
        any_judged = tf.reduce_any(judged, axis=1)
        highest = tf.reduce_max(tf.where(judged, found, 0.0), axis=1)
        outcome = tf.where(any_judged, images.OK, images.HEAD_TOO_SMALL)
        outcome = tf.where(num_heads > 0, outcome, images.NO_HEAD)

        def among_all(values: tf.Tensor) -> tf.Tensor:
            shape = tf.concat([tf.shape(status), tf.shape(values)[1:]], 0)
            return tf.scatter_nd(tf.cast(readable, tf.int32), values, shape)

        return {
            "num_heads": among_all(num_heads),
            "boxes": among_all(boxes),
            "head_scores": among_all(heads_found["scores"]),
            "fake_probabilities": among_all(found),
            "fake_probability": tf.where(
                among_all(any_judged), among_all(highest), float("nan")
            ),
            "status": tf.tensor_scatter_nd_update(status, readable, outcome),
        }

    def _crops(
        self, packed: tf.Tensor, boxes: tf.Tensor, chosen: tf.Tensor
    ) -> tf.Tensor:
        """Crops `[K, S, S, 3]` of the chosen heads of all pictures, in order."""
        described = self.manifest["classifier"]
        size, margin = described["image_size"], described["crop_margin"]

        # From the original, not the letterboxed picture: a head of 40 px would be
        # resized twice.
        def cut(one: tf.Tensor, boxes: tf.Tensor, chosen: tf.Tensor) -> chunks.Outputs:
            boxes = tf.boolean_mask(boxes[0], chosen[0])
            image = images.unpack(one[0])
            return {"crops": images.crop_heads(image, boxes, size, margin)}

        specs = {"crops": _spec([size, size, 3])}
        return chunks.by_chunks(cut, [packed, boxes, chosen], 1, specs)["crops"]

    def _of_crops(
        self,
        function: Callable[[tf.Tensor], chunks.Outputs],
        image_bytes: tf.Tensor,
        specs: dict[str, tf.TensorSpec],
    ) -> chunks.Outputs:
        """What a model gives for pictures of one head (else zeros), and `status`."""
        size = self.manifest["classifier"]["image_size"]

        def look(group: tf.Tensor) -> chunks.Outputs:
            packed, status = images.decode(group)
            readable = tf.where(status == images.OK)
            crops = chunks.one_by_one(
                lambda one: images.resize(images.unpack(one), size),
                tf.gather_nd(packed, readable),
                tf.TensorSpec([size, size, 3]),
            )
            found = chunks.by_chunks(function, [crops], _CROPS_AT_ONCE, specs)
            among_all = {
                name: tf.scatter_nd(
                    tf.cast(readable, tf.int32),
                    value,
                    tf.concat([tf.shape(status), specs[name].shape[1:]], 0),
                )
                for name, value in found.items()
            }
            return {**among_all, "status": status}

        specs_of_all = {**specs, "status": _spec(dtype=tf.int32)}
        return chunks.by_chunks(look, [image_bytes], _PICTURES_AT_ONCE, specs_of_all)

    # The models as functions, each traced once for all signatures.

    def _classifier_function(self, classifier: keras.Model) -> Callable:
        described = self.manifest["classifier"]

        def judge(crops: tf.Tensor) -> chunks.Outputs:
            logits = classifier(crops, training=False)[:, 0]
            return {"fake_probability": tf.sigmoid(logits / described["temperature"])}

        return _signature(_pictures(described["image_size"]))(judge)

    def _embedder_function(self, embedder: keras.Model) -> Callable:
        def describe(crops: tf.Tensor) -> chunks.Outputs:
            features = embedder(crops, training=False)
            return {"embedding": tf.math.l2_normalize(features, axis=-1)}

        size = self.manifest["classifier"]["image_size"]
        return _signature(_pictures(size))(describe)

    def _explainer_function(self, classifier: keras.Model) -> Callable:
        described = self.manifest["classifier"]
        heat_maps = explain.heat_maps(classifier)

        def show(crops: tf.Tensor) -> chunks.Outputs:
            found = heat_maps(crops)
            logits = found["fake_logit"]
            return {
                "heat_map": found["heat_map"],
                "fake_probability": tf.sigmoid(logits / described["temperature"]),
            }

        return _signature(_pictures(described["image_size"]))(show)


class LoadedPipeline:
    """A graph from disk, called like the `DeepfakePipeline` that it was.

    Attributes:
        manifest: Its manifest, of kind "pipeline".
        explain: None when the graph was exported without it.
    """

    def __init__(self, graph: Any, description: dict[str, Any]) -> None:
        self.manifest = description
        # The functions alone do not keep the variables alive.
        self._graph = graph
        self.detect = graph.detect
        self.detect_frames = graph.detect_frames
        self.classify_crops = graph.classify_crops
        self.embed = graph.embed
        # Graphs of earlier versions cannot.
        self.explain = getattr(graph, "explain", None)


def from_directories(
    detector: str | None = None,
    classifier: str | None = None,
    tile: bool = False,
    soft_nms_sigma: float = 0.0,
) -> DeepfakePipeline:
    """Chains two trained models.

    Args:
        detector: Model directory of the detector; None for the default weights.
        classifier: Model directory of the classifier; None for the default weights.
        tile: Whether to look also at tiles of pictures that are larger than the
            detector's input, see `tiles`.
        soft_nms_sigma: See `postprocess.class_detections`.

    Raises:
        FileNotFoundError: A directory lacks a file.
        ValueError: A manifest or weights do not fit.
    """
    detector_model, detector_manifest = model_directory.load_detector(detector)
    classifier_model, classifier_manifest = model_directory.load_classifier(classifier)
    detector_manifest |= {
        "tile_size": detector_manifest["image_size"] if tile else None,
        "soft_nms_sigma": soft_nms_sigma,
    }
    description = {
        "kind": "pipeline",
        "format": FORMAT,
        "detector": detector_manifest,
        "classifier": classifier_manifest,
        "max_detections": detector_manifest["max_detections"],
        "min_head_size": classifier_manifest["image_size"] // images.MOST_ENLARGED,
        "versions": manifest.versions(),
    }
    return DeepfakePipeline(detector_model, classifier_model, description)


def load(directory: str) -> LoadedPipeline:
    """Loads a graph that `DeepfakePipeline.save` wrote.

    Raises:
        ValueError: It has no valid manifest of this format: it is not ours.
    """
    try:
        description = manifest.read(os.path.join(directory, "assets"), "pipeline")
    except FileNotFoundError as error:
        raise ValueError(
            f"{directory} is no graph of dfdetect: it has no {error.filename}."
        ) from error
    _check(description)
    return LoadedPipeline(tf.saved_model.load(directory), description)


def _check(description: dict[str, Any]) -> None:
    manifest.check(description, "pipeline")
    if description["format"] != FORMAT:
        raise ValueError(f"format must be {FORMAT}, got {description['format']!r}.")
    if description["detector"]["num_classes"] != 1:
        raise ValueError(
            "num_classes of the detector must be 1, heads, "
            f"got {description['detector']['num_classes']}."
        )


def _nan_unless_read(found: chunks.Outputs) -> chunks.Outputs:
    probability = tf.where(
        found["status"] == images.OK, found["fake_probability"], float("nan")
    )
    return {**found, "fake_probability": probability}


def _spec(
    shape: list[int] | None = None, dtype: tf.DType = tf.float32
) -> tf.TensorSpec:
    return tf.TensorSpec([None, *(shape or [])], dtype)


def _pictures(size: int) -> tf.TensorSpec:
    return tf.TensorSpec([None, size, size, 3], tf.float32)
