"""Lowers a frozen graph to bfloat16 where only digits are lost.

Convolutions and matrix products are computed in bfloat16, with their weights, and so
are the operations between them. The last such operation of every path, which gives
logits or box offsets, stays in float32, as do all that follow it and those not named
here. Grappler has a similar pass, but runs it only on processors that compute in
bfloat16; an export must not depend on that.

Kernels are rounded so that their errors cancel, see `round_kernel`: with each weight
rounded alone, the probabilities of the default classifier move by twice as much.
"""

import collections
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

_MATRIX = {"Conv2D", "DepthwiseConv2dNative", "MatMul"}

# Operations that take the type of their inputs, and which inputs are numbers.
_FIRST, _ALL = slice(0, 1), slice(None)
_FOLLOWERS = {
    "AddN": _ALL,
    "AddV2": _ALL,
    "BiasAdd": _ALL,
    "ConcatV2": slice(0, -1),
    "ExpandDims": _FIRST,
    "Identity": _FIRST,
    "MaxPool": _FIRST,
    "Mean": _FIRST,
    "Mul": _ALL,
    "Pack": _ALL,
    "Pad": _FIRST,
    "Relu": _FIRST,
    "Relu6": _FIRST,
    "Reshape": _FIRST,
    "Sigmoid": _FIRST,
    "Squeeze": _FIRST,
    "StridedSlice": _FIRST,
    "Sub": _ALL,
    "Tile": _FIRST,
    "Transpose": _FIRST,
}
# Operations that read a tensor of any type and whose output has another.
_READERS = {"Shape": _FIRST}
_NUMBERS = {**dict.fromkeys(_MATRIX, _ALL), **_FOLLOWERS, **_READERS}

_FLOAT32 = tf.float32.as_datatype_enum
_BFLOAT16 = tf.bfloat16.as_datatype_enum

# Operations of a classifier that stay float32, see `lower`: the first convolutions see
# the finest differences of pixels, and with them the traces of forgery. Lowered as
# well, they move the probabilities of DFDC faces by .011 on average and .041 at most,
# instead of .006 and .020.
SPARED_OF_CLASSIFIER = 8


def lower(
    graph: tf.compat.v1.GraphDef, outputs: list[str], spared: int = 0
) -> tf.compat.v1.GraphDef:
    """Lowers a graph to bfloat16, except its ends; its outputs stay float32.

    Args:
        graph: A graph without variables; functions in it, such as loops, stay as they
            are.
        outputs: Names of the output nodes.
        spared: How many of the first convolutions and matrix products stay float32.

    Raises:
        ValueError: The graph has cycles.
    """
    nodes = {node.name: node for node in graph.node}
    order = _sort_topologically(graph)
    lowered = _select_lowered(nodes, order, set(outputs), spared)
    made: dict[str, tf.compat.v1.NodeDef] = {}
    for name in order:
        made[name] = node = tf.compat.v1.NodeDef()
        node.CopyFrom(nodes[name])
        numbers = range(len(node.input))[_NUMBERS.get(node.op, slice(0))]
        for i, tensor in enumerate(node.input):
            source = _source(tensor)
            if tensor.startswith("^") or nodes[source].op in _READERS:
                continue
            if name in lowered and i in numbers:
                if source in lowered:
                    continue
                if node.op in _MATRIX and i == 1 and nodes[source].op == "Const":
                    node.input[i] = _add_kernel(nodes[source], node, made)
                else:
                    node.input[i] = _add_cast(tensor, nodes[source], "bfloat16", made)
            elif source in lowered:
                node.input[i] = _add_cast(tensor, nodes[source], "float32", made)
        if name in lowered:
            node.attr["T"].type = _BFLOAT16
    needed = _find_needed(made, outputs)
    result = tf.compat.v1.GraphDef(library=graph.library, versions=graph.versions)
    result.node.extend(
        node
        for name, node in made.items()
        if name in needed or node.op == "Placeholder"
    )
    return result


def round_kernel(kernel: np.ndarray, depthwise: bool = False) -> np.ndarray:
    """Rounds a kernel to bfloat16 and preserves the sum of the weights of each output.

    So the mean of a feature map passes with little error; see Nagel et al., Data-Free
    Quantization Through Weight Equalization and Bias Correction, 2019, section 3.2, on
    the effect of that error.

    Args:
        kernel: `[..., inputs, outputs]`; for a depthwise convolution
            `[height, width, inputs, multiplier]`, whose outputs are the last two.
        depthwise: Whether the kernel is that of a depthwise convolution.

    Returns:
        bfloat16 of the same shape.
    """
    dtype = tf.bfloat16.as_numpy_dtype
    num_outputs = np.prod(kernel.shape[2:] if depthwise else kernel.shape[-1:])
    taps = kernel.reshape(-1, num_outputs).astype(np.float64)
    # From the largest weight on: the smallest, with the finest steps, take the rest.
    order = np.argsort(-np.abs(taps), axis=0)
    rounded = np.empty(taps.shape, dtype)
    left = np.zeros(num_outputs)
    for row, tap in zip(order, np.take_along_axis(taps, order, axis=0), strict=True):
        left += tap
        nearest = left.astype(dtype)
        np.put_along_axis(rounded, row[None], nearest[None], axis=0)
        left -= nearest.astype(np.float64)
    return rounded.reshape(kernel.shape)


