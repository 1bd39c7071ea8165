"""Functions without variables: weights folded into constants, batch norms into kernels.

Folded functions need nothing restored, and TensorFlow optimizes them further than
functions with variables.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

# None has a public name; the latter two are what TFLite's converter uses.
from tensorflow.python.eager import context
from tensorflow.python.framework import convert_to_constants
from tensorflow.python.grappler import tf_optimizer

from dfdetect import console
from dfdetect.export import bfloat16, frozen_function, fusing
from dfdetect.pipeline import deepfake_pipeline, model_functions

PRECISIONS = ("float32", "bfloat16")

_COUNTER = itertools.count()


def fold(
    function: Any,
    precision: str = "float32",
    for_this_machine: bool = False,
    spared: int = 0,
) -> Callable:
    """Folds the variables of a function into constants.

    Args:
        function: A `tf.function` of one signature, tensors in and a dictionary of
            tensors out. Gradients that it takes are part of it.
        precision: One of `PRECISIONS`; see `bfloat16` for what it lowers.
        for_this_machine: Whether to optimize for this processor, as TensorFlow would in
            the first call of the function; see `grappler_disabled` and `has_gpu`.
        spared: With bfloat16, see `bfloat16.lower`.

    Returns:
        A function of the same inputs and outputs, without gradients.

    Raises:
        ValueError: The precision is unknown.
    """
    check_precision(precision)
    concrete = function.get_concrete_function()
    captured = {id(tensor) for tensor in concrete.graph.internal_captures}
    inputs = {x.name: x for x in concrete.inputs if id(x) not in captured}
    outputs = [x.name for x in concrete.outputs]
    ends = [name.split(":")[0] for name in outputs]
    graph = _simplify(_embed_variables(concrete), [*inputs, *outputs])
    graph = fusing.fuse(graph, ends)
    if precision == "bfloat16":
        graph = bfloat16.lower(graph, ends, spared)
    if for_this_machine:
        graph = _remap(graph, [*inputs, *outputs])
    _rename_functions(graph, f"_folded_{next(_COUNTER)}")
    return frozen_function.import_function(
        graph,
        {name: tf.TensorSpec(x.shape, x.dtype) for name, x in inputs.items()},
        tf.nest.pack_sequence_as(concrete.structured_outputs, outputs),
    )


def freeze(
    pipeline: deepfake_pipeline.DeepfakePipeline,
    precision: str = "float32",
    for_this_machine: bool = False,
) -> deepfake_pipeline.DeepfakePipeline:
    """Freezes a pipeline: the same graph with its weights as constants.

    Each function is folded when it is called first. With "bfloat16", embeddings and
    explanations stay in float32, so that an index of either precision stays valid, and
    as gradients need the digits.

    Args:
        pipeline: A pipeline with variables.
        precision: One of `PRECISIONS`; the manifest of the result says which.
        for_this_machine: See `fold`; such a graph must not be served by another.

    Raises:
        ValueError: The precision is unknown.
    """
    check_precision(precision)

    def freeze_one(
        function: model_functions.Function, precision: str = "float32", spared: int = 0
    ) -> model_functions.Function:
        return _fold_when_called(
            lambda: fold(function, precision, for_this_machine, spared)
        )

    variable = pipeline.functions
    constant = dataclasses.replace(
        variable,
        find_heads=freeze_one(variable.find_heads, precision),
        judge=freeze_one(variable.judge, precision, bfloat16.SPARED_OF_CLASSIFIER),
        describe={kind: freeze_one(each) for kind, each in variable.describe.items()},
        explain=freeze_one(variable.explain),
    )
    return deepfake_pipeline.DeepfakePipeline(
        pipeline.detector,
        pipeline.classifier,
        pipeline.content_network,
        {**pipeline.manifest, "precision": precision},
        pipeline.index,
        constant,
    )


def _fold_when_called(
    make: Callable[[], model_functions.Function],
) -> model_functions.Function:
    @functools.cache
    def made() -> model_functions.Function:
        # On a thread, which is outside of the graph that the first call is traced in;
        # `tf.init_scope` would stop the tapes of gradients.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return pool.submit(make).result()

    return lambda images: made()(images)


@contextlib.contextmanager
def grappler_disabled() -> Iterator[None]:
    """Keeps TensorFlow from optimizing the functions that this thread calls within.

    Optimizing takes seconds and hundreds of MB in the first call of a function, and
    gains nothing for functions that were folded `for_this_machine`.
    """
    current = context.context()
    before = current.function_call_options
    config = tf.compat.v1.ConfigProto.FromString(before.config_proto_serialized)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    current.function_call_options = context.FunctionCallOptions(
        before.executor_type, config
    )
    try:
        yield
    finally:
        current.function_call_options = before


def without_grappler(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that calls `function` with `grappler_disabled`."""

    def call(*inputs: Any) -> Any:
        with grappler_disabled():
            return function(*inputs)

    return call


