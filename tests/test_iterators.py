import itertools
import threading
import time

import pytest

from dfdetect.iterators import parallel_map, prefetch


def test_items_come_in_order():
    assert list(prefetch(range(100), 3)) == list(range(100))
    assert list(prefetch([], 3)) == []


def test_no_more_are_made_than_may_wait():
    made = []
    items = prefetch((made.append(i) or i for i in itertools.count()), 3)
    assert next(items) == 0
    deadline = time.monotonic() + 10
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    assert made == [0, 1, 2, 3, 4]  # One taken, three that wait, one in hand.
    items.close()


def test_an_error_comes_in_its_place():
    def items():
        yield 1
        raise OSError("of the disk")

    taken = prefetch(items(), 3)
    assert next(taken) == 1
    with pytest.raises(OSError, match="of the disk"):
        next(taken)


def test_closing_ends_the_thread():
    before = threading.active_count()
    items = prefetch(itertools.count(), 1)
    assert next(items) == 0 and threading.active_count() == before + 1
    items.close()
    assert threading.active_count() == before


def test_parallel_map_keeps_the_order_and_works_at_once():
    both = threading.Barrier(2, timeout=10)

    def slow_first(number):
        both.wait()  # Both calls are in the making.
        time.sleep(0.05 * (number % 2 == 0))
        return -number

    assert list(parallel_map(slow_first, range(6), 2)) == [0, -1, -2, -3, -4, -5]
    assert list(parallel_map(slow_first, [], 2)) == []


def test_parallel_map_takes_no_more_items_than_it_works_on():
    taken = []
    results = parallel_map(str, (taken.append(i) or i for i in itertools.count()), 2)
    assert next(results) == "0" and len(taken) == 2
    assert next(results) == "1" and len(taken) == 3
    results.close()


def test_an_error_of_parallel_map_comes_in_its_place():
    results = parallel_map(lambda number: 1 // number, [1, 0, 1], 2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_parallel_map_is_left_though_a_call_hangs(monkeypatch):
    monkeypatch.setattr("dfdetect.iterators._STOP_TIMEOUT", 0.1)
    until, called = threading.Event(), []

    def hang(number):
        called.append(number)
        if number:
            until.wait()
            called.append("done")

    results = parallel_map(hang, range(4), 2)
    assert next(results) is None
    results.close()
    assert "done" not in called
    until.set()
