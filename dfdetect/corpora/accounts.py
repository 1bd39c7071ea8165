"""What became of the files of a corpus, in numbers that add up over shards."""

import collections
import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from dfdetect.pipeline import result_lines

# The tables of an account; each maps a name to a number.
_TABLES = ("files", "statuses", "verdicts", "kinds", "passed_over", "seconds")


class Account:
    """Counts files, heads, verdicts, and the seconds that stages took.

    Attributes:
        tables: By name, numbers by name:
            `files`: `judged` by this run, `from_earlier` runs, `heads` (of clips,
            tracks), `copies` written and `copies_lost`, which could not be;
            `statuses`, `verdicts` ("none" where there is none) and `kinds` of result
            lines; `passed_over`: files that are neither images nor clips, see
            `file_kinds.name_passed_over`; `seconds`: of processes, by stage.
    """

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, float]] = {
            name: collections.defaultdict(int) for name in _TABLES
        }

    def count_line(
        self, line: Mapping[str, Any] | result_lines.ResultLine, origin: str
    ) -> None:
        """Counts a result line.

        Args:
            line: The line.
            origin: "judged" or "from_earlier".
        """
        heads = line.get("tracks", line["heads"])
        self.tables["files"][origin] += 1
        self.tables["files"]["heads"] += len(heads)
        self.tables["statuses"][line["status"]] += 1
        self.tables["verdicts"][line["verdict"] or "none"] += 1
        self.tables["kinds"][line["kind"]] += 1

    @contextlib.contextmanager
    def timed(self, stage: str, within: str | None = None) -> Iterator[None]:
        """Adds the seconds of a block to a stage.

        Args:
            stage: Name of the stage.
            within: Stage of which another block holds this one, and to which these
                seconds are not added.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.tables["seconds"][stage] += seconds
            if within:
                self.tables["seconds"][within] -= seconds

    def add(self, other: "Account") -> None:
        """Adds another account to this one."""
        for name, table in other.tables.items():
            for key, number in table.items():
                self.tables[name][key] += number

    def to_json(self) -> dict[str, Any]:
        """Returns the tables with sorted names and rounded seconds."""
        tables: dict[str, Any] = {
            name: dict(sorted(table.items())) for name, table in self.tables.items()
        }
        tables["seconds"] = {k: round(v, 3) for k, v in tables["seconds"].items()}
        return tables


def count_earlier(lines: Mapping[str, str]) -> Account:
    """Counts result lines, as JSON by path, of an earlier run."""
    account = Account()
    for line in lines.values():
        account.count_line(json.loads(line), "from_earlier")
    return account
