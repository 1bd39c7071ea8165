"""What is done, a line of JSON a step, so that a killed run can be gone on with."""

import fcntl
import json
from collections.abc import Iterator
from typing import Any

from dfdetect import files

_BEGINNING = b'{"settings": '


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
