"""Chooses the records of each training batch by seed and step alone.

There is no state, so that a run that was stopped and resumed, or that many
workers share, sees the batches of one that was not.

Strata of up to `LONGEST_LISTED` records are shuffled by `Generator.permutation` of
NumPy, longer ones by `permutation.permute`, which takes no memory.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np

from dfdetect import labels
from dfdetect.data import coded_texts, permutation, strata

# Records of a stratum whose order is kept as a list of 4 bytes each. Changing this
# number changes the order of larger sets, and with it what resumed runs see.
LONGEST_LISTED = 2**20

MODES = ("natural", "balanced", "pairs")

_KINDS = (labels.REAL, labels.FAKE)

# Slots after which the order of the strata repeats: weights count to a ten-thousandth.
_CYCLE = 10_000

_SPARE_BYTES = 2**24  # Orders kept beyond those in use.


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
    origins: np.ndarray | coded_texts.CodedTexts
    sources: np.ndarray | coded_texts.CodedTexts | None = None


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
        self._members = functools.cache(self._find_members)
        self._fakes = functools.cache(self._sort_fakes)
        self._check_classes()
        self._reals_by_source: list[strata.Stratum] = []
        self._strata, shares = (
            self._cut_by_source() if by_source else self._cut(weights)
        )
        self._order = _interleave(shares, _CYCLE)
        self._counts = np.bincount(self._order, minlength=len(shares))
        longest = max(stratum.size for stratum in self._strata)
        spare = min(32, _SPARE_BYTES // (4 * min(longest, LONGEST_LISTED)))
        self._permutation = functools.lru_cache(maxsize=2 * len(shares) + spare)(
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
            reals = self._slots(first // 2, half)
            fakes = self._partners(reals, generator)
            # Workers and parts of a batch take slots in order: all are to get both.
            places = generator.permutation(self._batch_size)
            columns = [
                np.concatenate(parts)[places]
                for parts in zip(reals, fakes, strict=True)
            ]
            return Draws(*columns)
        drawn = self._slots(first, self._batch_size)
        if self._self_blended:
            self._blend_some(drawn, generator)
        return Draws(*drawn)

    def _check_classes(self) -> None:
        if self._mode == "natural" and not self._self_blended:
            return
        reals, fakes = (
            [strata.count(catalog.labels, kind) for catalog in self._catalogs]
            for kind in _KINDS
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

    def _find_members(self, dataset: int, label: int) -> np.ndarray:
        """The records of a class of a data set, ascending uint32."""
        return strata.find_members(self._catalogs[dataset].labels, label)

    def _sort_fakes(self, dataset: int) -> strata.Fakes:
        origins = coded_texts.encode(self._catalogs[dataset].origins)
        return strata.Fakes(origins, self._members(dataset, labels.FAKE))

    def _cut(self, weights: Sequence[float]) -> tuple[list[strata.Stratum], np.ndarray]:
        """The strata, and the share of each in all slots."""
        if self._mode == "natural":
            cut = [
                strata.Stratum([strata.Part(place, len(catalog.labels))])
                for place, catalog in enumerate(self._catalogs)
            ]
            return cut, np.array(weights) / np.sum(weights)
        cut, shares = [], []
        kinds = _KINDS[:1] if self._mode == "pairs" else _KINDS
        for kind in kinds:
            # Where there is no fake at all, reals are blended in their place.
            blended = not any(
                strata.count(catalog.labels, kind) for catalog in self._catalogs
            )
            source = labels.REAL if blended else kind
            having = [
                p
                for p, c in enumerate(self._catalogs)
                if strata.count(c.labels, source)
            ]
            total = sum(weights[place] for place in having)
            for place in having:
                members = self._members(place, source)
                cut.append(
                    strata.Stratum([strata.Part(place, len(members), members)], blended)
                )
                shares.append(weights[place] / total / len(kinds))
        return cut, np.array(shares)

    def _cut_by_source(self) -> tuple[list[strata.Stratum], np.ndarray]:
        """The strata, one for each class and source, and the share of each in all."""
        found = {label: self._records_by_source(label) for label in _KINDS}
        self._reals_by_source = [strata.Stratum(parts) for parts in found[labels.REAL]]
        # Where there is no fake at all, reals are blended in their place.
        blended = not found[labels.FAKE] and self._mode == "balanced"
        if blended:
            found[labels.FAKE] = found[labels.REAL]
        sizes = {
            label: sum(part.size for parts in of_label for part in parts)
            for label, of_label in found.items()
        }
        cut, shares = [], []
        for label, of_label in found.items():
            of_class = sizes[label] / sum(sizes.values())
            if self._mode == "balanced":
                of_class = 1 / len(_KINDS)
            for parts in of_label:
                cut.append(strata.Stratum(parts, blended and label == labels.FAKE))
                shares.append(of_class / len(of_label))
        return cut, np.array(shares)

    def _records_by_source(self, label: int) -> list[list[strata.Part]]:
        """The records of each source of a class, in the order of names."""
        found: dict[str, list[strata.Part]] = {}
        for place, catalog in enumerate(self._catalogs):
            if catalog.sources is None:
                raise ValueError("by_source needs the sources of all records.")
            sources = coded_texts.encode(catalog.sources)
            members = self._members(place, label)
            ordered, ends = strata.group_by_code(
                members, sources.codes, len(sources.names)
            )
            counts = np.diff(ends, prepend=0)
            for code in np.flatnonzero(counts).tolist():
                records = ordered[ends[code] - counts[code] : ends[code]]
                part = strata.Part(place, len(records), records)
                found.setdefault(sources.names[code], []).append(part)
        return [found[source] for source in sorted(found)]

    def _slots(
        self, first: int, count: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Data sets, records and whether to blend, of slots from the first batch on."""
        cycles, places = np.divmod(first + np.arange(count), _CYCLE)
        numbers = self._order[places]
        nths = cycles * self._counts[numbers] + self._ranks[places]
        datasets, records = np.empty_like(places), np.empty_like(places)
        blended = np.zeros(count, bool)
        for number in np.unique(numbers).tolist():
            chosen, stratum = numbers == number, self._strata[number]
            found = self._shuffled(number, nths[chosen])
            datasets[chosen], records[chosen] = stratum.find(found)
            blended[chosen] = stratum.blended
        return datasets, records, blended

    def _shuffled(self, number: int, nths: np.ndarray) -> np.ndarray:
        """Places in a stratum of its records in the order of training."""
        size = self._strata[number].size
        epochs, ranks = np.divmod(nths, size)
        places = np.empty_like(ranks)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            if size <= LONGEST_LISTED:
                places[chosen] = self._permutation(number, epoch)[ranks[chosen]]
            else:
                key = [self._seed, number, epoch, 2]
                places[chosen] = permutation.permute(ranks[chosen], size, key)
        return places

    def _permute(self, stratum: int, epoch: int) -> np.ndarray:
        generator = np.random.default_rng([self._seed, stratum, epoch, 1])
        order = generator.permutation(self._strata[stratum].size)
        return order.astype(np.uint32)

    def _partners(
        self, reals: tuple[np.ndarray, ...], generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws the fake of each pair; alike the result of `_slots`."""
        datasets, places, _ = reals
        records, blended = places.copy(), np.zeros(len(places), bool)
        draws = generator.random((len(places), 2))
        for slot, (dataset, real) in enumerate(zip(datasets, places, strict=True)):
            chance, choice = draws[slot]
            fakes = self._members(int(dataset), labels.FAKE)
            blended[slot] = chance < self._self_blended or not len(fakes)
            if not blended[slot]:
                fakes = self._fakes(int(dataset)).of_real(int(real))
                records[slot] = fakes[int(choice * len(fakes))]
        return datasets, records, blended

    def _blend_some(
        self, drawn: tuple[np.ndarray, ...], generator: np.random.Generator
    ) -> None:
        """Puts reals to be blended in place of some of the fakes."""
        datasets, records, blended = drawn
        for slot in range(len(records)):
            chance, choice = generator.random(2)
            dataset = int(datasets[slot])
            stratum = None
            if self._reals_by_source:
                number = int(generator.integers(len(self._reals_by_source)))
                stratum = self._reals_by_source[number]
            elif len(members := self._members(dataset, labels.REAL)):
                stratum = strata.Stratum([strata.Part(dataset, len(members), members)])
            is_fake = self._catalogs[dataset].labels[records[slot]] == labels.FAKE
            if is_fake and stratum is not None and chance < self._self_blended:
                place = np.array([int(choice * stratum.size)])
                datasets[slot], records[slot] = (x[0] for x in stratum.find(place))
                blended[slot] = True


def _interleave(shares: Iterable[float], length: int) -> np.ndarray:
    """Strata in an order in which each has its share of any stretch, within one.

    Each has a place at least: else few images beside very many would never be seen.
    """
    shares = np.asarray(shares, np.float64)
    if shares.min() < 1 / length:
        shares = np.maximum(shares, 2 / length)
        shares /= shares.sum()
    owed = np.zeros(len(shares))
    order = np.zeros(length, np.int64)
    for place in range(length):
        owed += shares
        order[place] = np.argmax(owed)
        owed[order[place]] -= 1
    return order
