"""Batches of requests, without a graph or a network."""

import concurrent.futures
import threading
import time

import numpy as np
import pytest

import serving_support
from dfdetect.serving import batching, config, errors

NEVER = float("inf")
LONG = 20_000_000  # Microseconds, that no test waits for.


class Graph:
    """x + 1, which refuses negative numbers, and remembers the sizes of its batches."""

    def __init__(self):
        self.sizes = []
        self.go = threading.Event()
        self.go.set()

    def run(self, feeds, fetches):
        (x,) = feeds.values()
        self.sizes.append(len(x))
        assert self.go.wait(20)
        if x.dtype != object and (x < 0).any():
            raise errors.invalid("negative")
        return dict.fromkeys(fetches, x if x.dtype == object else x + 1)


@pytest.fixture
def pool():
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        yield pool


def batcher(graph, **parameters):
    parameters = {"num_batch_threads": 1, **parameters}
    return batching.Batcher(graph.run, config.Batching(**parameters))


def ask(made, value, deadline=NEVER, name="x", fetches=("y",)):
    return made.run({name: np.asarray(value)}, fetches, deadline)["y"].tolist()


def test_requests_are_joined_up_to_the_largest_size(pool):
    graph = Graph()
    made = batcher(graph, max_batch_size=4, batch_timeout_micros=LONG)
    found = [pool.submit(ask, made, [i, i]) for i in range(4)]
    assert [f.result(10) for f in found] == [[i + 1] * 2 for i in range(4)]
    assert graph.sizes == [4, 4]
    made.close()


def test_a_batch_does_not_wait_for_ever():
    graph = Graph()
    made = batcher(graph, max_batch_size=4, batch_timeout_micros=1000)
    assert ask(made, [1]) == [2]
    assert ask(made, np.zeros([0], int)) == []
    made.close()


def test_a_bad_request_costs_the_others_nothing(pool):
    graph = Graph()
    made = batcher(graph, max_batch_size=3, batch_timeout_micros=LONG)
    good, bad, also = (pool.submit(ask, made, [i]) for i in (1, -1, 2))
    assert (good.result(10), also.result(10)) == ([2], [3])
    with pytest.raises(errors.ServingError, match="negative"):
        bad.result(10)
    assert graph.sizes == [3, 1, 1, 1]
    made.close()


def test_what_does_not_fit_together_is_not_joined(pool):
    graph = Graph()
    made = batcher(graph, max_batch_size=8, batch_timeout_micros=200_000)
    values = [[1], [1.5], [[1]], [[1, 2]]]
    found = [pool.submit(ask, made, value) for value in values]
    found.append(pool.submit(ask, made, [5], name="z"))
    found.append(pool.submit(ask, made, [6], fetches=("y", "more")))
    expected = [[2], [2.5], [[2]], [[2, 3]], [6], [7]]
    assert [f.result(10) for f in found] == expected
    assert graph.sizes == [1] * 6
    made.close()


def test_batches_are_filled_up_to_an_allowed_size(pool):
    graph = Graph()
    made = batcher(
        graph,
        max_batch_size=8,
        allowed_batch_sizes=(4, 8),
        batch_timeout_micros=100_000,
    )
    found = [pool.submit(ask, made, [i]) for i in range(3)]
    assert [f.result(10) for f in found] == [[1], [2], [3]]
    assert graph.sizes == [4]
    made.close()


def test_inputs_of_unequal_length_are_padded(pool):
    graph = Graph()
    made = batcher(
        graph,
        max_batch_size=2,
        batch_timeout_micros=LONG,
        pad_variable_length_inputs=True,
    )
    short, long = (pool.submit(ask, made, [value]) for value in ([1], [2, 3]))
    assert (short.result(10), long.result(10)) == ([[2, 1]], [[3, 4]])
    words = [np.array([value], object) for value in ([b"a"], [b"b", b"c"])]
    short, long = (pool.submit(ask, made, value) for value in words)
    assert (short.result(10), long.result(10)) == ([[b"a", b""]], [[b"b", b"c"]])
    made.close()


