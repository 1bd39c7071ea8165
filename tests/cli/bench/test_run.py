"""The benchmark: images, turns, processes and tables; and the command itself."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from dfdetect import console
from dfdetect.cli import main
from dfdetect.cli.bench import processes, tables
from dfdetect.media import samples


def test_images_are_drawn_with_their_heads_again_and_again():
    one, ten = (samples.draw_portraits(2, heads, 320, seed=1) for heads in (1, 10))
    assert one == samples.draw_portraits(2, 1, 320, seed=1) and one[0] != one[1]
    decoded = cv2.imdecode(np.frombuffer(ten[0], np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (240, 320, 3)
    with pytest.raises(ValueError, match="num_heads must be 0 to 10, got 11"):
        samples.draw_portraits(1, 11)


def test_a_process_is_measured_alone():
    # From a small process, as the command is: Linux counts what the parent had, too.
    code = """import sys
from dfdetect.cli.bench import processes
code = "x = bytearray({} * 2**20); print(len(x)); print(1)"
for size in (1, 200):
    cost = processes.run_process([sys.executable, "-c", code.format(size)])
    assert cost.lines == [f"{size * 2**20}\\n", "1\\n"]
    assert 0 < cost.first_line <= cost.seconds
    print(cost.peak)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    small, large = map(float, done.stdout.split())
    assert 150 < large - small < 250
    with pytest.raises(RuntimeError, match="exit code 3: of the test"):
        processes.run_process(
            [
                sys.executable,
                "-c",
                "import sys; print('of the test', file=sys.stderr); sys.exit(3)",
            ]
        )


def test_tables_set_each_beside_the_models_alone():
    def row(key, seconds):
        return {"key": key, "median": seconds, "best": seconds / 2}

    rows = {
        "alone": [row(["detector", 8], 0.06), row(["classifier", 8], 0.02)],
        "chained": [row(["float32", 8, 1], 0.072), row(["float32", 8, 10], 0.2)],
        "stages": [row(["float32", "decoding"], 0.01), row(["float32", "crops"], 0.03)],
        "peers": [row(["Keras"], 0.144)],
    }
    lines = list(tables.format_graph(rows, 8))
    assert "| detector | 8 | 60.0 | 30.0 |" in lines
    assert "| float32 | 8 | 1 | 72.0 | 36.0 | 13.9 | 0.90 |" in lines
    assert "| float32 | 8 | 10 | 200.0 | 100.0 | 5.0 |  |" in lines
    assert "| crops, float32 | 30.0 | 15.0 | 75% |" in lines
    assert "| Keras | 144.0 | 72.0 | 2.00 |" in lines
    assert not [line for line in lines if line.startswith("Recommended")]


@pytest.mark.parametrize("seconds, expected", [(0.05, "bfloat16"), (0.07, "float32")])
def test_a_precision_is_recommended_where_both_are_measured(seconds, expected):
    def row(key, seconds):
        return {"key": key, "median": seconds, "best": seconds}

    rows = {
        "alone": [],
        "chained": [
            row(["float32", 8, 1], 0.072),
            row(["bfloat16", 8, 1], seconds),
            row(["bfloat16", 8, 10], 9),
        ],
        "stages": [],
    }
    (line,) = [x for x in tables.format_graph(rows, 8) if x.startswith("Recommended")]
    assert f"`--precision={expected}`" in line
    assert f"{seconds / 0.072:.2f} times float32 here at batch 8" in line


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--precision", "float16"], "invalid choice: 'float16'"),
        (["--batch_size", "0"], "a whole number from 1 on, not '0'"),
        (["--heads", "11"], "a whole number from 1 to 10, not '11'"),
        (["--threads", "-1"], "a whole number from 0 on, not '-1'"),
        (["image.jpg"], "unknown arguments: image.jpg"),
    ],
)
def test_usage_errors_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(["bench", *arguments])
    assert stop.value.code == console.USAGE
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1


def test_a_folder_that_is_no_model_is_told_in_one_line(tmp_path, capsys):
    code = main.main(["bench", "--start", "0", "--detector", str(tmp_path)])
    error = capsys.readouterr().err
    assert code == 1 and error.startswith("dfdetect bench: ")
    assert str(tmp_path) in error and error.count("\n") == 1


@pytest.mark.slow  # Minutes: graphs of two precisions, and whole processes.
def test_the_command_prints_its_tables(capfd):
    code = main.main(
        ["bench", "--batch_size", "1", "2", "--heads", "2", "--rounds", "1"]
        + ["--start", "1", "--threads", "1", "2", "--compare", "--width", "320"]
    )
    shown = capfd.readouterr()
    assert code == 0, shown.err
    for words in (
        "Machine: ",
        "with 1 threads",
        "| bfloat16 | 2 | 1 |",
        "Keras predict",
    ):
        assert words in shown.out
    assert "| decoding, float32 |" in shown.out
    assert "times import tensorflow" in shown.out and "peak memory" in shown.out


@pytest.mark.slow  # Builds the default models.
def test_peers_judge_as_the_graph_does():
    import tensorflow as tf

    from dfdetect.cli.bench import peers
    from dfdetect.pipeline import build

    graph = build.build_from_directories()
    drawn = samples.draw_portraits(2, 2)
    found = graph.detect(tf.constant(drawn))
    peer = peers.build_keras_peer(graph.detector, graph.classifier, graph.manifest)
    for judged, expected in zip(
        peer(drawn), found["fake_probabilities"].numpy(), strict=True
    ):
        expected = expected[expected > 0]
        assert len(judged) == len(expected) == 2
        # OpenCV decodes and resizes otherwise, which the classifier sees.
        np.testing.assert_allclose(np.sort(judged), np.sort(expected), atol=0.25)
