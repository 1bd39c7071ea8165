"""Tuning ScaNN to a recall, and the projection that it chooses."""

import numpy as np
import pytest

from dfdetect.retrieval import searchers, tuning


def _unit(rows):
    return np.float32(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _rows(count, dimension=24, seed=0):
    return _unit(np.random.default_rng(seed).normal(size=(count, dimension)))


def _flat_rows(count, seed):
    """Draws rows of 600 dimensions, most of whose variance lies in a few."""
    basis = (
        np.random.default_rng(7).normal(size=(600, 600)) / np.arange(1, 601)[:, None]
    )
    rows = np.random.default_rng(seed).normal(size=(count, 600)) @ basis
    return _unit(rows + 3 * basis[0])


def _recall(searcher, queries):
    wanted, _ = searchers.BruteForce(searcher.rows, searcher.metric).search(queries, 10)
    found, _ = searcher.approximate(queries, 10)
    pairs = zip(wanted.tolist(), found.tolist(), strict=True)
    return np.mean([len(set(one) & set(other)) / 10 for one, other in pairs])


@pytest.mark.parametrize("metric", searchers.METRICS)
def test_rows_of_few_important_dimensions_are_projected(metric, tmp_path):
    rows, queries = _flat_rows(3000, 0), _flat_rows(200, 1)
    searcher = tuning.build(rows, metric, 0.95)
    assert searcher.settings.dimension == 128
    assert _recall(searcher, queries) >= 0.93
    exact = searchers.BruteForce(rows, metric).search(queries, 1)
    positions, values = searcher.search(queries, 1)
    same = positions == exact[0]
    # ScaNN trains on threads: its tree, and so its recall, vary from run to run.
    assert same.mean() >= 0.9
    # Values are exact though candidates are quantized.
    np.testing.assert_allclose(values[same], exact[1][same], atol=1e-5)
    searcher.save(str(tmp_path))
    loaded = searchers.ScaNN(rows, metric, searcher.settings, str(tmp_path))
    np.testing.assert_array_equal(
        loaded.search(queries, 10), searcher.search(queries, 10)
    )
    (tmp_path / "projection.npy").unlink()
    with pytest.raises(ValueError, match="is not a ScaNN searcher"):
        searchers.ScaNN(rows, metric, searcher.settings, str(tmp_path))


@pytest.mark.parametrize("compared_by", searchers.METRICS)
def test_projections_are_compared_by_either_metric(compared_by, tmp_path):
    rows, queries = _flat_rows(2000, 0), _flat_rows(100, 1)
    settings = searchers.ScaNNSettings(40, 40, 400, 128, compared_by)
    searcher = searchers.ScaNN(rows, "cosine", settings)
    assert _recall(searcher, queries) >= 0.93
    searcher.save(str(tmp_path))
    loaded = searchers.ScaNN(rows, "cosine", settings, str(tmp_path))
    found = loaded.search(queries, 10)
    np.testing.assert_array_equal(found, searcher.search(queries, 10))
    # Values are cosines, whatever candidates are found by.
    np.testing.assert_allclose(found[1][:, 0], (queries @ rows.T).max(1), atol=0.05)


def test_rows_without_important_dimensions_are_not_projected_but_found():
    rows = _rows(2000, 300)
    searcher = tuning.build(rows, "cosine", 0.9)
    assert searcher.settings.dimension == 0
    assert _recall(searcher, _rows(100, 300, seed=1)) >= 0.85


def test_every_row_can_be_found():
    rows = _rows(2000, 30)
    searcher = tuning.build(rows, "cosine", 1.0)
    assert _recall(searcher, _rows(50, 30, seed=1)) >= 0.99


def test_settings_are_tuned_by_what_scann_finds_itself():
    # A leaf holds fewer than are wanted: the rest must not count as found.
    rows = _rows(400)
    settings = searchers.ScaNNSettings(leaves=80, leaves_searched=1, reordered=100)
    searcher = tuning.tune(searchers.ScaNN(rows, "cosine", settings), 0.9)
    queries = _rows(100, seed=1)
    wanted, _ = searchers.BruteForce(rows, "cosine").search(queries, 10)
    found, _ = searcher.approximate(queries, 10)
    pairs = zip(wanted.tolist(), found.tolist(), strict=True)
    recall = np.mean([len(set(one) & set(other)) / 10 for one, other in pairs])
    assert recall >= 0.8 and searcher.settings.leaves_searched > 8
