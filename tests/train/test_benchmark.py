"""The benchmarks of training, of tiny sets: each prints its tables."""

import re

import pytest


def _read_rows(text, title):
    """Returns the rows of a table, by their first cell."""
    tables = text.split("\n\n")
    (table,) = (x for x in tables if x.startswith(f"| {title} |"))
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.slow  # Minutes: trains Xception.
def test_loop_and_input_are_measured_beside_plain_ones(run_script, prepared):
    done = run_script(
        "train/benchmark.py",
        f"--data_dir={prepared}",
        "--parts=classifier,classifier_input,detector_input",
        "--precisions=float32",
        "--crop_size=71",
        "--image_size=128",
        "--batch_size=2",
        "--steps=2",
    )
    assert re.search(
        r"\| classifier \| float32 \| [\d.]+ \| [\d.]+ % \| [+-][\d.]+ % \|",
        done.stdout,
    )
    names = ["plain", "plain, augmented", "none", "light", "forensic"]
    first, speeds = done.stdout.split("| classifier input |")[1:]
    for name in names:
        assert f"\n| {name} | " in first and f"\n| {name} | " in speeds
    assert _read_rows(done.stdout, "detector input")["decode and pad"][-1] == "1.00"


@pytest.mark.slow
def test_starts_are_measured_by_number_of_records_and_sampling(run_script):
    done = run_script("train/benchmark_starts.py", "--records=300,700")
    rows = re.findall(
        r"\| (\d+) \| [\d.]+ \| \d+ \| (\w+) \| [\d.]+ \| \d+ \|", done.stdout
    )
    assert rows == [(n, x) for n in ("300", "700") for x in ("balanced", "pairs")]


def test_what_cannot_be_measured_is_told(run_script):
    training, starts = "train/benchmark.py", "train/benchmark_starts.py"
    for script, arguments, message in (
        (training, ["--data_dir=x", "--parts=odd"], "must be of classifier, detector,"),
        (starts, ["--sampling=odd"], "must be of natural, balanced, pairs"),
        (starts, ["--records=many"], "must be whole numbers above 0"),
    ):
        done = run_script(script, *arguments, check=False)
        assert done.returncode == 2 and message in done.stderr
