"""Checks a running model server from outside, after `docker compose up` for example.

    python serve/smoke_test.py [IMAGE] [--url=http://localhost:8501]

Waits until the model is available, then asks it about an image over REST and, where
grpcio is installed, over gRPC, for each label, and looks for these requests in the
metrics and for the server among Prometheus' targets. Without IMAGE it draws one, on
which no head needs to be found. Prints a line for each check.

Exit code: 0 all of them passed, 1 one failed, 2 usage error.

Needs the standard library and `client.py` beside it.
"""

import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from typing import Any

_CLIENT = pathlib.Path(__file__).resolve().parent / "client.py"
_METRICS = "/monitoring/prometheus/metrics"
_REQUESTS = ":tensorflow:serving:request_count"
_SIDE = 256  # of the image that is drawn, in pixels
_ANSWERED = ("ok", "no_head", "head_too_small")
_TICK = 1.0  # seconds between two looks
_REQUEST_SECONDS = 10.0


class CheckError(Exception):
    """A check failed; the message says what was wanted and what came."""


def main(argv: Sequence[str] | None = None) -> int:
    flags = _build_parser().parse_args(argv)
    end = time.monotonic() + flags.wait
    labels = [label for label in flags.labels.split(",") if label]
    model = f"{flags.url}/v1/models/{urllib.parse.quote(flags.model, safe='')}"
    with tempfile.TemporaryDirectory() as folder:
        image = flags.image or str(pathlib.Path(folder, "drawn.png"))
        if not flags.image:
            pathlib.Path(image).write_bytes(draw_png())
        checks: list[tuple[str, Callable[[], str]]] = [
            ("versions", lambda: wait_for(lambda: check_versions(model), end)),
        ]
        for protocol in ("rest", "grpc"):
            for label in labels or [""]:
                name = f"{protocol} {label}".strip()
                ask = _client_check(flags, image, protocol, label)
                checks.append((name, ask))
        checks.append(("metrics", lambda: check_metrics(flags.url + _METRICS)))
        if flags.prometheus:
            # It looks at its targets every 15 seconds.
            target = f"{flags.prometheus}/api/v1/targets"
            checks.append(
                ("prometheus", lambda: wait_for(lambda: check_target(target), end))
            )
        num_failed = 0
        for name, check in checks:
            try:
                print(f"ok: {name}: {check()}", flush=True)
            except CheckError as error:
                num_failed += 1
                print(f"failed: {name}: {error}", flush=True)
    return 1 if num_failed else 0


def wait_for(check: Callable[[], str], end: float) -> str:
    """Repeats a check until it passes or the time is over.

    Args:
        check: Returns what it found.
        end: On the clock of `time.monotonic`.

    Raises:
        CheckError: The error of the last attempt.
    """
    while True:
        try:
            return check()
        except CheckError:
            if time.monotonic() + _TICK > end:
                raise
        time.sleep(_TICK)


def check_versions(url: str) -> str:
    """Names the versions of a model, all of which must be available."""
    states = {
        version["version"]: version["state"]
        for version in _get_json(url)["model_version_status"]
        if version["state"] != "END"
    }
    listed = ", ".join(f"{number} {state}" for number, state in states.items())
    if not states or set(states.values()) != {"AVAILABLE"}:
        raise CheckError(f"all versions must be AVAILABLE, got {listed or 'none'}")
    return listed


def check_metrics(url: str) -> str:
    """Says how many successful requests the metrics count; there must be one."""
    count = 0.0
    for line in _get(url).decode().splitlines():
        if line.startswith(_REQUESTS) and 'status="OK"' in line:
            count += float(line.rsplit(" ", 1)[1])
    if not count:
        raise CheckError(f'{_REQUESTS}{{status="OK"}} must be above 0')
    return f"{count:.0f} requests answered"


def check_target(url: str) -> str:
    """Says that Prometheus reads the metrics of the server."""
    targets = _get_json(url)["data"]["activeTargets"]
    health = {target["scrapeUrl"]: target["health"] for target in targets}
    if not health or set(health.values()) != {"up"}:
        raise CheckError(f"all targets must be up, got {health or 'none'}")
    return f"{len(health)} target{'s' if len(health) > 1 else ''} up"


def draw_png() -> bytes:
    """Draws a PNG, `_SIDE` pixels square: a disc on a slope of colors."""
    rows = bytearray()
    for y in range(_SIDE):
        rows.append(0)  # No filter.
        for x in range(_SIDE):
            inside = (x - _SIDE / 2) ** 2 + (y - _SIDE / 2) ** 2 < (_SIDE / 4) ** 2
            rows += bytes((225, 175, 150)) if inside else bytes((y // 2, x // 2, 120))
    header = _SIDE.to_bytes(4, "big") * 2 + bytes((8, 2, 0, 0, 0))
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4, "big")
        + kind
        + data
        + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data in parts
    )


def _client_check(
    flags: argparse.Namespace, image: str, protocol: str, label: str
) -> Callable[[], str]:
    def check() -> str:
        if protocol == "grpc" and not importlib.util.find_spec("grpc"):
            return "not checked: pip install grpcio protobuf"
        address = {"rest": f"--url={flags.url}", "grpc": f"--server={flags.server}"}
        command = [sys.executable, str(_CLIENT), image, f"--protocol={protocol}"]
        command += [address[protocol], f"--model={flags.model}"]
        command += [f"--label={label}"] if label else []
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise CheckError((done.stderr or done.stdout).strip())
        line = json.loads(done.stdout)
        if line["status"] not in _ANSWERED:
            raise CheckError(f"status must be one of {_ANSWERED}, got {line['status']}")
        return f"{line['status']}, {len(line['heads'])} heads"

    return check


def _get_json(url: str) -> Any:
    text = _get(url)
    try:
        return json.loads(text)
    except ValueError as error:
        raise CheckError(f"{url} must answer in JSON, got {text[:80]!r}") from error


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_REQUEST_SECONDS) as answer:
            return answer.read()
    except (OSError, ValueError) as error:
        raise CheckError(f"{url}: {error}") from error


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("image", nargs="?", metavar="IMAGE")
    add("--url", default="http://localhost:8501", help="of the port of REST")
    add("--server", default="localhost:8500", help="HOST:PORT of gRPC")
    add("--model", default="dfdetect", help="its name on the server")
    add(
        "--labels",
        default="stable,canary",
        help="of the versions to ask, with commas; empty: the server's choice",
    )
    add(
        "--prometheus",
        default="http://localhost:9090",
        help="its address; empty: not checked",
    )
    add("--wait", type=float, default=300.0, help="seconds for the model to load")
    return parser


if __name__ == "__main__":
    sys.exit(main())
