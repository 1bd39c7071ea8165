"""Arrays in one file, memory-mapped and checked."""

import numpy as np
import pytest

from dfdetect.data import array_file

ARRAYS = {
    "numbers": np.arange(1000, dtype=np.int16),
    "of/a/field": np.random.default_rng(0).random((50, 4)).astype(np.float32),
    "nothing": np.zeros((0, 4), np.uint8),
}


@pytest.fixture(name="path")
def _path(tmp_path):
    array_file.write(str(tmp_path / "arrays.npz"), ARRAYS)
    return tmp_path / "arrays.npz"


def test_arrays_are_mapped_and_numpy_reads_them_as_well(path):
    found = array_file.read(str(path))
    assert found.keys() == ARRAYS.keys()
    with np.load(path) as loaded:
        for name, expected in ARRAYS.items():
            for array in (found[name], loaded[name]):
                assert array.dtype == expected.dtype
                np.testing.assert_array_equal(array, expected)
    assert isinstance(found["numbers"], np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found["numbers"][0] = 1
    assert [file.name for file in path.parent.iterdir()] == ["arrays.npz"]


@pytest.mark.parametrize("place", [0, 200, 1500])
def test_a_changed_byte_is_noticed(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(array_file.DamagedError):
        array_file.read(str(path))


@pytest.mark.parametrize("size", [0, 10, 1000, -1])
def test_a_file_cut_short_is_noticed(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(array_file.DamagedError):
        array_file.read(str(path))


def test_what_is_no_such_file_is_refused(path):
    np.savez_compressed(path, numbers=ARRAYS["numbers"])
    with pytest.raises(array_file.DamagedError, match="must not be compressed"):
        array_file.read(str(path))
    path.unlink()
    with pytest.raises(FileNotFoundError):
        array_file.read(str(path))
