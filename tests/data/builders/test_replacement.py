"""Whatever ends the building of a set anew, one whole set is there."""

import pathlib
import shutil

import pytest
import tensorflow_datasets as tfds

import labelled_images
from building_support import encoded, records, snapshot
from dfdetect.data.builders import replacement

_OLD = {"train": [("old.png", "real", encoded(".png", 4, 4))]}
_NEW = {"train": [("new.png", "fake", encoded(".png", 4, 4))]}


def _anew(folder, images):
    """A builder of the same set from other images; overwrites as prepare.py does."""
    builder = labelled_images.LabelledImages(images, data_dir=str(folder))
    mode = tfds.download.GenerateMode.REUSE_CACHE_IF_EXISTS
    with replacement.replace(builder):
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(download_mode=mode)
        )
    return builder


@pytest.fixture(name="old")
def _old(tmp_path):
    return labelled_images.prepare(tmp_path, _OLD)


def test_the_new_set_takes_the_place_of_the_old_one(old, tmp_path):
    builder = _anew(tmp_path, _NEW)
    assert builder.data_dir == builder.info.data_dir == old.data_dir
    for found in (builder, tfds.builder("labelled_images", data_dir=tmp_path)):
        assert list(records(found, "train")) == ["new.png"]
    (left,) = old.data_path.parent.iterdir()
    assert left.name == "1.0.0" and not replacement.restore(builder)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_build_that_fails_leaves_the_old_set_as_it_was(old, tmp_path, error):
    def images():
        yield _NEW["train"][0]
        assert list(records(old, "train")) == ["old.png"]  # It stays readable.
        raise error("in the middle")

    path = pathlib.Path(old.data_dir)
    before = snapshot(path)
    with pytest.raises(error):
        _anew(tmp_path, {"train": images()})
    assert snapshot(path) == before and list(path.parent.iterdir()) == [path]


def test_a_set_behind_a_link_is_replaced_as_often_as_wanted(old, tmp_path):
    path, elsewhere = pathlib.Path(old.data_dir), tmp_path / "elsewhere"
    for images in (_NEW, _OLD):
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
        _anew(tmp_path, images)
        assert [x.name for x in path.parent.iterdir()] == ["1.0.0"]
        # What a link leads to is the user's.
        assert elsewhere.is_dir() and not path.is_symlink()
        shutil.rmtree(elsewhere)
    found = tfds.builder("labelled_images", data_dir=tmp_path)
    assert list(records(found, "train")) == ["old.png"]


def test_a_killed_replacement_is_put_right_at_the_next_start(old):
    path = pathlib.Path(old.data_dir)
    before = snapshot(path)
    hidden, new = path.with_name(".1.0.0.old"), path.with_name(".1.0.0.new")
    new.mkdir()
    assert not replacement.restore(old) and not new.exists()  # Before the swap.
    path.rename(hidden)
    new.mkdir()
    assert replacement.restore(old) and snapshot(path) == before  # In the middle.
    hidden.mkdir()
    assert not replacement.restore(old) and snapshot(path) == before  # At the end.
    assert list(path.parent.iterdir()) == [path]


def test_a_set_that_cannot_take_the_place_lets_the_old_one_back(old):
    path = pathlib.Path(old.data_dir)
    before = snapshot(path)
    with pytest.raises(FileNotFoundError), replacement.replace(old):
        pass  # Nothing is built, so there is nothing to rename.
    assert snapshot(path) == before
