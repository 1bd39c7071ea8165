"""The timer that ends a process within a call that holds Python's lock."""

import subprocess
import sys

# `PyDLL` keeps the lock: no other thread of Python runs while it sleeps.
_HELD = """
import ctypes, sys
from dfdetect.training import exit_timer
with exit_timer.exiting_after(float(sys.argv[1]), 138):
    ctypes.PyDLL(None).usleep(int(float(sys.argv[2]) * 1e6))
print("done")
ctypes.PyDLL(None).usleep(int(float(sys.argv[3]) * 1e6))
"""


def _run(*seconds):
    return subprocess.run(
        [sys.executable, "-c", _HELD, *map(str, seconds)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_block_that_takes_longer_ends_the_process():
    done = _run(0.3, 50, 0)
    assert (done.returncode, done.stdout, done.stderr) == (138, "", "")


def test_after_the_block_nothing_ends_it():
    done = _run(1, 0.01, 1.5)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
