"""The script that swaps versions under load, on a graph that has nothing to do."""

import pytest

import serving_support


@pytest.mark.slow
def test_nothing_is_lost_by_a_swap_a_damaged_version_and_the_end(run_script, tmp_path):
    serving_support.save(tmp_path / "1", serving_support.no_heads)
    done = run_script(
        "serve/benchmark_swap.py",
        *(f"--version={tmp_path / '1'}", "--seconds=9", "--drain_seconds=10"),
    )
    names, _, cells = (
        line.strip("| ").split(" | ") for line in done.stdout.splitlines()[-3:]
    )
    row = dict(zip(names, cells, strict=True))
    assert int(row["requests before SIGTERM"]) > 100 and row["lost"] == "0"
    assert "2 AVAILABLE" in row["states"] and "3 AVAILABLE" not in row["states"]
    assert "1 END" in row["states"] and row["exit code"] == "0"
    assert float(row["exit after, s"]) < 10
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_what_is_missing_is_told(run_script):
    done = run_script("serve/benchmark_swap.py", check=False)
    assert done.returncode == 2 and "--version" in done.stderr
