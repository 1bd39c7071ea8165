"""Functions that TensorFlow inlines where a graph calls them."""

import numpy as np
import tensorflow as tf

from dfdetect.export import inlined_calls, inspection


def _count(graph):
    """Counts the calls that the executors of a session are left with."""
    options = tf.compat.v1.RunOptions(output_partition_graphs=True)
    metadata = tf.compat.v1.RunMetadata()
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        tf.graph_util.import_graph_def(graph, name="")
        given = np.float32([1, 2, 3])
        found = session.run("sum:0", {"given:0": given}, options, metadata)
    np.testing.assert_array_equal(found, 10 * given)
    nodes = [node for part in metadata.partition_graphs for node in part.node]
    return sum("PartitionedCall" in node.op for node in nodes)


def test_calls_within_calls_and_loops_are_inlined():
    double = tf.function(lambda x: x + x, autograph=False)

    @tf.function(autograph=False)
    def add_doubled(x, total):
        return total + double(x)

    with tf.Graph().as_default() as graph:
        given = tf.compat.v1.placeholder(tf.float32, [3], "given")
        _, total = tf.while_loop(
            lambda i, total: i < 4,
            lambda i, total: (i + 1, add_doubled(given, total)),
            [0, add_doubled(given, tf.zeros(3))],
        )
        tf.identity(total, "sum")
    graph = graph.as_graph_def()
    before = _count(graph)
    inlined_calls.inline_calls(graph)
    assert _count(graph) == 0 < before


def test_a_saved_model_answers_as_before_with_a_fingerprint_of_its_own(tmp_path):
    triple = tf.function(lambda x: 3 * x, autograph=False)
    module = tf.Module()
    module.call = tf.function(
        lambda x: {"tripled": triple(x)},
        input_signature=[tf.TensorSpec([None], tf.float32, "x")],
        autograph=False,
    )
    directory = str(tmp_path / "1")
    tf.saved_model.save(module, directory, {"serving_default": module.call})
    before = tf.saved_model.experimental.read_fingerprint(directory)
    inlined_calls.inline_calls_of_saved_model(directory)
    after = tf.saved_model.experimental.read_fingerprint(directory)
    assert before.saved_model_checksum != after.saved_model_checksum
    given = np.float32([1, 2])
    with inspection.open_signatures(directory) as run:
        found = run("serving_default", given)
    np.testing.assert_array_equal(found["tripled"], 3 * given)
    loaded = tf.saved_model.load(directory)
    np.testing.assert_array_equal(loaded.call(given)["tripled"], 3 * given)
