"""`labels.csv`: which file is real or fake, its split and group, as people write it.

The table may be UTF-8, UTF-16, UTF-32 or in a Western code page, its separator a comma,
a semicolon or a tab, also as Excel's first line `sep=;` names it; blank lines, blanks
around fields and the case of words do not matter.
"""

import csv
import dataclasses
import io
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dfdetect import labels

FILE_NAME = "labels.csv"

COLUMNS = ("path", "label", "split", "group")

_LABELS = {
    "real": labels.REAL,
    "fake": labels.FAKE,
    # As pandas writes whole numbers of a column with gaps.
    **dict.fromkeys(("0", "0.0"), labels.REAL),
    **dict.fromkeys(("1", "1.0"), labels.FAKE),
}
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
}
_SEPARATORS = ",;\t"
_MOST_SHOWN = 80  # Characters of a header that a message shows.


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        where: File and line, for messages.
        path: Path of the file from the folder of the table, with slashes.
        label: See `dfdetect.labels`.
        split: "train", "validation", "test", or "" where none is named.
        group: "" where none is named.
        further: Fields of the further columns that were asked for, by name.
    """

    where: str
    path: str
    label: int
    split: str
    group: str
    further: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read_table(
    content: bytes,
    where: str,
    *,
    exists: Callable[[str], bool],
    needed: Sequence[str] = ("path", "label"),
    say: Callable[[str], None] = print,
    further: Sequence[str] = (),
) -> list[Row]:
    """Reads and checks a table.

    Args:
        content: Bytes of the file.
        where: Its path, for messages.
        exists: Whether there is a file of a path.
        needed: Columns of `COLUMNS` that must be there.
        say: Called with a line on columns that are ignored, and on a code page that is
            only guessed.
        further: Columns besides `COLUMNS` that are kept where present.

    Returns:
        The rows, of which no two have one path.

    Raises:
        ValueError: A row or the header is wrong, or there is no row; file and line.
    """
    text = decode_text(content, where, say)
    first, separator = _find_header(text)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True
    )
    for _ in range(first):
        next(reader)
    columns = [name.strip().casefold() for name in next(reader, [])]
    _check_columns(f"{where}:{first + 1}", columns, needed)
    ignored = [name for name in columns if name not in (*COLUMNS, *further)]
    if ignored:
        say(f"{where}: the columns {', '.join(map(repr, ignored))} are ignored")
    rows = []
    line_of: dict[str, int] = {}
    for values in iterate_rows(reader, where):
        if not any(value.strip() for value in values):
            continue
        place = f"{where}:{reader.line_num}"
        if len(values) != len(columns):
            raise ValueError(
                f"{place}: the number of fields differs from the header's, "
                f"{len(values)} for {len(columns)}."
            )
        fields = dict(zip(columns, map(str.strip, values), strict=True))
        row = _row(place, fields, exists, further)
        if row.path in line_of:
            raise ValueError(
                f"{place}: {row.path!r} stands in line {line_of[row.path]} already."
            )
        line_of[row.path] = reader.line_num
        rows.append(row)
    if not rows:
        raise ValueError(f"{where}: no files listed.")
    return rows


def iterate_rows(reader: Any, where: str) -> Iterator[Any]:
    """Yields the rows of a reader of the module `csv`.

    Args:
        reader: A `csv.reader` or `csv.DictReader`.
        where: Path of the file, for messages.

    Raises:
        ValueError: A row cannot be read, as after a quote that is never closed.
    """
    line = reader.line_num
    try:
        for row in reader:
            yield row
            line = reader.line_num
    except csv.Error as error:
        raise ValueError(
            f"{where}:{line + 1}: this row must be readable, got {error}: is a quote "
            "left open?"
        ) from error


def parse_split(name: str) -> str | None:
    """Parses a word for a split; None if it is not one."""
    return _SPLITS.get(name.casefold())


def parse_label(text: str) -> int | None:
    """Parses a word for a label; None if it is not one."""
    return _LABELS.get(text.strip().casefold())


def _find_header(text: str) -> tuple[int, str]:
    """Finds how many lines stand before the header, and the separator."""
    lines = io.StringIO(text)
    for index, line in enumerate(lines):
        named = line.strip().casefold().removeprefix("sep=")
        if len(named) == 1 and named != line.strip().casefold():
            return index + 1, named
        if line.strip():
            return index, max(_SEPARATORS, key=line.count)
    return 0, ","


def decode_text(content: bytes, where: str, say: Callable[[str], None]) -> str:
    """Decodes a table or list, by its byte order mark or by what its bytes are.

    Args:
        content: Bytes of the file.
        where: Its path, for messages.
        say: Called with a line on a code page that is only guessed.

    Raises:
        ValueError: The file is binary or damaged; file, and line if it is known.
    """
    if content[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return _checked(content, "utf-32", where)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return _checked(content, "utf-16", where)
    # Without a mark: every other byte of Western text is zero.
    for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(content) > 3 and not any(content[start:200:2]):
            return _checked(content, encoding, where)
    if b"\0" in content:
        raise ValueError(f"{where}: must be a table of text, got a binary file.")
    try:
        # Spreadsheets put a byte order mark before the first column's name.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        say(
            f"{where}:{line} is not UTF-8: the file is read as Windows-1252 "
            "(Latin-1). If names look wrong, save it as UTF-8"
        )
        return content.decode("cp1252", errors="replace")


def _checked(content: bytes, encoding: str, where: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(encoding, errors="ignore")
        line = before.count("\n") + 1
        raise ValueError(
            f"{where}:{line}: damaged {encoding.upper()} ({error.reason}); save the "
            "table as UTF-8."
        ) from error


def _check_columns(where: str, columns: Sequence[str], needed: Sequence[str]) -> None:
    known = [name for name in columns if name in COLUMNS]
    if not {*needed} <= {*columns} or len({*known}) < len(known):
        further = [name for name in COLUMNS if name not in needed]
        raise ValueError(
            f"{where}: columns must be {','.join(needed)} and may be "
            f"{','.join(further)}, each once, got {_show(columns)}."
        )


def _show(columns: Sequence[str]) -> str:
    text = ",".join(columns) or "none"
    cut = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
    return cut if cut.isprintable() else repr(cut)


def _row(
    where: str,
    fields: dict[str, str],
    exists: Callable[[str], bool],
    further: Sequence[str],
) -> Row:
    path, label = fields["path"], fields["label"]
    split, group = fields.get("split", ""), fields.get("group", "")
    if label.casefold() not in _LABELS:
        raise ValueError(f"{where}: label must be real, fake, 0 or 1, got {label!r}.")
    if split and parse_split(split) is None:
        raise ValueError(
            f"{where}: split must be train, val, validation, test or empty, "
            f"got {split!r}."
        )
    if "\\" in path and not exists(path):
        path = path.replace("\\", "/")  # As Windows writes paths.
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{where}: path must lead into the folder, got {path!r}.")
    # So that no file is there twice, under two names.
    path = posixpath.normpath(path)
    if not exists(path):
        folder = os.path.dirname(where) or os.curdir
        raise ValueError(f"{where}: there is no file {path!r} in {folder}.")
    return Row(
        where,
        path,
        _LABELS[label.casefold()],
        parse_split(split) or "",
        group,
        {name: fields[name] for name in further if name in fields},
    )
