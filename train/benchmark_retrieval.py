"""Compares the searcher of `dfdetect/retrieval` with hnswlib and faiss at equal recall.

    python train/benchmark_retrieval.py [--index=INDEX] [--sizes=10000,30000,100000]

Prints a table in Markdown with the machine and the command. Queries per second, one at
a time and a hundred at once, are interpolated at --target_recall of the nearest ten,
between settings of each method that find less and more; queries and rows are drawn
apart. All run on one thread, and its processor time counts, so that other work on the
machine matters little. The rows are drawn in two ways, as 100,000 are seldom at hand:
around the embeddings of --index, and from a Gaussian of their mean and covariance;
without it around random ones. hnswlib and faiss are left out where they are not
installed (pip install dfdetect[bench]).
"""

import os

# One thread each; before NumPy is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import concurrent.futures
import ctypes
import dataclasses
import gc
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

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
from dfdetect.retrieval import searchers, storage, tuning

_INDEX = flags.DEFINE_string("index", None, "Index of train/index.py.")
_SIZES = flags.DEFINE_list("sizes", ["10000", "30000", "100000"], "Numbers of rows.")
_DIMENSION = flags.DEFINE_integer(
    "dimension",
    1488,
    "Dimension of rows without --index; by default that of our content embeddings.",
    1,
)
_QUERIES = flags.DEFINE_integer("queries", 200, "Number of queries.", lower_bound=10)
_TARGET_RECALL = flags.DEFINE_float(
    "target_recall",
    tuning.DEFAULT_RECALL,
    "Recall to tune ScaNN to and to compare at.",
    0.0,
    1.0,
)
_DRAWS = flags.DEFINE_list("draws", ["clustered", "gaussian"], "How rows are drawn.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of rows and queries.")

_K = 10
_AT_ONCE = 100
_PASSES = 3

# Finds the positions of the nearest ten rows: queries `[Q, D]` to `[Q, 10]`.
Search = Callable[[np.ndarray], np.ndarray]
# A search by each of several settings, those that find less first.
Settings = Iterator[Search]


@dataclasses.dataclass(frozen=True)
class Point:
    """What one setting of a method reaches: recall and queries per second."""

    recall: float
    single: float
    batched: float


@dataclasses.dataclass(frozen=True)
class Measured:
    """A method: seconds to build, bytes a row, recall by default, and its settings."""

    seconds: float
    bytes_a_row: float
    default_recall: float
    points: list[Point]


