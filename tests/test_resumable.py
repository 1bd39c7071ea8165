import json

import pytest

from dfdetect import resumable

SETTINGS = {"model": None, "frames": 32}


def test_what_was_noted_is_there_again(tmp_path):
    path = str(tmp_path / "a.jsonl")
    with resumable.Journal(path, SETTINGS) as noted:
        assert list(noted.steps()) == []
        noted.append({"path": "größe"})
        noted.append({"path": "not\udcffutf8"})
        assert [step["path"] for step in noted.steps()] == ["größe", "not\udcffutf8"]
    with resumable.Journal(path, SETTINGS) as noted:
        places = {step["path"]: place for place, step in noted.places()}
        assert noted.read(places["not\udcffutf8"]) == {"path": "not\udcffutf8"}
        noted.append({"path": "c"})
        assert len(list(noted.steps())) == 3
    with open(path, encoding="utf-8") as file:
        assert json.loads(file.readline()) == {"settings": SETTINGS}


@pytest.mark.parametrize("left", [b'{"path": "b', b'{"path": "b"}'])
def test_half_a_line_is_taken_away(tmp_path, left):
    path = tmp_path / "a.jsonl"
    with resumable.Journal(str(path), SETTINGS) as noted:
        noted.append({"path": "a"})
    whole = path.read_bytes()
    path.write_bytes(whole + left)
    with resumable.Journal(str(path), SETTINGS) as noted:
        assert list(noted.steps()) == [{"path": "a"}]
    assert path.read_bytes() == whole


def test_a_line_may_be_taken_out_and_leave_an_empty_one(tmp_path):
    path = tmp_path / "a.jsonl"
    with resumable.Journal(str(path), SETTINGS) as noted:
        for name in "abc":
            noted.append({"path": name})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"\r\n", b"\n", lines[3], b"\n"]))
    with resumable.Journal(str(path), SETTINGS) as noted:
        assert [step["path"] for step in noted.steps()] == ["a", "c"]
        noted.append({"path": "b"})
        places = {step["path"]: place for place, step in noted.places()}
        assert [noted.read(places[x])["path"] for x in "abc"] == ["a", "b", "c"]


def test_a_damaged_line_is_named_and_nothing_is_lost(tmp_path):
    path = tmp_path / "a.jsonl"
    with resumable.Journal(str(path), SETTINGS) as noted:
        for name in "abc":
            noted.append({"path": name})
    content = path.read_bytes().replace(b'"b"', b'"b')
    path.write_bytes(content)
    with pytest.raises(FileExistsError, match="a.jsonl, line 3: not JSON; take the"):
        resumable.Journal(str(path), SETTINGS)
    assert path.read_bytes() == content


def test_steps_behind_a_damaged_line_are_repeated_where_they_are_counted(tmp_path):
    with resumable.Output(str(tmp_path / "out"), "summary.json", SETTINGS) as output:
        for name in "abc":
            output.append({"path": name})
    (path,) = (tmp_path / "out").iterdir()
    path.write_bytes(path.read_bytes().replace(b'"b"', b'"b'))
    with resumable.Output(str(tmp_path / "out"), "summary.json", SETTINGS) as output:
        assert [step["path"] for step in output.steps()] == ["a"]


def test_half_a_first_line_is_begun_again(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"sett')
    with resumable.Journal(str(path), SETTINGS) as noted:
        assert list(noted.steps()) == []


@pytest.mark.parametrize("content", [b"a photo", b'{"path": "a"}\n', b"\n", b"[]\n"])
def test_another_file_is_left_alone(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(
        FileExistsError, match="is not an output of this command .*name a new file"
    ):
        resumable.Journal(str(path), SETTINGS)
    assert path.read_bytes() == content


def test_other_settings_and_another_run_are_refused(tmp_path):
    path = str(tmp_path / "a.jsonl")
    with resumable.Journal(path, SETTINGS):
        with pytest.raises(BlockingIOError, match="Another run is using"):
            resumable.Journal(path, SETTINGS)
    with pytest.raises(FileExistsError, match=r"frames \(there 32, here 8\)"):
        resumable.Journal(path, {**SETTINGS, "frames": 8})
