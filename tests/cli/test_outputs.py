"""What cannot be written for one file is told, and the rest go on."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

import report_page_support as support
import tiny_heads
from dfdetect import console, files, resumable
from dfdetect.cli import main
from dfdetect.media import clip_encoding, drawing
from dfdetect.reports import page as report_page
from disk_limits import full_disk


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    red = tiny_heads.frame((24, 24, tiny_heads.RED))
    path.write_bytes(drawing.encode_image(red, ".png"))
    return path


def detect(capsys, *arguments):
    code = main.main(["detect", *map(str, arguments)])
    shown = capsys.readouterr()
    results = [json.loads(line) for line in shown.out.splitlines()]
    return code, results, shown.err.splitlines()


def written(folder):
    return sorted(str(x.relative_to(folder)) for x in folder.rglob("*") if x.is_file())


def test_a_copy_that_cannot_be_written_is_told_and_the_rest_go_on(
    graph, tmp_path, capsys
):
    for name in ("a.png", "sub/b.png", "z.png"):
        draw(tmp_path / "in" / name)
    output = tmp_path / "out"
    output.mkdir()
    (output / "sub").write_text("a file where the copy's folder should be")
    journal_path = tmp_path / "noted"
    arguments = ["--model", graph, "--output", output, "--resume", journal_path]
    code, results, said = detect(capsys, tmp_path / "in", *arguments)
    assert code == console.UNREAD
    assert [x["verdict"] for x in results] == ["fake"] * 3
    (told,) = (line for line in said if "no copy is written" in line)
    assert f"{str(tmp_path / 'in/sub/b.png')!r}: no copy is written" in told
    assert repr(str(output / "sub/b.png")) in told and ".tmp" not in told
    assert written(output) == ["a.png", "sub", "z.png"]
    # Once it can be written, the same command writes what is missing, and that alone.
    (output / "sub").unlink()
    (output / "a.png").unlink()
    code, results, said = detect(capsys, tmp_path / "in", *arguments)
    assert code == 0 and len(results) == 3
    assert written(output) == ["sub/b.png", "z.png"]


def test_a_copy_keeps_its_name_when_files_come_before_its_own(graph, tmp_path, capsys):
    draw(tmp_path / "in" / "a.png")
    arguments = ["--model", graph, "--output", tmp_path / "out"]
    arguments += ["--resume", tmp_path / "noted"]
    _, first, _ = detect(capsys, tmp_path / "in", *arguments)
    before = (tmp_path / "out" / "a.png").read_bytes()
    cv2.imwrite(str(tmp_path / "in" / "a.bmp"), np.zeros((96, 96, 3), np.uint8))
    code, results, _ = detect(capsys, tmp_path / "in", *arguments)
    assert code == 0 and results[1:] == first
    assert written(tmp_path / "out") == ["a-2.png", "a.png"]
    assert (tmp_path / "out" / "a.png").read_bytes() == before
    assert not cv2.imread(str(tmp_path / "out" / "a-2.png")).any()


def test_a_full_disk_leaves_no_half_of_a_copy_or_clip(graph, tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 255, (6, 160, 160, 3), np.uint8)
    clip = tiny_heads.write_clip(tmp_path / "in/a.mp4", list(noise))
    draw(tmp_path / "in/b.png")
    (tmp_path / "in/c.png").write_bytes(drawing.encode_image(noise[0], ".png"))
    draw(tmp_path / "in/d.png")
    output = tmp_path / "out"
    with full_disk(20_000):
        found = detect(capsys, tmp_path / "in", "--model", graph, "--output", output)
    code, results, said = found
    assert code == console.UNREAD and len(results) == 4
    lost = [line for line in said if "no copy is written" in line]
    assert len(lost) == 2
    assert str(clip) in lost[0] and "c.png" in lost[1]
    for line, name in zip(lost, ("a.mp4", "c.png"), strict=True):
        assert line.endswith(f"{str(output / name)!r}: File too large")
    assert written(output) == ["b.png", "d.png"]


@pytest.mark.parametrize("room", [0, 500, 40_000, 199_000])
def test_a_clip_that_is_cut_off_never_gets_its_name(tmp_path, room):
    target = str(tmp_path / "copy.mp4")
    noise = np.random.default_rng(0).integers(0, 255, (10, 120, 160, 3), np.uint8)

    def write():
        with clip_encoding.open_clip_writer(target, 25.0, (160, 120)) as writer:
            for image in noise:
                writer.write(image)

    write()
    whole = files.read(target)
    assert len(whole) > 200_000
    with full_disk(room), pytest.raises(OSError, match="File too large") as stop:
        write()
    assert stop.value.filename == target
    assert os.listdir(tmp_path) == ["copy.mp4"] and files.read(target) == whole
    # What comes last is the header, without which nothing plays.
    with full_disk(len(whole) - 1), pytest.raises(OSError, match="File too large"):
        write()
    assert files.read(target) == whole
    capture = cv2.VideoCapture(target)
    assert sum(capture.read()[0] for _ in range(20)) == 10


def test_names_of_copies_are_cut_to_what_the_file_system_takes(graph, tmp_path, capsys):
    image = draw(tmp_path / "in" / ("ü" * 126 + ".x"))
    other = draw(tmp_path / "in" / ("ü" * 125 + "ö.x"))
    clip = tmp_path / "in" / ("a" * 250 + ".mp4")
    tiny_heads.crossing(clip, 3)
    output = tmp_path / "out"
    arguments = [image, other, clip, "--model", graph, "--output", output]
    code, results, said = detect(capsys, *arguments)
    assert code == 0 and len(results) == 3, said
    assert written(output) == sorted(
        [
            "ü" * 125 + ".png",
            "ü" * 124 + "-2.png",
            "a" * 247 + ".mp4",
            "a" * 247 + ".mp4.png",
        ]
    )
    assert sum("its copy has a shorter name: " in line for line in said) == 3


def test_a_file_that_a_report_has_no_room_for_is_left_out_alone(tmp_path):
    path = tmp_path / "report.html"
    with report_page.ReportPage(
        str(path), support.THRESHOLDS, crop_margin=1.3, about="", num_files=3
    ) as page:
        page.add(support.image_result("first.png"))
        size = os.fstat(page._articles.fileno()).st_size
        with full_disk(size + 100), pytest.raises(OSError) as stop:
            page.add(support.image_result("second.png"))
        assert stop.value.filename == str(path)
        page.add(support.image_result("third.png"))
    text = path.read_text("utf-8")
    assert "first.png" in text and "third.png" in text and "second.png" not in text
    assert text.count("<article ") == text.count("</article>") == 2
    assert 'id="f2"' in text and 'id="f3"' not in text


def test_a_journal_on_a_full_disk_is_named_and_goes_on_later(tmp_path):
    path = str(tmp_path / "noted")
    with resumable.Journal(path, {}) as noted:
        noted.append({"step": 1})
        with full_disk(os.path.getsize(path) + 3), pytest.raises(OSError) as stop:
            noted.append({"step": 2})
    assert stop.value.filename == path
    with resumable.Journal(path, {}) as noted:
        assert list(noted.steps()) == [{"step": 1}]


@pytest.mark.slow  # A quarter of a minute.
def test_standard_output_on_a_full_disk_is_told_in_one_line(graph, tmp_path):
    code = "import sys; from dfdetect.cli import main; sys.exit(main.main())"
    arguments = ["detect", draw(tmp_path / "a.png"), "--model", graph]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == console.FAILED
    assert done.stderr == "dfdetect: 'standard output': No space left on device\n"


def test_a_report_on_a_full_disk_is_told_once_all_is_judged(graph, tmp_path, capsys):
    image = draw(tmp_path / "a.png")
    target = tmp_path / "report.html"
    arguments = [image, "--model", graph, "--report", target]
    with full_disk(10_000):
        code, results, said = detect(capsys, *arguments)
    assert code == console.UNREAD and len(results) == 1
    assert (
        said[-1] == f"dfdetect: no report is written: {str(target)!r}: File too large"
    )
    assert written(tmp_path) == ["a.png"]
