"""Builds the graph of dfdetect from two model directories."""

from dfdetect import manifest
from dfdetect.media import image_status
from dfdetect.models import model_directory
from dfdetect.pipeline import deepfake_pipeline, interfaces


def build_from_directories(
    detector: str | None = None,
    classifier: str | None = None,
    *,
    tile: bool = False,
    soft_nms_sigma: float = 0.0,
    index: interfaces.NeighbourIndex | None = None,
    detector_step: int | None = None,
    classifier_step: int | None = None,
) -> deepfake_pipeline.DeepfakePipeline:
    """Chains two trained models.

    Args:
        detector: Model directory of the detector; None for the default weights.
        classifier: Model directory of the classifier; None for the default weights.
        tile: Whether to search tiles of images that are larger than the detector's
            input as well, see `tiling`.
        soft_nms_sigma: See `postprocess.select_class_detections`.
        index: See `deepfake_pipeline.DeepfakePipeline`.
        detector_step: See `model_directory.load_detector`.
        classifier_step: See `model_directory.load_classifier`.

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
    return chain_models(
        (detector_model, described),
        model_directory.load_classifier(classifier, step=classifier_step),
        index,
    )


def chain_models(
    detector: model_directory.Loaded,
    classifier: model_directory.Loaded,
    index: interfaces.NeighbourIndex | None = None,
) -> deepfake_pipeline.DeepfakePipeline:
    """Chains two models with their manifests; see `build_from_directories`."""
    detector_model, detector_manifest = detector
    classifier_model, classifier_manifest = classifier
    description = {
        "kind": "pipeline",
        "format": interfaces.FORMAT,
        "detector": detector_manifest,
        "classifier": classifier_manifest,
        "max_detections": detector_manifest["max_detections"],
        "min_head_size": classifier_manifest["image_size"]
        // image_status.MOST_ENLARGED,
        "versions": manifest.collect_versions(),
    }
    return deepfake_pipeline.DeepfakePipeline(
        detector_model,
        classifier_model,
        model_directory.load_content_network(),
        description,
        index,
    )
