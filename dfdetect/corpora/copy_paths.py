"""Which files of a corpus get copies, and where these are; imports no TensorFlow."""

import hashlib
import json
import os
from collections.abc import Mapping

from dfdetect.corpora import file_access, shards
from dfdetect.metrics import calibration
from dfdetect.pipeline import result_lines

_STEM_CHARACTERS = 80  # Of a file's name that its copies keep.


def find_missing(
    shard: shards.Shard, lines: Mapping[str, str], folder: str, *, write_all: bool
) -> set[str]:
    """Finds the files of a shard whose copies are wanted and were not written.

    Args:
        shard: The shard.
        lines: Its result lines as JSON, by their paths.
        folder: See `copies.CopyWriter`.
        write_all: Likewise.

    Returns:
        Their paths.
    """
    there = set(file_access.list_prefix(f"{folder}/{shard.number:05d}/"))
    missing = set()
    for path, line in lines.items():
        result = json.loads(line)
        if not is_wanted(result, write_all):
            continue
        suffix = ".mp4" if result["kind"] == "video" else ".png"
        if name_stem(folder, shard, path) + suffix not in there:
            missing.add(path)
    return missing


def is_wanted(result: result_lines.ResultLine, write_all: bool) -> bool:
    """Whether a file gets a copy; see `copies.CopyWriter`."""
    is_suspicious = result["verdict"] in ("fake", calibration.UNCERTAIN)
    return is_suspicious or (write_all and bool(result["heads"]))


def name_stem(folder: str, shard: shards.Shard, path: str) -> str:
    """Names the copies of a file, without what follows.

    Args:
        folder: Folder of all copies.
        shard: The shard of the file.
        path: Path of the file.
    """
    return f"{folder}/{shard.number:05d}/{_name(path)}"


def _name(path: str) -> str:
    """Names the copies of a file: its own name, shortened, and a digest of its path."""
    key = file_access.identify(path)
    digest = hashlib.sha256(os.fsencode(key)).hexdigest()[:12]
    stem = os.path.splitext(os.path.basename(path))[0]
    printable = "".join(x if x.isprintable() and x != "/" else "_" for x in stem)
    readable = printable.encode(errors="replace").decode()[:_STEM_CHARACTERS]
    while len(readable.encode()) > 2 * _STEM_CHARACTERS:
        readable = readable[:-1]
    return f"{readable}-{digest}"
