"""Publishes a graph as a version that TensorFlow Serving picks up from a folder."""

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from dfdetect.export import (
    fastest_precision,
    freezing,
    inspection,
    parity,
    runtime,
    saved_pipeline,
    warmup,
    writing,
)
from dfdetect.pipeline import deepfake_pipeline


def find_next_version(base: str) -> int:
    """Returns one more than the highest number among the folders in `base`."""
    names = os.listdir(base) if os.path.isdir(base) else []
    return max((int(name) for name in names if name.isdecimal()), default=0) + 1


def publish(
    graph: deepfake_pipeline.DeepfakePipeline,
    directory: str,
    precision: str,
    batch_sizes: Sequence[int],
    timeout_micros: int,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Freezes, saves and checks a graph, with all that a server reads beside it.

    It is written aside and then renamed, so that a server sees all of it or nothing.

    Args:
        graph: A graph with variables; the saved one is compared with it.
        directory: New folder of the version, named by its number.
        precision: One of `freezing.PRECISIONS`, or "auto" for the one that is faster
            on this machine, see `fastest_precision`.
        batch_sizes: See `warmup`.
        timeout_micros: See `warmup.write_batching`.
        say: Called with a line about each stage.

    Returns:
        See `parity.check`.

    Raises:
        FileExistsError: The folder is there already.
        ImportError: tensorflow-serving-api is missing.
        OSError: It cannot be written.
        ValueError: The saved graph does not answer as `graph`, or has operations that
            TensorFlow Serving lacks.
    """
    directory = os.path.abspath(directory)
    if os.path.exists(directory):
        raise FileExistsError(f"{directory} is there already.")
    warmup.import_messages()  # Fails before the slow part.
    base, version = os.path.split(directory)
    os.makedirs(base, exist_ok=True)
    # Not a number, so that no server takes it for a version.
    aside = os.path.join(base, f".{version}.{secrets.token_hex(4)}.export")
    try:
        frozen = (
            fastest_precision.freeze_fastest(graph, say)
            if precision == "auto"
            else freezing.freeze(graph, precision)
        )
        precision = frozen.manifest["precision"]
        with writing.errors_told(directory):
            saved_pipeline.save(frozen, aside, say)
        del frozen
        runtime.release_memory()
        wanted = graph.manifest.get("index") or {}
        allowed = inspection.SCANN if wanted.get("exact") is False else ""
        inspection.check_operations(aside, allowed)
        found = parity.check(graph, aside, parity.BOUNDS[precision], say)
        say("writing warm-up requests and batching parameters")
        with writing.errors_told(directory):
            warmup.write_requests(aside, batch_sizes)
            warmup.write_batching(aside, batch_sizes, timeout_micros)
            os.rename(aside, directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return found
