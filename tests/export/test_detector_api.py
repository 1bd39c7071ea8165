"""The Python interface against the command, arrays against files without loss."""

import json
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

import dfdetect
import tiny_heads
from dfdetect.cli import main

ONE_FAKE = tiny_heads.frame((8, 8, tiny_heads.RED))
TWO = tiny_heads.frame((4, 20, tiny_heads.BLUE), (44, 20, tiny_heads.RED))
EMPTY = tiny_heads.frame()


pytestmark = pytest.mark.usefixtures("load_once")


@pytest.fixture(scope="module")
def exported(saved_heads):
    return pathlib.Path(saved_heads)


@pytest.fixture(scope="module")
def detector(exported):
    return dfdetect.load(exported)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images, a broken one and a clip."""
    folder = tmp_path_factory.mktemp("evidence")
    for name, image in (("a", ONE_FAKE), ("b", TWO), ("d", EMPTY)):
        cv2.imwrite(str(folder / f"{name}.png"), image[..., ::-1])
    (folder / "c.jpg").write_bytes(b"not an image")
    tiny_heads.crossing(folder / "e.mp4", num_frames=6)
    return folder


def _run_command(capsys, exported, *arguments):
    main.main(["detect", "--model", str(exported), *map(str, arguments)])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_lines_equal_those_of_the_command(detector, exported, folder, capsys):
    expected = _run_command(capsys, exported, folder)
    assert [line["status"] for line in expected] == [
        "ok",
        "ok",
        "unreadable",
        "no_head",
        "ok",
    ]
    assert list(detector.detect(str(folder))) == expected
    one_by_one = [folder / f"{name}" for name in ("a.png", "b.png", "c.jpg", "d.png")]
    found = list(detector.detect((path for path in one_by_one), batch_size=2))
    assert found == expected[:4]


def test_options_equal_those_of_the_command(detector, exported, folder, capsys):
    paths = [folder / "e.mp4", folder / "b.png", folder / "missing.png"]
    options = ["--threshold=0.05", "--frames=2", "--aggregate=max"]
    expected = _run_command(capsys, exported, *paths, *options)
    found = detector.detect(paths, threshold=0.05, frames=2, aggregate="max")
    assert list(found) == expected
    assert len(expected[0]["frames"]) == 2 and expected[1]["verdict"] == "fake"


def test_crops_equal_those_of_the_command(detector, exported, folder, capsys):
    paths = [folder / "a.png", folder / "c.jpg"]
    expected = _run_command(capsys, exported, *paths, "--crops")
    assert list(detector.classify_crops(paths)) == expected
    assert expected[0]["heads"][0]["box"] == [0.0, 0.0, 1.0, 1.0]
    (clip,) = detector.classify_crops(folder / "e.mp4")
    assert clip["status"] == "unreadable"


def test_arrays_are_judged_as_files_without_loss(detector, folder):
    # A width that is not a multiple of four, which rows of a BMP file are padded to.
    odd = np.random.default_rng(0).integers(0, 256, (45, 50, 3), np.uint8)
    odd[:32, 5:37] = tiny_heads.BLUE
    cv2.imwrite(str(folder.parent / "odd.png"), odd[..., ::-1])
    images = [ONE_FAKE, TWO, odd]
    paths = [folder / "a.png", folder / "b.png", folder.parent / "odd.png"]
    for judge in (detector.detect, detector.classify_crops):
        expected = [{**line, "path": ""} for line in judge(paths)]
        assert list(judge(images)) == expected
    np.testing.assert_array_equal(detector.embed(images), detector.embed(paths))
    # One array, a stack of them, and arrays among files.
    (line,) = detector.detect(ONE_FAKE)
    assert (line["width"], line["height"]) == (128, 128)
    assert line["fake_probability"] == pytest.approx(tiny_heads.FAKE, abs=1e-3)
    stack = list(detector.detect(np.stack([ONE_FAKE, TWO])))
    mixed = list(detector.detect([folder / "e.mp4", ONE_FAKE, folder / "b.png"]))
    assert stack[0] == mixed[1] == line
    assert [len(stack[1]["heads"]), len(mixed[2]["heads"])] == [2, 2]


def test_embeddings_are_rows_of_unit_length(detector, folder):
    paths = [folder / "a.png", folder / "c.jpg", folder / "b.png"]
    for kind in ("content", "forgery"):
        rows = detector.embed(paths, kind=kind, batch_size=2)
        dimension = detector.manifest["embeddings"][kind]["dimension"]
        assert rows.shape == (3, dimension) and rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 0, 1], atol=1e-5)
        assert detector.embed([], kind=kind).shape == (0, dimension)


@pytest.mark.parametrize(
    "inputs, error, message",
    [
        (ONE_FAKE.astype(np.float32), ValueError, r"uint8 \[height, width, 3\]"),
        (ONE_FAKE[..., 0], ValueError, r"got uint8 \[128, 128\]"),
        (ONE_FAKE[:0], ValueError, r"got uint8 \[0, 128, 3\]"),
        ([ONE_FAKE, None], TypeError, "a path or an array, got None"),
        (3, TypeError, "paths or arrays, got int"),
        ("no such/*.jpg", FileNotFoundError, "no images"),
    ],
)
def test_wrong_inputs_are_refused_at_once(detector, inputs, error, message):
    for judge in (detector.detect, detector.classify_crops):
        with pytest.raises(error, match=message):
            judge(inputs)


def test_wrong_options_are_refused_at_once(detector, exported, folder):
    path = folder / "a.png"
    for options, message in (
        ({"threshold": 1.5}, r"threshold must be in \[0, 1\], got 1.5"),
        ({"batch_size": 0}, "batch_size must be from 1 on, got 0"),
        ({"frames": 0}, "count must be from 1 on"),
        ({"aggregate": "best"}, "method must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            detector.detect(path, **options)
    with pytest.raises(ValueError, match="kind must be one of"):
        detector.embed(path, kind="face")
    with pytest.raises(ValueError, match="must be a file or an array"):
        detector.embed(folder)
    with pytest.raises(ValueError, match="where path is given"):
        dfdetect.load(exported, tile=True)
    with pytest.raises(ValueError, match="is not a graph of dfdetect"):
        dfdetect.load(folder)


def test_nothing_heavy_is_imported_until_it_is_asked_for():
    code = (
        "import sys, dfdetect; assert dfdetect.__version__; "
        "assert {'load', 'Detector'} <= set(dir(dfdetect)); "
        "assert not {'tensorflow', 'keras', 'cv2', 'numpy'} & set(sys.modules); "
        "assert not hasattr(dfdetect, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_keras_of_another_backend_is_refused():
    code = (
        "import sys, types, dfdetect; "
        "config = types.SimpleNamespace(backend=lambda: 'jax'); "
        "sys.modules['keras'] = types.SimpleNamespace(config=config); "
        "dfdetect.load()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: the backend of Keras must be 'tensorflow'" in done.stderr
