"""Saves a graph as a SavedModel, and loads it again."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from dfdetect import console, manifest
from dfdetect.export import (
    freezing,
    graph_folder,
    inlined_calls,
    inspection,
    runtime,
    served_verdict,
)
from dfdetect.pipeline import chunking, deepfake_pipeline, interfaces
from dfdetect.retrieval import neighbours

_REQUIRED = ("detect", "detect_frames", "classify_crops", "embed")
# Graphs of earlier versions lack some.
_OPTIONAL = ("embed_content", "explain", "explain_heads", "neighbours")


class LoadedPipeline:
    """An exported `deepfake_pipeline.DeepfakePipeline`; see `interfaces.Pipeline`.

    Attributes:
        manifest: Manifest of the graph, of kind "pipeline".
        embed_content: None where the graph was exported before there was one.
        explain: None where the graph was exported without it.
        explain_heads: None where the graph was exported without it.
        neighbours: None where the graph was exported without an index.
    """

    detect: interfaces.Signature
    detect_frames: interfaces.Signature
    classify_crops: interfaces.Signature
    embed: interfaces.Signature
    embed_content: interfaces.Signature | None
    explain: interfaces.Signature | None
    explain_heads: Callable[[tf.Tensor, tf.Tensor], chunking.Outputs] | None
    neighbours: interfaces.Signature | None

    def __init__(self, graph: Any, description: dict[str, Any]) -> None:
        self.manifest = description
        # The functions alone do not keep the variables alive.
        self._graph = graph
        found = {name: getattr(graph, name) for name in _REQUIRED}
        found |= {name: getattr(graph, name, None) for name in _OPTIONAL}
        is_optimized = inspection.is_optimized(description)
        for name, function in found.items():
            if function and is_optimized:
                function = freezing.without_grappler(function)
            setattr(self, name, function)


def load(directory: str, say: Callable[[str], None] = console.say) -> LoadedPipeline:
    """Loads a graph that `save` wrote, or the newest in a folder of versions.

    Args:
        directory: See `graph_folder.find_graph`.
        say: Likewise.

    Raises:
        ImportError: ScaNN, which the index of the graph needs, is missing.
        ValueError: The folder has no valid manifest, and is not a graph of dfdetect.
    """
    directory = graph_folder.find_graph(directory, say)
    try:
        description = manifest.read(os.path.join(directory, "assets"), "pipeline")
    except FileNotFoundError as error:
        raise ValueError(
            f"{directory} is not a graph of dfdetect: it has no {error.filename}."
        ) from error
    interfaces.check(description)
    if description.get("index", {}).get("exact") is False:
        neighbours.import_scann_ops()
    return LoadedPipeline(tf.saved_model.load(directory), description)


def save(
    graph: deepfake_pipeline.DeepfakePipeline,
    directory: str,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Writes a graph, aside and then renamed, with its manifest in the assets.

    Its signatures are those of the graph, with verdicts, see `served_verdict`.

    Args:
        graph: A graph with variables, or frozen.
        directory: New folder, named by a number for TensorFlow Serving.
        say: Called with a line about each stage.

    Raises:
        FileExistsError: The folder exists.
    """
    directory = os.path.abspath(directory)
    if os.path.exists(directory):
        raise FileExistsError(f"{directory} is there already.")
    parent, last = os.path.split(directory)
    # Not a number, so that no server takes it for a version.
    aside = os.path.join(parent, f".{last}.{secrets.token_hex(4)}.tmp")
    methods = {**interfaces.SIGNATURES, **interfaces.BOX_SIGNATURES}
    if graph.neighbours is not None:
        methods["neighbours"] = "neighbours"
    try:
        with contextlib.ExitStack() as stack:
            if inspection.is_frozen(graph.manifest):
                # What is traced here says so of the functions that it calls: a session
                # that optimizes nothing itself leaves them as they are, too.
                stack.enter_context(freezing.grappler_disabled())
            _write(graph, aside, methods, say)
        manifest.write(os.path.join(aside, "assets"), graph.manifest)
        os.rename(aside, directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(
    graph: deepfake_pipeline.DeepfakePipeline,
    directory: str,
    methods: dict[str, str],
    say: Callable[[str], None],
) -> None:
    """Writes the graph with these methods as signatures, by their names."""
    # Not the pipeline itself, of which TensorFlow would write everything.
    exported = tf.Module()
    exported.weights = graph.model_variables
    exported.index = graph.index
    thresholds = graph.manifest["classifier"]["thresholds"]
    signatures = {}
    for number, (name, method) in enumerate(methods.items(), start=1):
        say(f"making the graph of {name}, {number} of {len(methods)}")
        # TensorFlow would trace the method again where it saves it.
        signature = getattr(graph, method).get_concrete_function()
        setattr(exported, method, signature)
        if name in served_verdict.SIGNATURES:
            signature = served_verdict.add_verdict(signature, thresholds)
        signatures[name] = signature
    say("writing the graph")
    runtime.release_memory()
    tf.saved_model.save(exported, directory, signatures=signatures)
    runtime.release_memory()
    inlined_calls.inline_calls_of_saved_model(directory)
