"""Rewrites a frozen graph so that a convolution does what stands before and behind it.

Each operation of its own reads and writes whole maps, which costs a processor more than
the arithmetic does. Grappler folds a batch norm into a Conv2D alone, not into one with
a bias or into a depthwise one.
"""

import collections
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

_CONVOLUTIONS = {"Conv2D", "DepthwiseConv2dNative"}
_Nodes = dict[str, tf.compat.v1.NodeDef]


def fuse(graph: tf.compat.v1.GraphDef, outputs: list[str]) -> tf.compat.v1.GraphDef:
    """Returns the graph with convolutions that pad, scale and add themselves.

    * Zeros around the input of a convolution that pads nothing become its own "SAME",
      where that means the same zeros.
    * Vectors that what it gives is multiplied with go into its kernel; those that are
      added become one BiasAdd, which TensorFlow computes together with the convolution
      and with what follows.
    * A vector that its input was multiplied with before another was added, as pixels
      are normalised, goes into its kernel, too.

    Args:
        graph: Of one level, without variables; functions in it are left alone.
        outputs: Names of the nodes that are read.
    """
    result = tf.compat.v1.GraphDef()
    result.CopyFrom(graph)
    nodes = {node.name: node for node in result.node}
    shapes = _shapes(graph)
    readers = _readers(nodes, outputs)
    for name in list(nodes):
        if nodes[name].op == "Pad":
            _take_padding(name, nodes, shapes, readers)
        elif nodes[name].op in _CONVOLUTIONS:
            _take_affine(name, nodes, shapes, readers)
            if nodes[name].op == "Conv2D":
                _take_scale_of_input(name, nodes, readers)
    kept = tf.compat.v1.GraphDef(library=graph.library, versions=graph.versions)
    kept.node.extend(nodes.values())
    return kept


def _take_padding(
    name: str,
    nodes: _Nodes,
    shapes: Mapping[str, tf.TensorShape],
    readers: dict[str, list[str]],
) -> None:
    """Lets the convolutions that read a Pad do its work, if all of them can."""
    source, amounts = nodes[name].input
    padding = _constant(amounts, nodes)
    shape = shapes.get(source, tf.TensorShape(None))
    if padding is None or shape.rank != 4 or None in shape[1:3]:
        return
    extent = shape[1:3].as_list()
    for reader in readers[name]:
        node = nodes.get(reader)
        if (
            node is None
            or node.op not in _CONVOLUTIONS
            or _same_padding(node, extent, shapes) != padding.tolist()
        ):
            return
    for reader in readers[name]:
        nodes[reader].input[0] = source
        nodes[reader].attr["padding"].s = b"SAME"
    others = [reader for reader in readers[source] if reader != name]
    readers[source] = others + readers[name]


