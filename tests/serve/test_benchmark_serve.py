"""The script that loads `dfdetect serve`, on a graph that has nothing to do."""

import re

import pytest

import serving_support
from dfdetect.media import source_files

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("no_heads")
    serving_support.save(base / "1", serving_support.no_heads)
    return base


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_both_servers_are_loaded_and_compared(base, run_script, protocol):
    done = run_script(
        "serve/benchmark_serve.py",
        *(f"--model_base_path={base}", f"--images={source_files.find_sample()}"),
        *("--seconds=1", "--clients=4", "--requests=600", f"--protocol={protocol}"),
    )
    rows = {
        cells[0]: cells[1:]
        for line in done.stdout.splitlines()
        if len(cells := line.strip("| ").split(" | ")) > 5
    }
    names = ["requests/s", "p50, s", "p95, s", "p99, s", "errors"]
    names += ["mean batch size", "CPU s an image"]
    assert rows["batching"] == names
    for name in ("off", "on"):
        assert float(rows[name][0]) > 1 and rows[name][4] == "0"
    assert float(rows["off"][5]) == 1.0 < float(rows["on"][5]) <= 4.0
    assert re.search(r"Memory after 500 requests: \d+ MiB", done.stdout)
    assert re.search(r"Memory after 600 requests: \d+ MiB", done.stdout)
    assert re.search(r"\| 8 \| 1 \| [\d.]+ \| [\d.]+ \|", done.stdout)


def test_a_folder_without_images_is_told(base, run_script, tmp_path):
    done = run_script(
        "serve/benchmark_serve.py",
        *(f"--model_base_path={base}", f"--images={tmp_path}"),
        check=False,
    )
    assert done.returncode == 1
    assert f"--images must hold images: {tmp_path}" in done.stderr
