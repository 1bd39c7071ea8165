"""The process that reads large JSON: started anew where it could not start or ended."""

import io
import multiprocessing.context
import sys
import time

import pytest

from dfdetect.serving import errors, json_worker, server


def test_a_process_that_could_not_start_is_tried_again(monkeypatch):
    worker = json_worker.JsonWorker()
    with monkeypatch.context() as patched:
        refuse = OSError(11, "Resource temporarily unavailable")

        def start(process):
            raise refuse

        patched.setattr(multiprocessing.context.SpawnProcess, "start", start)
        for _ in range(2):
            with pytest.raises(errors.ServingError, match="has ended"):
                worker.call(abs, -3, deadline=time.monotonic() + 60)
        worker.close()
    assert worker.call(abs, -3, deadline=time.monotonic() + 60) == 3
    worker.close()


class FullDisk(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


def test_serving_goes_on_where_no_line_can_be_written(monkeypatch):
    monkeypatch.setattr(sys, "stderr", FullDisk())
    server.print_line("a line")