def test_a_large_request_is_refused_or_split():
    graph = Graph()
    made = batcher(graph, max_batch_size=2)
    message = "Task size 5 is larger than maximum input batch size 2"
    with pytest.raises(errors.ServingError, match=message):
        ask(made, [1, 2, 3, 4, 5])
    made.close()
    made = batcher(graph, max_batch_size=2, enable_large_batch_splitting=True)
    assert ask(made, [1, 2, 3, 4, 5]) == [2, 3, 4, 5, 6]
    assert graph.sizes == [2, 2, 1]
    made.close()


def test_a_full_queue_refuses_more_and_late_requests_are_not_begun(pool):
    graph = Graph()
    graph.go.clear()
    made = batcher(graph, max_batch_size=1, max_enqueued_batches=2)
    running = pool.submit(ask, made, [1])
    serving_support.eventually(lambda: graph.sizes)
    waiting = pool.submit(ask, made, [2])
    late = pool.submit(ask, made, [3], deadline=time.monotonic() + 0.05)
    serving_support.eventually(lambda: made._queued == 2)
    with pytest.raises(errors.ServingError, match="is full") as caught:
        ask(made, [4])
    assert caught.value.code == "UNAVAILABLE"
    time.sleep(0.1)
    graph.go.set()
    assert (running.result(10), waiting.result(10)) == ([2], [3])
    with pytest.raises(errors.ServingError, match="Deadline") as caught:
        late.result(10)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    made.close()
    assert len(graph.sizes) == 2


def test_closing_answers_what_is_queued(pool):
    made = batcher(Graph(), max_batch_size=8, batch_timeout_micros=LONG)
    found = pool.submit(ask, made, [1])
    serving_support.eventually(lambda: made._queued)
    made.close()
    assert found.result(10) == [2]


@pytest.mark.parametrize(
    "feeds, message",
    [
        ({}, "must have at least one input tensor"),
        ({"x": np.int32(1)}, "must have at least one dimension"),
        ({"x": np.zeros(1), "y": np.zeros(2)}, "must have equal 0th-dimension size"),
    ],
)
def test_requests_without_a_size(feeds, message):
    made = batcher(Graph())
    with pytest.raises(errors.ServingError, match=message):
        made.run(feeds, ["y"], NEVER)
    made.close()


@pytest.mark.parametrize(
    "output, message",
    [
        (np.float32(1), "has 0 dimensions"),
        (np.zeros(3), "0th dimension does not equal"),
    ],
)
def test_graphs_that_do_not_keep_the_first_dimension(output, message):
    made = batching.Batcher(lambda feeds, fetches: {"y": output}, config.Batching())
    with pytest.raises(errors.ServingError, match=message):
        ask(made, [1])
    made.close()


def test_parameters_are_read_from_a_text_proto(tmp_path):
    path = tmp_path / "batching.config"
    path.write_text(
        "max_batch_size { value: 8 } batch_timeout_micros { value: 5 } "
        "max_enqueued_batches { value: 3 } num_batch_threads { value: 4 } "
        "allowed_batch_sizes: 2 allowed_batch_sizes: 8 "
        'thread_pool_name { value: "x" } enable_large_batch_splitting { value: true }'
    )
    expected = config.Batching(8, 5, 3, 4, (2, 8), False, True)
    assert config.read_batching(str(path)) == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ("max_batch { value: 8 }", "must be a text proto BatchingParameters"),
        ("max_batch_size { value: 0 }", "max_batch_size must be at least 1, got 0"),
        ("batch_timeout_micros { value: -1 }", "must not be negative, got -1"),
        ("allowed_batch_sizes: 2", "must ascend and end with max_batch_size 1000"),
    ],
)
def test_wrong_parameters_are_told(tmp_path, text, message):
    path = tmp_path / "batching.config"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        config.read_batching(str(path))
