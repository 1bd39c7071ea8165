"""Embeddings that an index takes or refuses, and their scaling."""

import numpy as np
import pytest

from dfdetect.retrieval import embedding_rows


def test_rows_are_scaled_only_where_they_must():
    rows = np.float32([[3, 4], [0, 2]])
    np.testing.assert_allclose(
        embedding_rows.check_rows(rows, "cosine"), [[0.6, 0.8], [0, 1]]
    )
    assert np.array_equal(embedding_rows.check_rows(rows, "euclidean"), rows)
    # Such as a file mapped into memory: it is not copied.
    unit = np.float32([[0.6, 0.8], [0, 1]])
    assert embedding_rows.check_rows(unit, "cosine") is unit
    assert embedding_rows.scale_to_unit(np.zeros((1, 2), np.float32)).tolist() == [
        [0, 0]
    ]


@pytest.mark.parametrize(
    "rows, metric, message",
    [
        ([1.0, 2.0], "cosine", r"must be \[N, D\], got \[2\]"),
        ([[1.0, np.nan]], "euclidean", "must be finite"),
        ([[1.0, 0.0], [0.0, 0.0]], "cosine", "must not be zero"),
    ],
)
def test_rows_that_are_refused(rows, metric, message):
    with pytest.raises(ValueError, match=message):
        embedding_rows.check_rows(rows, metric)
