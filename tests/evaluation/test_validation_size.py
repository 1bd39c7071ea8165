"""What is said of a validation set before a training relies on it."""

import re

import numpy as np
import pytest

import drawn_heads
import sourced_faces
from dfdetect.data import conditions
from dfdetect.evaluation import validation_size


def _width(line):
    return float(re.search(r"±(0\.\d+)", line)[1])


def test_a_small_set_of_crops_is_warned_of(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    faces = [
        sourced_faces.face(f"{i}_{copy}", i % 2, image=image, group=f"g{i // 2}")
        for i in range(400)
        for copy in range(1 + (i < 4))
    ]
    builder = sourced_faces.prepare(tmp_path, {"validation": faces})
    many = validation_size.describe_crops(builder, "validation", ())
    # Copies of a group add nothing.
    assert many.startswith(
        "sourced_faces, validation: 404 crops; groups: 200 of reals, 200 of fakes; "
        "an AUC of .9 is known to about ±0.0"
    )
    assert _width(many) < 0.05
    few = [conditions.parse_condition("group=g0|g1|g2")]
    warning = validation_size.describe_crops(builder, "validation", few)
    assert warning.startswith(
        "WARNING: sourced_faces, validation: 10 crops; groups: 3 "
    )
    assert _width(warning) > 0.2 and "may be chance" in warning


@pytest.mark.slow  # Simulates many sets.
def test_heads_of_one_image_count_less_than_those_of_many(tmp_path):
    crowded = drawn_heads.prepare(tmp_path / "a", "many_6", train=1, validation=3)
    lonely = drawn_heads.prepare(tmp_path / "b", "few_1", train=1, validation=18)
    empty = drawn_heads.prepare(tmp_path / "c", "rooms_0", train=1, validation=2)
    one, two = (
        validation_size.describe_heads(builder, "validation", ())
        for builder in (crowded, lonely)
    )
    assert "3 images, 18 heads in 3 of them; an AP of .9 is known to about ±" in one
    assert "18 images, 18 heads in 18 of them" in two
    assert _width(one) > _width(two) and one.startswith("WARNING: drawn_heads/many_6")
    assert validation_size.describe_heads(empty, "validation", ()) == ""
