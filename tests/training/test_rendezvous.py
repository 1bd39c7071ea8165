"""Workers of one training find each other, or say who is missing."""

import json
import socket
import threading
import time

import pytest

from dfdetect.training import rendezvous


def _config(ports, index, kind="worker"):
    hosts = [f"127.0.0.1:{port}" for port in ports]
    return json.dumps(
        {"cluster": {kind: hosts}, "task": {"type": kind, "index": index}}
    )


@pytest.fixture(name="ports")
def _ports():
    sockets = [socket.socket() for _ in range(3)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    found = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return found


def test_all_go_on_once_the_last_has_come(ports):
    came = []

    def come(index):
        rendezvous.wait_for_workers(_config(ports, index), 30, came.append)
        came.append(index)

    threads = [threading.Thread(target=come, args=(i,)) for i in range(3)]
    for thread in threads[:2]:
        thread.start()
    time.sleep(1)
    assert came == []
    threads[2].start()
    for thread in threads:
        thread.join(20)
    assert sorted(came) == [0, 1, 2]
    # Their ports are free again for TensorFlow.
    for port in ports:
        with socket.socket() as opened:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(("", port))


def test_whoever_is_missing_is_named(ports):
    with socket.socket() as there:
        there.bind(("127.0.0.1", ports[1]))
        there.listen()
        message = rf"^worker 2 \(127.0.0.1:{ports[2]}\) did not come within 1 s$"
        with pytest.raises(rendezvous.WorkerMissing, match=message):
            rendezvous.wait_for_workers(_config(ports, 0), 1, print)


def test_a_wait_is_told_now_and_then(ports):
    said = []
    with pytest.raises(rendezvous.WorkerMissing):
        rendezvous.wait_for_workers(_config(ports, 0), 7, said.append)
    assert len(said) == 1 and said[0].startswith("waits for worker 1 (127.0.0.1:")


def test_a_port_that_is_taken_is_named(ports):
    with socket.socket() as there:
        there.bind(("", ports[0]))
        there.listen()
        with pytest.raises(OSError, match=f"port {ports[0]}, which TF_CONFIG gives"):
            rendezvous.wait_for_workers(_config(ports, 0), 1, print)
