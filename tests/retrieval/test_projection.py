"""Projection to principal components."""

import numpy as np
import pytest

from dfdetect.retrieval import projection


def test_all_components_keep_products_but_for_a_constant_and_distances():
    random = np.random.default_rng(0)
    rows = np.float32(random.normal(2, [5, 3, 1, 0.1], size=(200, 4)))
    queries = np.float32(random.normal(size=(6, 4)))
    fitted = projection.fit(rows)
    products = fitted.project_queries(queries, "cosine") @ fitted.project_rows(rows).T
    constant = (queries @ rows.T) - products
    np.testing.assert_allclose(constant, constant[:, :1].repeat(200, 1), atol=1e-4)
    apart = np.linalg.norm(queries[:, None] - rows[None], axis=-1)
    projected = fitted.project_queries(queries, "euclidean")
    there = np.linalg.norm(projected[:, None] - fitted.project_rows(rows), axis=-1)
    np.testing.assert_allclose(there, apart, atol=1e-4)


def test_the_first_components_hold_most():
    random = np.random.default_rng(1)
    rows = np.float32(random.normal(size=(500, 6)) * [0.1, 4, 0.1, 0.1, 0.1, 2])
    first = projection.fit(rows).truncate(2)
    assert first.basis.shape == (6, 2)
    np.testing.assert_allclose(np.abs(first.basis[[1, 5], [0, 1]]), 1, atol=0.05)
    packed = projection.unpack(first.pack())
    np.testing.assert_array_equal(packed.project_rows(rows), first.project_rows(rows))


def test_what_is_no_projection_is_refused():
    with pytest.raises(ValueError, match=r"float32 \[1 \+ P, D\], got float64 \[3\]"):
        projection.unpack(np.zeros(3))
