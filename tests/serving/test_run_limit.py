"""Turns of requests while a version is loaded."""

import contextlib
import os
import threading
import time

import pytest

from dfdetect.export import runtime
from dfdetect.serving import errors, run_limit


class Requests:
    """Threads that run under a limit until they are told to end."""

    def __init__(self, limit):
        self._limit = limit
        self._ends = {}
        self._threads = []
        self.began = []
        self._changed = threading.Condition()

    def start(self, name):
        self._ends[name] = threading.Event()
        thread = threading.Thread(target=self._run, args=(name,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def end(self, *names):
        for name in names:
            self._ends[name].set()

    def wait_for(self, names):
        with self._changed:
            self._changed.wait_for(lambda: self.began == names, 20)
        assert self.began == names

    def wait_for_all(self, names):
        with self._changed:
            self._changed.wait_for(lambda: len(self.began) == len(names), 20)
        assert sorted(self.began) == list(names)

    def join(self):
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _run(self, name):
        with self._limit.running():
            with self._changed:
                self.began.append(name)
                self._changed.notify_all()
            assert self._ends[name].wait(20)


def wait_for_queue(limit, length):
    until = time.monotonic() + 20
    while len(limit._waiting) != length and time.monotonic() < until:
        time.sleep(0.001)
    assert len(limit._waiting) == length


def test_without_a_load_all_run_at_once():
    limit = run_limit.RunLimit(1)
    with contextlib.ExitStack() as requests:
        for _ in range(20):
            requests.enter_context(limit.running(time.monotonic()))


def test_during_a_load_requests_take_turns_in_the_order_in_which_they_came():
    limit = run_limit.RunLimit(2)
    requests = Requests(limit)
    with limit.loading():
        for number, name in enumerate("abcd"):
            requests.start(name)
            wait_for_queue(limit, max(number - 1, 0))
            requests.wait_for(list("abcd"[: min(number + 1, 2)]))
        requests.end("b")
        requests.wait_for(["a", "b", "c"])
        requests.end("a", "c")
        requests.wait_for(["a", "b", "c", "d"])
        requests.end("d")
        requests.join()


def test_what_runs_already_counts_when_a_load_begins():
    limit = run_limit.RunLimit(1)
    requests = Requests(limit)
    for name in "ab":
        requests.start(name)
        requests.wait_for(list("ab"[: "ab".index(name) + 1]))
    with limit.loading():
        requests.start("c")
        wait_for_queue(limit, 1)
        requests.end("a")
        with pytest.raises(errors.ServingError, match="Deadline exceeded in queue"):
            with limit.running(time.monotonic() + 0.05):
                pytest.fail("b and c go before")
        requests.end("b")
        requests.wait_for(["a", "b", "c"])
        requests.end("c")
        requests.join()


def test_those_that_wait_run_when_the_last_load_has_ended():
    limit = run_limit.RunLimit(1)
    requests = Requests(limit)
    with limit.loading():
        with limit.loading():
            requests.start("a")
            requests.wait_for(["a"])
            for number, name in enumerate("bc"):
                requests.start(name)
                wait_for_queue(limit, number + 1)
        assert requests.began == ["a"]
    requests.wait_for_all("abc")
    requests.end("a", "b", "c")
    requests.join()
    assert limit._running == 0


def test_a_deadline_that_passed_waits_for_nothing():
    limit = run_limit.RunLimit(1)
    with limit.loading(), limit.running():
        with pytest.raises(errors.ServingError) as caught:
            with limit.running(time.monotonic() - 1):
                pytest.fail("it is not its turn")
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert limit._running == 0 and not limit._waiting


def test_a_request_that_fails_gives_its_turn_back():
    limit = run_limit.RunLimit(1)
    with limit.loading():
        for _ in range(3):
            with pytest.raises(ZeroDivisionError), limit.running(time.monotonic() + 1):
                raise ZeroDivisionError


def test_cores_are_counted_on_every_system(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5}, raising=False)
    assert runtime.count_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert runtime.count_cores() == 6
    assert run_limit.RunLimit()._most == 3
