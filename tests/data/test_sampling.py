"""Which records come into which batch."""

import collections

import numpy as np
import pytest

from dfdetect.data import sampling
from dfdetect.data.sampling import Catalog, Sampler


def _catalog(*records):
    """Of (label, origin) pairs."""
    labels, origins = zip(*records, strict=True)
    return Catalog(np.array(labels), np.array(origins))


# Three reals with two fakes each, and two reals and three fakes of unknown origin.
PAIRED = _catalog(
    *[(0, f"v{i}") for i in range(3)], *[(1, f"v{i % 3}") for i in range(6)]
)
LOOSE = _catalog((0, ""), (1, ""), (1, ""), (1, ""), (0, ""))


def _records(sampler, steps):
    """(dataset, record, blended) of all batches, one after the other."""
    batches = [sampler.batch(step) for step in range(steps)]
    return [
        (int(d), int(r), bool(b))
        for draws in batches
        for d, r, b in zip(draws.datasets, draws.records, draws.blended, strict=True)
    ]


def test_naturally_each_record_comes_once_before_any_comes_again():
    drawn = _records(Sampler([PAIRED], 4, seed=0), 9)
    passes = [[record for _, record, _ in drawn[i : i + 9]] for i in range(0, 36, 9)]
    assert all(sorted(records) == list(range(9)) for records in passes)
    assert len({tuple(records) for records in passes}) == 4
    assert not any(blended for _, _, blended in drawn)


def test_a_batch_depends_on_seed_and_step_alone():
    one, same = Sampler([PAIRED], 4, seed=0), Sampler([PAIRED], 4, seed=0)
    same.batch(3)
    for step in (7, 2):
        np.testing.assert_array_equal(one.batch(step).records, same.batch(step).records)
    other = Sampler([PAIRED], 4, seed=1)
    assert _records(one, 5) != _records(other, 5)


def test_weights_mix_data_sets_evenly_in_every_stretch():
    sampler = Sampler([PAIRED, LOOSE], 10, seed=0, weights=[4, 1])
    for step in range(30):
        assert abs((sampler.batch(step).datasets == 0).sum() - 8) <= 1
    drawn = _records(sampler, 30)
    counts = collections.Counter(record for dataset, record, _ in drawn if dataset)
    assert max(counts.values()) - min(counts.values()) <= 1
    # By default data sets count by their sizes.
    drawn = _records(Sampler([PAIRED, LOOSE], 7, seed=0), 20)
    assert sum(dataset for dataset, _, _ in drawn) == 50


def test_the_cycle_of_strata_has_no_seam():
    sampler = Sampler([PAIRED, LOOSE], 10, seed=0, weights=[1, 2])
    drawn = [
        (int(d), int(r))
        for step in range(990, 1010)
        for d, r in zip(
            sampler.batch(step).datasets, sampler.batch(step).records, strict=True
        )
    ]
    counts = collections.Counter(record for dataset, record in drawn if dataset == 1)
    assert max(counts.values()) - min(counts.values()) <= 2


def test_balanced_batches_have_as_many_reals_as_fakes():
    sampler = Sampler([PAIRED, LOOSE], 8, seed=0, mode="balanced")
    drawn = _records(sampler, 50)
    labels = [(PAIRED, LOOSE)[d].labels[r] for d, r, _ in drawn]
    assert sum(labels) == 200
    reals = collections.Counter(r for d, r, _ in drawn if d == 0 and r < 3)
    assert max(reals.values()) - min(reals.values()) <= 1


def test_a_real_comes_with_a_fake_of_its_own():
    sampler = Sampler([PAIRED], 4, seed=0, mode="pairs")
    seen = set()
    for step in range(60):
        records = sampler.batch(step).records
        reals = sorted(PAIRED.origins[r] for r in records if PAIRED.labels[r] == 0)
        fakes = sorted(PAIRED.origins[r] for r in records if PAIRED.labels[r] == 1)
        assert reals == fakes and len(reals) == 2
        seen |= set(records.tolist())
    assert seen == set(range(9))


def test_a_real_of_unknown_origin_comes_with_any_fake_of_its_set():
    sampler = Sampler([PAIRED, LOOSE], 4, seed=0, mode="pairs", weights=[1, 1])
    drawn = _records(sampler, 40)
    loose = [LOOSE.labels[record] for dataset, record, _ in drawn if dataset == 1]
    assert len(loose) == 80 and sum(loose) == 40
    assert {r for d, r, _ in drawn if d == 1} == set(range(5))


