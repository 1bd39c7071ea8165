"""A table of entries."""

import tracemalloc

import pytest

from dfdetect.retrieval.entries import Entry, EntryTable

_ENTRIES = [
    Entry("/a.jpg", 1, "/a.jpg", "g", "ab" * 32),
    Entry("é\udcff#0", -1, "é\udcff", "", "cd" * 32, (0.1, 0.2, 0.3, 0.4), b"jpeg"),
    Entry("é\udcff#1", 0, "é\udcff", "", "cd" * 32, (0, 0, 1, 1)),
]


def test_a_table_gives_back_its_entries():
    table = EntryTable(iter(_ENTRIES))
    assert len(table) == 3 and table == _ENTRIES and list(table) == _ENTRIES
    assert table[-1] == _ENTRIES[2] and table[1:] == tuple(_ENTRIES[1:])
    assert list(table.iterate_ids()) == [entry.id for entry in _ENTRIES]
    assert table.labels.tolist() == [1, -1, 0]
    assert table != _ENTRIES[:2] and table != 3
    with pytest.raises(IndexError):
        table[3]
    assert EntryTable() == [] and list(EntryTable().iterate_ids()) == []


@pytest.mark.parametrize("split", [0, 1, 2, 3])
def test_tables_are_joined(split):
    joined = EntryTable(_ENTRIES[:split]) + EntryTable(_ENTRIES[split:])
    assert joined == _ENTRIES
    assert joined + EntryTable(_ENTRIES) == _ENTRIES * 2


def test_a_table_takes_little_memory():
    def entries():
        for i in range(2000):
            path = f"/home/user/photographs/2021/IMG_{i // 3:08d}.jpg"
            box = (0.1, 0.2 + i / 10_000, 0.9, 0.8)
            yield Entry(f"{path}#{i % 3}", 1, path, "", f"{i // 3:064d}", box)

    tracemalloc.start()
    try:
        table = EntryTable(entries())
        size, _ = tracemalloc.get_traced_memory()
        assert len(table) == 2000
    finally:
        tracemalloc.stop()
    assert size / 2000 < 250  # As many objects take 600 bytes each.
