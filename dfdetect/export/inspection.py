"""Inspects a SavedModel as TensorFlow Serving sees it: its operations and signatures.

TensorFlow Serving has neither Python nor libraries of operations, and runs signatures
by their names.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

# None has a public name.
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import loader_impl
from tensorflow.python.trackable import base as tracking_base

from dfdetect.export import freezing

# Operations that are registered with TensorFlow, but call back into Python.
_PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}

Inputs = np.ndarray | dict[str, np.ndarray]

_VARIABLES = ("variables", "variables")  # Prefix of the files of variables.

SCANN = "Scann>"  # Prefix of ScaNN's operations.


def check_operations(directory: str, allowed: str = "") -> None:
    """Refuses a graph that stock TensorFlow without Python cannot run.

    Args:
        directory: Folder of the SavedModel.
        allowed: Prefix of further operations that are allowed; none by default.

    Raises:
        ValueError: The graph has other operations; the message names them.
    """
    foreign = {
        name
        for name in list_operations(directory)
        if not _is_stock(name) and not (allowed and name.startswith(allowed))
    }
    if foreign:
        raise ValueError(
            "the graph must have operations of stock TensorFlow only, "
            f"got {', '.join(sorted(foreign))}."
        )


def list_operations(directory: str) -> set[str]:
    """Lists the operations of all signatures of a SavedModel and their functions."""
    saved = saved_model_pb2.SavedModel()
    with open(os.path.join(directory, "saved_model.pb"), "rb") as file:
        saved.ParseFromString(file.read())
    found = set()
    for meta_graph in saved.meta_graphs:
        library = meta_graph.graph_def.library.function
        functions = {function.signature.name for function in library}
        found |= {node.op for node in meta_graph.graph_def.node} - functions
        for function in library:
            found |= {node.op for node in function.node_def} - functions
    return found


def is_frozen(description: dict[str, Any]) -> bool:
    """Whether a graph was folded and fused for an export.

    Args:
        description: Manifest of the graph, of kind "pipeline".
    """
    return "precision" in description


def is_optimized(description: dict[str, Any]) -> bool:
    """Whether TensorFlow's optimizer, Grappler, gains nothing for an exported graph.

    It takes seconds for each signature and each set of outputs before the first call,
    for the same speed and the same numbers where the graph is frozen. Only a GPU may
    gain by its layout of the convolutions.

    Args:
        description: Manifest of the graph, of kind "pipeline".
    """
    return is_frozen(description) and not freezing.has_gpu()


@contextlib.contextmanager
def open_signatures(
    directory: str, optimize: bool = True
) -> Iterator[Callable[[str, Inputs], dict[str, np.ndarray]]]:
    """Loads a SavedModel as TensorFlow Serving does.

    Args:
        directory: Folder of the SavedModel.
        optimize: Whether TensorFlow optimizes each signature before its first call, as
            TensorFlow Serving does; see `is_optimized`.

    Yields:
        A function that runs a signature: its name and its inputs by name, or its only
        input, to its outputs.
    """
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = not optimize
    with (
        tf.Graph().as_default(),
        tf.compat.v1.Session(config=config) as session,
    ):
        meta_graph = load_into_session(session, directory)

        def run(name: str, inputs: Inputs) -> dict[str, np.ndarray]:
            signature = meta_graph.signature_def[name]
            if not isinstance(inputs, dict):
                (only,) = signature.inputs
                inputs = {only: inputs}
            feeds = {signature.inputs[key].name: x for key, x in inputs.items()}
            fetches = {key: info.name for key, info in signature.outputs.items()}
            return session.run(fetches, feeds)

        yield run


def load_into_session(
    session: tf.compat.v1.Session, directory: str, tags: Sequence[str] = ("serve",)
) -> tf.compat.v1.MetaGraphDef:
    """Loads a SavedModel as `tf.compat.v1.saved_model.load` does, but runs no more of
    it than is needed.

    Each run of other outputs prepares and keeps copies of the whole graph. A frozen one
    has nothing to restore, and nothing to initialize.

    Args:
        session: A new session of a new graph.
        directory: Folder of the SavedModel.
        tags: Tags of the graph in it.

    Raises:
        OSError: There is no SavedModel.
        RuntimeError: It has no graph with these tags.
        tf.errors.OpError: It cannot be read or restored.
    """
    loader = loader_impl.SavedModelLoader(directory)
    meta_graph = loader.get_meta_graph_def_from_tags(tags)
    with session.graph.as_default():
        saver, _ = loader.load_graph(session.graph, tags)
        if _has_variables(directory):
            loader.restore_variables(session, saver)
        start = loader_impl.get_init_op(meta_graph)
        start = getattr(start, "op", start)
        if start is not None and (start.inputs or start.control_inputs):
            loader.run_init_ops(session, tags)
    return meta_graph


def _has_variables(directory: str) -> bool:
    """Whether a SavedModel holds values to restore, or they cannot be listed."""
    try:
        listed = tf.train.list_variables(os.path.join(directory, *_VARIABLES))
    except (OSError, ValueError, tf.errors.OpError):
        return True
    return any(name != tracking_base.OBJECT_GRAPH_PROTO_KEY for name, _ in listed)


def _is_stock(name: str) -> bool:
    # Operations of libraries have their wrappers elsewhere.
    return hasattr(tf.raw_ops, name) and name not in _PYTHON
