"""Lets TensorFlow inline functions where a graph calls them.

A function that is called, not inlined, is a graph by itself. TensorFlow prepares it
before its first call by all passes, each over everything within, so that functions
within functions are prepared several times. Where they are inlined, the first call of a
signature takes a third of the time; further calls take the same.
"""

import os

import tensorflow as tf

# There is no public name for either.
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# `LowerFunctionalOpsConstants::kLowerAsMultiDeviceFunctionAttr` of TensorFlow.
_INLINED = "_lower_as_multi_device_function"


def inline_calls(graph: tf.compat.v1.GraphDef) -> None:
    """Marks the calls in a graph and its functions, so that TensorFlow inlines them."""
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    for node in nodes:
        if node.op in _CALLS:
            node.attr[_INLINED].b = True


def inline_calls_of_saved_model(directory: str) -> None:
    """Marks the calls in a SavedModel that nobody reads yet; see `inline_calls`."""
    path = os.path.join(directory, "saved_model.pb")
    with open(path, "rb") as file:
        saved = saved_model_pb2.SavedModel.FromString(file.read())
    for meta_graph in saved.meta_graphs:
        inline_calls(meta_graph.graph_def)
    with open(path, "wb") as file:
        file.write(saved.SerializeToString(deterministic=True))
    fingerprinting_utils.write_fingerprint(directory)
