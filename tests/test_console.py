"""Standard error: only our lines, and everything after a failure."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

# Writes as a library below Python does, and as we do.
PROGRAM = """
import logging, os, sys, warnings
from dfdetect import console, script
from absl import flags
console.capture()
os.write(2, b"native note\\n")
warnings.warn("of a library")
def main(argv):
    logging.getLogger("dfdetect.training.loop").info("step 1")
    logging.getLogger("other").warning("of another")
    script.say("told")
    os.write(2, b"second note\\n")
    {end}
script.run_main(main)
"""


def run(end, *arguments):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(end=end), *arguments],
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "end, code, last",
    [
        ("pass", 0, "told"),
        ("sys.exit(3)", 3, "told"),
        ("raise ValueError('cannot be used')", 1, "cannot be used"),
        ("raise KeyboardInterrupt", 130, "start the same command again"),
    ],
)
def test_a_person_sees_our_lines_alone(end, code, last):
    done = run(end)
    assert done.returncode == code
    lines = done.stderr.splitlines()
    assert lines[0].endswith(" step 1") and lines[1] == "-c: told"
    assert lines[-1].endswith(last) and len(lines) == 2 + (last != "told"), lines


def test_verbose_shows_all_in_its_order():
    done = run("pass", "--verbose")
    places = [
        done.stderr.index(text)
        for text in ("native note", "of a library", "of another", "told", "second note")
    ]
    assert done.returncode == 0 and places == sorted(places)


def test_an_error_that_nobody_expected_shows_what_was_captured():
    done = run("raise RuntimeError('no more memory')")
    assert done.returncode == 1
    for text in ("native note", "of another", "told", "second note"):
        assert done.stderr.count(text) == 1, text
    assert done.stderr.splitlines()[-1] == "RuntimeError: no more memory"


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGKILL])
def test_a_process_that_dies_leaves_what_was_captured(number):
    done = run(f"os.kill(os.getpid(), {int(number)})")
    assert done.returncode == -number
    assert "native note" in done.stderr and "second note" in done.stderr


def test_an_unknown_flag_is_one_line():
    done = run("pass", "--unknown")
    assert done.returncode == 2
    assert done.stderr.startswith("-c: ") and done.stderr.count("\n") == 1


HIDING = """
import os, sys
from dfdetect import console
def write():
    os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called\\n")
    os.write(2, b"I0000 00:00:17.1 1 devices.cc:67] Number of eligible GPUs: 0\\n")
    print("told by Python", file=sys.stderr)
    os.write(2, b"E0000 00:00:17.2 1 devices.cc:68] an error\\n")
{prepare}
try:
    with console.notes_hidden():
        with console.notes_hidden():
            write()
        raise RuntimeError("within")
except RuntimeError as error:
    print(error, file=sys.stderr)
os.write(2, b"I0000 afterwards\\n")
print("answer")
"""


def test_notes_of_libraries_are_hidden_and_nothing_else():
    done = subprocess.run(
        [sys.executable, "-c", HIDING.format(prepare="")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.stderr.splitlines() == [
        "told by Python",
        "E0000 00:00:17.2 1 devices.cc:68] an error",
        "within",
        "I0000 afterwards",
    ]
    assert done.stdout == "answer\n"


@pytest.mark.parametrize(
    "prepare, level, notes",
    [("", "0", 2), ("import tempfile; tempfile.tempdir = '/none'", "3", 2)],
)
def test_notes_are_shown_on_request_or_where_they_cannot_be_hidden(
    prepare, level, notes
):
    done = subprocess.run(
        [sys.executable, "-c", HIDING.format(prepare=prepare)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": level},
    )
    assert done.stderr.count("I0000") == notes and "within" in done.stderr


def run_without(descriptor, program):
    """Runs a program with a standard stream closed."""
    return subprocess.run(
        ["/bin/sh", "-c", f'"$0" -c "$1" {descriptor}>&-', sys.executable, program],
        capture_output=True,
        check=True,
    )


def test_without_standard_error_nothing_fails():
    program = "from dfdetect import console\nwith console.notes_hidden(): print('in')"
    done = run_without("2", program)
    assert done.stdout == b"in\n"


def test_files_are_not_opened_in_place_of_a_closed_standard_error(tmp_path):
    program = (
        "import os, sys\n"
        "from dfdetect import console\n"
        "console.open_missing_streams()\n"
        f"file = open({str(tmp_path / 'a')!r}, 'w')\n"
        "with console.Progress(2, console.say) as shown: shown.count('real')\n"
        "os.write(2, b'note of a library')\n"
        "assert file.fileno() > 2\n"
    )
    done = run_without("2", program)
    assert done.stdout == b"" == (tmp_path / "a").read_bytes()


def test_results_go_nowhere_where_standard_output_is_closed():
    program = (
        "import sys\n"
        "from dfdetect import console\n"
        "console.open_missing_streams()\n"
        "print('a line')\n"
        "sys.stdout.flush()\n"
        "console.say('said')\n"
    )
    done = run_without("1", program)
    assert done.stderr == b"dfdetect: said\n"


def test_no_log_is_left_behind_and_none_is_needed(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM.format(end="pass")]
    subprocess.run(command, capture_output=True, check=True, env=environment)
    assert list(tmp_path.iterdir()) == []


def test_scripts_capture_before_they_import_tensorflow():
    root = pathlib.Path(__file__).resolve().parents[1]
    for path in [*root.glob("train/*.py"), *root.glob("datasets/*.py")]:
        lines = path.read_text("utf-8").splitlines()
        heavy = [
            i
            for i, line in enumerate(lines)
            if re.match(r"(import|from) (tensorflow|keras|absl|cv2|dfdetect)", line)
        ]
        assert lines.index("    console.capture()") < min(heavy), path
