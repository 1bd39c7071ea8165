"""Checks embeddings, and scales them to unit length, in blocks of little memory."""

import numpy as np

_CHECKED_ROWS = 2**16  # Rows that are checked at once.


def check_rows(embeddings: np.ndarray, metric: str) -> np.ndarray:
    """Checks embeddings; returns them as float32 `[N, D]`, of unit length for cosine.

    In blocks, as rows may be mapped from a file that is larger than the memory.

    Raises:
        ValueError: They have another rank, are not finite, or zero where the metric is
            cosine.
    """
    rows = np.ascontiguousarray(embeddings, np.float32)
    if rows.ndim != 2:
        raise ValueError(f"embeddings must be [N, D], got {list(rows.shape)}.")
    for start in range(0, len(rows), _CHECKED_ROWS):
        block = rows[start : start + _CHECKED_ROWS]
        if not np.isfinite(block).all():
            raise ValueError("embeddings must be finite, got NaN or infinity.")
        if metric == "cosine" and not block.any(axis=1).all():
            raise ValueError("embeddings must not be zero where the metric is cosine.")
    return rows if metric == "euclidean" else scale_to_unit(rows)


def scale_to_unit(rows: np.ndarray) -> np.ndarray:
    """Scales rows to unit length; returns them themselves where they have it already.

    Args:
        rows: float32 `[N, D]`; rows of zeros stay as they are.
    """
    lengths = np.ones((len(rows), 1), np.float32)
    for start in range(0, len(rows), _CHECKED_ROWS):
        block = rows[start : start + _CHECKED_ROWS]
        lengths[start : start + _CHECKED_ROWS, 0] = np.linalg.norm(block, axis=1)
    # Rows of unit length stay the same to the last bit.
    lengths[(np.abs(lengths - 1) < 1e-6) | (lengths == 0)] = 1
    return rows if (lengths == 1).all() else rows / lengths
