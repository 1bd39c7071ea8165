"""Images of several data sets in one order."""

import collections

import numpy as np
import pytest

import drawn_heads
from dfdetect.data import (
    detector_examples,
    detector_input,
    record_index,
    sampled_images,
    sampling,
)
from dfdetect.data import prepared as data
from dfdetect.data.batches import NAME
from dfdetect.models import anchors


@pytest.fixture(scope="module", name="builders")
def _builders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    few = drawn_heads.prepare(folder, "few_1", train=5, validation=2)
    many = drawn_heads.prepare(folder, "many_6", train=4, validation=3)
    rooms = drawn_heads.prepare(folder, "rooms_0", train=3)
    names = [data.name_dataset(builder) for builder in (few, many, rooms)]
    assert names == [f"drawn_heads/{name}" for name in ("few_1", "many_6", "rooms_0")]
    # As a user opens them, without their code.
    return [data.open_builder(str(folder), name) for name in names]


def _source(builders, weights=None, batch_size=4, following=0):
    indexes = [
        record_index.RecordIndex(builder, "train", whole_images=True)
        for builder in builders
    ]
    catalogs = [index.catalog for index in indexes]
    sampler = sampling.Sampler(catalogs, batch_size, seed=0, weights=weights)
    return sampled_images.SampledImages(
        indexes, sampler, batch_size=batch_size, following=following
    )


def test_images_come_with_all_of_their_heads_as_tfds_reads_them(builders):
    source = _source(builders)
    assert source.size == 12
    expected = [
        (example["image"].numpy(), example["objects"])
        for builder in builders
        for example in data.read_encoded(builder, "train")
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


def test_closeups_come_with_images_without_heads(builders):
    few, _, rooms = (
        record_index.RecordIndex(builder, "train", whole_images=True)
        for builder in builders
    )
    indexes = [rooms, few]
    assert sampled_images.has_closeups(indexes)
    assert not sampled_images.has_closeups([few])
    assert not sampled_images.has_closeups([rooms])
    catalogs = [index.catalog for index in indexes]
    sampler = sampling.Sampler(catalogs, 4, seed=0)
    closeups = sampled_images.Closeups(indexes, 4, seed=1)
    source = sampled_images.SampledImages(
        indexes, sampler, batch_size=4, closeups=closeups
    )
    closeup_images = {few.image(place) for place in range(5)}
    found = [example for (example,) in source.from_index(0).take(16)]
    pasted = [example["pasted"] for example in found]
    for example, other in zip(found, pasted, strict=True):
        if len(example["objects"]["label"]):
            assert other["image"] == b"" and not len(other["objects"]["label"])
        else:
            assert other["image"].numpy() in closeup_images
            assert len(other["objects"]["label"]) == 1
    again = [e["pasted"]["image"].numpy() for (e,) in source.from_index(8).take(8)]
    assert again == [other["image"].numpy() for other in pasted[8:]]
    assert len({other["image"].numpy() for other in pasted}) > 2


# Of the images of the second, some are mosaics and some are not.
@pytest.mark.slow
@pytest.mark.parametrize("mosaic", [0.0, 0.4])
def test_ordinary_images_have_their_heads_and_are_the_same_again(builders, mosaic):
    grid = anchors.Anchors(128, 2.0)
    batches = detector_input.build_training_batches(
        [builders[0], builders[2]],
        "train",
        grid=grid,
        image_size=128,
        batch_size=4,
        seed=0,
        scales=(0.6, 1.2),
        augmentation="ordinary",
        mosaic=mosaic,
        weights=(1, 3),
    )
    shapes = [spec.shape.as_list() for spec in batches.from_step(0).element_spec]
    assert shapes == [[4, 128, 128, 3], [4, len(grid.boxes)], [4, len(grid.boxes), 4]]
    whole = [[part.numpy() for part in batch] for batch in batches.from_step(0).take(6)]
    for expected, batch in zip(whole[4:], batches.from_step(4).take(2), strict=True):
        for one, other in zip(expected, batch, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)
    seen, pasted = 0, 0
    for shown, class_targets, box_targets in whole:
        assert shown.min() >= 0 and shown.max() <= 255
        for index in range(4):
            positive = class_targets[index] >= 0
            boxes = anchors.decode(box_targets[index], grid.boxes).numpy()[positive]
            for y1, x1, y2, x2 in np.clip(boxes * 128, 0, 127):
                middle = shown[index, int((y1 + y2) / 2), int((x1 + x2) / 2)]
                assert middle.mean() > 110  # Heads are bright, the rest below 60.
                seen += 1
            pasted += positive.any()
    assert seen > 20 and pasted > 8  # One in four images has a head of its own.


def test_sets_that_do_not_fit_are_turned_away(builders, prepared):
    with pytest.raises(ValueError, match="rooms_0.* split 'validation', got .*'train'"):
        detector_input.build_training_batches(
            builders,
            "validation",
            grid=anchors.Anchors(128),
            image_size=128,
            batch_size=2,
            seed=0,
            scales=(1.0, 1.0),
        )
    with pytest.raises(ValueError, match=r"gray_share must be in \[0, 1\], got 1.5"):
        detector_examples.ImagePreparation(128, (1.0, 1.0), gray_share=1.5)
    faces = data.open_builder(str(prepared), "labeled_faces")
    with pytest.raises(ValueError, match="must have images with objects, got"):
        record_index.RecordIndex(faces, "train", whole_images=True)