def has_gpu() -> bool:
    """Whether TensorFlow has a GPU, on which what is fused for a processor fails."""
    return bool(tf.config.list_physical_devices("GPU"))


def check_precision(precision: str) -> None:
    """Refuses an unknown precision.

    Raises:
        ValueError: The precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}.")


def _embed_variables(function: Any) -> tf.compat.v1.GraphDef:
    """Returns the graph of a concrete function with constants for its variables.

    Calls are inlined; loops stay functions, as what follows sees one level at a time.
    """
    # `convert_variables_to_constants_v2` would copy the graph twice more, operation by
    # operation in Python, for a function that is thrown away: half of the time of all.
    with console.notes_hidden():
        data = convert_to_constants._FunctionConverterDataInEager(
            func=function, lower_control_flow=False, aggressive_inlining=False
        )
        graph, _ = convert_to_constants._replace_variables_by_constants(data)
    return graph


def _simplify(graph: tf.compat.v1.GraphDef, ends: list[str]) -> tf.compat.v1.GraphDef:
    """Folds constants by Grappler, into stock operations only."""
    config = tf.compat.v1.ConfigProto()
    options = config.graph_options.rewrite_options
    # It would move biases out of the convolutions' reach.
    options.arithmetic_optimization = options.OFF
    # They depend on the processor: the server runs them for its own.
    options.remapping = options.OFF
    options.layout_optimizer = options.OFF
    return _optimize(graph, config, ends)


def _remap(graph: tf.compat.v1.GraphDef, ends: list[str]) -> tf.compat.v1.GraphDef:
    """Fuses convolutions with the operations behind them, for this processor."""
    config = tf.compat.v1.ConfigProto()
    options = config.graph_options.rewrite_options
    options.layout_optimizer = options.OFF
    placed = tf.compat.v1.GraphDef()
    placed.CopyFrom(graph)
    # Grappler needs the device of each node.
    for node in placed.node:
        node.device = "/device:CPU:0"
    remapped = _optimize(placed, config, ends)
    for node in remapped.node:
        node.device = ""
    return remapped


def _optimize(
    graph: tf.compat.v1.GraphDef, config: tf.compat.v1.ConfigProto, ends: list[str]
) -> tf.compat.v1.GraphDef:
    """Runs Grappler on a graph whose inputs and outputs are named."""
    config.graph_options.rewrite_options.min_graph_nodes = -1
    meta_graph = tf.compat.v1.MetaGraphDef(graph_def=graph)
    # Where Grappler looks for what must stay.
    meta_graph.collection_def["train_op"].node_list.value.extend(ends)
    with console.notes_hidden():
        return tf_optimizer.OptimizeGraph(config, meta_graph)


def _rename_functions(graph: tf.compat.v1.GraphDef, suffix: str) -> None:
    """Renames functions that Grappler changed, as a process has one for each name."""
    names = {function.signature.name for function in graph.library.function}
    bodies = [function.node_def for function in graph.library.function]
    for node in itertools.chain(graph.node, *bodies):
        # It names a gradient function of this process, which a file must not.
        node.attr.pop("_gradient_op_type", None)
        if node.op in names:
            node.op += suffix
        for value in node.attr.values():
            for function in (value.func, *value.list.func):
                if function.name in names:
                    function.name += suffix
    for function in graph.library.function:
        function.signature.name += suffix
