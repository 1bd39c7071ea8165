"""Measures a `dfdetect serve` under load, with batching and without.

    python serve/benchmark_serve.py --model_base_path=BASE --images=FOLDER \
        [--protocol=grpc|rest] [--signature=classify_crops] [--seconds=60]
        [--clients=16] [--requests=5000]

Each of `--clients` sends one image after the other to a server without
--enable_batching, then to one with it. Prints, in Markdown, the machine, its load and
the command; the speed of both servers; that of the graph without a server; and the
memory of a server with batching after 500 and after --requests requests. CPU time an
image depends less than speed on what else the machine does, and bounds the speed of a
number of cores. Needs `pip install 'dfdetect[serve]'`.
"""

import contextlib
import os
import pathlib
import re
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from absl import flags, logging

import dfdetect
from dfdetect import files, script
from dfdetect.cli import environment
from dfdetect.media import source_files
from dfdetect.serving import load_clients

_MODEL_BASE_PATH = flags.DEFINE_string(
    "model_base_path", None, "Folder of the versions of an export.", required=True
)
_IMAGES = flags.DEFINE_string("images", None, "Folder of images.", required=True)
_PROTOCOL = flags.DEFINE_enum(
    "protocol", "grpc", ["grpc", "rest"], "Protocol of the clients."
)
_SIGNATURE = flags.DEFINE_enum(
    "signature",
    "serving_default",
    ["serving_default", "classify_crops"],
    "Signature to call; classify_crops takes images of one head each.",
)
_CLIENTS = flags.DEFINE_integer("clients", 16, "Clients at a time.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 60.0, "Seconds of load.", 0.1)
_REQUESTS = flags.DEFINE_integer(
    "requests", 5000, "Requests after which memory is compared; 0 for no comparison.", 0
)
_MAX_BATCH_SIZE = flags.DEFINE_integer("max_batch_size", 8, "Most images a batch.", 1)
_BATCH_TIMEOUT = flags.DEFINE_integer(
    "batch_timeout_micros", 20_000, "Microseconds that a batch waits for more.", 0
)
_BATCH_THREADS = flags.DEFINE_integer(
    "num_batch_threads", 1, "Batches that run at a time.", 1
)

_MODEL = "dfdetect"
_FIRST_REQUESTS = 500
_COUNTED = (
    "batching:processed_batch_size_sum",
    "batching:processed_batch_size_count",
    "process_cpu_seconds_total",
    "request_count",
)


def _read_metric(port: int, name: str) -> float:
    """Reads a metric of a server, summed over its labels."""
    path = f"http://127.0.0.1:{port}/monitoring/prometheus/metrics"
    with urllib.request.urlopen(path, timeout=60) as answer:
        page = answer.read().decode()
    pattern = rf"^(?::tensorflow:serving:)?{re.escape(name)}(?:\{{.*\}})? (\S+)$"
    return sum(map(float, re.findall(pattern, page, re.M)))


@contextlib.contextmanager
def _run_load(
    images: list[bytes], *arguments: str
) -> Iterator[tuple[load_clients.Load, int]]:
    """Runs a server with these flags under load; gives the load and the REST port."""
    base = _MODEL_BASE_PATH.value
    with load_clients.run_server(base, _MODEL, *arguments) as server:
        port = server.rest_port if _PROTOCOL.value == "rest" else server.port
        connection = _PROTOCOL.value, port, _MODEL, _SIGNATURE.value
        clients = [load_clients.connect(*connection) for _ in range(_CLIENTS.value)]
        load = load_clients.Load(clients, images)
        try:
            yield load, server.rest_port
        finally:
            load.stop()
    for problem in load.problems[:1]:
        script.say(f"{len(load.problems)} errors, the first: {problem}")


def _measure_server(images: list[bytes], *arguments: str) -> dict[str, float]:
    """Measures a server under load for --seconds; returns a row of the table."""
    with _run_load(images, *arguments) as (load, rest_port):
        # The first runs of the graph, of each batch size, are slower.
        load.wait_for(4 * _CLIENTS.value)
        before = [_read_metric(rest_port, name) for name in _COUNTED]
        start = time.monotonic()
        time.sleep(_SECONDS.value)
        end = time.monotonic()
        after = [_read_metric(rest_port, name) for name in _COUNTED]
        seconds = [
            answer.seconds
            for answer in list(load.answers)
            if not answer.problem and start <= answer.begun + answer.seconds <= end
        ]
    if not seconds:
        raise ValueError(f"no answer within {_SECONDS.value} s")
    images_run, batches, cpu_seconds, requests_run = np.subtract(after, before)
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99])
    return {
        "requests/s": len(seconds) / (end - start),
        "p50, s": p50,
        "p95, s": p95,
        "p99, s": p99,
        "errors": len(load.problems),
        # Without batching there are no batches, and no metrics of them.
        "mean batch size": images_run / batches if batches else 1.0,
        "CPU s an image": cpu_seconds / requests_run,
    }