def test_workers_get_reals_and_fakes():
    # They take every other slot of a batch.
    sampler = Sampler([PAIRED], 16, seed=0, mode="pairs")
    first = [
        PAIRED.labels[sampler.batch(step).records[::2]].mean() for step in range(40)
    ]
    assert 0.4 < np.mean(first) < 0.6 and np.ptp(first) > 0


@pytest.mark.parametrize("mode", ["natural", "balanced", "pairs"])
def test_reals_are_blended_in_place_of_fakes(mode):
    sampler = Sampler([PAIRED], 8, seed=0, mode=mode, self_blended=0.5)
    drawn = _records(sampler, 100)
    blended = [record for _, record, is_blended in drawn if is_blended]
    assert all(PAIRED.labels[record] == 0 for record in blended)
    plain_fakes = sum(PAIRED.labels[r] == 1 for _, r, b in drawn if not b)
    share = len(blended) / (len(blended) + plain_fakes)
    assert 0.42 < share < 0.58
    if mode == "pairs":
        for step in range(10):
            draws = sampler.batch(step)
            is_fake = draws.blended | (PAIRED.labels[draws.records] == 1)
            origins = PAIRED.origins[draws.records]
            assert sorted(origins[is_fake]) == sorted(origins[~is_fake])


@pytest.mark.parametrize("mode", ["balanced", "pairs"])
def test_fakes_can_be_made_from_reals_alone(mode):
    reals = _catalog((0, "a"), (0, "b"), (0, "c"))
    drawn = _records(Sampler([reals], 6, seed=0, mode=mode, self_blended=1.0), 10)
    assert sum(blended for _, _, blended in drawn) == 30
    with pytest.raises(
        ValueError, match=r"wants real and fake .* \[3\] real and \[0\]"
    ):
        Sampler([reals], 6, seed=0, mode=mode)


# Two sets share the source "b"; one real source is forty times the other.
FIRST = Catalog(
    np.array([0] * 40 + [1] * 10), np.repeat("", 50), np.repeat(["a", "b"], [40, 10])
)
SECOND = Catalog(
    np.array([0, 1, 1, 1, 1]), np.repeat("", 5), np.array(["c", "b", "b", "d", "d"])
)


@pytest.mark.parametrize(
    "mode, share_of_fakes", [("balanced", 0.5), ("natural", 14 / 55)]
)
def test_sources_are_drawn_equally_often_whatever_set_they_are_in(mode, share_of_fakes):
    catalogs = [FIRST, SECOND]
    sampler = Sampler(catalogs, 10, seed=0, mode=mode, by_source=True)
    drawn = _records(sampler, 120)
    sources = collections.Counter(catalogs[d].sources[r] for d, r, _ in drawn)
    for name in "bd":
        assert abs(sources[name] - 1200 * share_of_fakes / 2) <= 2
    for name in "ac":
        assert abs(sources[name] - 1200 * (1 - share_of_fakes) / 2) <= 2
    # Every record of a source comes once before any comes again.
    of_b = collections.Counter(
        (d, r) for d, r, _ in drawn if catalogs[d].sources[r] == "b"
    )
    assert len(of_b) == 12 and max(of_b.values()) - min(of_b.values()) <= 1
    again = Sampler(catalogs, 10, seed=0, mode=mode, by_source=True)
    again.batch(3)
    for step in (50, 7):
        np.testing.assert_array_equal(
            again.batch(step).records, sampler.batch(step).records
        )


def test_reals_of_all_sources_are_blended_equally_often():
    catalogs = [FIRST, SECOND]
    sampler = Sampler(
        catalogs, 10, seed=0, mode="balanced", self_blended=0.5, by_source=True
    )
    blended = [(d, r) for d, r, is_blended in _records(sampler, 200) if is_blended]
    assert all(catalogs[d].labels[r] == 0 for d, r in blended)
    assert 0.42 < len(blended) / 1000 < 0.58
    share = np.mean([catalogs[d].sources[r] == "c" for d, r in blended])
    assert 0.43 < share < 0.57


