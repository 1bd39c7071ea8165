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

_JOURNAL = ".unfinished.jsonl"
_ASIDE = ".unfinished.tmp"


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
        self._journal: IO[bytes] | None = None
        self.finished = os.path.exists(self._summary)
        if self.finished:
            with open(self._summary, encoding="utf-8") as file:
                self._compare(json.load(file))
            # Killed between the two.
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(folder, _JOURNAL))
            return
        os.makedirs(folder, exist_ok=True)
        others = set(os.listdir(folder)) - {_JOURNAL, _ASIDE}
        if others and not os.path.exists(os.path.join(folder, _JOURNAL)):
            raise FileExistsError(f"{folder} holds other files; name a new folder.")
        self._open()

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._journal:
            self._journal.close()

    def steps(self) -> Iterator[Any]:
        """What `append` has noted so far, by this run and those before it."""
        with open(os.path.join(self.folder, _JOURNAL), "rb") as file:
            next(file)
            yield from map(json.loads, file)

    def append(self, step: Any) -> None:
        """Notes that a step is done."""
        assert self._journal is not None
        self._journal.write(_line(step))
        self._journal.flush()

    def write(self, path: str, content: bytes) -> None:
        """Writes a file, aside and then renamed; `path` is relative to the folder."""
        path = os.path.join(self.folder, path)
        # The same name in each run, so that none is left behind.
        aside = os.path.join(self.folder, _ASIDE)
        with open(aside, "wb") as file:
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
        with open(aside, "w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(aside, os.path.join(self.folder, path))

    def finish(self, results: dict[str, Any]) -> None:
        """Writes the summary: the settings, and `results`."""
        summary = {"settings": self._settings, **results}
        text = json.dumps(summary, indent=2, ensure_ascii=False)
        self.write(os.path.basename(self._summary), f"{text}\n".encode())
        os.remove(os.path.join(self.folder, _JOURNAL))
        self.finished = True

    def _open(self) -> None:
        """Opens the journal after its last complete line, or begins it."""
        journal = open(os.path.join(self.folder, _JOURNAL), "a+b")
        self._journal = journal
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            journal.seek(0)
            end = 0
            for number, line in enumerate(journal):
                try:
                    content = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                if number == 0:
                    self._compare(content)
                end += len(line)
            journal.truncate(end)
            if end == 0:
                self.append({"settings": self._settings})
        except BlockingIOError as error:
            journal.close()
            raise BlockingIOError(
                f"Another run is at work in {self.folder}."
            ) from error
        except BaseException:
            journal.close()
            raise

    def _compare(self, found: dict[str, Any]) -> None:
        theirs = found.get("settings", {})
        differences = [
            f"{name} (there {theirs.get(name)}, here {self._settings.get(name)})"
            if not isinstance(theirs.get(name), dict)
            else name
            for name in {**theirs, **self._settings}
            if theirs.get(name) != self._settings.get(name)
        ]
        if differences:
            raise FileExistsError(
                f"{self.folder} was made with other settings: "
                f"{', '.join(differences)}; name a new folder."
            )


def table(file: IO[str]) -> Any:
    """A CSV writer whose rows survive any text, line breaks included."""
    # Its lines end with both characters, as only then are both quoted in a text.
    return csv.writer(file, lineterminator="\r\n")


def _line(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"
