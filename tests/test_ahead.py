import itertools
import threading
import time

import pytest

from dfdetect.ahead import ahead


def test_items_come_in_order():
    assert list(ahead(range(100), 3)) == list(range(100))
    assert list(ahead([], 3)) == []


def test_no_more_are_made_than_may_wait():
    made = []
    items = ahead((made.append(i) or i for i in itertools.count()), 3)
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

    taken = ahead(items(), 3)
    assert next(taken) == 1
    with pytest.raises(OSError, match="of the disk"):
        next(taken)


def test_closing_ends_the_thread():
    before = threading.active_count()
    items = ahead(itertools.count(), 1)
    assert next(items) == 0 and threading.active_count() == before + 1
    items.close()
    assert threading.active_count() == before
