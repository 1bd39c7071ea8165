"""Shards of a corpus: which files each has, and the files of their results.

The shard `prefix-00003-of-00100.jsonl` holds a result line for each of its files, in
the order of their paths. It is written when all of them have been judged, so that an
interrupted run leaves whole shards only, and a file's shard follows from its path.
"""

import dataclasses
import io
import json
import math
import re
from collections.abc import Iterable
from typing import Any

from dfdetect.corpora import file_access
from dfdetect.media import source_files

_NAME = re.compile(r"-(\d{5,})-of-(\d{5,})\.(jsonl|npz)")

# By default there are so many shards at least, as long as each has so many batches.
# Batches do not cross shards, and the last one of a shard is seldom full.
_SHARDS, _BATCHES_IN_SHARD = 32, 8


@dataclasses.dataclass(frozen=True)
class Shard:
    """Files of a corpus that are judged, written and tried again together.

    Attributes:
        number: Number of the shard from 0 on.
        total: Number of all shards.
        files: Its files, in the order of their paths.
    """

    number: int
    total: int
    files: tuple[source_files.FoundFile, ...]

    def name(self, prefix: str, suffix: str) -> str:
        """Names a file of the shard, such as "prefix-00003-of-00100.jsonl"."""
        return f"{prefix}-{self.number:05d}-of-{self.total:05d}{suffix}"


@dataclasses.dataclass(frozen=True)
class Division:
    """How many shards a corpus is divided into.

    By default each of the processes has as many shards, and shards have several full
    batches where there are files enough. A clip has its own batches of frames, so that
    it counts as a batch.

    Attributes:
        batch_size: Images of a shard that are worked on at once.
        most: By default a shard has so many images at most, which a failure repeats.
        files_per_shard: About how many files a shard has; None to choose it.
        total: Number of shards, as an earlier run has it; None to choose it.
        num_processes: Processes that share the shards; 1 where the runner decides.
    """

    batch_size: int
    most: int
    files_per_shard: int | None = None
    total: int | None = None
    num_processes: int = 1

    def weigh(self, found: source_files.FoundFile) -> int:
        """Returns the weight of a file, of which `choose_total` takes the sum."""
        is_clip = found.path.lower().endswith(source_files.CLIP_SUFFIXES)
        return self.batch_size if is_clip and self.files_per_shard is None else 1

    def choose_total(self, weight: int) -> int:
        """Chooses the number of shards.

        Args:
            weight: Of all files, each as often as it is named.
        """
        if self.total is not None:
            return self.total
        if self.files_per_shard is not None:
            return max(1, math.ceil(weight / self.files_per_shard))
        size = max(weight / _SHARDS, _BATCHES_IN_SHARD * self.batch_size)
        total = math.ceil(weight / min(size, self.most))
        total = math.ceil(total / self.num_processes) * self.num_processes
        return max(1, min(total, weight // self.batch_size))


def build_shard(
    number: int, total: int, found: Iterable[source_files.FoundFile]
) -> Shard:
    """Builds a shard from its files, in any order and maybe named more than once."""
    by_path: dict[str, source_files.FoundFile] = {}
    for one in sorted(found, key=lambda one: (not one.is_named, one.path)):
        by_path.setdefault(file_access.identify(one.path), one)
    ordered = sorted(by_path.values(), key=lambda one: one.path)
    return Shard(number, total, tuple(ordered))


def name_copies(prefix: str) -> str:
    """Names the folder of the copies of a run."""
    return f"{prefix}-copies"


def list_finished(prefix: str) -> dict[str, int]:
    """Lists the files of the shards that are finished, and of how many each is one.

    Not those of other runs, whose prefixes begin alike.
    """
    beginning = len(prefix.rsplit("/", 1)[-1])
    found = {}
    for path in file_access.list_prefix(prefix):
        match = _NAME.fullmatch(path.rsplit("/", 1)[-1][beginning:])
        if match:
            found[path] = int(match[2])
    return found


def find_total(prefix: str) -> int | None:
    """Finds into how many shards an earlier run has divided; None without a shard.

    Raises:
        FileExistsError: There are shards of runs that divided differently.
    """
    totals = set(list_finished(prefix).values())
    if len(totals) > 1:
        raise FileExistsError(
            f"{prefix} has shards of different runs, of {min(totals)} and "
            f"{max(totals)}; name a new one."
        )
    return totals.pop() if totals else None


def read_lines(path: str) -> dict[str, str]:
    """Reads a shard: result lines as JSON, by their paths."""
    # Of any size: lines of clips have all frames.
    content = file_access.look_into(path, lambda file: file.read()).decode()
    # Not `splitlines`: a line of JSON may hold other line ends than "\n".
    lines = content.removesuffix("\n").split("\n") if content else []
    return {json.loads(line)["path"]: line for line in lines}


def encode_lines(lines: dict[str, str]) -> bytes:
    """Encodes result lines, in the order of their paths."""
    return "".join(f"{lines[path]}\n" for path in sorted(lines)).encode()


def encode_parquet(lines: dict[str, str]) -> bytes:
    """Encodes result lines as a Parquet file with heads and tracks as nested lists.

    Frames of clips are left out: the JSON Lines have them. Paths that are not UTF-8
    are written with "\\udc80" and the like for the bytes that are not.

    Raises:
        ImportError: pyarrow, which comes with Apache Beam, is missing.
    """
    import pyarrow
    from pyarrow import parquet

    schema = _build_schema(pyarrow)
    rows = [_clean(json.loads(lines[path])) for path in sorted(lines)]
    table = pyarrow.Table.from_pylist(rows, schema)
    stream = io.BytesIO()
    parquet.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def _build_schema(pyarrow: Any) -> Any:
    text, real, whole = pyarrow.string(), pyarrow.float64(), pyarrow.int64()
    head = {
        "box": pyarrow.list_(real),
        "score": real,
        "fake_probability": real,
        "track": whole,
        "time": real,
    }
    track = {
        "track": whole,
        "first_time": real,
        "last_time": real,
        "num_heads": whole,
        "size": real,
        "score": real,
        "fake_probability": real,
        "verdict": text,
        "matters": pyarrow.bool_(),
        "set_aside": pyarrow.list_(text),
    }
    columns = {
        "path": text,
        "kind": text,
        "status": text,
        "width": whole,
        "height": whole,
        "fake_probability": real,
        "verdict": text,
        "warning": text,
        "heads": pyarrow.list_(pyarrow.struct(head)),
        "duration": real,
        "deciding_track": whole,
        "tracks": pyarrow.list_(pyarrow.struct(track)),
    }
    return pyarrow.schema(columns)


def _clean(line: dict[str, Any]) -> dict[str, Any]:
    path = line["path"].encode(errors="backslashreplace").decode()
    return {**line, "path": path}
