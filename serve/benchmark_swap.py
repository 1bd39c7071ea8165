"""Swaps versions of a loaded `dfdetect serve`, then ends it, and counts what was lost.

    python serve/benchmark_swap.py --version=BASE/1 [--images=FOLDER] [--seconds=60]
        [--clients=16] [--drain_seconds=30]

Half of the clients ask over REST, half over gRPC, each one image after the other. After
a sixth of the time a copy of the version is published as the next one, after six tenths
a damaged one; at the end SIGTERM is sent. Prints a table in Markdown, with the machine,
its load and the command. Exit code 1: a request that began before SIGTERM got no
answer (one that arrived after it is refused, which is an answer), or the new version
did not come, or the damaged one took its place. Needs `pip install 'dfdetect[serve]'`.
"""

import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

from absl import flags

import dfdetect
from dfdetect import files, script
from dfdetect.cli import environment
from dfdetect.media import source_files
from dfdetect.serving import load_clients

_VERSION = flags.DEFINE_string("version", None, "An exported version.", required=True)
_IMAGES = flags.DEFINE_string(
    "images", None, "Folder of images; by default the sample portrait."
)
_SECONDS = flags.DEFINE_float("seconds", 60.0, "Seconds of load.", 1.0)
_CLIENTS = flags.DEFINE_integer("clients", 16, "Clients at a time.", lower_bound=2)
_DRAIN_SECONDS = flags.DEFINE_float("drain_seconds", 30.0, "See `dfdetect serve`.", 0.1)

_MODEL, _SIGNATURE = "dfdetect", "serving_default"
# What a server says that ends, and the system once it has ended.
_REFUSALS = (
    "server is shutting down",
    "Connection refused",
    "Connection reset",
    "onnect to remote host",
)
_TIMEOUT = load_clients.TIMEOUT  # Seconds, also until a version must be there.


def _copy_versions(folder: pathlib.Path) -> pathlib.Path:
    """Copies the version as BASE/1, `next`, and a damaged one; returns BASE."""
    base = folder / "base"
    for path in (base / "1", folder / "next", folder / "damaged"):
        shutil.copytree(_VERSION.value, path)
    graph = folder / "damaged" / "saved_model.pb"
    os.truncate(graph, graph.stat().st_size // 2)
    return base


def _wait_until(rest_port: int, number: int, wanted: str) -> float:
    """Waits until a version has a state; returns the seconds, or infinity."""
    begun = time.monotonic()
    while load_clients.read_states(rest_port, _MODEL).get(number) != wanted:
        if time.monotonic() > begun + _TIMEOUT:
            return float("inf")
        time.sleep(0.1)
    return time.monotonic() - begun


def _connect_clients(server: load_clients.Server) -> list[load_clients.Ask]:
    """Connects half of the clients over gRPC and half over REST."""
    ends = _MODEL, _SIGNATURE
    return [
        # A connection of REST that is kept may be closed while a request is on its way.
        load_clients.connect_each_time("rest", server.rest_port, *ends)
        if i % 2
        else load_clients.connect("grpc", server.port, *ends)
        for i in range(_CLIENTS.value)
    ]


def _is_refused(answer: load_clients.Answer, ended: float) -> bool:
    """Whether a request came too late, and was told so: a client asks elsewhere."""
    came = answer.begun + answer.seconds
    return came > ended and any(words in answer.problem for words in _REFUSALS)


def _measure(folder: pathlib.Path, images: list[bytes]) -> tuple[dict[str, str], bool]:
    """Loads, swaps and ends a server; returns the row, and whether all went well."""
    base = _copy_versions(folder)
    drain = f"--drain_seconds={_DRAIN_SECONDS.value}"
    with load_clients.run_server(str(base), _MODEL, drain) as server:
        process, _, rest_port = server
        load = load_clients.Load(_connect_clients(server), images)
        begun = time.monotonic()
        time.sleep(_SECONDS.value / 6)
        os.rename(folder / "next", base / "2")
        waited = _wait_until(rest_port, 2, "AVAILABLE")
        time.sleep(max(begun + 0.6 * _SECONDS.value - time.monotonic(), 0.0))
        os.rename(folder / "damaged", base / "3")
        time.sleep(max(begun + _SECONDS.value - time.monotonic(), 3.0))
        states = load_clients.read_states(rest_port, _MODEL)
        ended = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait()
        drained = time.monotonic() - ended
        load.stop()
    before = [answer for answer in load.answers if answer.begun < ended]
    lost = [
        answer.problem
        for answer in before
        if answer.problem and not _is_refused(answer, ended)
    ]
    for problem in lost[:1]:
        script.say(f"{len(lost)} requests were lost, the first: {problem}")
    is_well = not lost and waited < float("inf") and states.get(2) == "AVAILABLE"
    return {
        "requests before SIGTERM": str(len(before)),
        "lost": str(len(lost)),
        "longest, s": f"{max(answer.seconds for answer in before):.1f}",
        "new version after, s": f"{waited:.1f}",
        "states": ", ".join(f"{n} {state}" for n, state in sorted(states.items())),
        "exit after, s": f"{drained:.1f}",
        "exit code": str(code),
    }, is_well


def main(argv: list[str]) -> None:
    folder = _IMAGES.value or source_files.find_sample()
    sources, _ = source_files.find_sources([folder])
    images = [files.read(source.path) for source in sources]
    if not images:
        raise ValueError(f"--images must hold images: {folder}")
    print(f"dfdetect {dfdetect.__version__}.")
    print(
        f"Machine: {environment.describe_machine()}; load before the start "
        f"{os.getloadavg()[0]:.1f}."
    )
    command = " ".join(["python", "serve/benchmark_swap.py", *sys.argv[1:]])
    print(f"Command: `{command}`.\n", flush=True)
    with tempfile.TemporaryDirectory() as work_dir:
        row, is_well = _measure(pathlib.Path(work_dir), images)
    print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
    print(f"| {' | '.join(row.values())} |", flush=True)
    if not is_well:
        sys.exit(1)


if __name__ == "__main__":
    script.run_main(main)