def _same_padding(
    node: tf.compat.v1.NodeDef,
    extent: list[int],
    shapes: Mapping[str, tf.TensorShape],
) -> list[list[int]] | None:
    """The zeros that "SAME" would put around the input of a convolution.

    Returns:
        As the second input of Pad, or None for a convolution that is not as all of
        ours: one that pads already, is dilated, or has its channels first.
    """
    kernel = shapes.get(node.input[1], tf.TensorShape(None))
    if (
        node.attr["padding"].s != b"VALID"
        or node.attr["data_format"].s not in (b"", b"NHWC")
        or set(node.attr["dilations"].list.i) - {1}
        or kernel.rank != 4
        or None in kernel[:2]
    ):
        return None
    found = [[0, 0]]
    strides = node.attr["strides"].list.i[1:3]
    for side, step, size in zip(extent, strides, kernel[:2].as_list(), strict=True):
        total = max((-(-side // step) - 1) * step + size - side, 0)
        found.append([total // 2, total - total // 2])
    return [*found, [0, 0]]


def _take_affine(
    name: str,
    nodes: _Nodes,
    shapes: Mapping[str, tf.TensorShape],
    readers: Mapping[str, list[str]],
) -> None:
    """Folds what a convolution's maps are multiplied with and what is added to them."""
    convolution = nodes[name]
    channels = shapes[name][-1] if shapes[name].rank == 4 else None
    kernel = _constant(convolution.input[1], nodes)
    if channels is None or kernel is None or kernel.dtype != np.float32:
        return
    scale, shift = np.ones(channels), np.zeros(channels)
    last = name
    while len(readers[last]) == 1:
        node = nodes.get(readers[last][0])
        vector = None if node is None else _vector(node, last, channels, nodes)
        if node is None or vector is None:
            break
        if node.op == "Mul":
            scale, shift = scale * vector, shift * vector
        else:
            shift = shift + vector
        last = node.name
    if last == name:
        return
    if (scale != 1).any():
        # [H, W, C, M] of a depthwise one, [H, W, I, O] of another.
        depthwise = convolution.op == "DepthwiseConv2dNative"
        factors = scale.reshape(kernel.shape[2:] if depthwise else -1)
        # By a new name: the old one may be read by others.
        convolution.input[1] = _add_constant(f"{name}/kernel", kernel * factors, nodes)
    bias = _add_constant(f"{name}/bias", shift, nodes)
    fused = tf.compat.v1.NodeDef(name=last, op="BiasAdd", input=[name, bias])
    fused.attr["T"].type = tf.float32.as_datatype_enum
    fused.attr["data_format"].s = b"NHWC"
    nodes[last] = fused


def _take_scale_of_input(
    name: str, nodes: _Nodes, readers: Mapping[str, list[str]]
) -> None:
    """Lets a Conv2D of `x * scale + shift` read `x + shift / scale` instead."""
    convolution = nodes[name]
    source = convolution.input[0]
    kernel = _constant(convolution.input[1], nodes)
    if kernel is None or kernel.dtype != np.float32 or len(readers[source]) != 1:
        return
    added = _maps_and_vector(source, "AddV2", kernel.shape[2], nodes)
    if added is None or len(readers[added[0]]) != 1:
        return
    multiplied = _maps_and_vector(added[0], "Mul", kernel.shape[2], nodes)
    if multiplied is None or not multiplied[1].all():
        return
    maps, scale = multiplied
    scaled = kernel * scale[:, None]
    convolution.input[1] = _add_constant(f"{name}/input/kernel", scaled, nodes)
    shift = _add_constant(f"{name}/input/shift", added[1] / scale, nodes)
    nodes[source].input[:] = [maps, shift]


def _maps_and_vector(
    name: str, operation: str, channels: int, nodes: _Nodes
) -> tuple[str, np.ndarray] | None:
    """The inputs of an operation of maps and a vector, see `_vector`; else None."""
    node = nodes.get(name)
    if node is None or node.op != operation:
        return None
    for maps in node.input:
        vector = _vector(node, maps, channels, nodes)
        if vector is not None:
            return maps, vector
    return None


def _vector(
    node: tf.compat.v1.NodeDef, maps: str, channels: int, nodes: _Nodes
) -> np.ndarray | None:
    """What a node adds to each place of `maps`, or multiplies it with; else None."""
    if node.op not in ("AddV2", "BiasAdd", "Mul") or len(node.input) != 2:
        return None
    one, other = node.input
    value = _constant(other if one == maps else one, nodes)
    # [C] or [1, 1, 1, C]; more dimensions would make the result larger.
    if value is None or value.shape not in ((channels,), (1, 1, 1, channels)):
        return None
    return value.reshape(channels).astype(np.float64)


def _constant(name: str, nodes: _Nodes) -> np.ndarray | None:
    node = nodes.get(name)
    if node is None or node.op != "Const":
        return None
    return tf.make_ndarray(node.attr["value"].tensor)


def _add_constant(name: str, value: np.ndarray, nodes: _Nodes) -> str:
    proto = tf.make_tensor_proto(value.astype(np.float32))
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = tf.float32.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(proto)
    nodes[name] = node
    return name


def _readers(nodes: _Nodes, outputs: list[str]) -> dict[str, list[str]]:
    """The names of the nodes that read each; "" for whoever reads the outputs."""
    found: dict[str, list[str]] = collections.defaultdict(list)
    for node in nodes.values():
        for tensor in node.input:
            found[tensor.lstrip("^").split(":")[0]].append(node.name)
    for name in outputs:
        found[name].append("")
    return found


def _shapes(graph: tf.compat.v1.GraphDef) -> dict[str, tf.TensorShape]:
    """The static shapes of the first outputs of all operations, by their names."""
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph, name="")
    return {
        operation.name: operation.outputs[0].shape
        for operation in imported.get_operations()
        if operation.outputs
    }
