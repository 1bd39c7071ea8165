"""Publishes a graph as a version that TensorFlow Serving picks up from a folder."""

import os
import shutil
from collections.abc import Sequence
from typing import Any

from dfdetect.export import freezing, inspection, parity, saved_pipeline, warmup
from dfdetect.pipeline import deepfake_pipeline


def next_version(base: str) -> int:
    """One more than the highest number among the folders in `base`."""
    names = os.listdir(base) if os.path.isdir(base) else []
    return max((int(name) for name in names if name.isdecimal()), default=0) + 1


def publish(
    graph: deepfake_pipeline.DeepfakePipeline,
    directory: str,
    precision: str,
    batch_sizes: Sequence[int],
    timeout_micros: int,
) -> dict[str, Any]:
    """Writes a graph with its weights folded, checked, and all that belongs to it.

    Aside and then renamed: a server that looks into the folder of `directory` sees all
    of it or nothing.

    Args:
        graph: With variables; what the saved one is compared with.
        directory: The folder of the version, a number; new.
        precision: One of `freezing.PRECISIONS`.
        batch_sizes: See `warmup`.
        timeout_micros: See `warmup.write_batching`.

    Returns:
        See `parity.check`.

    Raises:
        FileExistsError: The folder is there already.
        ImportError: tensorflow-serving-api is missing.
        ValueError: The saved graph does not answer as `graph`, or has operations that
            TensorFlow Serving lacks.
    """
    directory = os.path.abspath(directory)
    if os.path.exists(directory):
        raise FileExistsError(f"{directory} is there already.")
    warmup.messages()  # Told before the work.
    base, version = os.path.split(directory)
    os.makedirs(base, exist_ok=True)
    # Not a number, so that no server takes it for a version.
    aside = os.path.join(base, f".{version}.{os.getpid()}.export")
    try:
        saved_pipeline.save(freezing.freeze(graph, precision), aside)
        wanted = graph.manifest.get("index") or {}
        allowed = inspection.SCANN if wanted.get("exact") is False else ""
        inspection.check_operations(aside, allowed)
        found = parity.check(graph, aside, parity.BOUNDS[precision])
        warmup.write_requests(aside, batch_sizes)
        warmup.write_batching(aside, batch_sizes, timeout_micros)
        os.rename(aside, directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return found
