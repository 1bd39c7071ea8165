"""`dfdetect detect` on clips and on images and clips together."""

import csv
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from importlib import resources

import cv2
import jsonschema
import numpy as np
import pytest

import drawn_clips
import tiny_heads
from dfdetect import console
from dfdetect.cli import camera, main
from dfdetect.media import image_status, source_files
from dfdetect.pipeline import result_formats

SCHEMA = json.loads(
    (resources.files("dfdetect") / "schema" / "result.schema.json").read_text()
)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A folder: an image, four clips, one of them none."""
    folder = tmp_path_factory.mktemp("mixed")
    red = tiny_heads.frame((24, 24, tiny_heads.RED))
    cv2.imwrite(str(folder / "a.png"), red[..., ::-1])
    tiny_heads.crossing(folder / "b.mp4", 6)
    tiny_heads.write_clip(folder / "c.mp4", [tiny_heads.frame()] * 3)
    (folder / "d.mp4").write_text("a text\n")
    (folder / "sub").mkdir()
    tiny_heads.write_clip(folder / "sub" / "e.avi", [red] * 3)
    (folder / "notes.ts").write_text("let it = be;")
    return folder


@pytest.fixture(scope="module")
def validator():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def run(capsys, *arguments):
    code = main.main(["detect", *map(str, arguments)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def command(*arguments):
    # Started in the background of a script, a process would not heed an interrupt.
    code = """import signal, sys