def _select_lowered(
    nodes: dict[str, tf.compat.v1.NodeDef],
    order: list[str],
    outputs: set[str],
    spared: int,
) -> set[str]:
    """Selects the nodes that compute in bfloat16, by their names."""
    readers = collections.defaultdict(list)
    for name in order:
        for source in _sources(nodes[name]):
            readers[source].append(name)

    def before(chosen: set[str]) -> set[str]:
        found = set()
        for name in reversed(order):
            if any(reader in found or reader in chosen for reader in readers[name]):
                found.add(name)
        return found

    in_order = [name for name in order if nodes[name].op in _MATRIX]
    matrix = set(in_order[spared:])
    matrix &= before(matrix)
    before_matrix = before(matrix)
    lowered: set[str] = set()
    for name in order:
        node = nodes[name]
        if node.op not in _NUMBERS or node.attr["T"].type != _FLOAT32:
            continue
        numbers = [_source(tensor) for tensor in node.input if tensor[0] != "^"]
        numbers = numbers[_NUMBERS[node.op]]
        follows = any(x in lowered and nodes[x].op not in _READERS for x in numbers)
        wanted = name in before_matrix or node.op in _READERS
        if name in matrix or (follows and wanted and name not in outputs):
            lowered.add(name)
    return lowered


def _add_cast(
    tensor: str,
    source: tf.compat.v1.NodeDef,
    dtype: str,
    made: dict[str, tf.compat.v1.NodeDef],
) -> str:
    """Adds a cast of a tensor to `made`, once; returns its name."""
    name = f"{tensor.replace(':', '_')}/{dtype}"
    wanted = tf.as_dtype(dtype)
    if name not in made and source.op == "Const":
        value = tf.make_ndarray(source.attr["value"].tensor)
        made[name] = _build_constant(name, value.astype(wanted.as_numpy_dtype))
    elif name not in made:
        made[name] = node = tf.compat.v1.NodeDef(name=name, op="Cast", input=[tensor])
        node.attr["SrcT"].type = _BFLOAT16 if dtype == "float32" else _FLOAT32
        node.attr["DstT"].type = wanted.as_datatype_enum
    return name


def _add_kernel(
    source: tf.compat.v1.NodeDef,
    reader: tf.compat.v1.NodeDef,
    made: dict[str, tf.compat.v1.NodeDef],
) -> str:
    """Adds a kernel in bfloat16 to `made`, once; returns its name."""
    depthwise = reader.op == "DepthwiseConv2dNative"
    name = f"{source.name}/{'depthwise' if depthwise else 'kernel'}/bfloat16"
    if name not in made:
        value = tf.make_ndarray(source.attr["value"].tensor)
        made[name] = _build_constant(name, round_kernel(value, depthwise))
    return name


def _build_constant(name: str, value: np.ndarray) -> tf.compat.v1.NodeDef:
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    proto = tf.make_tensor_proto(value)
    node.attr["dtype"].type = proto.dtype
    node.attr["value"].tensor.CopyFrom(proto)
    return node


def _find_needed(
    nodes: dict[str, tf.compat.v1.NodeDef], outputs: list[str]
) -> set[str]:
    """Finds the names of all nodes that the outputs need."""
    needed: set[str] = set()
    waiting = list(outputs)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(_sources(nodes[name]))
    return needed


def _sort_topologically(graph: tf.compat.v1.GraphDef) -> list[str]:
    """Sorts the names of nodes so that each follows those that it reads."""
    waits_for = {node.name: len(set(_sources(node))) for node in graph.node}
    readers = collections.defaultdict(list)
    for node in graph.node:
        for source in set(_sources(node)):
            readers[source].append(node.name)
    ready = collections.deque(name for name, count in waits_for.items() if not count)
    order = []
    while ready:
        order.append(ready.popleft())
        for name in readers[order[-1]]:
            waits_for[name] -= 1
            if not waits_for[name]:
                ready.append(name)
    if len(order) < len(waits_for):
        raise ValueError("graph must be without cycles; lower no control flow.")
    return order


def _sources(node: tf.compat.v1.NodeDef) -> Iterator[str]:
    return (_source(tensor) for tensor in node.input)


def _source(tensor: str) -> str:
    return tensor.lstrip("^").split(":")[0]
