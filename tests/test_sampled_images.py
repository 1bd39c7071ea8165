"""Images of several data sets in one order."""

import collections

import drawn_heads
import numpy as np
import pytest

from dfdetect import (
    anchors,
    data,
    detector_data,
    record_index,
    sampled_images,
    sampling,
)
from dfdetect.batches import NAME


@pytest.fixture(scope="module", name="builders")
def _builders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    few = drawn_heads.prepare(folder, "few_1", train=5, validation=2)
    many = drawn_heads.prepare(folder, "many_6", train=4, validation=3)
    rooms = drawn_heads.prepare(folder, "rooms_0", train=3)
    names = [data.full_name(builder) for builder in (few, many, rooms)]
    assert names == [f"drawn_heads/{name}" for name in ("few_1", "many_6", "rooms_0")]
    # As a user opens them, without their code.
    return [data.open_builder(str(folder), name) for name in names]


def _source(builders, weights=None, batch_size=4, following=0):
    indexes = [
        record_index.RecordIndex(builder, "train", whole_images=True)
        for builder in builders
    ]
    catalogues = [index.catalogue for index in indexes]
    sampler = sampling.Sampler(catalogues, batch_size, seed=0, weights=weights)
    return sampled_images.SampledImages(indexes, sampler, batch_size, following)


def test_images_come_with_all_of_their_heads_as_tfds_reads_them(builders):
    source = _source(builders)
    assert source.size == 12
    expected = [
        (example["image"].numpy(), example["objects"])
        for builder in builders
        for example in data.encoded(builder, "train")
    ]
    by_image = dict(expected)
    found = [example for (example,) in source.from_index(0).take(12)]
    # Each once in a pass, those without heads as well.
    assert sorted(e["image"].numpy() for e in found) == sorted(by_image)
    for example in found:
        heads = by_image[example["image"].numpy()]
        assert example["objects"].keys() == heads.keys()
        for key, values in heads.items():
            assert example["objects"][key].dtype == values.dtype
            np.testing.assert_array_equal(example["objects"][key], values)


def test_weights_say_how_often_each_set_comes(builders):
    source = _source(builders, weights=(1, 2, 1), batch_size=8)
    heads = [len(e["objects"]["label"]) for (e,) in source.from_index(0).take(80)]
    assert collections.Counter(heads) == {1: 20, 6: 40, 0: 20}


def test_the_order_goes_on_from_any_step_with_those_that_follow(builders):
    source = _source(builders, weights=(3, 1, 1))
    alone = [e[NAME].numpy() for (e,) in source.from_index(0).take(24)]
    again = [e[NAME].numpy() for (e,) in source.from_index(8).take(16)]
    assert again == alone[8:]
    windows = _source(builders, weights=(3, 1, 1), following=2)
    for place, three in enumerate(windows.from_index(8).take(6), 8):
        assert [e[NAME].numpy() for e in three] == alone[place : place + 3]


def test_the_largest_head_of_each_image_is_known(builders):
    few, _, rooms = (
        record_index.RecordIndex(builder, "train", whole_images=True)
        for builder in builders
    )
    wanted = [8 / 96, 8 / 128, 36 / 96, 32 / 128]
    np.testing.assert_allclose(few.box(2), wanted, atol=1e-6)
    assert not rooms.box(0).any()


def test_sets_that_do_not_fit_are_turned_away(builders, prepared):
    with pytest.raises(ValueError, match="rooms_0.* split 'validation', got .*'train'"):
        detector_data.training(
            builders, "validation", anchors.Anchors(128), 128, 2, 0, (1.0, 1.0)
        )
    faces = data.open_builder(str(prepared), "labeled_faces")
    with pytest.raises(ValueError, match="must have images with objects, got"):
        record_index.RecordIndex(faces, "train", whole_images=True)