def draw_clustered(
    known: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Draws unit vectors float32 `[count, D]` between two embeddings, with noise."""
    one, other = generator.integers(0, len(known), (2, count))
    share = generator.uniform(0, 0.5, (count, 1)).astype(np.float32)
    rows = (1 - share) * known[one] + share * known[other]
    noise = generator.standard_normal(rows.shape, np.float32)
    # A tenth of their length: as far as a copy that was cropped and compressed.
    rows += 0.1 / np.sqrt(rows.shape[1]) * noise
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def draw_gaussian(
    known: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Draws unit vectors float32 `[count, D]` of the embeddings' covariance."""
    mean = known.mean(0)
    # A sum of centered embeddings with normal weights has their covariance.
    weights = generator.standard_normal((count, len(known)), np.float32)
    rows = mean + weights @ ((known - mean) / np.sqrt(np.float32(len(known) - 1)))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


DRAWS = {"clustered": draw_clustered, "gaussian": draw_gaussian}


def build_brute_force(rows: np.ndarray, target_recall: float) -> Settings:
    searcher = searchers.BruteForce(rows, "cosine")
    yield lambda queries: searcher.search(queries, _K)[0]


def build_scann(rows: np.ndarray, target_recall: float) -> Settings:
    searcher = tuning.build(rows, "cosine", target_recall)
    tuned = searcher.settings
    yield lambda queries: searcher.search(queries, _K)[0]
    for factor in (0.35, 0.5, 0.7, 0.85, 1.0, 1.3, 1.8, 2.5):
        searched = round(factor * tuned.leaves_searched)
        searcher.settings = dataclasses.replace(
            tuned, leaves_searched=min(max(1, searched), tuned.leaves)
        )
        yield lambda queries: searcher.search(queries, _K)[0]


def build_faiss_ivf(rows: np.ndarray, target_recall: float) -> Settings:
    import faiss

    faiss.omp_set_num_threads(1)
    leaves = searchers.default_settings(len(rows)).leaves
    index = faiss.index_factory(
        rows.shape[1], f"IVF{leaves},Flat", faiss.METRIC_INNER_PRODUCT
    )
    index.train(rows[: 100 * leaves])
    index.add(rows)
    for probes in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        faiss.extract_index_ivf(index).nprobe = probes
        yield lambda queries: index.search(queries, _K)[1]


def build_hnsw(rows: np.ndarray, target_recall: float) -> Settings:
    import hnswlib

    index = hnswlib.Index("ip", rows.shape[1])
    index.init_index(len(rows), ef_construction=100, M=16)
    index.add_items(rows, num_threads=1)
    index.set_num_threads(1)
    for ef in (10, 20, 40, 80, 160, 320, 640, 1280):
        index.set_ef(ef)
        yield lambda queries: index.knn_query(queries, _K)[0]


METHODS = {
    "brute force": build_brute_force,
    "ours (ScaNN, tuned)": build_scann,
    "hnswlib, M 16": build_hnsw,
    "faiss, IVF": build_faiss_ivf,
}
_OWN_COPY = ("hnswlib, M 16", "faiss, IVF")


def measure_speed(search: Search, queries: np.ndarray, at_once: int) -> float:
    """Measures queries per second of processor: the best of three passes."""
    best = 0.0
    for _ in range(_PASSES):
        start, done = time.process_time(), 0
        while done + at_once <= len(queries) and time.process_time() - start < 1:
            search(queries[done : done + at_once])
            done += at_once
        best = max(best, done / (time.process_time() - start))
    return best


def measure_method(name: str, path: str, target_recall: float) -> Measured:
    """Builds a method and measures its settings, in a process of its own.

    Args:
        name: One of `METHODS`.
        path: File of `rows`, `queries` and the `expected` positions.
        target_recall: Settings are measured until one finds so much.

    Raises:
        ImportError: The library is not installed.
    """
    searchers.import_scann()  # Not within the time to build; imports TensorFlow.
    with np.load(path) as drawn:
        rows, queries, expected = (drawn[x] for x in ("rows", "queries", "expected"))
    before, start = _read_memory(), time.process_time()
    settings = METHODS[name](rows, target_recall)
    first = next(settings)
    seconds, after = time.process_time() - start, _read_memory()
    held = 0 if name in _OWN_COPY else rows.nbytes
    at_once = min(_AT_ONCE, len(queries))
    default, points = math.nan, []
    if name == "ours (ScaNN, tuned)":
        default = metrics.recall_at_k(expected, first(queries))
        first = next(settings)
    while True:
        recall = metrics.recall_at_k(expected, first(queries))
        speeds = [measure_speed(first, queries, x) for x in (1, at_once)]
        points.append(Point(recall, *speeds))
        following = next(settings, None)
        if following is None or recall >= target_recall:
            break
        first = following
    size = (max(0, after - before) + held) / len(rows)
    return Measured(seconds, size, default, points)


def _read_memory() -> int:
    """Returns the resident bytes of this process."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def interpolate(
    points: list[Point], target_recall: float
) -> tuple[float, float] | None:
    """Interpolates speeds at a recall, their logarithms linearly; None if not reached.

    If even the first point finds more, its speeds are those.
    """
    points = sorted(points, key=lambda point: point.recall)
    recalls = [point.recall for point in points]
    if recalls[-1] < target_recall:
        return None
    logarithms = np.log([[point.single, point.batched] for point in points])
    single, batched = (
        math.exp(np.interp(target_recall, recalls, values)) for values in logarithms.T
    )
    return single, batched


def read_known() -> np.ndarray:
    """Reads the embeddings of --index, or draws some."""
    if _INDEX.value:
        searcher, _ = storage.load(_INDEX.value)[0].snapshot()
        assert searcher is not None
        return searcher.rows
    centers = np.random.default_rng(_SEED.value)
    known = centers.standard_normal((2000, _DIMENSION.value), np.float32)
    return known / np.linalg.norm(known, axis=1, keepdims=True)


def compare(draw: str, size: int, known: np.ndarray) -> None:
    """Prints the rows of the table for one way to draw and one number of rows."""
    generator = np.random.default_rng(_SEED.value + 1)
    rows = DRAWS[draw](known, size, generator)
    queries = DRAWS[draw](known, _QUERIES.value, generator)
    expected, _ = searchers.BruteForce(rows, "cosine").search(queries, _K)
    target = _TARGET_RECALL.value
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "drawn.npz")
        np.savez(path, rows=rows, queries=queries, expected=expected)
        del rows
        for name in METHODS:
            # A new process each, so that memory is that of one method.
            with concurrent.futures.ProcessPoolExecutor(
                1, mp_context=multiprocessing.get_context("spawn")
            ) as pool:
                try:
                    found = pool.submit(measure_method, name, path, target).result()
                except ImportError as error:
                    script.say(f"{name} is left out: {error}")
                    continue
            speeds = interpolate(found.points, target)
            best = max(point.recall for point in found.points)
            cells = (
                [f"{x:,.0f}" for x in speeds] if speeds else ["-", f"best {best:.3f}"]
            )
            default = found.default_recall
            print(
                f"| {draw} | {size:,} | {name} | {found.seconds:.1f} | "
                f"{found.bytes_a_row:,.0f} | "
                f"{'' if math.isnan(default) else f'{default:.3f}'} | "
                f"{' | '.join(cells)} |",
                flush=True,
            )


def main(argv: list[str]) -> None:
    command = " ".join(["python", "train/benchmark_retrieval.py", *sys.argv[1:]])
    known = read_known()
    print(f"dfdetect {dfdetect.__version__}, rows of {known.shape[1]:,} numbers.")
    print(f"Machine: {environment.describe_machine()}; one thread, processor time.")
    print(f"Command: `{command}`\n")
    print(
        "| draw | rows | method | build, s | bytes a row | recall as tuned | queries/s "
        f"at recall {_TARGET_RECALL.value:g}, single | {_AT_ONCE} at once |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for size in _SIZES.value:
        for draw in _DRAWS.value:
            compare(draw, int(size), known)


if __name__ == "__main__":
    script.run_main(main)
