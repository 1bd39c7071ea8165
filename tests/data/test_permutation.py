"""Permutations that take no memory: that they are, and that they look random."""

import numpy as np
import pytest

from dfdetect.data import permutation


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 65, 1000, 70_001])
def test_each_place_comes_once(size):
    found = permutation.permute(np.arange(size), size, [3, 0])
    np.testing.assert_array_equal(np.sort(found), np.arange(size))
    some = np.array([size - 1, 0, size // 2])
    np.testing.assert_array_equal(permutation.permute(some, size, [3, 0]), found[some])


def test_keys_choose_the_permutation():
    orders = [permutation.permute(np.arange(999), 999, [7, key]) for key in range(3)]
    again = permutation.permute(np.arange(999), 999, [7, 1])
    np.testing.assert_array_equal(again, orders[1])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        # Of random permutations about one place is the same.
        assert (orders[one] == orders[other]).sum() < 8


def _chi_squared(counts):
    """In standard deviations from what is expected of even chances."""
    expected = counts.sum() / counts.size
    total = ((counts - expected) ** 2 / expected).sum()
    freedom = counts.size - 1
    return (total - freedom) / np.sqrt(2 * freedom)


@pytest.mark.parametrize("size", [2**20 + 1, 3_000_000])
@pytest.mark.parametrize("key", [0, 1])
def test_it_looks_as_random_as_that_of_numpy(size, key):
    """Each figure is about normal for a random permutation: within 5 deviations."""
    for order in (
        permutation.permute(np.arange(size), size, [0, 0, key, 2]),
        np.random.default_rng(key).permutation(size),
    ):
        # Where a stretch of the order lies in the data, such as a batch of 100,000.
        cells = [
            (np.arange(size) * 64 // size) * 64 + order * 64 // size,
            # The steps from one record to the next, and from a batch to the next.
            (order[1:] - order[:-1]) % size * 1024 // size,
            (order[32:] - order[:-32]) % size * 1024 // size,
            # Low bits: records of one clip lie side by side.
            order % 32 * 32 + np.arange(size) % 32,
        ]
        for cell, number in zip(cells, (4096, 1024, 1024, 1024), strict=True):
            deviation = _chi_squared(np.bincount(cell, minlength=number))
            # The first counts depend on one another: rows and columns are even.
            assert abs(deviation) < 5, (number, deviation)
        ranks = np.corrcoef(order[:-1], order[1:])[0, 1] * np.sqrt(size)
        assert abs(ranks) < 5


def test_neighbours_come_apart():
    """Two records of a clip of 32 frames are in one batch of 32 by chance alone."""
    size, batch = 2**20 + 77, 32
    order = permutation.permute(np.arange(size), size, [5, 2])
    clips = order[: size // batch * batch].reshape(-1, batch) // 32
    pairs = sum(batch - len(np.unique(row)) for row in clips)
    expected = len(clips) * batch * (batch - 1) / 2 * 31 / (size - 1)
    assert abs(pairs - expected) < 5 * np.sqrt(expected)