def test_sources_go_with_neither_weights_nor_pairs():
    for changes in ({"weights": [1, 1]}, {"mode": "pairs"}):
        with pytest.raises(ValueError, match="no place for weights or pairs"):
            Sampler([FIRST, SECOND], 4, seed=0, by_source=True, **changes)
    with pytest.raises(ValueError, match="needs the sources of all records"):
        Sampler([FIRST, LOOSE], 4, seed=0, by_source=True)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="mode must be one of .*'odd'"):
        Sampler([PAIRED], 4, seed=0, mode="odd")
    with pytest.raises(ValueError, match="batch_size must be even for pairs, got 3"):
        Sampler([PAIRED], 3, seed=0, mode="pairs")
    with pytest.raises(ValueError, match="2 numbers above 0, got .1."):
        Sampler([PAIRED, LOOSE], 4, seed=0, weights=[1])
    with pytest.raises(ValueError, match=r"self_blended must be in \[0, 1\], got 2"):
        Sampler([PAIRED], 4, seed=0, self_blended=2)
    with pytest.raises(ValueError, match="There is no record"):
        Sampler([Catalog(np.zeros(0), np.zeros(0, str))], 4, seed=0)


def test_strata_above_the_limit_are_shuffled_without_a_list(monkeypatch):
    """As those below: once before any comes again, a function of seed and step."""
    monkeypatch.setattr(sampling, "LONGEST_LISTED", 8)
    sampler = Sampler([PAIRED, LOOSE], 7, seed=0)
    drawn = _records(sampler, 4)
    assert collections.Counter(drawn).most_common()[0][1] == 2
    assert len(set(drawn[:14])) == 14 == len(set(drawn[14:]))
    again = Sampler([PAIRED, LOOSE], 7, seed=0)
    np.testing.assert_array_equal(again.batch(3).records, sampler.batch(3).records)
    np.testing.assert_array_equal(
        again.batch_at(7).records, [record for _, record, _ in drawn[7:14]]
    )
    other = _records(Sampler([PAIRED, LOOSE], 7, seed=1), 2)
    assert other != drawn[:14]
    sampler = Sampler([PAIRED], 6, seed=0, mode="pairs", self_blended=0.2)
    assert all(sum(sampler.batch(x).blended) <= 3 for x in range(9))


def test_the_order_of_sets_below_the_limit_stays_what_it_was():
    """Runs of earlier versions are resumed in it."""
    sampler = Sampler([PAIRED, LOOSE], 10, seed=7, mode="balanced", self_blended=0.3)
    draws = sampler.batch(2)
    np.testing.assert_array_equal(draws.datasets, [0, 0, 0, 0, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(draws.records, [2, 8, 1, 1, 4, 0, 0, 2, 1, 4])
    np.testing.assert_array_equal(draws.blended, [0, 0, 0, 1, 0, 1, 0, 1, 0, 0])


@pytest.mark.parametrize("mode", ["natural", "balanced", "pairs"])
def test_another_batch_size_goes_on_where_the_former_ended(mode):
    """Also at a place that is no multiple of the new size: 20 is none of 6."""
    pair_by_pair = _records(Sampler([PAIRED], 2, seed=0, mode=mode), 24)
    places = [(4, place) for place in range(0, 20, 4)]
    places += [(6, place) for place in range(20, 44, 6)]
    for size, place in places:
        records = Sampler([PAIRED], size, seed=0, mode=mode).batch_at(place).records
        whole = [record for _, record, _ in pair_by_pair[place : place + size]]
        if mode != "pairs":
            assert records.tolist() == whole
            continue
        # The fakes of a pair are drawn anew, the reals come in the same order.
        assert sorted(r for r in records if r < 3) == sorted(r for r in whole if r < 3)
        reals = sorted(PAIRED.origins[r] for r in records if PAIRED.labels[r] == 0)
        fakes = sorted(PAIRED.origins[r] for r in records if PAIRED.labels[r] == 1)
        assert reals == fakes and len(reals) == size // 2


def test_few_records_beside_very_many_are_seen():
    many = _catalog(*[(0, "")] * 1000)
    sampler = Sampler([LOOSE, many], 10_000, seed=0, weights=[1e-7, 1])
    assert 1 <= (sampler.batch(0).datasets == 0).sum() <= 4
