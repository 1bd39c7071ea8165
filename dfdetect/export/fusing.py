"""Fuses convolutions of a frozen graph with the operations around them.

Each separate operation reads and writes whole feature maps, which costs a processor
more than the arithmetic. Grappler folds a batch norm into a plain Conv2D only, not into
one with a bias or a depthwise one.
"""

import collections
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

_CONVOLUTIONS = {"Conv2D", "DepthwiseConv2dNative"}
_Nodes = dict[str, tf.compat.v1.NodeDef]


def fuse(graph: tf.compat.v1.GraphDef, outputs: list[str]) -> tf.compat.v1.GraphDef:
    """Fuses padding, scales and biases into convolutions.

    * Zero padding before a "VALID" convolution becomes its "SAME", where that pads by
      the same zeros.
    * Vectors by which its output is multiplied go into its kernel; vectors that are
      added become one BiasAdd, which TensorFlow computes together with the convolution
      and the following activation.
    * A vector by which its input is multiplied before another is added, as in the
      normalization of pixels, goes into its kernel as well.

    Args:
        graph: A graph of one level, without variables; functions in it stay as they
            are.
        outputs: Names of the output nodes.
    """
    result = tf.compat.v1.GraphDef()
    result.CopyFrom(graph)
    nodes = {node.name: node for node in result.node}
    shapes = _infer_shapes(graph)
    readers = _find_readers(nodes, outputs)
    for name in list(nodes):
        if nodes[name].op == "Pad":
            _fuse_padding(name, nodes, shapes, readers)
        elif nodes[name].op in _CONVOLUTIONS:
            _fuse_affine(name, nodes, shapes, readers)
            if nodes[name].op == "Conv2D":
                _fuse_input_scale(name, nodes, readers)
    kept = tf.compat.v1.GraphDef(library=graph.library, versions=graph.versions)
    kept.node.extend(nodes.values())
    return kept


def _fuse_padding(
    name: str,
    nodes: _Nodes,
    shapes: Mapping[str, tf.TensorShape],
    readers: dict[str, list[str]],
) -> None:
    """Replaces a Pad by "SAME" padding of the convolutions that read it."""
    source, amounts = nodes[name].input
    padding = _read_constant(amounts, nodes)
    shape = shapes.get(source, tf.TensorShape(None))
    if padding is None or shape.rank != 4 or None in shape[1:3]:
        return
    extent = shape[1:3].as_list()
    for reader in readers[name]:
        node = nodes.get(reader)
        if (
            node is None
            or node.op not in _CONVOLUTIONS
            or _compute_same_padding(node, extent, shapes) != padding.tolist()
        ):
            return
    for reader in readers[name]:
        nodes[reader].input[0] = source
        nodes[reader].attr["padding"].s = b"SAME"
    others = [reader for reader in readers[source] if reader != name]
    readers[source] = others + readers[name]


def _compute_same_padding(
    node: tf.compat.v1.NodeDef,
    extent: list[int],
    shapes: Mapping[str, tf.TensorShape],
) -> list[list[int]] | None:
    """Computes the zeros that "SAME" would put around the input of a convolution.

    Returns:
        The second input of an equal Pad, or None for a convolution that pads already,
        is dilated, or has its channels first.
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


def _fuse_affine(
    name: str,
    nodes: _Nodes,
    shapes: Mapping[str, tf.TensorShape],
    readers: Mapping[str, list[str]],
) -> None:
    """Fuses the scales and biases that follow a convolution."""
    convolution = nodes[name]
    channels = shapes[name][-1] if shapes[name].rank == 4 else None
    kernel = _read_constant(convolution.input[1], nodes)
    if channels is None or kernel is None or kernel.dtype != np.float32:
        return
    scale, shift = np.ones(channels), np.zeros(channels)
    last = name
    while len(readers[last]) == 1:
        node = nodes.get(readers[last][0])
        vector = None if node is None else _match_vector(node, last, channels, nodes)
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
        # Kernels are [H, W, C, M] if depthwise, else [H, W, I, O].
        depthwise = convolution.op == "DepthwiseConv2dNative"
        factors = scale.reshape(kernel.shape[2:] if depthwise else -1)
        # A new name, as others may read the old kernel.
        convolution.input[1] = _add_constant(f"{name}/kernel", kernel * factors, nodes)
    bias = _add_constant(f"{name}/bias", shift, nodes)
    fused = tf.compat.v1.NodeDef(name=last, op="BiasAdd", input=[name, bias])
    fused.attr["T"].type = tf.float32.as_datatype_enum
    fused.attr["data_format"].s = b"NHWC"
    nodes[last] = fused


def _fuse_input_scale(
    name: str, nodes: _Nodes, readers: Mapping[str, list[str]]
) -> None:
    """Rewrites a Conv2D of `x * scale + shift` to one of `x + shift / scale`."""
    convolution = nodes[name]
    source = convolution.input[0]
    kernel = _read_constant(convolution.input[1], nodes)
    if kernel is None or kernel.dtype != np.float32 or len(readers[source]) != 1:
        return
    added = _match_maps_and_vector(source, "AddV2", kernel.shape[2], nodes)
    if added is None or len(readers[added[0]]) != 1:
        return
    multiplied = _match_maps_and_vector(added[0], "Mul", kernel.shape[2], nodes)
    if multiplied is None or not multiplied[1].all():
        return
    maps, scale = multiplied
    scaled = kernel * scale[:, None]
    convolution.input[1] = _add_constant(f"{name}/input/kernel", scaled, nodes)
    shift = _add_constant(f"{name}/input/shift", added[1] / scale, nodes)
    nodes[source].input[:] = [maps, shift]


def _match_maps_and_vector(
    name: str, operation: str, channels: int, nodes: _Nodes
) -> tuple[str, np.ndarray] | None:
    """Returns maps and vector of an operation, see `_match_vector`; else None."""
    node = nodes.get(name)
    if node is None or node.op != operation:
        return None
    for maps in node.input:
        vector = _match_vector(node, maps, channels, nodes)
        if vector is not None:
            return maps, vector
    return None


def _match_vector(
    node: tf.compat.v1.NodeDef, maps: str, channels: int, nodes: _Nodes
) -> np.ndarray | None:
    """Returns the vector that a node adds to or multiplies with `maps`; else None.

    A single number is a vector of equal ones.
    """
    if node.op not in ("AddV2", "BiasAdd", "Mul") or len(node.input) != 2:
        return None
    one, other = node.input
    value = _read_constant(other if one == maps else one, nodes)
    # [], [C] or [1, 1, 1, C]; more dimensions would make the result larger.
    if value is None or value.shape not in ((), (channels,), (1, 1, 1, channels)):
        return None
    return np.broadcast_to(value.reshape(-1), channels).astype(np.float64)


def _read_constant(name: str, nodes: _Nodes) -> np.ndarray | None:
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


def _find_readers(nodes: _Nodes, outputs: list[str]) -> dict[str, list[str]]:
    """Lists the names of the readers of each node; "" reads the outputs."""
    found: dict[str, list[str]] = collections.defaultdict(list)
    for node in nodes.values():
        for tensor in node.input:
            found[tensor.lstrip("^").split(":")[0]].append(node.name)
    for name in outputs:
        found[name].append("")
    return found


def _infer_shapes(graph: tf.compat.v1.GraphDef) -> dict[str, tf.TensorShape]:
    """Infers the static shapes of the first outputs of all operations, by name."""
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph, name="")
    return {
        operation.name: operation.outputs[0].shape
        for operation in imported.get_operations()
        if operation.outputs
    }
