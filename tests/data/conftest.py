"""Shared fixtures of files that list labeled images in `IMAGES`."""

import pytest

import labelled_images
from dfdetect.data import prepared as prepared_sets


@pytest.fixture(scope="module")
def data_dir(request, tmp_path_factory):
    """The folder in which the images of the file are prepared."""
    folder = tmp_path_factory.mktemp("prepared")
    labelled_images.prepare(folder, request.module.IMAGES)
    return folder


@pytest.fixture(scope="module")
def builder(data_dir):
    """The builder of these images, as a user opens it."""
    return prepared_sets.open_builder(str(data_dir), "labelled_images")
