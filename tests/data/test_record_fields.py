"""Which records are chosen by their fields, and how heads are cut by their boxes."""

import numpy as np
import pytest
import tensorflow as tf

from dfdetect import boxes
from dfdetect.data import (
    classifier_input,
    conditions,
    prepared,
    record_fields,
    record_index,
)
from dfdetect.media import decode, resize
from sourced_faces import face, prepare

BOXES = {
    "inside": (0.25, 0.1, 0.75, 0.6),
    "beyond": (-0.3, 0.5, 0.6, 1.2),
    "none": (0, 0, 0, 0),
    "unknown": (np.nan,) * 4,
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    rows = [
        face(name, number % 2, ("lab", "camera", "", "x")[number], box)
        for number, (name, box) in enumerate(BOXES.items())
    ]
    return prepare(tmp_path_factory.mktemp("faces"), {"train": rows})


def _expected(faces, size, margin):
    """What the graph cuts of each image, in the order of the records."""
    found = []
    for example in prepared.read_encoded(faces, "train"):
        image = decode.decode_image(example["image"])
        name = example["image/filename"].numpy().decode().removesuffix(".png")
        box = tf.constant([BOXES[name]], tf.float32)
        if name in ("inside", "beyond"):
            crop = resize.crop_heads(image, boxes.clip(box), size, margin)[0]
        else:
            crop = resize.resize(image, size)
        found.append(crop.numpy())
    return np.stack(found)


def test_heads_are_cut_by_their_boxes_as_the_graph_cuts_them(faces):
    expected = _expected(faces, 24, 1.3)
    evaluated = classifier_input.build_evaluation_batches(
        faces, "train", image_size=24, batch_size=4, crop_margin=1.3
    )
    crops, truths = next(iter(evaluated))
    np.testing.assert_allclose(crops, expected, atol=1e-3)
    trained = classifier_input.build_training_batches(
        [faces],
        "train",
        image_size=24,
        batch_size=4,
        seed=0,
        augmentation="none",
        crop_margin=1.3,
    )
    of_training, _ = next(iter(trained.from_step(0)))
    order, same = (np.argsort(np.sum(x, (1, 2, 3))) for x in (of_training, expected))
    np.testing.assert_allclose(
        of_training.numpy()[order], expected[same], atol=1e-3, rtol=1e-4
    )
    files = list(classifier_input.read_encoded_files(faces, "train", None, 1.3))
    again = [resize.resize(decode.decode_image(file), 24) for file in files]
    np.testing.assert_allclose(again, expected, atol=1e-3)
    assert truths.shape == (4,)


def test_records_meet_conditions_in_any_order_of_reading(faces):
    where = [conditions.parse_condition("source!=camera|x")]
    names = record_fields.read_fields(faces, "train", ["image/filename"])[
        "image/filename"
    ]
    chosen = record_fields.choose_records(faces, "train", where)
    assert set(names[chosen]) == {"inside.png", "none.png"}
    index = record_index.RecordIndex(faces, "train", where=where, source_field="source")
    read = {
        tf.train.Example.FromString(index.read(place))
        .features.feature["image/filename"]
        .bytes_list.value[0]
        for place in range(2)
    }
    assert len(index.catalog.labels) == 2 and read == {b"inside.png", b"none.png"}
    # Without a source of its own, a record comes from its data set.
    assert set(index.catalog.sources) == {"lab", "sourced_faces"}
    assert set(record_fields.read_origins(faces, "train")) == {
        "lab",
        "camera",
        "x",
        "sourced_faces",
    }
    assert set(record_fields.read_origins(faces, "train", "method")) == {
        "sourced_faces"
    }


def test_a_field_that_a_set_does_not_have(faces):
    for text, kept in (("method!=a", 4), ("method=a", 0)):
        where = [conditions.parse_condition(text)]
        assert record_fields.choose_records(faces, "train", where).sum() == kept
        index = record_index.RecordIndex(faces, "train", where=where)
        assert len(index.catalog.labels) == kept


def test_a_misspelled_value_is_told(faces):
    record_fields.check_values(
        [faces], ["train"], [conditions.parse_condition("source!=lab|x")]
    )
    with pytest.raises(
        ValueError, match=r"a source that records have \(camera, lab, x\), got 'labb'"
    ):
        where = [conditions.parse_condition("source!=lab|labb")]
        record_fields.check_values([faces], ["train", "test"], where)
    with pytest.raises(ValueError, match="method that records have .none has any."):
        record_fields.check_values(
            [faces], ["train"], [conditions.parse_condition("method=a")]
        )
    with pytest.raises(
        ValueError, match="no record to train on is left in train of sourced"
    ):
        where = [conditions.parse_condition("source=nobody")]
        classifier_input.build_training_batches(
            [faces], "train", image_size=24, batch_size=4, seed=0, where=where
        )


def test_a_set_that_conditions_empty_is_left_out(faces, tmp_path, capsys):
    rows = [face(f"{number}", number, "made") for number in range(2)]
    other = prepare(tmp_path, {"train": rows})
    options = {"image_size": 24, "batch_size": 4, "seed": 0}
    batches = classifier_input.build_training_batches(
        [other, faces],
        "train",
        where=[conditions.parse_condition("source!=made")],
        weights=[9.0, 1.0],
        **options,
    )
    assert (
        "No record to train on is left in train of sourced_faces"
        in capsys.readouterr().out
    )
    assert batches.source.size == 4
    crops, _ = next(iter(batches.from_step(0)))
    assert crops.shape == (4, 24, 24, 3)
    with pytest.raises(ValueError, match="weights must be 2 numbers"):
        classifier_input.build_training_batches(
            [other, faces], "train", weights=[1.0], **options
        )


def test_excluded_values():
    texts = ["source!=a|b", "source=c", "method!=d", "source!=b"]
    assert conditions.list_excluded_values(texts, "source") == ["a", "b"]
    with pytest.raises(ValueError, match="where must be FIELD=VALUE.*got 'source'"):
        conditions.parse_condition("source")
