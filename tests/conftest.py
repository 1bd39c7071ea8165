"""Shared fixtures: drawn data sets, real samples, scripts and a file server."""

import atexit
import csv
import functools
import http.server
import importlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading

import cv2
import numpy as np
import pytest

import warm_python

ROOT = pathlib.Path(__file__).resolve().parents[1]

# One cache for all processes of a run, and none of the user's: whoever is first makes
# the graph of the default weights.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="dfdetect-tests-")
    os.environ["XDG_CACHE_HOME"] = _CACHE.name

# Of each start of Python, whatever a test changes for itself.
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}

# The longest first: at the end, one process would wait for the other. Those that take
# minutes with -m slow are among them.
_LONGEST = (
    "test_scripts.py",
    "test_distribute.py",
    "test_run_safety.py",
    "test_detect.py",
    "test_publish.py",
    "test_deepfake_pipeline.py",
    "test_index_building.py",
    "test_folds.py",
    "test_prepare.py",
    "test_prepared.py",
    "test_parity.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders the test files that take longest first."""
    places = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@functools.cache
def _warm_python() -> warm_python.WarmPython:
    warm = warm_python.WarmPython(ROOT, _ENVIRONMENT)
    atexit.register(warm.close)
    return warm


# A line of a library's log, which is not for the user of a script that succeeds.
LIBRARY_NOTE = re.compile(r"^([IWE]\d{4} |\d{4}-\d\d-\d\d .*: [IWE] |WARNING:)", re.M)


def _run_script(*arguments: object, check: bool = True) -> subprocess.CompletedProcess:
    """Runs Python in the checkout as a user would, and captures its output."""
    done = _warm_python().run([*map(str, arguments)])
    if check and done.returncode:
        raise AssertionError(f"{arguments} gave {done.returncode}:\n{done.stderr}")
    if not done.returncode and "--verbose" not in arguments:
        assert not LIBRARY_NOTE.search(done.stderr), done.stderr
    return done


def _draw_heads(random: np.random.Generator, height: int, width: int, count: int):
    """Draws noise with bright ellipses; returns it and their boxes in pixels."""
    image = random.integers(0, 60, (height, width, 3)).astype(np.uint8)
    boxes = []
    for _ in range(count):
        radius = int(random.integers(8, 16))
        x = int(random.integers(radius, width - radius))
        y = int(random.integers(radius, height - radius))
        cv2.ellipse(image, (x, y), (radius, radius), 0, 0, 360, (120, 170, 220), -1)
        boxes.append((x - radius, y - radius, x + radius, y + radius))
    return image, boxes


def _write_heads(folder: pathlib.Path) -> None:
    """Writes a folder like HollywoodHeads: 6 / 3 / 3 images of 0 to 2 heads."""
    random = np.random.default_rng(0)
    for name in ("JPEGImages", "Annotations", "Splits"):
        (folder / name).mkdir(parents=True)
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        stems = [f"mov_00{len(split)}_{index:06d}" for index in range(count)]
        (folder / "Splits" / f"{split}.txt").write_text("\n".join(stems) + "\n")
        for index, stem in enumerate(stems):
            image, boxes = _draw_heads(random, 96, 160, index % 3)
            cv2.imwrite(str(folder / "JPEGImages" / f"{stem}.jpeg"), image)
            objects = "".join(
                "<object><name>head</name><bndbox>"
                f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
                "</bndbox><difficult>0</difficult></object>"
                for x1, y1, x2, y2 in boxes
            )
            (folder / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation><size><width>160</width><height>96</height></size>"
                f"{objects or '<object/>'}</annotation>"
            )


def _write_faces(folder: pathlib.Path) -> None:
    """Writes a folder with labels.csv: 8 / 4 / 4 faces, the fakes blurred."""
    random = np.random.default_rng(1)
    folder.mkdir(parents=True)
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split", "group"])
        for split, count in (("train", 4), ("val", 2), ("test", 2)):
            for index in range(count):
                for label in ("real", "fake"):
                    image = random.integers(0, 256, (90, 80, 3)).astype(np.uint8)
                    if label == "fake":
                        image = cv2.GaussianBlur(image, (9, 9), 0)
                    name = f"{split}{index}_{label}.png"
                    cv2.imwrite(str(folder / name), image)
                    rows.writerow([name, label, split, f"{split}{index}"])


@pytest.fixture(scope="session", autouse=True)
def _graphs_as_they_are(pytestconfig) -> None:
    """Keeps Grappler from optimizing graphs within the process of quick tests.

    It would take longer than the one or two calls of a graph. The slow tests have it,
    and so do the scripts and commands that tests run.
    """
    if "tensorflow" in sys.modules and pytestconfig.getoption("markexpr") != "slow":
        optimizer = sys.modules["tensorflow"].config.optimizer
        optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(scope="session")
def sample_folder() -> pathlib.Path:
    """The folder of real sample data, which may be absent."""
    default = ROOT.parent / "shared" / "data"
    return pathlib.Path(os.environ.get("DFDETECT_SAMPLE_DATA", default))


@pytest.fixture(scope="session")
def sample_data(sample_folder):
    """The function `sample_data(name)`: the path of a sample; skips if it is absent."""

    def find(name: str) -> pathlib.Path:
        path = sample_folder / name
        if not path.exists():
            pytest.skip(f"no {path}; DFDETECT_SAMPLE_DATA names the folder of samples")
        return path

    return find


@pytest.fixture(scope="session")
def run_script():
    """The function `run_script(*arguments, check=True)`."""
    return _run_script


@pytest.fixture
def serve_folder():
    """The function `serve_folder(folder)`: serves it locally and returns the URL."""
    servers = []

    def serve(folder: pathlib.Path) -> str:
        handler = functools.partial(
            http.server.SimpleHTTPRequestHandler, directory=folder
        )
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def _save(name: str, folder: pathlib.Path) -> str:
    """Saves the small pipeline of a helper module; returns its folder."""
    # Not every process of a run needs TensorFlow.
    from dfdetect.export import saved_pipeline

    directory = str(folder / "1")
    saved_pipeline.save(importlib.import_module(name).build(), directory)
    return directory


@pytest.fixture(scope="session")
def saved_heads(tmp_path_factory) -> str:
    """The folder of a saved `tiny_heads`, which tests only read."""
    return _save("tiny_heads", tmp_path_factory.mktemp("tiny_heads"))


@pytest.fixture(scope="session")
def saved_tiny(tmp_path_factory) -> str:
    """The folder of a saved `tiny_pipeline`, which tests only read."""
    return _save("tiny_pipeline", tmp_path_factory.mktemp("tiny_pipeline"))


@pytest.fixture(scope="module")
def load_once():
    """Commands within this process share the graphs that they load."""
    from dfdetect.export import saved_pipeline

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_pipeline, "load", functools.cache(saved_pipeline.load))
        yield


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> pathlib.Path:
    """Folder with both drawn data sets, prepared by `datasets/prepare.py`."""
    folder = tmp_path_factory.mktemp("prepared")
    for name, write in (
        ("hollywood_heads", _write_heads),
        ("labeled_faces", _write_faces),
    ):
        write(folder / "source" / name)
        _run_script(
            "datasets/prepare.py",
            f"--dataset={name}",
            f"--manual_dir={folder / 'source' / name}",
            f"--data_dir={folder}",
        )
    return folder
