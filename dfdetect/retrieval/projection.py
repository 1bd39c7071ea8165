"""Projects rows to fewer dimensions that keep their neighbours."""

import dataclasses

import numpy as np

_SAMPLE = 10_000  # Rows whose covariance is taken.
_BLOCK = 2**24  # Values that are centered at once: 64 MiB.


@dataclasses.dataclass(frozen=True)
class Projection:
    """The first principal components of rows.

    Products of projected queries and rows differ from those of the originals by a
    constant for each query, and by what the other components hold.

    Source: Pearson, On lines and planes of closest fit to systems of points in space,
    1901.

    Attributes:
        mean: float32 `[D]`, subtracted from rows, but not from queries of dot products.
        basis: float32 `[D, P]`, orthonormal columns, the most important first.
    """

    mean: np.ndarray
    basis: np.ndarray

    def truncate(self, dimension: int) -> "Projection":
        """Returns the projection to the first `dimension` components."""
        return Projection(self.mean, np.ascontiguousarray(self.basis[:, :dimension]))

    def project_rows(self, rows: np.ndarray) -> np.ndarray:
        """Projects float32 `[N, D]` to `[N, P]`."""
        projected = np.empty((len(rows), self.basis.shape[1]), np.float32)
        at_once = max(1, _BLOCK // rows.shape[1])
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            projected[part] = (rows[part] - self.mean) @ self.basis
        return projected

    def project_queries(self, queries: np.ndarray, metric: str) -> np.ndarray:
        """Projects queries float32 `[Q, D]` to `[Q, P]` for a metric of `searchers`."""
        if metric == "cosine":
            return queries @ self.basis
        return (queries - self.mean) @ self.basis

    def pack(self) -> np.ndarray:
        """Returns float32 `[1 + P, D]` for `unpack`: the mean, then the components."""
        return np.concatenate([self.mean[None], self.basis.T])


def unpack(packed: np.ndarray) -> Projection:
    """Returns the projection that `Projection.pack` packed.

    Raises:
        ValueError: It is not float32 `[1 + P, D]`.
    """
    if packed.ndim != 2 or len(packed) < 2 or packed.dtype != np.float32:
        raise ValueError(
            f"a projection must be float32 [1 + P, D], got {packed.dtype} "
            f"{list(packed.shape)}."
        )
    return Projection(packed[0], np.ascontiguousarray(packed[1:].T))


def fit(rows: np.ndarray, seed: int = 0) -> Projection:
    """Fits a projection to all D components of rows.

    Args:
        rows: float32 `[N, D]`.
        seed: Seed of the choice of at most 10,000 rows.
    """
    chosen = rows
    if len(rows) > _SAMPLE:
        generator = np.random.default_rng(seed)
        chosen = rows[generator.choice(len(rows), _SAMPLE, replace=False)]
    mean = chosen.mean(0)
    centered = chosen - mean
    _, basis = np.linalg.eigh(centered.T @ centered)  # Least important first.
    return Projection(mean, np.ascontiguousarray(basis[:, ::-1]))
