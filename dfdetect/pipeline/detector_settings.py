"""Settings of the detector in a graph, read once from its manifest."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class DetectorSettings:
    """How a detector is called and its output is filtered.

    Attributes:
        image_size: Side in pixels of the letterboxed images that the detector takes.
        max_detections: Most heads of an image.
        iou_threshold: See `postprocess.select_class_detections`.
        score_threshold: Heads score above it.
        soft_nms_sigma: See `postprocess.select_class_detections`.
        containment_threshold: See `postprocess.select_class_detections`.
        tile_size: Side in pixels of the tiles that are searched besides the whole
            image, see `tiling.views`; None for the whole image alone.
    """

    image_size: int
    max_detections: int
    iou_threshold: float
    score_threshold: float
    soft_nms_sigma: float = 0.0
    containment_threshold: float = 1.0
    tile_size: int | None = None

    @classmethod
    def from_manifest(
        cls, described: Mapping[str, Any], **changes: Any
    ) -> "DetectorSettings":
        """Reads the settings from a manifest.

        Args:
            described: Manifest of kind "detector". Optional settings that it lacks
                have their defaults.
            **changes: Settings that replace those of the manifest.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        known = {name: described[name] for name in names if name in described}
        return cls(**{**known, **changes})
