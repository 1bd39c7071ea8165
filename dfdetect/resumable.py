"""Output folders that a run may leave at any moment and the same run finishes.

What is done is noted in a journal, one line of JSON a step, after the files of the step
are written; a killed run therefore leaves at most files that are written again. At the
end tables are made from the journal, then a summary is written, which says that the
folder is complete, and the journal goes.
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
_ASIDE = ".unfinished.tmp"
_BEGINNING = b'{"settings": '


class Output:
    """A folder, opened for one run; a context manager.

    Args:
        folder: New, empty, or left by a run with the same settings.
        summary: Name of the JSON file in it that is written last.
        settings: What makes the content what it is, as JSON can hold it; kept in the
            summary.

    Attributes:
        finished: Whether an earlier run has completed the folder.

    Raises:
        FileExistsError: The folder holds anything else, or the output of other
            settings.
        BlockingIOError: Another run is at work in it.
        OSError: It cannot be made.
    """

    def __init__(self, folder: str, summary: str, settings: dict[str, Any]) -> None:
        self.folder = folder
        self._summary = os.path.join(folder, summary)
        self._settings = json.loads(json.dumps(settings))  # as they are read back
        self._journal: Journal | None = None
        self.finished = os.path.exists(self._summary)
        if self.finished:
            with open(self._summary, encoding="utf-8") as file:
                compare(folder, json.load(file), self._settings)
            # Killed between the two.
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(folder, _JOURNAL))
            return
        os.makedirs(folder, exist_ok=True)
        others = set(os.listdir(folder)) - {_JOURNAL, _ASIDE}
        if others and not os.path.exists(os.path.join(folder, _JOURNAL)):
            raise FileExistsError(f"{folder} holds other files; name a new folder.")
        path = os.path.join(folder, _JOURNAL)
        try:
            self._journal = Journal(path, self._settings)
        except BlockingIOError as error:
            raise BlockingIOError(f"Another run is at work in {folder}.") from error

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._journal:
            self._journal.close()

    def steps(self) -> Iterator[Any]:
        """What `append` has noted so far, by this run and those before it."""
        assert self._journal is not None
        return self._journal.steps()

    def append(self, step: Any) -> None:
        """Notes that a step is done."""
        assert self._journal is not None
        self._journal.append(step)

    def write(self, path: str, content: bytes) -> None:
        """Writes a file, aside and then renamed; `path` is relative to the folder.

        Raises:
            OSError: It cannot be written, as the disk is full, say.
        """
        path = os.path.join(self.folder, path)
        # The same name in each run, so that none is left behind.
        aside = os.path.join(self.folder, _ASIDE)
        with files.name_errors(path), open(aside, "wb") as file:
            file.write(content)
        try:
            os.replace(aside, path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.replace(aside, path)

    @contextlib.contextmanager
    def text(self, path: str) -> Iterator[IO[str]]:
        """A text file to write line by line, aside and renamed when it is complete."""
        aside = os.path.join(self.folder, _ASIDE)
        path = os.path.join(self.folder, path)
        with (
            files.name_errors(path),
            open(aside, "w", encoding="utf-8", newline="") as file,
        ):
            yield file
        os.replace(aside, path)

    def finish(self, results: dict[str, Any]) -> None:
        """Writes the summary: the settings, and `results`."""
        summary = {"settings": self._settings, **results}
        text = json.dumps(summary, indent=2, ensure_ascii=False)
        self.write(os.path.basename(self._summary), f"{text}\n".encode())
        os.remove(os.path.join(self.folder, _JOURNAL))
        self.finished = True


def table(file: IO[str]) -> Any:
    """A CSV writer whose rows survive any text, line breaks included."""
    # Its lines end with both characters, as only then are both quoted in a text.
    return csv.writer(file, lineterminator="\r\n")


class Journal:
    """A file of JSON lines that is only ever added to; a context manager.

    The first line says what the others were made with. A line that was half written
    when its run ended is taken away.

    Args:
        path: Of the file; may be absent.
        settings: What makes the lines what they are, as JSON can hold it.

    Raises:
        FileExistsError: It was made with other settings, or is no journal.
        BlockingIOError: Another run is at work with it.
        OSError: It cannot be made.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        self._path = path
        # Without a buffer, which would be written once more when it is closed.
        self._file = open(path, "a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            end = 0
            for number, line in enumerate(self._lines()):
                if number == 0 and not line.startswith(_BEGINNING[: len(line)]):
                    # Whatever it is, it is not ours to cut off.
                    raise FileExistsError(f"{path} is no output of this command.")
                try:
                    content = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                if number == 0:
                    compare(path, content, json.loads(json.dumps(settings)))
                end += len(line)
            self._file.truncate(end)
            if end == 0:
                self.append({"settings": settings})
        except BlockingIOError as error:
            self.close()
            raise BlockingIOError(f"Another run is at work in {path}.") from error
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
        """What `append` has noted so far, by this run and those before it."""
        for _, step in self.places():
            yield step

    def places(self) -> Iterator[tuple[int, Any]]:
        """Like `steps`, each behind the place by which `read` finds it again."""
        with open(self._path, "rb") as file:
            place = len(next(file))
            for line in file:
                yield place, json.loads(line)
                place += len(line)

    def read(self, place: int) -> Any:
        """The step at a place."""
        with open(self._path, "rb") as file:
            file.seek(place)
            return json.loads(file.readline())

    def append(self, step: Any) -> None:
        """Notes that a step is done.

        Raises:
            OSError: It cannot be noted, as the disk is full, say.
        """
        with files.name_errors(self._path):
            files.write_all(self._file, _line(step))

    def close(self) -> None:
        """Ends the work with it; another run may begin."""
        self._file.close()


def compare(where: str, found: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuses what was made with other settings.

    Raises:
        FileExistsError: It was.
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
    except UnicodeEncodeError:  # a file name that is no UTF-8
        return json.dumps(content).encode() + b"\n"
