"""Columns of texts that repeat."""

import numpy as np

from dfdetect.data import coded_texts

WORDS = ["b", "", "a", "b", "ä\n", "b"]


def test_a_column_is_what_was_coded():
    column = coded_texts.encode(np.array(WORDS))
    assert len(column) == 6 and [*column] == WORDS == column.to_array().tolist()
    assert column.codes.dtype == np.uint8
    assert column[4] == "ä\n" and [*column[np.array([2, 0])]] == ["a", "b"]
    assert coded_texts.encode(column) is column
    same = coded_texts.repeat("x", 10**9)
    assert len(same) == 10**9 and same[123_456_789] == "x"


def test_names_are_loaded_when_they_are_asked_for():
    loaded = []
    column = coded_texts.CodedTexts(
        np.array([1, 0]), lambda: loaded.append(1) or ["x", "y"]
    )
    part = column[np.array([1])]
    assert not loaded and [*column] == ["y", "x"] and [*part] == ["x"]
    assert len(loaded) == 2  # Once for each.


def test_a_text_is_renamed_to_one_that_may_be_there():
    column = coded_texts.encode(np.array(WORDS))
    assert [*column.rename("", "c")] == ["b", "c", "a", "b", "ä\n", "b"]
    joined = column.rename("", "a")
    assert [*joined] == ["b", "a", "a", "b", "ä\n", "b"]
    assert [*joined.rename("nothing", "d")] == [*joined]


def test_columns_are_joined_and_packed():
    parts = [coded_texts.encode(np.array(words)) for words in (WORDS, ["c", "a"])]
    joined = coded_texts.join(parts)
    assert [*joined] == [*WORDS, "c", "a"] and len(joined.names) == 5
    content, ends = coded_texts.pack(joined.names)
    assert coded_texts.unpack(content, ends) == joined.names
    assert coded_texts.unpack(*coded_texts.pack([])) == []
    many = coded_texts.encode(np.arange(300).astype(str))
    assert many.codes.dtype == np.uint16 and many[299] == "299"
