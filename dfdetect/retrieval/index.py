"""A collection of embedded images, and the search in it."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from dfdetect.retrieval import searchers

UNKNOWN = -1  # The label of an image that nobody has labelled; else see `labels`.

# Below, comparing with all rows is as fast as looking for the right ones: as ScaNN's
# authors advise, and as train/benchmark_retrieval.py measures.
BRUTE_FORCE_BELOW = 20_000


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known of one embedded image, or of one head in it.

    Attributes:
        id: Its name; no two entries of an index share one.
        label: See `labels`, or `UNKNOWN`.
        source: Where the image is, for a person: a path, or a record of a data set.
        group: What it belongs to, such as a video.
        digest: SHA-256 of the bytes of the image, in hexadecimal.
        box: Of the head, in the format of `boxes`; empty where the whole is embedded.
        thumbnail: A small JPEG, or b"".
    """

    id: str
    label: int = UNKNOWN
    source: str = ""
    group: str = ""
    digest: str = ""
    box: tuple[float, ...] = ()
    thumbnail: bytes = dataclasses.field(default=b"", repr=False)


@dataclasses.dataclass(frozen=True)
class Neighbour:
    """An entry that was found.

    Attributes:
        entry: The entry.
        value: Its cosine similarity to the query, or its Euclidean distance.
    """

    entry: Entry
    value: float


@dataclasses.dataclass(frozen=True)
class _State:
    """What belongs together; replaced as a whole, never changed."""

    searcher: searchers.Searcher | None  # None: it is empty.
    rows: np.ndarray
    entries: tuple[Entry, ...]


