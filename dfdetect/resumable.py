"""Output folders and append-only journals that let an interrupted run resume.

A journal has one line of JSON per completed step, written after the files of the step,
so that a resumed run repeats at most one step. At the end, tables are made from the
journal, a summary is written, which marks the folder as complete, and the journal is
deleted.
"""

import contextlib
import csv
import fcntl
import json
import os
from collections.abc import Iterator
from typing import IO, Any

from dfdetect import files

_JOURNAL = ".unfinished.jsonl"
_TEMPORARY = ".unfinished.tmp"
_BEGINNING = b'{"settings": '


class Output:
    """An output folder, open for one run; a context manager.

    Args:
        folder: A folder that is new, empty, or left by a run with the same settings.
        summary: Name of the JSON file in it that is written last.
        settings: Everything that determines the content, as JSON; kept in the summary.

    Attributes:
        finished: Whether an earlier run has completed the folder.

    Raises:
        FileExistsError: The folder has other files, or output of other settings.
        BlockingIOError: Another run is using it.
        OSError: The folder cannot be created.
    """

    def __init__(self, folder: str, summary: str, settings: dict[str, Any]) -> None:
        self.folder = folder
        self._summary = os.path.join(folder, summary)
        self._settings = json.loads(json.dumps(settings))  # As they are read back.
        self._journal: Journal | None = None
        self.finished = os.path.exists(self._summary)
        if self.finished:
            with open(self._summary, encoding="utf-8") as file:
                check_settings(folder, json.load(file), self._settings)
            # An earlier run may have been killed before it deleted the journal.
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(folder, _JOURNAL))
            return
        os.makedirs(folder, exist_ok=True)
        others = set(os.listdir(folder)) - {_JOURNAL, _TEMPORARY}
        if others and not os.path.exists(os.path.join(folder, _JOURNAL)):
            raise FileExistsError(f"{folder} holds other files; name a new folder.")
        path = os.path.join(folder, _JOURNAL)
        try:
            # Steps are counted in their order.
            self._journal = Journal(path, self._settings, cuts_at_damage=True)
        except BlockingIOError as error:
            raise BlockingIOError(f"Another run is using {folder}.") from error

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._journal:
            self._journal.close()

    def steps(self) -> Iterator[Any]:
        """Yields the steps appended by this run and earlier ones."""
        assert self._journal is not None
        return self._journal.steps()

    def append(self, step: Any) -> None:
        """Appends a completed step to the journal."""
        assert self._journal is not None
        self._journal.append(step)

    def write(self, path: str, content: bytes) -> None:
        """Writes a file atomically; `path` is relative to the folder.

        Raises:
            OSError: The file cannot be written.
        """
        path = os.path.join(self.folder, path)
        # The same name in each run, so that a later run overwrites it.
        aside = os.path.join(self.folder, _TEMPORARY)
        with files.name_errors(path), open(aside, "wb") as file:
            file.write(content)
        try:
            os.replace(aside, path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.replace(aside, path)

    @contextlib.contextmanager
    def text(self, path: str) -> Iterator[IO[str]]:
        """Opens a text file for writing, which is renamed to `path` when complete."""
        aside = os.path.join(self.folder, _TEMPORARY)
        path = os.path.join(self.folder, path)
        with (
            files.name_errors(path),
            open(aside, "w", encoding="utf-8", newline="") as file,
        ):
            yield file
        os.replace(aside, path)

    def finish(self, results: dict[str, Any]) -> None:
        """Writes the summary, of settings and `results`, and deletes the journal."""
        summary = {"settings": self._settings, **results}
        text = json.dumps(summary, indent=2, ensure_ascii=False)
        self.write(os.path.basename(self._summary), f"{text}\n".encode())
        os.remove(os.path.join(self.folder, _JOURNAL))
        self.finished = True


def make_csv_writer(file: IO[str]) -> Any:
    """Returns a CSV writer that preserves any text, including line breaks."""
    # "\n" and "\r" in a text are quoted only if both are in the line terminator.
    return csv.writer(file, lineterminator="\r\n")


class Journal:
    """An append-only JSON Lines file that lets an interrupted run resume.

    A context manager. The first line has the settings. An incomplete last line, left by
    an interrupted run, is removed. Lines may be taken out of it between two runs, and
    empty ones are passed over.

    Args:
        path: Path of the file, which need not exist.
        settings: Everything that determines the content, as JSON.
        cuts_at_damage: Whether a damaged line is removed with all that follow, so that
            their steps are repeated; else the file is refused.

    Raises:
        FileExistsError: The file has other settings, is not a journal, or has a line
            that is damaged.
        BlockingIOError: Another run is using it.
        OSError: The file cannot be created.
    """

    def __init__(
        self, path: str, settings: dict[str, Any], cuts_at_damage: bool = False
    ) -> None:
        self._path = path
        # Unbuffered, because closing would write the buffer of a failed write again.
        self._file = open(path, "a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            end = 0
            for number, line in enumerate(self._lines()):
                if number == 0 and not line.startswith(_BEGINNING[: len(line)]):
                    # Not a journal, so it must not be truncated.
                    raise FileExistsError(
                        f"{path} is not an output of this command that can be resumed "
                        "(was it made with > ?); name a new file."
                    )
                if not line.endswith(b"\n"):
                    break
                try:
                    content = json.loads(line) if line.strip() else {}
                except ValueError as error:
                    if cuts_at_damage:
                        break
                    raise FileExistsError(
                        f"{path}, line {number + 1}: not JSON; take the line out, or "
                        "name a new file."
                    ) from error
                if number == 0:
                    check_settings(path, content, json.loads(json.dumps(settings)))
                end += len(line)
            self._file.truncate(end)
            if end == 0:
                self.append({"settings": settings})
        except BlockingIOError as error:
            self.close()
            raise BlockingIOError(f"Another run is using {path}.") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _lines(self) -> Iterator[bytes]:
        with open(self._path, "rb") as file:
            yield from file

    def steps(self) -> Iterator[Any]:
        """Yields the steps appended by this run and earlier ones."""
        for _, step in self.places():
            yield step

    def places(self) -> Iterator[tuple[int, Any]]:
        """Yields steps like `steps`, each with the place that `read` takes."""
        with open(self._path, "rb") as file:
            place = len(next(file))
            for line in file:
                if line.strip():
                    yield place, json.loads(line)
                place += len(line)

    def read(self, place: int) -> Any:
        """Returns the step at a place."""
        with open(self._path, "rb") as file:
            file.seek(place)
            return json.loads(file.readline())

    def append(self, step: Any) -> None:
        """Appends a completed step.

        Raises:
            OSError: The file cannot be written.
        """
        with files.name_errors(self._path):
            files.write_all(self._file, _line(step))

    def close(self) -> None:
        """Closes the file, so that another run can use it."""
        self._file.close()


def check_settings(where: str, found: dict[str, Any], settings: dict[str, Any]) -> None:
    """Checks that earlier output has the same settings.

    Args:
        where: Path of the output, for the error message.
        found: First line or summary of the output, with its "settings".
        settings: Settings of this run.

    Raises:
        FileExistsError: The settings differ.
    """
    theirs = found.get("settings", {})
    differences = [
        f"{name} (there {theirs.get(name)}, here {settings.get(name)})"
        if not isinstance(theirs.get(name), dict)
        else name
        for name in {**theirs, **settings}
        if theirs.get(name) != settings.get(name)
    ]
    if differences:
        raise FileExistsError(
            f"{where} was made with other settings: "
            f"{', '.join(differences)}; name a new one."
        )


def _line(content: Any) -> bytes:
    line = json.dumps(content, ensure_ascii=False)
    try:
        return line.encode() + b"\n"
    except UnicodeEncodeError:  # A file name that is not UTF-8.
        return json.dumps(content).encode() + b"\n"
