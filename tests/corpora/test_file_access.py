"""Files of this machine and of a file system of Beam."""

import pathlib

import pytest

pytest.importorskip("apache_beam")

import drawn_file_system  # noqa: E402
from dfdetect.corpora import file_access  # noqa: E402


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """The folder behind `drawn://`, with some files."""
    monkeypatch.setattr(drawn_file_system, "ROOT", [tmp_path])
    monkeypatch.setattr(file_access, "_PAUSES", (0.0, 0.0))
    for name in ("a/1.jpg", "a/b/2.jpg.gz", "a/.hidden/3.jpg", "c.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"content of {name}".encode())
    return tmp_path


def _names(pattern):
    return [(one.path, one.is_named) for one in file_access.list_files(pattern)]


def test_files_are_found_by_name_folder_and_pattern(drawn):
    both = [("drawn://a/1.jpg", False), ("drawn://a/b/2.jpg.gz", False)]
    assert _names("drawn://a/**") == _names("drawn://a") == _names("drawn://a/") == both
    assert _names("drawn://a/*.jpg") == both[:1]
    # A dot behind the part that a pattern names hides no file.
    (drawn / "a" / "1-x.jpg").write_bytes(b"")
    named = [("drawn://a/1-x.jpg", False), ("drawn://a/1.jpg", False)]
    assert _names("drawn://a/1*") == named
    # What is hidden may be named.
    hidden = [("drawn://a/.hidden/3.jpg", False)]
    for pattern in ("drawn://a/.h*/*", "drawn://a/.hidden/**"):
        assert _names(pattern) == hidden
    assert _names("drawn://c.txt") == [("drawn://c.txt", True)]
    for nothing in ("drawn://d/**", str(drawn / "nothing" / "*")):
        with pytest.raises(FileNotFoundError, match="no file matches"):
            list(file_access.list_files(nothing))


@pytest.mark.parametrize("root", ["drawn://a", ""])
def test_a_folder_may_be_left_out(drawn, root):
    root = root or str(drawn / "a")
    for apart in ("b", "b/"):
        found = file_access.list_files(f"{root}/**", f"{root}/{apart}")
        assert [one.path for one in found] == [f"{root}/1.jpg"]


def test_a_folder_is_left_out_by_whatever_path(drawn):
    (drawn / "link").symlink_to(drawn / "a")
    for root, apart in (("link", "a/b"), ("a", "link/b"), ("link", "link/b")):
        for pattern in (root, f"{root}/**"):
            found = file_access.list_files(str(drawn / pattern), str(drawn / apart))
            assert [one.path for one in found] == [str(drawn / root / "1.jpg")]


def test_content_is_read_as_it_is_and_tried_thrice(drawn, monkeypatch):
    url = "drawn://a/b/2.jpg.gz"
    monkeypatch.setattr(drawn_file_system.DrawnFileSystem, "failures", 2)
    assert file_access.read(url) == b"content of a/b/2.jpg.gz"
    with file_access.open_local(url) as local:
        assert local.endswith(".gz")
        assert pathlib.Path(local).read_bytes() == b"content of a/b/2.jpg.gz"
    assert not pathlib.Path(local).exists()
    assert file_access.identify_kind("drawn://c.txt") == "text"
    monkeypatch.setattr(drawn_file_system.DrawnFileSystem, "failures", 3)
    with pytest.raises(OSError, match="the network is down"):
        file_access.read(url)
    with pytest.raises(OSError, match="nothing"):
        file_access.read("drawn://nothing")


def test_a_part_of_a_file_is_read(drawn, monkeypatch):
    def read_end(file):
        file.seek(-5, 2)
        return file.read()

    assert file_access.look_into(str(drawn / "c.txt"), read_end) == b"c.txt"
    monkeypatch.setattr(drawn_file_system.DrawnFileSystem, "failures", 2)
    assert file_access.look_into("drawn://c.txt", read_end) == b"c.txt"
    with pytest.raises(FileNotFoundError):
        file_access.look_into(str(drawn / "nothing"), read_end)


@pytest.mark.parametrize("beginning", ["drawn://", ""])
def test_what_is_written_replaces_what_was_there(drawn, beginning):
    path = f"{beginning or drawn}/run/part-1"
    path = path.replace("drawn:///", "drawn://")
    assert not file_access.exists(path) and file_access.list_prefix(path) == []
    file_access.write(path, b"old")
    file_access.write(path, b"new")
    assert file_access.exists(path) and file_access.read(path) == b"new"
    assert file_access.list_prefix(path[:-2]) == [path]
    assert [x.name for x in (drawn / "run").iterdir()] == ["part-1"]
