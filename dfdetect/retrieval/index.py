"""An index of embedded images with nearest-neighbour search."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from dfdetect.retrieval import searchers

UNKNOWN = -1  # Label of an unlabeled image; for others see `labels`.

# Number of rows below which brute force is as fast as ScaNN, according to its authors
# and to train/benchmark_retrieval.py.
BRUTE_FORCE_BELOW = 20_000


@dataclasses.dataclass(frozen=True)
class Entry:
    """Metadata of one embedded image, or of one head in it.

    Attributes:
        id: Name, unique in an index.
        label: Label of `labels`, or `UNKNOWN`.
        source: Path of the image or record of a data set, for display.
        group: Name of its group, such as a video, or "".
        digest: SHA-256 of the bytes of the image, in hexadecimal.
        box: Box of the head in the format of `boxes`; empty if the whole image is
            embedded.
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
    """An entry found by a search.

    Attributes:
        entry: The entry.
        value: Cosine similarity to the query, or Euclidean distance.
    """

    entry: Entry
    value: float


@dataclasses.dataclass(frozen=True)
class _State:
    """Consistent contents of an index; replaced as a whole, never modified."""

    searcher: searchers.Searcher | None  # None if the index is empty.
    rows: np.ndarray
    entries: tuple[Entry, ...]


class Index:
    """Embeddings of known images with their entries, searchable and updatable.

    Thread-safe: searches may run while entries are added and removed, and use the state
    after the last completed change.

    Args:
        embeddings: `[N, D]`; must not be zero if the metric is "cosine".
        entries: An entry for each embedding, or its id alone.
        metric: One of `searchers.METRICS`.
        searcher: "brute_force", "scann", or "auto", which decides by the number of rows
            (see `BRUTE_FORCE_BELOW`) and whether ScaNN is installed.
        target_recall: Recall to tune ScaNN to, see `searchers.tune`; by default its
            settings depend on the number of rows.
        embedding: Description of the embedding model, see `storage`; kept as it is.
        say: Called with messages for the user.

    Raises:
        ImportError: "scann" is wanted and not installed.
        ValueError: The arguments are invalid.
    """

    def __init__(
        self,
        embeddings: np.ndarray,
        entries: Sequence[Entry | str],
        *,
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
    def restore(
        cls,
        searcher: searchers.Searcher,
        entries: Sequence[Entry],
        embedding: dict[str, Any],
        kind: str,
    ) -> "Index":
        """Creates an index from a searcher that `storage` has loaded.

        Args:
            searcher: Searcher with its rows.
            entries: An entry for each row.
            embedding: See the constructor.
            kind: The constructor's `searcher`.
        """
        index = cls(
            searcher.rows[:0],
            (),
            metric=searcher.metric,
            searcher=kind,
            embedding=embedding,
        )
        index._state = _State(searcher, searcher.rows, tuple(entries))
        return index

    def __len__(self) -> int:
        return len(self._state.entries)

    @property
    def dimension(self) -> int:
        """Dimension D of the embeddings."""
        return self._state.rows.shape[1]

    @property
    def kind(self) -> str:
        """The constructor's `searcher`."""
        return self._kind

    def snapshot(self) -> tuple[searchers.Searcher | None, tuple[Entry, ...]]:
        """Returns the searcher, None if the index is empty, and its entries."""
        state = self._state
        return state.searcher, state.entries

    def search(
        self,
        queries: np.ndarray,
        k: int,
        leave_out: Sequence[Callable[[Entry], bool]] | None = None,
    ) -> list[list[Neighbour]]:
        """Finds the nearest entries of each query, nearest first.

        Args:
            queries: `[Q, D]`, of any norm; with "cosine" a zero has similarity 0.
            k: Number of entries per query, from 1; at most all are returned.
            leave_out: For each query, a predicate for the entries to leave out.

        Raises:
            ValueError: `queries` have another dimension or are not finite, or `k` is
                below 1.
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
            # Doubles the number until enough are left; for most queries once is enough.
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
        """Adds entries, rebuilding the searcher in the background.

        Args:
            embeddings: `[M, D]`.
            entries: An entry for each embedding, or its id alone.

        Returns:
            A future that is done once searches find the entries. If the rebuild fails
            it has the exception, and the index is unchanged.

        Raises:
            ValueError: The embeddings have another dimension, or are invalid.
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
        """Removes entries in the background.

        Args:
            ids: Ids of the entries.

        Returns:
            A future, see `add`; its exception is a KeyError for an unknown id.
        """
        gone = set(ids)

        def left(state: _State) -> tuple[np.ndarray, tuple[Entry, ...]]:
            unknown = gone - {entry.id for entry in state.entries}
            if unknown:
                raise KeyError(f"no entry {min(unknown)!r} in the index")
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
        return searchers.tune(found, self._target_recall)

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
    # Rows of unit length stay the same to the last bit.
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
