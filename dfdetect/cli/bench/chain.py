"""The two models chained by hand in NumPy, as one would without the graph.

OpenCV decodes and resizes, TensorFlow suppresses, crops are slices of arrays. The peers
of the benchmark share this and differ in what runs the models.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from dfdetect import boxes as box_format
from dfdetect.media import resize
from dfdetect.metrics import calibration
from dfdetect.models import anchors

# Maps letterboxed images, float32 `[B, S, S, 3]`, to class logits and box offsets.
Detect = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
# Maps crops, float32 `[K, S, S, 3]`, to logits `[K]`.
Judge = Callable[[np.ndarray], np.ndarray]


class Chain:
    """Maps encoded images to the fake probabilities of their heads.

    Args:
        detect: The detector.
        judge: The classifier.
        anchor_boxes: The detector's anchors, `[num_anchors, 4]`.
        description: Manifest of kind "pipeline".
    """

    def __init__(
        self,
        detect: Detect,
        judge: Judge,
        anchor_boxes: np.ndarray,
        description: dict[str, Any],
    ) -> None:
        self._detect = detect
        self._judge = judge
        self._anchors = np.asarray(anchor_boxes, np.float32)
        self._detector = description["detector"]
        self._classifier = description["classifier"]
        self._min_side = description["min_head_size"]

    def __call__(self, images: list[bytes]) -> list[np.ndarray]:
        """Returns the fake probabilities of the heads of each image, in no order."""
        decoded = [decode_image(one) for one in images]
        size = self._detector["image_size"]
        logits, offsets = self._detect(np.stack([_letterbox(x, size) for x in decoded]))
        crops, owners = [], []
        for place, image in enumerate(decoded):
            for crop in self._cut_heads(image, logits[place], offsets[place]):
                crops.append(crop)
                owners.append(place)
        judged = np.zeros(0)
        if crops:
            judged = calibration.calibrate_logits(
                self._judge(np.stack(crops)), self._classifier["temperature"]
            )
        return [judged[np.equal(owners, place)] for place in range(len(images))]

    def _cut_heads(
        self, image: np.ndarray, logits: np.ndarray, offsets: np.ndarray
    ) -> list[np.ndarray]:
        """Cuts the heads out of one image and resizes them."""
        scores = calibration.calibrate_logits(logits[:, 0])
        candidates = np.flatnonzero(scores > self._detector["score_threshold"])
        decoded = anchors.decode(offsets[candidates], self._anchors[candidates])
        chosen = tf.image.non_max_suppression(
            decoded,
            scores[candidates],
            self._detector["max_detections"],
            self._detector["iou_threshold"],
        )
        height, width = image.shape[:2]
        boxes = np.clip(np.asarray(decoded)[chosen.numpy()], 0, 1)
        boxes *= max(height, width) / np.array([height, width, height, width])
        boxes = np.clip(boxes, 0, 1).astype(np.float32)
        sides = ((boxes[:, 2:] - boxes[:, :2]) * [height, width]).max(1, initial=0)
        squares = np.asarray(
            box_format.square_crops(
                boxes[sides >= self._min_side],
                height,
                width,
                self._classifier["crop_margin"],
            )
        )
        size = self._classifier["image_size"]
        return [
            cv2.resize(
                image[y : y + side, x : x + side].astype(np.float32),
                (size, size),
                # INTER_AREA does not interpolate when it enlarges.
                interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR,
            )
            for y, x, side in squares
        ]


def decode_image(image_bytes: bytes) -> np.ndarray:
    """Decodes an intact image to `[height, width, 3]` uint8 RGB."""
    image = cv2.imdecode(np.frombuffer(image_bytes, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _letterbox(image: np.ndarray, size: int) -> np.ndarray:
    scale = size / max(image.shape[:2])
    height, width = (max(round(side * scale), 1) for side in image.shape[:2])
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = resize.MEAN_PIXEL
    canvas[:height, :width] = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA
    )
    return canvas
