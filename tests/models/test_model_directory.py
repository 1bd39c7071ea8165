"""Models that are packed into one file answer as the folders they were made of."""

import os

import numpy as np
import pytest

from dfdetect import manifest
from dfdetect.models import classifier, model_directory, weights

DESCRIBED = {
    "kind": "classifier",
    "model": "mesonet4",
    "image_size": 32,
    "crop_margin": 1.0,
    "temperature": 1.5,
    "thresholds": {"real_below": 0.3, "fake_from": 0.6},
    "labels": ["real", "fake"],
}


@pytest.fixture
def folder(tmp_path):
    model = classifier.build("mesonet4", 32)
    path = tmp_path / "folder"
    path.mkdir()
    weights.save(model, path)
    manifest.write(path, DESCRIBED)
    return path


def test_a_packed_model_is_the_same(folder, tmp_path):
    packed = str(tmp_path / "model.npz")
    model_directory.pack(str(folder), packed)
    assert sorted(os.listdir(tmp_path)) == ["folder", "model.npz"]
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    expected, described = model_directory.load_classifier(str(folder))
    found, found_described = model_directory.load_classifier(packed)
    assert found_described == described == DESCRIBED
    np.testing.assert_array_equal(found(images), expected(images))
    assert weights.load_snapshot(found, packed).unexpected == ()


def test_the_files_of_a_model_are_listed(folder, tmp_path):
    assert model_directory.list_files(str(folder)) == [
        str(folder / "manifest.json"),
        str(folder / "weights.npz"),
    ]
    packed = str(tmp_path / "model.npz")
    model_directory.pack(str(folder), packed)
    assert model_directory.list_files(packed) == [packed]


def test_what_is_no_packed_model_is_told(folder, tmp_path):
    with pytest.raises(ValueError, match=r"weights.npz must be .* packed: There is no"):
        model_directory.load_classifier(str(folder / "weights.npz"))
    (tmp_path / "text").write_text("no zip")
    with pytest.raises(ValueError, match=r"text must be .* packed: File is not a zip"):
        model_directory.load_classifier(str(tmp_path / "text"))
    packed = tmp_path / "model.npz"
    model_directory.pack(str(folder), str(packed))
    with pytest.raises(ValueError, match="kind 'detector', got 'classifier'"):
        model_directory.load_detector(str(packed))
    packed.write_bytes(packed.read_bytes()[:2000])
    with pytest.raises(ValueError, match="must be a folder with a manifest.json"):
        model_directory.load_classifier(str(packed))


def test_nothing_is_left_where_packing_fails(folder, tmp_path):
    (folder / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="manifest.json"):
        model_directory.pack(str(folder), str(tmp_path / "model.npz"))
    assert os.listdir(tmp_path) == ["folder"]
