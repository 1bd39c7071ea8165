"""Chooses the records of each training batch by seed and step alone.

There is no state, so that a run that was stopped and resumed, or that many
workers share, sees the batches of one that was not.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np

from dfdetect import labels

MODES = ("natural", "balanced", "pairs")

_KINDS = (labels.REAL, labels.FAKE)

# Slots after which the order of the strata repeats: weights count to a ten-thousandth.
_CYCLE = 10_000


@dataclasses.dataclass(frozen=True)
class Catalog:
    """Labels and origins of the records of a data set.

    Attributes:
        labels: `[N]` of `dfdetect.labels`.
        origins: `[N]`, names of what each was made from or is, such as a source video;
            empty where that is not known.
        sources: `[N]`, names of what made each, such as its source or method; None
            where that does not matter.
    """

    labels: np.ndarray
    origins: np.ndarray
    sources: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Draws:
    """The records of a batch, `[B]` each.

    Attributes:
        datasets: int64, places of the data sets.
        records: int64, places within them.
        blended: bool, whether the record, a real one, is to become a self-blended fake.
    """

    datasets: np.ndarray
    records: np.ndarray
    blended: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Stratum:
    """Records that are drawn alike, and whether to blend them.

    Attributes:
        records: `[M, 2]`, places of data set and record.
        blended: See `Draws`.
    """

    records: np.ndarray
    blended: bool = False


class Sampler:
    """Chooses the records of each batch.

    In each stratum, such as the fakes of a data set, every record comes once before any
    comes again. The modes:

    * `natural`: records of a data set alike, however many of them are fake;
    * `balanced`: as many reals as fakes over time;
    * `pairs`: half of each batch are reals, each of them with a fake of the same
      origin, or where it has none with any fake of its data set.

    Args:
        catalogs: One for each data set.
        batch_size: Records of a batch, even for pairs.
        seed: Seed of the order.
        mode: One of `MODES`.
        weights: Weight of each data set in a batch, by default its size.
        self_blended: Share of the fakes in place of which a real record is drawn, to be
            blended with itself: in a pair its real, else any of the data set.
        by_source: Whether all sources of a class, of whichever data sets, are drawn
            equally often, and so are those of reals to be blended. Goes with neither
            `weights` nor pairs.

    Raises:
        ValueError: An argument is out of range, or a class is missing.
    """

    def __init__(
        self,
        catalogs: Sequence[Catalog],
        batch_size: int,
        *,
        seed: int,
        mode: str = "natural",
        weights: Sequence[float] | None = None,
        self_blended: float = 0.0,
        by_source: bool = False,
    ) -> None:
        if by_source and (weights is not None or mode == "pairs"):
            raise ValueError("by_source leaves no place for weights or pairs.")
        if mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}, got {mode!r}.")
        if mode == "pairs" and batch_size % 2:
            raise ValueError(f"batch_size must be even for pairs, got {batch_size}.")
        if not 0 <= self_blended <= 1:
            raise ValueError(f"self_blended must be in [0, 1], got {self_blended}.")
        sizes = [len(catalog.labels) for catalog in catalogs]
        if not sum(sizes):
            raise ValueError("There is no record.")
        weights = list(sizes if weights is None else weights)
        if len(weights) != len(sizes) or not all(w > 0 for w in weights):
            raise ValueError(
                f"weights must be {len(sizes)} numbers above 0, got {weights}."
            )
        self._catalogs = catalogs
        self._batch_size, self._seed, self._mode = batch_size, seed, mode
        self._self_blended = self_blended
        self._members = [
            {kind: np.flatnonzero(c.labels == kind) for kind in _KINDS}
            for c in catalogs
        ]
        self._fakes = [_by_origin(c, labels.FAKE) for c in catalogs]
        self._check_classes()
        self._reals_by_source: list[np.ndarray] = []
        self._strata, shares = (
            self._cut_by_source() if by_source else self._cut(weights)
        )
        self._order = _interleave(shares, _CYCLE)
        self._counts = np.bincount(self._order, minlength=len(shares))
        self._permutation = functools.lru_cache(maxsize=2 * len(shares) + 32)(
            self._permute
        )
        self._ranks = np.zeros(_CYCLE, np.int64)
        for stratum in range(len(shares)):
            chosen = self._order == stratum
            self._ranks[chosen] = np.arange(chosen.sum())

    def batch(self, step: int) -> Draws:
        """Returns the records of the batch of a step, 0 the first."""
        return self.batch_at(step * self._batch_size)

    def batch_at(self, first: int) -> Draws:
        """Returns the records of the batch that begins after a number of records.

        Args:
            first: Number of records before the batch; even for pairs.
        """
        step, rest = divmod(first, self._batch_size)
        generator = np.random.default_rng([self._seed, step, *([rest] if rest else [])])
        if self._mode == "pairs":
            half = self._batch_size // 2
            reals = [self._slot(first // 2 + i) for i in range(half)]
            fakes = [self._partner(*real[:2], generator) for real in reals]
            chosen = reals + fakes
            # Workers and parts of a batch take slots in order: all are to get both.
            places = generator.permutation(self._batch_size)
            chosen = [chosen[place] for place in places]
        else:
            slots = [self._slot(first + i) for i in range(self._batch_size)]
            chosen = [self._perhaps_blended(*slot, generator) for slot in slots]
        datasets, records, blended = map(np.array, zip(*chosen, strict=True))
        return Draws(datasets, records, blended)

    def _check_classes(self) -> None:
        if self._mode == "natural" and not self._self_blended:
            return
        reals, fakes = (
            [len(members[kind]) for members in self._members] for kind in _KINDS
        )
        wanting = not sum(fakes)
        if self._mode == "pairs":
            wanting = any(r and not f for r, f in zip(reals, fakes, strict=True))
        blend = self._self_blended and self._mode != "natural"
        if not sum(reals) or (wanting and not blend):
            raise ValueError(
                f"mode {self._mode!r} wants real and fake records, or self_blended "
                f"above 0, got {reals} real and {fakes} fake ones."
            )

    def _cut(self, weights: Sequence[float]) -> tuple[list[_Stratum], np.ndarray]:
        """The strata, and the share of each in all slots."""
        if self._mode == "natural":
            strata = [
                _Stratum(_pairs(place, np.arange(len(catalog.labels))))
                for place, catalog in enumerate(self._catalogs)
            ]
            return strata, np.array(weights) / np.sum(weights)
        strata, shares = [], []
        kinds = _KINDS[:1] if self._mode == "pairs" else _KINDS
        for kind in kinds:
            # Where there is no fake at all, reals are blended in their place.
            blended = not any(len(members[kind]) for members in self._members)
            source = labels.REAL if blended else kind
            having = [p for p, m in enumerate(self._members) if len(m[source])]
            total = sum(weights[place] for place in having)
            for place in having:
                members = self._members[place][source]
                strata.append(_Stratum(_pairs(place, members), blended))
                shares.append(weights[place] / total / len(kinds))
        return strata, np.array(shares)

    def _cut_by_source(self) -> tuple[list[_Stratum], np.ndarray]:
        """The strata, one for each class and source, and the share of each in all."""
        found = {label: self._records_by_source(label) for label in _KINDS}
        self._reals_by_source = found[labels.REAL]
        # Where there is no fake at all, reals are blended in their place.
        blended = not found[labels.FAKE] and self._mode == "balanced"
        if blended:
            found[labels.FAKE] = found[labels.REAL]
        sizes = {label: sum(map(len, parts)) for label, parts in found.items()}
        strata, shares = [], []
        for label, parts in found.items():
            of_class = sizes[label] / sum(sizes.values())
            if self._mode == "balanced":
                of_class = 1 / len(_KINDS)
            for records in parts:
                strata.append(_Stratum(records, blended and label == labels.FAKE))
                shares.append(of_class / len(parts))
        return strata, np.array(shares)

    def _records_by_source(self, label: int) -> list[np.ndarray]:
        """The records `[M, 2]` of each source of a class, in the order of names."""
        found: dict[str, list[np.ndarray]] = {}
        for place, (catalog, members) in enumerate(
            zip(self._catalogs, self._members, strict=True)
        ):
            if catalog.sources is None:
                raise ValueError("by_source needs the sources of all records.")
            sources = catalog.sources[members[label]]
            for source in np.unique(sources):
                records = _pairs(place, members[label][sources == source])
                found.setdefault(str(source), []).append(records)
        return [np.concatenate(found[source]) for source in sorted(found)]

    def _slot(self, slot: int) -> tuple[int, int, bool]:
        """Returns the record in a slot, counted from the first batch."""
        cycle, place = divmod(slot, _CYCLE)
        index = int(self._order[place])
        nth = cycle * int(self._counts[index]) + int(self._ranks[place])
        stratum = self._strata[index]
        epoch, rank = divmod(nth, len(stratum.records))
        dataset, record = stratum.records[self._permutation(index, epoch)[rank]]
        return int(dataset), int(record), stratum.blended

    def _permute(self, stratum: int, epoch: int) -> np.ndarray:
        generator = np.random.default_rng([self._seed, stratum, epoch, 1])
        return generator.permutation(len(self._strata[stratum].records))

    def _partner(
        self, dataset: int, real: int, generator: np.random.Generator
    ) -> tuple[int, int, bool]:
        """Draws the fake of a pair."""
        blended, choice = generator.random(2)
        fakes = self._members[dataset][labels.FAKE]
        if blended < self._self_blended or not len(fakes):
            return dataset, real, True
        origin = str(self._catalogs[dataset].origins[real])
        if origin:
            fakes = self._fakes[dataset].get(origin, fakes)
        return dataset, int(fakes[int(choice * len(fakes))]), False

    def _perhaps_blended(
        self, dataset: int, record: int, blended: bool, generator: np.random.Generator
    ) -> tuple[int, int, bool]:
        """The record, or if it is a fake perhaps a real one to be blended."""
        chance, choice = generator.random(2)
        pairs = _pairs(dataset, self._members[dataset][labels.REAL])
        if self._reals_by_source:
            number = int(generator.integers(len(self._reals_by_source)))
            pairs = self._reals_by_source[number]
        is_fake = self._catalogs[dataset].labels[record] == labels.FAKE
        if is_fake and len(pairs) and chance < self._self_blended:
            dataset, record = map(int, pairs[int(choice * len(pairs))])
            return dataset, record, True
        return dataset, record, blended


def _pairs(dataset: int, records: np.ndarray) -> np.ndarray:
    """`[M, 2]`, a data set beside each of its records `[M]`."""
    return np.stack([np.full_like(records, dataset), records], axis=1)


def _by_origin(catalog: Catalog, label: int) -> dict[str, np.ndarray]:
    places = np.flatnonzero(catalog.labels == label)
    names, starts = np.unique(catalog.origins[places], return_inverse=True)
    order = np.argsort(starts, kind="stable")
    parts = np.split(places[order], np.cumsum(np.bincount(starts))[:-1])
    return {str(name): part for name, part in zip(names, parts, strict=False)}


def _interleave(shares: Iterable[float], length: int) -> np.ndarray:
    """Strata in an order in which each has its share of any stretch, within one."""
    shares = np.asarray(shares, np.float64)
    owed = np.zeros(len(shares))
    order = np.zeros(length, np.int64)
    for place in range(length):
        owed += shares
        order[place] = np.argmax(owed)
        owed[order[place]] -= 1
    return order
