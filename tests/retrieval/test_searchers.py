"""ScaNN on few rows."""

import numpy as np
import pytest

from dfdetect.retrieval import searchers


def _rows(count, dimension=24, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, dimension))
    return np.float32(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.mark.parametrize("metric", searchers.METRICS)
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 40])
def test_a_few_rows_are_all_found(metric, count, tmp_path):
    rows = _rows(count)
    k = min(count, 10)
    searcher = searchers.ScaNN(rows, metric)
    (tmp_path / "scann").mkdir()
    searcher.save(str(tmp_path / "scann"))
    loaded = searchers.ScaNN(rows, metric, None, str(tmp_path / "scann"))
    exact = searchers.BruteForce(rows, metric)
    for one in (searcher, loaded):
        positions, values = one.search(rows, k)
        assert positions.dtype == np.int64 and positions.shape == (count, k)
        assert all(len(set(row)) == k for row in positions.tolist())
        assert (positions >= 0).all() and (positions < count).all()
        found, distances = one.search(rows[:1], k)
        assert found.shape == (1, k) and np.isfinite(distances).all()
        _, wanted = exact.search(rows, count)
        # Each value is one that there is.
        differences = values[:, :, None] - wanted[:, None]
        assert np.abs(differences).min(-1).max() < 1e-3


def test_no_query_finds_nothing():
    positions, values = searchers.ScaNN(_rows(40), "cosine").search(_rows(0), 3)
    assert positions.shape == values.shape == (0, 3)


def test_only_those_that_found_too_few_are_compared_with_all():
    rows = _rows(300)
    settings = searchers.ScaNNSettings(leaves=60, leaves_searched=1, reordered=100)
    searcher = searchers.ScaNN(rows, "cosine", settings)
    found, values = searcher.approximate(rows, 10)
    short = (found < 0).any(axis=1)
    assert short.any() and (np.isnan(values) == (found < 0)).all()
    positions, _ = searcher.search(rows, 10)
    np.testing.assert_array_equal(positions[~short], found[~short])
    wanted, _ = searchers.BruteForce(rows, "cosine").search(rows, 10)
    np.testing.assert_array_equal(positions[short], wanted[short])
