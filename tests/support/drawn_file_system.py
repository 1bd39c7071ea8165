"""A file system of Beam, `drawn://`, whose files lie in a folder of this machine."""

import os
import pathlib

from apache_beam.io import filesystem, localfilesystem

ROOT: list[pathlib.Path] = []  # The folder; set by the test.
SCHEME = "drawn://"


def _local(url):
    assert url.startswith(SCHEME)
    return str(ROOT[0] / url.removeprefix(SCHEME))


class DrawnFileSystem(localfilesystem.LocalFileSystem):
    """Stands for a store of objects: there are no folders, only names with slashes."""

    failures = 0  # So many calls of `open` fail, as over a bad network.

    @classmethod
    def scheme(cls):
        return "drawn"

    def has_dirs(self):
        return False

    def split(self, path):
        return os.path.split(path)

    def _list(self, dir_or_prefix):
        for path in sorted(ROOT[0].rglob("*")):
            url = f"{SCHEME}{path.relative_to(ROOT[0])}"
            if path.is_file() and url.startswith(dir_or_prefix):
                yield filesystem.FileMetadata(url, path.stat().st_size)

    def create(self, path, mime_type="", compression_type=""):
        os.makedirs(os.path.dirname(_local(path)), exist_ok=True)
        return open(_local(path), "wb")

    def open(self, path, mime_type="", compression_type=""):
        if DrawnFileSystem.failures:
            DrawnFileSystem.failures -= 1
            raise filesystem.BeamIOError("the network is down")
        return open(_local(path), "rb")

    def rename(self, source_file_names, destination_file_names):
        pairs = zip(source_file_names, destination_file_names, strict=True)
        for source, destination in pairs:
            os.rename(_local(source), _local(destination))

    def delete(self, paths):
        for path in paths:
            os.remove(_local(path))

    def exists(self, path):
        return os.path.isfile(_local(path))

    def size(self, path):
        return os.path.getsize(_local(path))

    def metadata(self, path):
        return filesystem.FileMetadata(path, self.size(path))

    def last_updated(self, path):
        return os.path.getmtime(_local(path))