from dfdetect.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main.main())
"""
    return subprocess.Popen(
        [sys.executable, "-c", code, "detect", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _older(track):
    added = ("size", "score", "matters", "set_aside")
    return {key: value for key, value in track.items() if key not in added}


def test_images_and_clips_in_their_order(graph, mixed, tmp_path, capsys, validator):
    output = tmp_path / "out"
    code, out, err = run(
        capsys, mixed, "--model", graph, "--output", output, "--frames", "all"
    )
    assert code == console.UNREAD
    results = lines(out)
    for result in results:
        validator.validate(result)
        # So do the lines of earlier versions.
        older = {**result, "tracks": [_older(x) for x in result.get("tracks", ())]}
        for key in ("deciding_track", "main_person"):
            older.pop(key, None)
        if result["kind"] == "image":
            del older["tracks"]
        validator.validate(older)
    assert [(os.path.basename(x["path"]), x["kind"], x["status"]) for x in results] == [
        ("a.png", "image", "ok"),
        ("b.mp4", "video", "ok"),
        ("c.mp4", "video", "no_head"),
        ("d.mp4", "video", "unreadable"),
        ("e.avi", "video", "ok"),
    ]
    assert [len(x["frames"]) for x in results[1:]] == [6, 3, 0, 3]
    assert [x["deciding_track"] for x in results[1:]] == [1, None, None, 1]
    assert [bool(x["main_person"]) for x in results[1:]] == [True, False, False, True]
    assert "d.mp4': no clip that can be decoded" in err
    # A slow machine says now and then how far it is.
    said = [line for line in err.splitlines() if " of 5 files; " not in line]
    assert len(said) == 2, err
    assert "; passed over 1 file: 1 .ts; " in said[-1]
    written = sorted(str(x.relative_to(output)) for x in output.rglob("*.*"))
    assert written == [
        *("a.png", "b.mp4", "b.mp4.png", "c.mp4", "c.mp4.png"),
        *("sub/e.mp4", "sub/e.mp4.png"),
    ]
    for name, count in (("b.mp4", 6), ("c.mp4", 3), ("sub/e.mp4", 3)):
        capture = cv2.VideoCapture(str(output / name))
        assert capture.get(cv2.CAP_PROP_FRAME_WIDTH) == 128
        assert sum(capture.read()[0] for _ in range(99)) == count


def test_a_report_shows_the_clips_and_their_key_frames(graph, mixed, tmp_path, capsys):
    report = tmp_path / "report.html"
    code, _, _ = run(capsys, mixed, "--model", graph, "--report", report)
    page = report.read_text("utf-8")
    assert code == console.UNREAD
    for name in ("a.png", "b.mp4", "c.mp4", "d.mp4", "e.avi"):
        assert name in page
    # One of each line of time, and one beside each name of three tracks.
    assert page.count('<path class="track ') >= 6
    # The image, and six and three frames of the clips that could be read.
    assert page.count("data:image/jpeg;base64,") >= 10
    code, _, err = run(capsys, mixed / "d.mp4", "--model", graph, "--report", report)
    assert code == console.UNREAD and "no clip that can be decoded" in err


def test_a_table_has_a_row_for_each_track(graph, mixed, capsys):
    clip = mixed / "b.mp4"
    _, out, _ = run(capsys, clip, mixed / "a.png", "--model", graph, "--csv")
    header, *rows = csv.reader(io.StringIO(out))
    assert tuple(header) == result_formats.CSV_COLUMNS
    first, second, image = (dict(zip(header, row, strict=True)) for row in rows)
    assert [first["kind"], second["kind"], image["kind"]] == ["video"] * 2 + ["image"]
    assert [first["track"], second["track"], image["track"]] == ["1", "2", ""]
    for row in (first, second):
        assert (row["first_time"], row["last_time"], row["num_heads"]) == (
            *("0.0", "0.5"),
            "6",
        )
        head = float(row["head_fake_probability"])
        assert head >= float(row["track_fake_probability"])
        assert row["matters"] == "True"
        assert row["verdict"] == "fake"


def test_frames_every_and_aggregate(graph, mixed, capsys):
    def found(*arguments):
        _, out, _ = run(capsys, mixed / "b.mp4", "--model", graph, *arguments)
        (result,) = lines(out)
        return [frame["index"] for frame in result["frames"]], result

    assert found("--frames", "2")[0] == [1, 4]
    assert found("--every", "0.2")[0] == [0, 2, 4]
    mean, highest = (found("--aggregate", x)[1] for x in ("mean", "max"))
    assert highest["fake_probability"] >= mean["fake_probability"]
    assert highest["fake_probability"] == max(
        head["fake_probability"] for frame in mean["frames"] for head in frame["heads"]
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--frames", "0"], "a whole number from 1 on, not '0'"),
        (["--every", "-1"], "a number of seconds above 0, not '-1'"),
        (["--every", "inf"], "a number of seconds above 0, not 'inf'"),
        (["--aggregate", "sum"], "invalid choice: 'sum'"),
        (["--camera", "0", "--csv"], "--camera does not go with --csv"),
        (["x.mp4", "--camera", "0"], "--camera does not go with PATH"),
    ],
)
def test_usage_errors_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(["detect", *arguments])
    assert stop.value.code == console.USAGE
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_a_clip_is_none_for_a_command_of_images(mixed):
    sources, _ = source_files.find_sources([str(mixed)])
    assert [os.path.basename(x.path) for x in sources] == ["a.png"]
    sources, _ = source_files.find_sources(
        [str(mixed), str(mixed / "notes.ts")], clips=True
    )
    # It is a program, not a transport stream.
    assert [x.is_clip for x in sources] == [False, True, True, True, True, False]


def test_copies_of_clips_never_share_a_name(tmp_path):
    for name in ("1/x.mp4", "1/x.mp4.png", "2/x.MP4", "2/x.avi"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    given = [str(tmp_path / "1"), str(tmp_path / "2")]
    sources, _ = source_files.find_sources(given, clips=True)
    names = [x.copy for x in sources] + [x.chart for x in sources if x.is_clip]
    assert len({name.casefold() for name in names}) == len(names) == 7


def test_lookups_keys_are_in_the_schema(validator):
    head = {
        "box": [0, 0, 1, 1],
        "score": 1.0,
        "fake_probability": 0.5,
        "nearest_real": {"id": "a", "similarity": 0.5, "source": "b"},
        "nearest_fake": None,
        "familiarity": None,
        "unfamiliar": False,
    }
    line = {
        "path": "x",
        "kind": "image",
        "status": "ok",
        "width": 1,
        "height": 1,
        "heads": [head],
        "fake_probability": 0.5,
        "verdict": "real",
    }
    validator.validate(line)
    wrong = [
        {**line, "kind": "video"},
        {**line, "extra": 1},
        {**line, "heads": [{**head, "track": 1}]},
        {**line, "heads": [{k: v for k, v in head.items() if k != "unfamiliar"}]},
        {**line, "heads": [{**head, "box": [0, 0, 1]}]},
        {**line, "fake_probability": 1.5},
        {**line, "verdict": "maybe"},
    ]
    for other in wrong:
        assert not validator.is_valid(other)


def many(folder, count):
    """Images and clips, one in ten of each unreadable."""
    folder.mkdir()
    red = tiny_heads.frame((24, 24, tiny_heads.RED))
    image = cv2.imencode(".png", red)[1].tobytes()
    clip = pathlib.Path(
        tiny_heads.write_clip(folder / "aside" / "x.mp4", [red] * 3)
    ).read_bytes()
    for index in range(count):
        ending, content = (".mp4", clip) if index % 2 else (".png", image)
        if index % 20 > 17:
            content = b"broken"
        (folder / f"{index:04d}{ending}").write_bytes(content)
    (folder / "aside" / "x.mp4").unlink()
    return [str(folder / x) for x in sorted(os.listdir(folder)) if x != "aside"]


def interrupt_and_resume(graph, folder, paths, stops, validator):
    """Interrupts the command after so many lines each; returns what it printed last."""
    noted, output = folder.parent / "noted.jsonl", folder.parent / "out"
    arguments = [folder, "--model", graph, "--resume", noted, "--batch_size", 2]
    arguments += ["--output", output]
    done = 0
    for stop in stops:
        process = command(*arguments)
        for _ in range(done + stop):
            assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        assert process.returncode == console.INTERRUPTED, err
        assert err.endswith("dfdetect: interrupted\n")
        content = noted.read_bytes()
        assert content.endswith(b"\n"), "nothing is half written"
        first, *entries = lines(content.decode())
        assert list(first) == ["settings"]
        assert [x["path"] for x in entries] == paths[: len(entries)]
        assert done + stop <= len(entries) < len(paths)
        done = len(entries)
        # What is noted was written before.
        copies = {x.name for x in output.iterdir()}
        for entry in entries:
            name = os.path.basename(entry["path"])
            assert (name in copies) == (entry["status"] == "ok")
        assert not any("tmp" in name for name in copies)
    before = {x.name: x.stat().st_mtime_ns for x in output.iterdir()}
    process = command(*arguments)
    out, err = process.communicate()
    assert process.returncode == console.UNREAD, err
    assert f"dfdetect: {len(paths) - done} files: " in err
    results = lines(out)
    _, *entries = lines(noted.read_text())
    assert [x["path"] for x in entries] == paths, "each once"
    for entry in entries:
        entry.pop("copy", None)
    assert entries == results
    for result in results:
        validator.validate(result)
    for path in paths[:done]:
        name = os.path.basename(path)
        if name in before:
            assert (output / name).stat().st_mtime_ns == before[name], "not done again"
    return results


@pytest.mark.slow  # Most of a minute: starts three times.
def test_an_interrupted_command_goes_on(graph, tmp_path, validator):
    paths = many(tmp_path / "in", 40)
    results = interrupt_and_resume(graph, tmp_path / "in", paths, [9], validator)
    statuses = [x["status"] for x in results]
    assert statuses.count("unreadable") == 4 and statuses.count("ok") == 36


@pytest.mark.slow
def test_a_thousand_files_interrupted(graph, tmp_path, validator):
    paths = many(tmp_path / "in", 1000)
    interrupt_and_resume(graph, tmp_path / "in", paths, [150, 300, 1], validator)


def test_what_was_noted_for_other_settings_is_refused(graph, mixed, tmp_path, capsys):
    noted = tmp_path / "noted.jsonl"
    arguments = ["--model", graph, "--resume", noted]
    assert run(capsys, mixed / "c.mp4", *arguments)[0] == 0
    code, out, _ = run(capsys, mixed / "c.mp4", mixed / "a.png", *arguments, "--csv")
    assert code == 0 and len(out.splitlines()) == 3, "in another form"
    with pytest.raises(SystemExit) as stop:
        run(capsys, mixed / "c.mp4", *arguments, "--frames", "8")
    assert stop.value.code == console.USAGE
    assert "--resume: " in (said := capsys.readouterr().err)
    assert "frames (there 32, here 8)" in said and said.count("\n") == 1
    photo = tmp_path / "photo.png"
    photo.write_bytes((mixed / "a.png").read_bytes())
    with pytest.raises(SystemExit):
        run(capsys, mixed / "c.mp4", "--model", graph, "--resume", photo)
    assert photo.read_bytes() == (mixed / "a.png").read_bytes()


def test_a_stream_gives_lines_as_they_come(
    graph, mixed, serve_folder, capsys, validator, monkeypatch
):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    url = f"{serve_folder(mixed)}/b.mp4"
    code, out, err = run(capsys, "--camera", url, "--model", graph, "--every", "0.2")
    # The server of the test notes its requests.
    assert code == 0 and "dfdetect" not in err
    results = lines(out)
    for result in results:
        validator.validate(result)
    assert [x["index"] for x in results] == [0, 2, 4]
    assert {(x["path"], x["kind"], x["verdict"]) for x in results} == {
        (url, "frame", "fake")
    }
    assert [len(x["heads"]) for x in results] == [2, 2, 2]
    code, out, err = run(capsys, "--camera", f"{url}.gone", "--model", graph)
    assert (code, out) == (console.FAILED, "")
    assert err.splitlines()[-1].endswith(".gone: no clip that can be decoded.")
    code, out, err = run(capsys, "--camera", "87", "--model", graph)
    assert (code, out) == (console.FAILED, "") and "no camera 87" in err


class Unplugged:
    """A camera that gives three frames."""

    def __init__(self, number):
        self.left = 3

    def isOpened(self):
        return True

    def grab(self):
        self.left -= 1
        time.sleep(0.01)  # A frame that was waited for is new.
        return self.left >= 0

    def retrieve(self, image=None):
        return True, np.full((60, 80, 3), 90, np.uint8)

    def release(self):
        pass


def test_a_camera_that_is_lost_is_told(graph, capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(camera.cv2, "VideoCapture", Unplugged)
    code, out, err = run(capsys, "--camera", "3", "--model", graph)
    assert code == console.FAILED and len(out.splitlines()) == 3
    assert err.endswith("dfdetect: --camera: camera 3 gives no more frames.\n")


def test_what_is_wrong_with_a_stream_is_told_once(graph, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    path = drawn_clips.draw_hdr(tmp_path / "a.mp4")
    arguments = ("--camera", path, "--model", graph)
    code, out, err = run(capsys, *arguments)
    assert code == 0 and len(lines(out)) == 2
    assert err.count("\n") == err.count(f"{str(path)!r}: PQ of high dynamic") == 1
    monkeypatch.setattr(image_status, "MAX_PIXELS", 160 * 120 - 1)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (console.FAILED, "")
    assert err == f"dfdetect: --camera: {path}: more than 64 megapixels.\n"


@pytest.mark.slow
def test_an_interrupt_ends_a_long_clip_at_once(graph, tmp_path):
    frames = [tiny_heads.frame((24, 24, tiny_heads.RED))] * 3000
    clip = tiny_heads.write_clip(tmp_path / "a.mp4", frames)
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.zeros((99, 99, 3), np.uint8))
    process = command(image, clip, "--model", graph, "--frames", "all")
    assert process.stdout.readline()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, err = process.communicate()
    assert (
        process.returncode == console.INTERRUPTED and err == "dfdetect: interrupted\n"
    )
    assert time.monotonic() - start < 15


def test_shards_add_up(graph, mixed, tmp_path, capsys):
    def detect(*arguments):
        code = main.main(["detect", "--model", graph, *arguments, str(mixed)])
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err

    _, whole, _ = detect()
    parts = []
    for k in (1, 2):
        code, lines, _ = detect(f"--shard={k}/2", f"--output={tmp_path}")
        parts += lines
        assert code in (0, console.UNREAD)
    assert sorted(parts) == sorted(whole) and len(whole) > 3
    copies = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parts[len(tmp_path.parts)][:6] for path in copies} == {"shard-"}
    # So many that some have no file, which is not an error and loads no model.
    counts = [
        len(source_files.find_sources([str(mixed)], clips=True, shard=(k, 99))[0])
        for k in range(99)
    ]
    assert sum(counts) == len(whole)
    code, lines, said = detect(f"--shard={counts.index(0) + 1}/99")
    assert (code, lines) == (0, []) and "all are in other shards than" in said
    with pytest.raises(SystemExit, match="2"):
        detect("--shard=0/9")
    assert "--shard: K/N with K from 1 to N" in capsys.readouterr().err
