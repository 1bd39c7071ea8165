"""Runs of the DirectRunner whose worker processes die, or are late."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("apache_beam")
from apache_beam.portability import python_urns  # noqa: E402
from apache_beam.runners.portability.fn_api_runner import (  # noqa: E402
    worker_handlers,
)

from dfdetect.corpora import worker_processes  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
TWO_PROCESSES = ["direct_running_mode=multi_processing", "direct_num_workers=2"]
SECONDS = 120  # Of a run that should take ten; it must not wait forever.

# What each worker does when its Python starts: notes its number, and its fate.
SITE = """
import os, signal, sys, time

if "apache_beam.runners.worker.sdk_worker_main" in sys.orig_argv:
    number = len(os.listdir({folder!r}))
    while True:
        try:
            name = os.path.join({folder!r}, str(number))
            os.close(os.open(name, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            number += 1
    with open(name, "w") as file:
        file.write(str(os.getpid()))
    {fate}
"""

# A script that runs a small pipeline in two processes.
SCRIPT = """
import os
import signal

from dfdetect import console, script

console.capture()

import apache_beam as beam

from dfdetect.corpora import running

# As in a terminal, however the tests were started.
signal.signal(signal.SIGINT, signal.default_int_handler)


def build(pipeline):
    numbers = pipeline | beam.Create(range(8)) | beam.Reshuffle()
    return numbers | beam.Map(lambda number: {work})


def run_once():
    running.run(build, "DirectRunner", {options})


def main(argv):
    running.run_until_done(run_once, {attempts}, script.say, lambda: 0)


if __name__ == "__main__":
    script.run_main(main)
"""


class _Run:
    """A run of a script whose workers have a fate.

    Args:
        folder: Folder of the script.
        fate: A line of Python that each worker executes at its start.
        command: The script with its arguments; by default `SCRIPT`.
        work: What the workers of `SCRIPT` make of a `number`.
        attempts: Its attempts.
    """

    def __init__(self, folder, fate, command=(), work="number", attempts=1):
        self.workers = folder / "workers"
        self.workers.mkdir()
        site = SITE.format(folder=str(self.workers), fate=fate)
        (folder / "sitecustomize.py").write_text(site)
        path = folder / "run_it.py"
        script = SCRIPT.format(work=work, attempts=attempts, options=TWO_PROCESSES)
        path.write_text(script)
        paths = os.pathsep.join([str(folder), str(ROOT)])
        self.process = subprocess.Popen(
            [sys.executable, *(command or [str(path)])],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self):
        """Waits for the end; returns the exit code and what was said."""
        try:
            _, said = self.process.communicate(timeout=SECONDS)
        finally:
            self.process.kill()
        return self.process.returncode, said

    def count_alive(self):
        """Counts the workers that were started and live."""
        alive = 0
        for path in self.workers.iterdir():
            try:
                os.kill(int(path.read_text()), 0)
                alive += 1
            except ProcessLookupError:
                pass
        return alive


def _check_failure(run, reason):
    """Checks that a run has failed, and left no process; returns what it said."""
    code, said = run.wait()
    assert code == 1, said
    assert run.count_alive() == 0
    lines = said.splitlines()
    assert reason in lines[-1]
    return lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fate", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "it was killed"),
        ("os._exit(1)", "return code 1 ("),
        ("os._exit(0)", "before its work was done"),
    ],
)
def test_workers_that_die_at_once_end_the_run(tmp_path, fate, reason):
    run = _Run(tmp_path, fate, attempts=2)
    first, last = _check_failure(run, reason)
    assert first.startswith("run_it.py: attempt 1 of 2 failed: ") and reason in first
    assert last.startswith("run_it.py: the run failed 2 times, at last by: ")
    assert len(list(run.workers.iterdir())) == 4


@pytest.mark.slow
def test_the_other_worker_may_come_late(tmp_path):
    run = _Run(tmp_path, "os._exit(1) if number == 0 else time.sleep(5)")
    assert len(_check_failure(run, "return code 1 (")) == 1


@pytest.mark.slow
def test_workers_that_die_again_and_again_at_their_work_end_the_run(tmp_path):
    work = "os.kill(os.getpid(), signal.SIGKILL) if number == 5 else number"
    run = _Run(tmp_path, "pass", work=work, attempts=2)
    assert len(_check_failure(run, "it was killed")) == 2


@pytest.mark.slow
def test_a_build_of_a_data_set_ends_as_well(tmp_path):
    import building_support  # Which imports TensorFlow.

    building_support.faces(tmp_path / "faces", ["a.png,real,train,x"])
    command = (
        str(ROOT / "datasets" / "prepare.py"),
        "--dataset=labeled_faces",
        f"--manual_dir={tmp_path / 'faces'}",
        f"--data_dir={tmp_path / 'data'}",
        "--beam_runner=DirectRunner",
        f"--beam_options={','.join(TWO_PROCESSES)}",
    )
    run = _Run(tmp_path, "os._exit(1)", command)
    assert len(_check_failure(run, "return code 1 (")) == 2  # After what it prepares.
    assert not list((tmp_path / "data").rglob("*.tfrecord*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_at_the_start_leaves_no_worker(tmp_path, number):
    run = _Run(tmp_path, "time.sleep(5)")
    while len(list(run.workers.iterdir())) < 2:
        assert run.process.poll() is None
        time.sleep(0.05)
    run.process.send_signal(number)
    code, said = run.wait()
    assert code == 130, said
    assert said == "run_it.py: interrupted; start the same command again\n"
    assert run.count_alive() == 0


@pytest.mark.slow
def test_workers_that_live_do_their_work(tmp_path):
    run = _Run(tmp_path, "pass")
    assert run.wait() == (0, "")
    assert run.count_alive() == 0


def test_other_runs_have_the_handler_of_beam():
    registered = worker_handlers.WorkerHandler._registered_environments
    before = registered[python_urns.SUBPROCESS_SDK]
    with pytest.raises(KeyError, match="other"), worker_processes.watched():
        assert registered[python_urns.SUBPROCESS_SDK] != before
        raise KeyError("other")  # Not of a process.
    assert registered[python_urns.SUBPROCESS_SDK] == before
