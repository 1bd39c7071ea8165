"""Records by class and by origin, against sorts of everything at once."""

import numpy as np
import pytest

from dfdetect.data import coded_texts, strata


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(strata, "_BLOCK", 7)


@pytest.mark.parametrize("size", [0, 1, 7, 50])
def test_members_are_those_of_the_label_in_order(size):
    labels = np.random.default_rng(size).integers(0, 2, size).astype(np.int8)
    for label in (0, 1):
        found = strata.find_members(labels, label)
        assert found.dtype == np.uint32
        np.testing.assert_array_equal(found, np.flatnonzero(labels == label))
        assert strata.count(labels, label) == len(found)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("size", [0, 1, 20, 100])
def test_groups_are_those_of_a_stable_sort(size, dtype):
    random = np.random.default_rng(size)
    codes = random.integers(0, 9, 150).astype(dtype)  # Of 12, so that some have none.
    members = np.sort(random.permutation(150)[:size]).astype(np.uint32)
    grouped, ends = strata.group_by_code(members, codes, 12)
    expected = members[np.argsort(codes[members], kind="stable")]
    np.testing.assert_array_equal(grouped, expected)
    counts = np.bincount(codes[members], minlength=12)
    np.testing.assert_array_equal(ends, np.cumsum(counts))
    assert grouped.dtype == np.uint32


def test_fakes_of_a_real_are_those_of_its_origin():
    origins = coded_texts.encode(["b", "", "a", "b", "c", "a", "b", "", "d"])
    members = np.array([3, 5, 6, 7, 8], np.uint32)
    fakes = strata.Fakes(origins, members)
    assert fakes.of_real(0).tolist() == [3, 6]
    assert fakes.of_real(2).tolist() == [5]
    # Of an unknown origin, or one without fakes: any.
    assert fakes.of_real(1).tolist() == fakes.of_real(4).tolist() == members.tolist()