def _print_memory_growth(images: list[bytes], requests: int, *arguments: str) -> None:
    """Prints a server's memory after 500 requests and after `requests`."""
    resident = []
    with _run_load(images, *arguments) as (load, rest_port):
        for count in (_FIRST_REQUESTS, requests):
            load.wait_for(count)
            mebibytes = _read_metric(rest_port, "process_resident_memory_bytes") / 2**20
            resident.append(mebibytes)
            _print(f"Memory after {count} requests: {mebibytes:.0f} MiB.")
    change = 100 * (resident[1] / resident[0] - 1)
    _print(f"That is {change:+.1f} %, with {len(load.problems)} errors.")


def _measure_graph(
    images: list[bytes], batch_size: int, threads: int
) -> tuple[float, float]:
    """Measures the graph without a server, called by a number of threads.

    Returns:
        Images a second, and CPU seconds an image.
    """
    from dfdetect.serving import saved_model, versions

    found = versions.find_versions(_MODEL_BASE_PATH.value)
    model = saved_model.SavedModel(found[max(found)])
    signature = model.signatures[_SIGNATURE.value]
    fetches = [info.name for info in signature.outputs.values()]
    done: list[int] = []

    def run(number: int, end: float) -> None:
        while time.monotonic() < end:
            chosen = [images[(number + i) % len(images)] for i in range(batch_size)]
            number += batch_size
            feed = {signature.inputs["image_bytes"].name: np.array(chosen, object)}
            model.run(feed, fetches)
            done.append(batch_size)

    # The first runs are slower.
    run(0, time.monotonic() + min(5.0, _SECONDS.value))
    done.clear()
    start, processor = time.monotonic(), time.process_time()
    runners = [
        threading.Thread(target=run, args=(50 * i, start + min(20.0, _SECONDS.value)))
        for i in range(threads)
    ]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    seconds, processor = time.monotonic() - start, time.process_time() - processor
    model.close()
    return sum(done) / seconds, processor / sum(done)


def main(argv: list[str]) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Hides the notes of the graph's loader.
    logging.set_verbosity(logging.ERROR)
    sources, _ = source_files.find_sources([_IMAGES.value])
    images = [files.read(source.path) for source in sources]
    if not images:
        raise ValueError(f"--images must hold images: {_IMAGES.value}")
    _print_conditions(len(images))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "batching.config"
        path.write_text(
            f"max_batch_size {{ value: {_MAX_BATCH_SIZE.value} }}\n"
            f"batch_timeout_micros {{ value: {_BATCH_TIMEOUT.value} }}\n"
            f"num_batch_threads {{ value: {_BATCH_THREADS.value} }}\n",
            encoding="utf-8",
        )
        batching = ("--enable_batching", f"--batching_parameters_file={path}")
        _print_servers(images, {"off": (), "on": batching})
        _print("| graph alone: batch | threads | images/s | CPU s an image |")
        _print("|---|---|---|---|")
        for batch_size, threads in ((1, 1), (1, 2), (_MAX_BATCH_SIZE.value, 1)):
            speed, cost = _measure_graph(images, batch_size, threads)
            _print(f"| {batch_size} | {threads} | {speed:.2f} | {cost:.2f} |")
        if _REQUESTS.value:
            _print("")
            _print_memory_growth(images, _REQUESTS.value, *batching)


def _print_conditions(num_images: int) -> None:
    _print(f"dfdetect {dfdetect.__version__}.")
    _print(
        f"Machine: {environment.describe_machine()}; load before the start "
        f"{os.getloadavg()[0]:.1f}."
    )
    _print(
        f"Command: `{' '.join(['python', 'serve/benchmark_serve.py', *sys.argv[1:]])}`,"
        f" {num_images} given images; {_CLIENTS.value} clients over "
        f"{_PROTOCOL.value} for {_SECONDS.value:.0f} s; batches of up to "
        f"{_MAX_BATCH_SIZE.value}, which wait {_BATCH_TIMEOUT.value} us, "
        f"{_BATCH_THREADS.value} at a time.\n"
    )


def _print_servers(images: list[bytes], kinds: Mapping[str, Sequence[str]]) -> None:
    """Prints the table of servers without and with batching."""
    speeds: list[float] = []
    for name, arguments in kinds.items():
        row = _measure_server(images, *arguments)
        if not speeds:
            _print(f"| batching | {' | '.join(row)} |\n|---|{'---|' * len(row)}")
        values = (
            str(value) if isinstance(value, int) else f"{value:.2f}"
            for value in row.values()
        )
        _print(f"| {name} | {' | '.join(values)} |")
        speeds.append(row["requests/s"])
    _print(f"\nBatching gives {speeds[1] / speeds[0]:.2f} times the requests/s.\n")


def _print(line: str) -> None:
    # Without a buffer, as the measurements take minutes.
    print(line, flush=True)


if __name__ == "__main__":
    script.run_main(main)