class Index:
    """Embeddings of known images, and what is known of them.

    Searching, adding and removing may go on at once, from any threads: a search is
    answered from what the last finished change has left.

    Args:
        embeddings: `[N, D]`, of any length for "euclidean"; for "cosine" none may be 0.
        entries: What is known of each, or their ids alone.
        metric: One of `searchers.METRICS`.
        searcher: "brute_force", "scann", or "auto": by the number of rows, see
            `BRUTE_FORCE_BELOW`, and "brute_force" where ScaNN is missing.
        target_recall: To tune ScaNN to, see `searchers.tuned`; by default it has
            settings by the number of rows.
        embedding: What made the embeddings, see `storage`; kept with them.
        say: Told what the user should know.

    Raises:
        ImportError: "scann" is wanted and is missing.
        ValueError: The arguments do not fit together.
    """

    def __init__(
        self,
        embeddings: np.ndarray,
        entries: Sequence[Entry | str],
        metric: str = "cosine",
        searcher: str = "auto",
        target_recall: float | None = None,
        embedding: dict[str, Any] | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        if metric not in searchers.METRICS:
            raise ValueError(
                f"metric must be one of {searchers.METRICS}, got {metric!r}."
            )
        if searcher not in ("auto", "brute_force", "scann"):
            raise ValueError(
                f"searcher must be 'auto', 'brute_force' or 'scann', got {searcher!r}."
            )
        self.metric = metric
        self.embedding = embedding or {}
        self._kind = searcher
        self._target_recall = target_recall
        self._say = say
        rows = _rows(embeddings, metric)
        known = _entries(entries, len(rows))
        self._changes = concurrent.futures.ThreadPoolExecutor(1, "index")
        self._state = _State(self._searcher(rows), rows, known)

    @classmethod
    def restored(
        cls,
        searcher: searchers.Searcher,
        entries: Sequence[Entry],
        embedding: dict[str, Any],
        kind: str,
    ) -> "Index":
        """An index as `storage` has saved it, without building it anew.

        Args:
            searcher: With the rows.
            entries: As of the constructor, and the rest too.
            embedding: As of the constructor.
            kind: The constructor's `searcher`.
        """
        index = cls(searcher.rows[:0], (), searcher.metric, kind, embedding=embedding)
        index._state = _State(searcher, searcher.rows, tuple(entries))
        return index

    def __len__(self) -> int:
        return len(self._state.entries)

    @property
    def dimension(self) -> int:
        """D, the numbers of an embedding."""
        return self._state.rows.shape[1]

    @property
    def kind(self) -> str:
        """The searcher that was asked for."""
        return self._kind

    def snapshot(self) -> tuple[searchers.Searcher | None, tuple[Entry, ...]]:
        """The searcher, None of an empty index, and the entries of its rows."""
        state = self._state
        return state.searcher, state.entries

    def search(
        self,
        queries: np.ndarray,
        k: int,
        leave_out: Sequence[Callable[[Entry], bool]] | None = None,
    ) -> list[list[Neighbour]]:
        """The nearest entries of each query, nearest first.

        Args:
            queries: `[Q, D]`; of "cosine" of any length, a zero is like nothing.
            k: How many are wanted, from 1; of a smaller index all are given.
            leave_out: For each query what tells the entries that do not count for it.

        Raises:
            ValueError: They are of another dimension, or not finite.
        """
        state = self._state
        queries = self._queries(queries)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}.")
        if state.searcher is None:
            return [[] for _ in queries]
        if leave_out is None:
            return self._found(state, queries, min(k, len(state.entries)))
        found: list[list[Neighbour]] = [[] for _ in queries]
        pending, wanted = list(range(len(queries))), k
        while pending:
            # So many more until enough are left; of most queries the first time.
            wanted = min(max(2 * wanted, k + 8), len(state.entries))
            batch = self._found(state, queries[pending], wanted)
            for query, neighbours in zip(pending, batch, strict=True):
                found[query] = [x for x in neighbours if not leave_out[query](x.entry)][
                    :k
                ]
            if wanted == len(state.entries):
                break
            pending = [query for query in pending if len(found[query]) < k]
        return found

    def add(
        self, embeddings: np.ndarray, entries: Sequence[Entry | str]
    ) -> concurrent.futures.Future:
        """Adds entries: rebuilds in the background and then takes the new one's place.

        Returns:
            What is done once searches find them; a mistake found on the way is its
            exception, and leaves the index as it was.

        Raises:
            ValueError: The embeddings are of another dimension, or do not fit.
        """
        rows = _rows(embeddings, self.metric)
        if rows.shape[1] != self.dimension:
            raise ValueError(
                f"embeddings must be [N, {self.dimension}], got {list(rows.shape)}."
            )
        known = _entries(entries, len(rows))

        def joined(state: _State) -> tuple[np.ndarray, tuple[Entry, ...]]:
            everything = _entries((*state.entries, *known), len(state.rows) + len(rows))
            return np.concatenate([state.rows, rows]), everything

        return self._changes.submit(self._change, joined)

    def remove(self, ids: Iterable[str]) -> concurrent.futures.Future:
        """Removes entries as `add` adds them; of a stranger a KeyError comes of it.

        Args:
            ids: Of entries.
        """
        gone = set(ids)

        def left(state: _State) -> tuple[np.ndarray, tuple[Entry, ...]]:
            strangers = gone - {entry.id for entry in state.entries}
            if strangers:
                raise KeyError(f"no entry {min(strangers)!r} in the index")
            keep = [i for i, entry in enumerate(state.entries) if entry.id not in gone]
            return state.rows[keep], tuple(state.entries[i] for i in keep)

        return self._changes.submit(self._change, left)

    def _change(
        self, make: Callable[[_State], tuple[np.ndarray, tuple[Entry, ...]]]
    ) -> None:
        rows, entries = make(self._state)
        self._state = _State(self._searcher(rows), rows, entries)

    def _searcher(self, rows: np.ndarray) -> searchers.Searcher | None:
        if not len(rows):
            return None
        kind = self._kind
        if kind == "auto":
            kind = "brute_force" if len(rows) < BRUTE_FORCE_BELOW else "scann"
            try:
                if kind == "scann":
                    searchers.import_scann()
            except ImportError as error:
                self._say(f"{error}; comparing with all {len(rows):,} rows instead")
                kind = "brute_force"
        if kind == "brute_force":
            return searchers.BruteForce(rows, self.metric)
        found = searchers.ScaNN(rows, self.metric)
        if self._target_recall is None:
            return found
        return searchers.tuned(found, self._target_recall)

    def _queries(self, queries: np.ndarray) -> np.ndarray:
        queries = np.asarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise ValueError(
                f"queries must be [Q, {self.dimension}], got {list(queries.shape)}."
            )
        if not np.isfinite(queries).all():
            raise ValueError("queries must be finite, got NaN or infinity.")
        return _unit(queries) if self.metric == "cosine" else queries

    def _found(
        self, state: _State, queries: np.ndarray, k: int
    ) -> list[list[Neighbour]]:
        assert state.searcher is not None
        positions, values = state.searcher.search(queries, k)
        return [
            [
                Neighbour(state.entries[position], float(value))
                for position, value in zip(*row, strict=True)
            ]
            for row in zip(positions, values, strict=True)
        ]


def _rows(embeddings: np.ndarray, metric: str) -> np.ndarray:
    rows = np.ascontiguousarray(embeddings, np.float32)
    if rows.ndim != 2:
        raise ValueError(f"embeddings must be [N, D], got {list(rows.shape)}.")
    if not np.isfinite(rows).all():
        raise ValueError("embeddings must be finite, got NaN or infinity.")
    if metric == "euclidean":
        return rows
    if not rows.any(axis=1).all():
        raise ValueError("embeddings must not be zero where the metric is cosine.")
    return _unit(rows)


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    # What is of unit length already stays the same to the last digit.
    lengths[(np.abs(lengths - 1) < 1e-6) | (lengths == 0)] = 1
    return rows / lengths


def _entries(entries: Sequence[Entry | str], count: int) -> tuple[Entry, ...]:
    known = tuple(Entry(x) if isinstance(x, str) else x for x in entries)
    if len(known) != count:
        raise ValueError(
            f"entries must be as many as embeddings, {count}, got {len(known)}."
        )
    seen: set[str] = set()
    for entry in known:
        if entry.id in seen:
            raise ValueError(f"ids must differ, got {entry.id!r} twice.")
        seen.add(entry.id)
    return known
