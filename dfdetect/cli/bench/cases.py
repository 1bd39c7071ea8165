"""Cases of the benchmark: the chained graph, its stages, both models, the peers."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from dfdetect.cli.bench import peers as peers_module
from dfdetect.export import freezing
from dfdetect.media import samples
from dfdetect.models import classifier as classifiers
from dfdetect.models import model_directory
from dfdetect.pipeline import (
    build,
    deepfake_pipeline,
    head_detection,
    image_batch,
    model_functions,
)

_LEAST_FOUND = 0.7  # Share of the drawn heads that a detector must find.

# A call, and the number of images that it judges.
Case = tuple[Callable[[], object], int]


class Bench:
    """Builds the cases from the models to measure and drawn images.

    Args:
        detector: The detector and its manifest.
        classifier: The classifier and its manifest.
        width: Default width of the drawn images in pixels.
        say: Prints a line.
    """

    def __init__(
        self,
        detector: model_directory.Loaded,
        classifier: model_directory.Loaded,
        width: int,
        *,
        say: Callable[[str], None],
    ) -> None:
        self._say = say
        self._models = (detector[0], classifier[0])
        self._plain = build.chain_models(detector, classifier)
        self._width = width

    @functools.cache  # noqa: B019 - it lives as long as the process.
    def freeze_graph(self, precision: str) -> deepfake_pipeline.DeepfakePipeline:
        """Freezes the graph as the export does."""
        return freezing.freeze(self._plain, precision)

    def build_chained(
        self,
        precision: str,
        batch_size: int,
        *,
        num_heads: int,
        width: int | None = None,
    ) -> Case:
        """Builds the case of the graph, from encoded bytes to verdicts."""
        graph = self.freeze_graph(precision)
        batch = tf.constant(self._images(batch_size, num_heads, width))
        found = graph.detect(batch)["num_heads"].numpy()
        # What is measured is the time: a head more or less hardly matters to it.
        if found.mean() < _LEAST_FOUND * num_heads:
            raise ValueError(
                f"the detector must find most of the {num_heads} heads of each drawn "
                f"image, got {found.tolist()}: it cannot be measured with them."
            )
        if (found != num_heads).any():
            self._say(
                f"{precision}, batch {batch_size}: {found.mean():.1f} heads are found "
                f"in an image, {num_heads} were drawn"
            )
        return lambda: graph.detect(batch)["status"].numpy(), batch_size

    def build_models_alone(self, batch_size: int) -> dict[str, Case]:
        """Builds cases of both models alone, called on the pixels of one head each."""
        found: dict[str, Case] = {}
        for name, model in zip(("detector", "classifier"), self._models, strict=True):
            call = tf.function(
                functools.partial(model, training=False), autograph=False
            )
            pixels = tf.random.uniform([batch_size, *model.input_shape[1:]], 0, 255)
            found[name] = (functools.partial(_run_once, call, pixels), batch_size)
        return found

    def build_stages(self, precision: str, batch_size: int) -> dict[str, Case]:
        """Builds a case for each stage of the chain, one head an image."""
        graph = self.freeze_graph(precision)
        functions, described = graph.functions, graph.manifest
        settings = model_functions.read_detector_settings(described)
        encoded = tf.constant(self._images(batch_size, 1))

        @functools.partial(tf.function, autograph=False)
        def decode(encoded: tf.Tensor) -> image_batch.ImageBatch:
            return image_batch.read(encoded, settings)[0]

        read = decode(encoded)

        @functools.partial(tf.function, autograph=False)
        def letterbox(read: image_batch.ImageBatch) -> tf.Tensor:
            return image_batch.letterbox(read, settings.image_size)[0]

        letterboxes = letterbox(read)
        found = graph.detect(encoded)
        judged = tf.sequence_mask(found["num_heads"], described["max_detections"])

        @functools.partial(tf.function, autograph=False)
        def cut(read: image_batch.ImageBatch, boxes: tf.Tensor) -> tf.Tensor:
            described_classifier = described["classifier"]
            return head_detection.cut_heads(
                read,
                boxes,
                judged,
                described_classifier["image_size"],
                described_classifier["crop_margin"],
            )

        crops = cut(read, found["boxes"])
        calls: dict[str, Callable[[], Any]] = {
            "decoding": lambda: _run_once(decode, encoded),
            "letterboxing": lambda: _run_once(letterbox, read),
            "detector and suppression": lambda: _run_once(
                functions.find_heads, letterboxes
            ),
            "crops": lambda: _run_once(cut, read, found["boxes"]),
            "classifier": lambda: _run_once(functions.judge, crops),
        }
        return {name: (call, batch_size) for name, call in calls.items()}

    def build_peers(
        self, batch_size: int, folder: str, say: Callable[[str], None]
    ) -> dict[str, Case]:
        """Builds cases of other runtimes that are installed; reports missing ones.

        Args:
            batch_size: Number of images of one head each.
            folder: Folder for exports.
            say: Prints a line.
        """
        detector, classifier = self._models
        described = self._plain.manifest
        made: dict[str, Callable[[], peers_module.Peer]] = {
            "Keras predict, NumPy between": lambda: peers_module.build_keras_peer(
                detector, classifier, described
            ),
            "onnxruntime, NumPy between": lambda: peers_module.build_onnxruntime_peer(
                detector, classifier, described, folder
            ),
            "OpenVINO f32, NumPy between": lambda: peers_module.build_openvino_peer(
                detector, classifier, described, folder, precision="f32"
            ),
            "OpenVINO bf16, NumPy between": lambda: peers_module.build_openvino_peer(
                detector, classifier, described, folder, precision="bf16"
            ),
            "MTCNN, Keras predict": lambda: peers_module.build_mtcnn_peer(
                classifier, described
            ),
        }
        batch = self._images(batch_size, 1)
        found: dict[str, Case] = {}
        for name, make in made.items():
            try:
                peer = make()
            except ImportError as error:
                say(f"{name}: {error}")
                continue
            found[name] = (functools.partial(peer, batch), batch_size)
        return found

    def _images(
        self, count: int, num_heads: int, width: int | None = None
    ) -> list[bytes]:
        return samples.draw_portraits(count, num_heads, width or self._width)


def _run_once(call: Callable[..., Any], *tensors: tf.Tensor) -> np.ndarray:
    """Calls and waits for the first output."""
    return tf.nest.flatten(call(*tensors))[0].numpy()


def build_random_classifier(name: str, image_size: int) -> model_directory.Loaded:
    """Builds an untrained classifier, which is as fast as a trained one."""
    _, described = model_directory.load_classifier()
    described |= {"model": name, "image_size": image_size}
    return classifiers.build(name, image_size), described
