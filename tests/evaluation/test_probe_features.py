"""Crops as trainings see them, described with where they come from."""

import numpy as np
import pytest

from dfdetect import labels
from dfdetect.evaluation import probe_features
from dfdetect.models import classifier
from sourced_faces import face, prepare

# Blue, green and red of all pixels of a source.
COLORS = {"street": (200, 60, 60), "shop": (60, 200, 60), "lab": (60, 60, 200)}
KINDS = (("street", 0, 5), ("shop", 0, 2), ("lab", 1, 3))  # Label and number.
SIZE = 32


def _image(source):
    return np.full((48, 48, 3), COLORS[source], np.uint8)


def channels(crops):
    """Describes crops by the place of their brightest channel, RGB."""
    return {"stages": crops.mean(axis=(1, 2)).argmax(axis=1)[:, None]}


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    rows = {
        split: [
            face(f"{split}{source}{i}", label, source, image=_image(source), group="g")
            for source, label, count in KINDS
            for i in range(count)
        ]
        for split in ("train", "validation")
    }
    return prepare(tmp_path_factory.mktemp("faces"), rows)


def draw(builder, blended):
    counted = []
    found = probe_features.describe_training(
        [builder],
        channels,
        image_size=SIZE,
        num_crops=20,
        blended=blended,
        count=lambda *made: counted.append(made),
    )
    expected = {"lab": 0, "shop": 1, "street": 2}
    assert found.features["stages"][:, 0].tolist() == [
        expected[origin] for origin in found.origins
    ]
    assert {*found.groups} == {"sourced_faces/g"}
    assert {split for split, _ in counted} == {"train"}
    assert sum(number for _, number in counted) == len(found.truths)
    return found


def test_features_of_drawn_crops_stand_beside_their_origins(builder):
    found = draw(builder, False)
    assert len(found.truths) == 32 and not found.blended.any()
    assert np.array_equal(found.truths == labels.FAKE, found.origins == "lab")
    names, counts = np.unique(found.origins, return_counts=True)
    assert (names.tolist(), counts.tolist()) == (["lab", "shop", "street"], [16, 8, 8])


def test_blended_fakes_have_the_origin_of_their_real(builder):
    found = draw(builder, True)
    assert len(found.truths) == 32 and found.blended.all()  # Of two batches.
    assert np.all(found.truths == labels.FAKE)
    assert {*found.origins} == {"shop", "street"}


def test_a_split_is_described_in_order(builder):
    found = probe_features.describe_split(
        [builder], "validation", channels, image_size=SIZE, most_crops=2
    )
    names, counts = np.unique(found.origins, return_counts=True)
    assert (names.tolist(), counts.tolist()) == (["lab", "shop", "street"], [2, 2, 2])
    assert np.array_equal(found.truths == labels.FAKE, found.origins == "lab")
    assert found.features["stages"][found.origins == "lab"].tolist() == [[0], [0]]
    assert not found.blended.any()
    assert probe_features.choose_some(builder, "validation", 0).all()


def test_networks_and_statistics_describe_a_crop():
    crops = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3))
    crops = crops.astype(np.float32)
    model = classifier.build("mesonet4", SIZE)
    describe = probe_features.build_describe(probe_features.FEATURES, model)
    found = describe(crops)
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(
        probe_features.FEATURES, 2
    )
    assert all(values.dtype == np.float32 for values in found.values())
    assert found["spectrum"].shape == (2, 3 * 64)
    embedded = classifier.build_embedding_model(model)(crops)
    assert found["stages"] == pytest.approx(np.array(embedded), abs=1e-5)
    assert found["residual_stages"].shape == found["stages"].shape
    assert np.abs(found["residual_stages"] - found["stages"]).max() > 1e-3
