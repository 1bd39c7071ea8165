"""Replacement of a prepared data set by a new one, which leaves one of both whole.

The new set is built in a hidden folder beside the old one, and takes its place when it
is complete. Whatever ends the build before, an error, an interrupt or a kill, the old
set stays as it was and can be read all the time.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import tensorflow_datasets as tfds
from tensorflow_datasets.core import utils

from dfdetect import files

_NEW, _OLD = "new", "old"


@contextlib.contextmanager
def replace(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """Lets the builder prepare its data set aside; at the end replaces the one there.

    Args:
        builder: Of a data set in a local folder. Within the context,
            `download_and_prepare` writes to the hidden folder.

    Raises:
        OSError: The new set cannot take the place of the old one, which is kept.
    """
    path = _path(builder)
    new = _hidden(path, _NEW)
    try:
        with utils.temporary_assignment(builder, "_data_dir", os.fspath(new)):
            yield
        files.replace_folder(*map(os.fspath, (new, path, _hidden(path, _OLD))))
    finally:
        files.remove_folder(os.fspath(new))
    builder.info.update_data_dir(os.fspath(path))


def restore(builder: tfds.core.DatasetBuilder) -> bool:
    """Puts back the old set that a killed replacement has left; removes other remains.

    Returns:
        Whether a set was put back, which `builder` has not read yet.
    """
    path = _path(builder)
    old = _hidden(path, _OLD)
    is_lost = os.path.lexists(old) and not os.path.lexists(path)
    if is_lost:
        old.rename(path)
    for folder in (old, _hidden(path, _NEW)):
        files.remove_folder(os.fspath(folder))
    return is_lost


def _path(builder: tfds.core.DatasetBuilder) -> pathlib.Path:
    return pathlib.Path(os.fspath(builder.data_path))


def _hidden(path: pathlib.Path, kind: str) -> pathlib.Path:
    return path.with_name(f".{path.name}.{kind}")
