"""COCO's average precision and recall, by pycocotools."""

import contextlib
import io
import types

import numpy as np

from dfdetect.metrics import detection_protocol

# Positions in `COCOeval.stats`.
_STATS = {
    "ap": 0,
    "ap50": 1,
    "ap75": 2,
    "ap_small": 3,
    "ap_medium": 4,
    "ap_large": 5,
    "ar100": 8,
}
METRICS = tuple(_STATS)


def import_pycocotools() -> types.ModuleType:
    """Imports pycocotools with `coco` and `cocoeval`.

    Raises:
        ImportError: pycocotools is not installed.
    """
    try:
        import pycocotools.coco
        import pycocotools.cocoeval
    except ImportError as error:
        raise ImportError(
            "pycocotools is missing: pip install dfdetect[evaluate]"
        ) from error
    return pycocotools


def compute_metrics(
    found: detection_protocol.Pairs,
    truth: detection_protocol.Pairs,
    extents: np.ndarray,
) -> dict[str, float]:
    """Computes COCO's average precision and recall.

    Difficult heads are COCO's crowds: detections inside one are not counted.

    Args:
        found: Boxes and scores of each image; see `detection_protocol.compute_metrics`.
        truth: Boxes and difficult flags of each image.
        extents: `[num_images, 2]`, heights and widths of the originals in pixels.

    Returns:
        `ap`, the mean over IoU thresholds .50, .55 to .95; `ap50` and `ap75`;
        `ap_small`, `ap_medium` and `ap_large` for heads below 32 x 32 pixels, below
        96 x 96 and above; `ar100`, the recall of 100 detections per image, the
        mean over the same thresholds. All in [0, 1]; NaN without heads.

    Raises:
        ImportError: pycocotools is not installed.

    Source: Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014.
    """
    package = import_pycocotools()
    # It prints its progress and a table.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = package.cocoeval.COCOeval(
            _to_coco(package, truth, extents, "iscrowd"),
            _to_coco(package, found, extents, "score"),
            "bbox",
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {
        name: float(evaluation.stats[place]) if evaluation.stats[place] >= 0 else np.nan
        for name, place in _STATS.items()
    }


def _to_coco(
    package: types.ModuleType,
    pairs: detection_protocol.Pairs,
    extents: np.ndarray,
    second: str,
) -> object:
    """Builds a `COCO` object; `second` names the values paired with the boxes."""
    annotations: list[dict] = []
    for image, ((boxes, values), extent) in enumerate(zip(pairs, extents, strict=True)):
        pixels = boxes * np.tile(np.asarray(extent, np.float64), 2)
        for (ymin, xmin, ymax, xmax), value in zip(pixels, values, strict=True):
            height, width = ymax - ymin, xmax - xmin
            annotations.append(
                {
                    # From 1: pycocotools counts a detection of head 0 as wrong.
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": 1,
                    "bbox": [xmin, ymin, width, height],
                    "area": height * width,
                    "iscrowd": 0,
                    second: value.item(),
                }
            )
    described = package.coco.COCO()
    described.dataset = {
        "images": [{"id": image} for image in range(len(extents))],
        "categories": [{"id": 1}],
        "annotations": annotations,
    }
    described.createIndex()
    return described
