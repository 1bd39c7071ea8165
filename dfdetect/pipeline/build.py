"""Graphs of dfdetect: chained from model directories, or read from disk."""

import os
from typing import Any

import tensorflow as tf

from dfdetect import manifest
from dfdetect.media import image_status
from dfdetect.models import model_directory
from dfdetect.pipeline import deepfake_pipeline
from dfdetect.retrieval import neighbours


class LoadedPipeline:
    """A graph from disk, called like the `deepfake_pipeline.DeepfakePipeline` that it
    was.

    Attributes:
        manifest: Its manifest, of kind "pipeline".
        explain: None when the graph was exported without it.
        neighbours: None when the graph was exported without an index.
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
        self.embed_content = getattr(graph, "embed_content", None)
        self.explain = getattr(graph, "explain", None)
        self.neighbours = getattr(graph, "neighbours", None)


def from_directories(
    detector: str | None = None,
    classifier: str | None = None,
    tile: bool = False,
    soft_nms_sigma: float = 0.0,
    index: neighbours.Neighbours | None = None,
    detector_step: int | None = None,
    classifier_step: int | None = None,
) -> deepfake_pipeline.DeepfakePipeline:
    """Chains two trained models.

    Args:
        detector: Model directory of the detector; None for the default weights.
        classifier: Model directory of the classifier; None for the default weights.
        tile: Whether to look also at tiles of pictures that are larger than the
            detector's input, see `tiles`.
        soft_nms_sigma: See `postprocess.class_detections`.
        index: See `deepfake_pipeline.DeepfakePipeline`.
        detector_step: See `model_directory.load_detector`.
        classifier_step: See there.

    Raises:
        FileNotFoundError: A directory lacks a file.
        ValueError: A manifest or weights do not fit.
    """
    detector_model, described = model_directory.load_detector(
        detector, step=detector_step
    )
    described |= {
        "tile_size": described["image_size"] if tile else None,
        "soft_nms_sigma": soft_nms_sigma,
    }
    return chained(
        (detector_model, described),
        model_directory.load_classifier(classifier, step=classifier_step),
        index,
    )


def chained(
    detector: model_directory.Loaded,
    classifier: model_directory.Loaded,
    index: neighbours.Neighbours | None = None,
) -> deepfake_pipeline.DeepfakePipeline:
    """Chains two models with their manifests; see `from_directories`."""
    detector_model, detector_manifest = detector
    classifier_model, classifier_manifest = classifier
    description = {
        "kind": "pipeline",
        "format": deepfake_pipeline.FORMAT,
        "detector": detector_manifest,
        "classifier": classifier_manifest,
        "max_detections": detector_manifest["max_detections"],
        "min_head_size": classifier_manifest["image_size"]
        // image_status.MOST_ENLARGED,
        "versions": manifest.versions(),
    }
    return deepfake_pipeline.DeepfakePipeline(
        detector_model, classifier_model, description, index
    )


def load(directory: str) -> LoadedPipeline:
    """Loads a graph that `deepfake_pipeline.DeepfakePipeline.save` wrote.

    Raises:
        ImportError: It looks into its index with ScaNN, which is missing.
        ValueError: It has no valid manifest of this format: it is not ours.
    """
    try:
        description = manifest.read(os.path.join(directory, "assets"), "pipeline")
    except FileNotFoundError as error:
        raise ValueError(
            f"{directory} is no graph of dfdetect: it has no {error.filename}."
        ) from error
    deepfake_pipeline.check(description)
    if description.get("index", {}).get("exact") is False:
        neighbours.operations()
    return LoadedPipeline(tf.saved_model.load(directory), description)
