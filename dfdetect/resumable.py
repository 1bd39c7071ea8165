"""Output folders that a run may leave at any moment and the same run finishes.

What is done is noted in a journal, one line of JSON a step, after the files of the step
are written; a killed run therefore leaves at most files that are written again. At the
end tables are made from the journal, then a summary is written, which says that the
folder is complete, and the journal goes.
"""

import contextlib
import csv
import json
import os
from collections.abc import Iterator
from typing import IO, Any

from dfdetect import files, journal

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
        self._journal: journal.Journal | None = None
        self.finished = os.path.exists(self._summary)
        if self.finished:
            with open(self._summary, encoding="utf-8") as file:
                journal.compare(folder, json.load(file), self._settings)
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
            self._journal = journal.Journal(path, self._settings)
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
