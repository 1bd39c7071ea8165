"""Measures whether corrupted copies find their originals, and fakes their sources.

(a) Images of a split, drawn at random, are altered (see `corruptions`) and looked for
among all images of that split: the original is to come first. (b) Each fake of the
split is looked for among the reals of all splits: one of its own group, such as the
video that it was made from, is to be among the first ten.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.data import records
from dfdetect.evaluation import corruptions
from dfdetect.media import decode
from dfdetect.metrics import retrieval as metrics
from dfdetect.retrieval import searchers

NUM_COPIES = 300
FIRST = 10

# By name: what is done to a copy, alterations and strengths.
COPIES: dict[str, tuple[tuple[str, int], ...]] = {
    "cropping 0.1": (("cropping", 2),),
    "cropping 0.2": (("cropping", 3),),
    "scaling 0.5": (("scaling", 2),),
    "scaling 0.35": (("scaling", 3),),
    "JPEG 50": (("jpeg", 3),),
    "JPEG 30": (("jpeg", 4),),
    "mirror": (("mirror", 1),),
    "cropping 0.1, scaling 0.5, JPEG 75, mirror": (
        ("cropping", 2),
        ("scaling", 2),
        ("jpeg", 2),
        ("mirror", 1),
    ),
}

# Decoded images, uint8 `[H, W, 3]`, to float32 `[N, D]`.
Describe = Callable[[Sequence[np.ndarray]], np.ndarray]

_BATCH = 16


@dataclasses.dataclass(frozen=True)
class _Described:
    """The images of some splits, in order."""

    rows: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


def measure_descriptions(
    builder: tfds.core.DatasetBuilder,
    split: str,
    *,
    descriptions: dict[str, Describe],
    num_copies: int = NUM_COPIES,
    seed: int = 0,
    count: Callable[[str], None] = lambda split: None,
) -> dict[str, Any]:
    """Measures descriptions of images by what they find.

    Args:
        builder: A prepared data set of labeled images.
        split: One of its splits.
        descriptions: Descriptions by their names.
        num_copies: Most images that are altered.
        seed: Seed of the chosen images, and of the intervals.
        count: Called for each image that was described, with its split.

    Returns:
        For JSON: `num_pool`, `num_copies`, `num_fakes`, `num_reals`; and in `methods`
        for each name `dimension`, `copies` (by the names of `COPIES`) and `sources`
        (`first` and `first_ten`), each a `share` with its 95 % `interval` by group.
        `sources` is None where there are no fakes that share a group with a real.

    Raises:
        ValueError: The data set holds no labeled images, or has no such split.
    """
    records.check_labeled(builder)
    if split not in builder.info.splits:
        there = ", ".join(builder.info.splits)
        raise ValueError(f"{builder.info.name} has no split {split!r}, only {there}.")
    pools: dict[str, _Described] = {}
    others: dict[str, list[_Described]] = {name: [] for name in descriptions}
    altered: dict[str, dict[str, np.ndarray]] = {}
    size = builder.info.splits[split].num_examples
    chosen = np.sort(np.random.default_rng(seed).permutation(size)[:num_copies])
    for part in builder.info.splits:
        everything = _described(builder, part, descriptions, part != split, count)
        for name, described in everything.items():
            others[name].append(described)
            if part == split:
                pools[name] = described
    copies = _copies(builder, split, chosen)
    for kind, changes in COPIES.items():
        images = [_altered(image, changes, place) for place, image in copies]
        for name, describe in descriptions.items():
            altered.setdefault(name, {})[kind] = _in_batches(describe, images)
    methods = {}
    for name in descriptions:
        pool = pools[name]
        groups = pool.groups[chosen]
        found = {
            kind: _share(_first(pool.rows, rows)[:, 0] == chosen, groups, seed)
            for kind, rows in altered[name].items()
        }
        methods[name] = {
            "dimension": pool.rows.shape[1],
            "copies": found,
            "sources": _sources(pool, others[name], seed),
        }
    reals = sum((x.labels == labels.REAL).sum() for x in next(iter(others.values())))
    pool = next(iter(pools.values()))
    return {
        "num_pool": len(pool.rows),
        "num_copies": len(chosen),
        "num_fakes": int((pool.labels == labels.FAKE).sum()),
        "num_reals": int(reals),
        "methods": methods,
    }


def format_table(measured: dict[str, Any]) -> list[str]:
    """Formats figures as lines of Markdown, with a column for each description."""
    methods = measured["methods"]
    dimensions = [f"{name} ({x['dimension']:,})" for name, x in methods.items()]
    lines = [f"| | {' | '.join(dimensions)} |", f"|---|{'---|' * len(methods)}"]
    for kind in COPIES:
        cells = [_cell(x["copies"][kind]) for x in methods.values()]
        lines.append(f"| {kind}: the original first | {' | '.join(cells)} |")
    for key, meaning in (("first", "first"), ("first_ten", "among the first ten")):
        if all(x["sources"] for x in methods.values()):
            cells = [_cell(x["sources"][key]) for x in methods.values()]
            lines.append(
                f"| a fake: a real of its group {meaning} | {' | '.join(cells)} |"
            )
    return lines


def build_description(embed: Callable[[tf.Tensor], dict[str, tf.Tensor]]) -> Describe:
    """Builds a description from a signature of a graph, `embed` or `embed_content`."""

    def describe(images: Sequence[np.ndarray]) -> np.ndarray:
        # Without loss: what is measured is the description, not another JPEG.
        encoded = [tf.io.encode_png(image).numpy() for image in images]
        return embed(tf.constant(encoded, tf.string))["embedding"].numpy()

    return describe


def _described(
    builder: tfds.core.DatasetBuilder,
    split: str,
    descriptions: dict[str, Describe],
    reals_only: bool,
    count: Callable[[str], None],
) -> dict[str, _Described]:
    rows: dict[str, list[np.ndarray]] = {name: [] for name in descriptions}
    truths, groups = [], []
    batch: list[np.ndarray] = []

    def describe_batch() -> None:
        for name, describe in descriptions.items():
            if batch:
                rows[name].append(describe(batch))
        batch.clear()

    for record in records.read_records(builder, split):
        count(split)
        if reals_only and record.label != labels.REAL:
            continue
        batch.append(decode.decode_image(tf.constant(record.image_bytes)).numpy())
        truths.append(record.label)
        groups.append(record.group)
        if len(batch) == _BATCH:
            describe_batch()
    describe_batch()
    return {
        name: _Described(
            np.concatenate(parts) if parts else np.zeros((0, 1), np.float32),
            np.array(truths),
            np.array(groups),
        )
        for name, parts in rows.items()
    }


def _copies(
    builder: tfds.core.DatasetBuilder, split: str, chosen: np.ndarray
) -> list[tuple[int, np.ndarray]]:
    wanted = set(chosen.tolist())
    return [
        (record.index, decode.decode_image(tf.constant(record.image_bytes)).numpy())
        for record in records.read_records(builder, split)
        if record.index in wanted
    ]


def _altered(
    image: np.ndarray, changes: Iterable[tuple[str, int]], seed: int
) -> np.ndarray:
    for name, strength in changes:
        image = corruptions.corrupt_image(image, name, strength, seed)
    return image


def _in_batches(describe: Describe, images: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(
        [
            describe(images[start : start + _BATCH])
            for start in range(0, len(images), _BATCH)
        ]
    )


def _first(rows: np.ndarray, queries: np.ndarray, k: int = 1) -> np.ndarray:
    """Positions of the nearest rows by cosine, `[Q, k]`."""
    unit = [
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        for x in (rows, queries)
    ]
    searcher = searchers.BruteForce(unit[0].astype(np.float32), "cosine")
    return searcher.search(unit[1].astype(np.float32), min(k, len(rows)))[0]


def _sources(
    pool: _Described, everything: Sequence[_Described], seed: int
) -> dict[str, Any] | None:
    reals = [
        (x.rows[x.labels == labels.REAL], x.groups[x.labels == labels.REAL])
        for x in everything
    ]
    rows = np.concatenate([x for x, _ in reals if len(x)] or [pool.rows[:0]])
    groups = np.concatenate([x for _, x in reals if len(x)] or [pool.groups[:0]])
    of_known = (pool.labels == labels.FAKE) & np.isin(pool.groups, groups)
    if not of_known.any():
        return None
    found = _first(rows, pool.rows[of_known], FIRST)
    wanted = pool.groups[of_known]
    hits = groups[found] == wanted[:, None]
    return {
        "first": _share(hits[:, 0], wanted, seed),
        "first_ten": _share(hits.any(axis=1), wanted, seed),
    }


def _share(hits: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, Any]:
    share, interval = metrics.share_with_interval(hits, groups, seed)
    return {"share": share, "interval": interval}


def _cell(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{figure['share']:.3f} [{low:.3f}, {high:.3f}]"
