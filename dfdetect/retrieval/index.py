"""An index of embedded images with nearest-neighbour search."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from dfdetect.retrieval import amended, embedding_rows, searchers, tuning
from dfdetect.retrieval.entries import (
    Entry,
    EntryTable,
    Exclusion,
    Neighbour,
    build_table,
)

# Number of rows below which brute force is as fast as ScaNN, according to its authors
# and to train/benchmark_retrieval.py.
BRUTE_FORCE_BELOW = 20_000

_QUERIES_AT_ONCE = 64  # Of those that leave entries out.
# ScaNN is asked for so many times more where too few of those it finds are left.
_MORE_ASKED = 16
_COPIED = 2**24  # Most values of rows that are copied to be compared: 64 MiB.


@dataclasses.dataclass(frozen=True)
class _State:
    """Consistent contents of an index; replaced as a whole, never modified."""

    searcher: searchers.Searcher | None  # None if the index is empty.
    rows: np.ndarray
    entries: EntryTable
    removed: np.ndarray | None = None  # bool `[N]`, entries not found any more.

    def count(self) -> int:
        """Returns the number of entries that are not removed."""
        gone = 0 if self.removed is None else int(self.removed.sum())
        return len(self.entries) - gone

    def drop_removed(self) -> tuple[np.ndarray, EntryTable]:
        """Returns rows and entries without those that are removed."""
        if self.removed is None:
            return self.rows, self.entries
        keep = np.flatnonzero(~self.removed)
        return self.rows[keep], EntryTable(self.entries[i] for i in keep.tolist())


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
        target_recall: Recall to tune ScaNN to, see `tuning`.
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
        target_recall: float = tuning.DEFAULT_RECALL,
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
        tuning.check_recall(target_recall)
        self.metric = metric
        self.embedding = embedding or {}
        self._kind = searcher
        self._target_recall = target_recall
        self._say = say
        rows = embedding_rows.check_rows(embeddings, metric)
        known = build_table(entries, len(rows))
        self._changes = concurrent.futures.ThreadPoolExecutor(1, "index")
        # Rows at the start of it are those of the state; the rest is room to add.
        self._buffer = rows
        self._state = _State(self._searcher(rows), rows, known)

    @classmethod
    def restore(
        cls,
        searcher: searchers.Searcher,
        entries: Sequence[Entry],
        embedding: dict[str, Any],
        kind: str,
        target_recall: float = tuning.DEFAULT_RECALL,
    ) -> "Index":
        """Creates an index from a searcher that `storage` has loaded.

        Args:
            searcher: Searcher with its rows.
            entries: An entry for each row.
            embedding: See the constructor.
            kind: The constructor's `searcher`.
            target_recall: See the constructor.
        """
        index = cls(
            searcher.rows[:0],
            (),
            metric=searcher.metric,
            searcher=kind,
            target_recall=target_recall,
            embedding=embedding,
        )
        index._buffer = searcher.rows
        index._state = _State(searcher, searcher.rows, build_table(entries))
        return index

    def __len__(self) -> int:
        return self._state.count()

    @property
    def dimension(self) -> int:
        """Dimension D of the embeddings."""
        return self._state.rows.shape[1]

    @property
    def kind(self) -> str:
        """The constructor's `searcher`."""
        return self._kind

    @property
    def target_recall(self) -> float:
        """The constructor's `target_recall`."""
        return self._target_recall

    def snapshot(self) -> tuple[searchers.Searcher | None, EntryTable]:
        """Returns the searcher, None if the index is empty, and its entries.

        If entries were removed since the searcher was built, it is built again.
        """
        if self._state.removed is not None:
            self._changes.submit(self._build_again).result()
        state = self._state
        if state.removed is not None:  # Removed in the meantime.
            return self.snapshot()
        return state.searcher, state.entries

    def search(
        self,
        queries: np.ndarray,
        k: int,
        leave_out: Sequence[Exclusion] | None = None,
    ) -> list[list[Neighbour]]:
        """Finds the nearest entries of each query, nearest first.

        Args:
            queries: `[Q, D]`, of any norm; with "cosine" a zero has similarity 0.
            k: Number of entries per query, from 1; at most all are returned.
            leave_out: For each query, the entries to leave out, however many.

        Raises:
            ValueError: `queries` have another dimension or are not finite, or `k` is
                below 1.
        """
        state = self._state
        queries = self._queries(queries)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}.")
        count = state.count()
        if state.searcher is None or not count:
            return [[] for _ in queries]
        if leave_out is None:
            return self._found(state, queries, min(k, count))
        found: list[list[Neighbour]] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            batch = slice(start, start + _QUERIES_AT_ONCE)
            found += self._find_others(state, queries[batch], k, leave_out[batch])
        return found

    def add(
        self, embeddings: np.ndarray, entries: Sequence[Entry | str]
    ) -> concurrent.futures.Future:
        """Adds entries in the background.

        A few are compared with each query besides what ScaNN finds; with more, the
        searcher is built again, see `amended`.

        Args:
            embeddings: `[M, D]`.
            entries: An entry for each embedding, or its id alone.

        Returns:
            A future that is done once searches find the entries. If that fails it has
            the exception, and the index is unchanged.

        Raises:
            ValueError: The embeddings have another dimension, or are invalid.
        """
        rows = embedding_rows.check_rows(embeddings, self.metric)
        if rows.shape[1] != self.dimension:
            raise ValueError(
                f"embeddings must be [N, {self.dimension}], got {list(rows.shape)}."
            )
        return self._changes.submit(self._add, rows, build_table(entries, len(rows)))

    def remove(self, ids: Iterable[str]) -> concurrent.futures.Future:
        """Removes entries in the background.

        ScaNN's searcher passes over a few; with more, it is built again.

        Args:
            ids: Ids of the entries.

        Returns:
            A future, see `add`; its exception is a KeyError for an unknown id.
        """
        return self._changes.submit(self._remove, set(ids))

    def _add(self, rows: np.ndarray, entries: EntryTable) -> None:
        state = self._state
        if not len(rows):
            return
        new = set(entries.iterate_ids())
        for place, id in enumerate(state.entries.iterate_ids()):
            if id in new and (state.removed is None or not state.removed[place]):
                raise ValueError(f"ids must differ, got {id!r} twice.")
        removed = state.removed
        if removed is not None:
            removed = np.append(removed, np.zeros(len(rows), bool))
        everything = self._append(state.rows, rows)
        changed = _State(state.searcher, everything, state.entries + entries, removed)
        if isinstance(state.searcher, searchers.ScaNN | amended.Amended):
            base = _base(state.searcher)
            # The same values, so that the older memory can be freed.
            base.rows = everything[: len(base.rows)]
        self._apply(changed)

    def _remove(self, gone: set[str]) -> None:
        state = self._state
        removed = np.array([id in gone for id in state.entries.iterate_ids()], bool)
        if state.removed is not None:
            removed &= ~state.removed
        found = {state.entries[i].id for i in np.flatnonzero(removed).tolist()}
        if gone - found:
            raise KeyError(f"no entry {min(gone - found)!r} in the index")
        if not gone:
            return
        if state.removed is not None:
            removed |= state.removed
        self._apply(dataclasses.replace(state, removed=removed))

    def _apply(self, changed: _State) -> None:
        """Takes over changed rows, with the searcher of before: amends or builds it."""
        searcher = changed.searcher
        if isinstance(searcher, searchers.ScaNN | amended.Amended):
            base = _base(searcher)
            new = amended.Amended(base, changed.rows, changed.removed)
            if new.is_small:
                self._state = dataclasses.replace(changed, searcher=new)
                return
        self._build(changed)

    def _build_again(self) -> None:
        self._build(self._state)

    def _build(self, state: _State) -> None:
        rows, entries = state.drop_removed()
        searcher = self._searcher(rows)
        if rows is not state.rows:
            self._buffer = rows
        self._state = _State(searcher, rows, entries)

    def _append(self, rows: np.ndarray, more: np.ndarray) -> np.ndarray:
        """Returns `rows`, the start of the buffer, with `more` behind them."""
        total = len(rows) + len(more)
        if total > len(self._buffer):
            # Room for an eighth more, so that rows added one by one are seldom copied.
            room = np.empty((total + total // 8, rows.shape[1]), np.float32)
            room[: len(rows)] = rows
            self._buffer = room
        self._buffer[len(rows) : total] = more
        return self._buffer[:total]

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
        return tuning.build(rows, self.metric, self._target_recall)

    def _queries(self, queries: np.ndarray) -> np.ndarray:
        queries = np.asarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise ValueError(
                f"queries must be [Q, {self.dimension}], got {list(queries.shape)}."
            )
        if not np.isfinite(queries).all():
            raise ValueError("queries must be finite, got NaN or infinity.")
        return (
            embedding_rows.scale_to_unit(queries)
            if self.metric == "cosine"
            else queries
        )

    def _find_others(
        self,
        state: _State,
        queries: np.ndarray,
        k: int,
        leave_out: Sequence[Exclusion],
    ) -> list[list[Neighbour]]:
        """Finds the nearest entries that are not left out: for most queries at once."""
        found: list[list[Neighbour]] = [[] for _ in queries]
        pending, count, few = list(range(len(queries))), state.count(), 2 * k + 8
        is_exact = isinstance(state.searcher, searchers.BruteForce)
        for wanted in (few,) if is_exact else (few, few * _MORE_ASKED):
            near = self._found(state, queries[pending], min(wanted, count))
            for query, neighbours in zip(pending, near, strict=True):
                left = [x for x in neighbours if not leave_out[query].meets(x.entry)]
                found[query] = left[:k]
            pending = [query for query in pending if len(found[query]) < k]
            if not pending or wanted >= count:
                return found
        at_once = max(1, searchers.BLOCK // len(state.rows))
        for start in range(0, len(pending), at_once):
            some = pending[start : start + at_once]
            others = _compare_others(
                state, queries[some], k, [leave_out[query] for query in some]
            )
            for query, neighbours in zip(some, others, strict=True):
                found[query] = neighbours
        return found

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


def _compare_others(
    state: _State, queries: np.ndarray, k: int, leave_out: Sequence[Exclusion]
) -> list[list[Neighbour]]:
    """Compares queries with all rows of the entries that they do not leave out."""
    assert state.searcher is not None
    left_out = state.entries.mark_excluded(leave_out)
    if state.removed is not None:
        left_out |= state.removed
    rows, places = state.rows, np.flatnonzero(~left_out.all(axis=0))
    if not len(places):
        return [[] for _ in queries]
    if len(places) * rows.shape[1] <= min(_COPIED, rows.size // 2):
        # Far fewer rows, as of a rare label.
        rows, left_out = rows[places], left_out[:, places]
    else:
        places = np.arange(len(rows))
    exact = searchers.BruteForce(rows, state.searcher.metric)
    positions, values = exact.search_others(queries, min(k, len(rows)), left_out)
    return [
        [
            Neighbour(state.entries[int(places[position])], float(value))
            for position, value in zip(*row, strict=True)
            if position >= 0
        ]
        for row in zip(positions, values, strict=True)
    ]


def _base(searcher: searchers.Searcher) -> searchers.ScaNN:
    """Returns the searcher that was built by ScaNN."""
    if isinstance(searcher, amended.Amended):
        return searcher.base
    assert isinstance(searcher, searchers.ScaNN)
    return searcher
