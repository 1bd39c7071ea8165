"""Times the searchers of `dfdetect/retrieval`, faiss and hnswlib.

    python train/benchmark_retrieval.py [--index=INDEX] [--sizes=10000,100000]

Prints a table in Markdown with the machine, its load and the command: the time to
build, recall of the nearest ten, and queries per second, one at a time and a hundred at
once, also as a multiple of brute force. The rows are drawn around the embeddings of
--index, as 100,000 are seldom at hand; without it around random ones. faiss and hnswlib
are left out where they are not installed (pip install dfdetect[bench]).
"""

import os
import sys
import time
from collections.abc import Callable

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import numpy as np
from absl import flags

import dfdetect
from dfdetect import script
from dfdetect.cli import environment
from dfdetect.metrics import retrieval as metrics
from dfdetect.retrieval import searchers, storage

_INDEX = flags.DEFINE_string("index", None, "Index of train/index.py.")
_SIZES = flags.DEFINE_list("sizes", ["10000", "100000"], "Numbers of rows.")
_DIMENSION = flags.DEFINE_integer(
    "dimension",
    1488,
    "Dimension of rows without --index; by default that of our content embeddings.",
    1,
)
_QUERIES = flags.DEFINE_integer("queries", 200, "Number of queries.", lower_bound=10)
_TARGET_RECALL = flags.DEFINE_float(
    "target_recall", None, "Recall to tune ScaNN to as well.", 0.0, 1.0
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of rows and queries.")

_K = 10
_AT_ONCE = 100

# Finds the positions of the nearest ten rows: queries `[Q, D]` to `[Q, 10]`.
Search = Callable[[np.ndarray], np.ndarray]


def draw_rows(count: int, generator: np.random.Generator) -> np.ndarray:
    """Draws unit vectors float32 `[count, D]` between two embeddings, with noise."""
    if _INDEX.value:
        searcher, _ = storage.load(_INDEX.value)[0].snapshot()
        assert searcher is not None
        known = searcher.rows
    else:
        centers = np.random.default_rng(_SEED.value)
        known = centers.standard_normal((2000, _DIMENSION.value), np.float32)
        known /= np.linalg.norm(known, axis=1, keepdims=True)
    one, other = generator.integers(0, len(known), (2, count))
    share = generator.uniform(0, 0.5, (count, 1)).astype(np.float32)
    rows = (1 - share) * known[one] + share * known[other]
    noise = generator.standard_normal(rows.shape, np.float32)
    # A tenth of their length: as far as a copy that was cropped and compressed.
    rows += 0.1 / np.sqrt(rows.shape[1]) * noise
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def build_brute_force(rows: np.ndarray) -> Search:
    searcher = searchers.BruteForce(rows, "cosine")
    return lambda queries: searcher.search(queries, _K)[0]


def build_scann(rows: np.ndarray) -> Search:
    searcher = searchers.ScaNN(rows, "cosine")
    return lambda queries: searcher.search(queries, _K)[0]


def build_tuned_scann(rows: np.ndarray) -> Search:
    recall = _TARGET_RECALL.value
    assert recall is not None
    searcher = searchers.tune(searchers.ScaNN(rows, "cosine"), recall)
    return lambda queries: searcher.search(queries, _K)[0]


def build_faiss_flat(rows: np.ndarray) -> Search:
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return lambda queries: index.search(queries, _K)[1]


def build_faiss_ivf(rows: np.ndarray) -> Search:
    import faiss

    settings = searchers.default_settings(len(rows))
    coarse = faiss.IndexFlatIP(rows.shape[1])
    index = faiss.IndexIVFFlat(
        coarse, rows.shape[1], settings.leaves, faiss.METRIC_INNER_PRODUCT
    )
    index.train(rows)
    index.add(rows)
    index.nprobe = settings.leaves_searched
    return lambda queries: index.search(queries, _K)[1]


def build_hnsw(rows: np.ndarray) -> Search:
    import hnswlib

    index = hnswlib.Index("ip", rows.shape[1])
    index.init_index(len(rows), ef_construction=100, M=16)
    index.add_items(rows)
    index.set_ef(50)
    return lambda queries: index.knn_query(queries, _K)[0]


METHODS = {
    "brute force": build_brute_force,
    "ScaNN": build_scann,
    "ScaNN, tuned": build_tuned_scann,
    "faiss, flat": build_faiss_flat,
    "faiss, IVF": build_faiss_ivf,
    "hnswlib": build_hnsw,
}


def measure_speed(search: Search, queries: np.ndarray, at_once: int) -> float:
    """Measures queries per second: the best of three passes of at most two seconds."""
    best = 0.0
    for _ in range(3):
        start, done = time.perf_counter(), 0
        while done + at_once <= len(queries) and time.perf_counter() - start < 2:
            search(queries[done : done + at_once])
            done += at_once
        best = max(best, done / (time.perf_counter() - start))
    return best


def measure(size: int) -> None:
    """Prints the rows of the table for a number of rows."""
    generator = np.random.default_rng(_SEED.value + 1)
    rows, queries = draw_rows(size, generator), draw_rows(_QUERIES.value, generator)
    expected, first = None, None
    for name, build in METHODS.items():
        if build is build_tuned_scann and _TARGET_RECALL.value is None:
            continue
        try:
            start = time.perf_counter()
            search = build(rows)
        except ImportError as error:
            script.say(f"{name} is left out: {error}")
            continue
        seconds = time.perf_counter() - start
        found = search(queries)
        expected = found if expected is None else expected
        recall = metrics.recall_at_k(expected, found)
        speeds = [measure_speed(search, queries, x) for x in (1, _AT_ONCE)]
        first = first or speeds
        cells = [
            f"{speed:,.0f} | {speed / base:.1f}"
            for speed, base in zip(speeds, first, strict=True)
        ]
        print(
            f"| {size:,} | {name} | {seconds:.1f} | {recall:.3f} | "
            f"{' | '.join(cells)} |",
            flush=True,
        )


def main(argv: list[str]) -> None:
    load = os.getloadavg()[0]
    command = " ".join(["python", "train/benchmark_retrieval.py", *sys.argv[1:]])
    dimension = draw_rows(1, np.random.default_rng(0)).shape[1]
    searchers.import_scann()  # Not within the time to build; imports TensorFlow.
    print(f"dfdetect {dfdetect.__version__}, rows of {dimension:,} numbers.")
    print(
        f"Machine: {environment.describe_machine()}; load before the start {load:.1f}."
    )
    print(f"Command: `{command}`\n")
    print(
        "| rows | method | build, s | recall@10 | queries/s, single | x brute force | "
        f"{_AT_ONCE} at once | x brute force |\n|---|---|---|---|---|---|---|---|"
    )
    for size in _SIZES.value:
        measure(int(size))


if __name__ == "__main__":
    script.run_main(main)
