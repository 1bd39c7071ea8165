"""Which graph a path names: itself, or the newest complete one of its versions."""

import subprocess
import sys

import pytest

from dfdetect.export import graph_folder


def _make(folder, complete=True):
    (folder / "assets").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")
    if complete:
        (folder / "assets" / "manifest.json").write_text("{}")
    return str(folder)


def _find(path):
    told = []
    return graph_folder.find_graph(path, told.append), told


def test_a_graph_is_itself(tmp_path):
    path = _make(tmp_path / "1")
    assert _find(path) == (path, [])
    assert _find(_make(tmp_path / "any", complete=False))[1] == []
    assert _find(None) == (None, [])


def test_the_newest_of_versions_is_taken_and_told(tmp_path):
    for name in ("2", "10", "x", "3.tmp", ".11.7.export"):
        _make(tmp_path / name)
    base = str(tmp_path)
    found, told = _find(base)
    assert found == str(tmp_path / "10")
    assert told == [f"{base} holds versions: taking the newest, {found}"]
    # A file, a folder that is being copied, and one without its manifest.
    (tmp_path / "14").write_text("")
    (tmp_path / "12" / "assets").mkdir(parents=True)
    _make(tmp_path / "00013", complete=False)
    found, told = _find(base)
    assert found == str(tmp_path / "10")
    newer = ", ".join(str(tmp_path / name) for name in ("00013", "12"))
    assert told == [
        f"{base} holds versions: taking the newest, {found}; not complete: {newer}"
    ]


@pytest.mark.parametrize(
    "make, came",
    [
        (lambda base: None, "nothing"),
        (lambda base: base.write_text(""), "a file"),
        (lambda base: base.mkdir(), "neither"),
        (lambda base: _make(base / "1", complete=False), "1 incomplete"),
    ],
)
def test_what_is_no_graph_is_told(make, came, tmp_path):
    make(tmp_path / "base")
    with pytest.raises(ValueError, match=f"named by numbers, got {came}.") as told:
        _find(str(tmp_path / "base"))
    assert str(told.value).startswith(f"{tmp_path / 'base'} is not a graph of dfdetect")


def test_it_needs_no_tensorflow():
    code = (
        "import sys, dfdetect.export.graph_folder; print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"
