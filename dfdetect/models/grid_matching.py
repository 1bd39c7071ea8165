"""Matches heads on grids of anchors, as `matching.match_anchors` but far cheaper.

A head concerns few anchors: those that overlap it by half, or more than all others.
They lie in a small window of each grid that follows from the head's box alone, so that
overlaps are computed only there.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from dfdetect import boxes as box_format
from dfdetect.models import anchors, matching

_NONE = np.iinfo(np.int32).max

# Windows are enlarged by this share, against rounding; their anchors are then compared
# by exact overlap.
_SLACK = 1e-3


class GridMatcher:
    """Assigns every anchor of a grid its class and box, see `matching.match_anchors`.

    TensorFlow ops for the host, as in `tf.data`: their number of values depends on the
    heads. On other devices use `matching.match_anchors`.

    Args:
        grid: The anchors of a model.
    """

    def __init__(self, grid: anchors.Anchors) -> None:
        shapes = grid.num_per_location
        sides = np.array(grid.sides)
        firsts = np.cumsum([0, *sides**2 * shapes])[:-1]
        # Of each shape on each level: [L] -> [L * K].
        places = (firsts[:, None] + np.arange(shapes)).reshape(-1)
        corners = grid.boxes[places]
        self._boxes = tf.constant(grid.boxes)
        self._num_anchors = len(grid.boxes)
        self._stride = shapes
        self._sides = tf.constant(np.repeat(sides, shapes), tf.int32)
        self._firsts = tf.constant(places, tf.int32)
        self._extents = tf.constant(corners[:, 2:] - corners[:, :2])

    def __call__(
        self, gt_boxes: Any, gt_classes: Any, gt_ignored: Any = None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Matches one image.

        Args:
            gt_boxes: `[max_heads, 4]`, see `matching.match_anchors`.
            gt_classes: `[max_heads]` integer, see there.
            gt_ignored: `[max_heads]` bool, see there.

        Returns:
            The results of `matching.match_anchors`.
        """
        boxes = tf.cast(gt_boxes, tf.float32)
        classes = tf.cast(gt_classes, tf.int32)
        if gt_ignored is None:
            gt_ignored = tf.zeros_like(classes, tf.bool)
        real = tf.where((classes >= 0) & (box_format.area(boxes) > 0))[:, 0]
        boxes, classes, ignored = (
            tf.gather(values, real) for values in (boxes, classes, gt_ignored)
        )
        heads, places = self._candidates(boxes)
        overlaps = _iou(tf.gather(boxes, heads), tf.gather(self._boxes, places))
        matched = self._assign(heads, places, overlaps, ignored)

        assigned = tf.where(matched < _NONE)
        heads = tf.gather(matched, assigned[:, 0])
        learned = ~tf.gather(ignored, heads)
        kinds = tf.where(learned, tf.gather(classes, heads), matching.IGNORED)
        offsets = anchors.encode(
            tf.gather(boxes, heads), tf.gather(self._boxes, assigned[:, 0])
        )
        count = self._num_anchors
        class_targets = tf.tensor_scatter_nd_update(
            tf.fill([count], matching.BACKGROUND), assigned, kinds
        )
        box_targets = tf.scatter_nd(
            assigned,
            tf.where(learned[:, None], offsets, 0.0),
            tf.constant([count, 4], tf.int64),
        )
        return class_targets, box_targets, class_targets >= 0

    def _candidates(self, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Finds pairs of heads and anchors that may match, int32 `[N]` each.

        Args:
            boxes: `[M, 4]`, with areas above 0.
        """
        # [M, 1, 2] against the [S, 2] shapes of all levels.
        extents = (boxes[:, 2:] - boxes[:, :2])[:, None]
        centers = (boxes[:, 2:] + boxes[:, :2])[:, None] / 2
        sides = tf.cast(self._sides, tf.float32)[:, None]

        # The nearest anchor of each shape overlaps a head most.
        nearest = tf.cast(tf.floor(centers * sides), tf.int32)
        nearest = tf.clip_by_value(nearest, 0, self._sides[:, None] - 1)
        overlaps = _iou(
            boxes[:, None], tf.gather(self._boxes, self._place(nearest, self._firsts))
        )
        best = tf.reduce_max(overlaps, axis=1)[:, None]
        least = tf.minimum(best, matching.POSITIVE_IOU) * (1 - _SLACK)

        # With that overlap two boxes share at least this area, hence along each axis at
        # least that over what they can share along the other one.
        areas = tf.reduce_prod(extents, -1) + tf.reduce_prod(self._extents, -1)
        shared = (least / (1 + least) * areas)[..., None]
        narrow = tf.minimum(extents, self._extents)
        reach = (extents + self._extents) / 2 - shared / narrow[..., ::-1]
        first = tf.math.ceil((centers - reach) * sides - 0.5 - _SLACK)
        last = tf.floor((centers + reach) * sides - 0.5 + _SLACK)
        first = tf.clip_by_value(first, 0.0, sides)
        spans = tf.maximum(tf.minimum(last, sides - 1) - first + 1, 0.0)
        spans = tf.where(best[..., None] > 0, spans, 0.0)
        first, spans = tf.cast(first, tf.int32), tf.cast(spans, tf.int32)

        counts = tf.reshape(tf.reduce_prod(spans, -1), [-1])
        windows = tf.repeat(tf.range(tf.size(counts)), counts)
        ranks = tf.range(tf.size(windows)) - tf.gather(
            tf.cumsum(counts, exclusive=True), windows
        )
        columns = tf.gather(tf.reshape(spans[..., 1], [-1]), windows)
        offset = tf.stack([ranks // columns, ranks % columns], -1)
        cells = tf.gather(tf.reshape(first, [-1, 2]), windows) + offset
        shapes = windows % tf.size(self._sides)
        places = self._place(
            cells, tf.gather(self._firsts, shapes), tf.gather(self._sides, shapes)
        )
        return windows // tf.size(self._sides), places

    def _place(
        self, cells: tf.Tensor, firsts: tf.Tensor, sides: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Computes indices of anchors from rows and columns `[..., 2]` of grids."""
        sides = self._sides if sides is None else sides
        return firsts + (cells[..., 0] * sides + cells[..., 1]) * self._stride

    def _assign(
        self,
        heads: tf.Tensor,
        places: tf.Tensor,
        overlaps: tf.Tensor,
        ignored: tf.Tensor,
    ) -> tf.Tensor:
        """Assigns a head to each anchor, int32 `[A]`; `_NONE` for background."""
        num_heads = tf.size(ignored)
        most = tf.math.unsorted_segment_max(overlaps, heads, num_heads)
        is_most = tf.equal(overlaps, tf.gather(most, heads))
        best_places = tf.math.unsorted_segment_min(
            tf.where(is_most, places, _NONE), heads, num_heads
        )
        forcing = tf.where((most > 0) & ~ignored)[:, 0]
        forced = tf.math.unsorted_segment_min(
            tf.cast(forcing, tf.int32),
            tf.gather(best_places, forcing),
            self._num_anchors,
        )
        enough = tf.where(overlaps >= matching.POSITIVE_IOU)[:, 0]
        heads, places, overlaps = (
            tf.gather(values, enough) for values in (heads, places, overlaps)
        )
        most = tf.math.unsorted_segment_max(overlaps, places, self._num_anchors)
        is_most = tf.equal(overlaps, tf.gather(most, places))
        matched = tf.math.unsorted_segment_min(
            tf.where(is_most, heads, _NONE), places, self._num_anchors
        )
        return tf.where(forced < _NONE, forced, matched)


def _iou(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Computes `boxes.iou` of pairs `[..., 4]`, bit for bit."""
    corners = [
        tf.maximum(boxes[..., :2], others[..., :2]),
        tf.minimum(boxes[..., 2:], others[..., 2:]),
    ]
    shared = box_format.area(tf.concat(corners, -1))
    union = box_format.area(boxes) + box_format.area(others) - shared
    return tf.where(union > 0, shared / tf.where(union > 0, union, 1.0), 0.0)
