"""Reads of many records at once."""

import zlib

import numpy as np
import pytest

from dfdetect.data import record_reader


def test_records_come_in_the_order_they_were_asked_for(tmp_path):
    random = np.random.default_rng(0)
    contents = [random.bytes(50_000), random.bytes(300_000)]
    paths = [str(tmp_path / name) for name in "ab"]
    for path, content in zip(paths, contents, strict=True):
        with open(path, "wb") as file:
            file.write(content)
    reader = record_reader.RecordReader(paths)
    for count in (1, 3, 200):
        files = random.integers(0, 2, count)
        offsets, lengths = random.integers(0, 40_000, count), np.full(count, 9_000)
        expected = [
            contents[file][offset : offset + 9_000]
            for file, offset in zip(files, offsets, strict=True)
        ]
        checksums = np.array([zlib.crc32(part) for part in expected])
        assert reader.read(files, offsets, lengths, checksums) == expected


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "short"
    path.write_bytes(b"12345678")
    reader = record_reader.RecordReader([str(path), str(tmp_path / "missing")])
    one = np.array([0]), np.array([2]), np.array([4])
    assert reader.read(*one, np.array([zlib.crc32(b"3456")])) == [b"3456"]
    with pytest.raises(ValueError, match=f"^{path} is damaged .the record at byte 2 "):
        reader.read(*one, np.array([0]))
    with pytest.raises(ValueError, match="missing cannot be read: .*No such file"):
        reader.read(np.array([1]), *one[1:], np.array([0]))
