"""`datasets/extract_frames.py` as a user runs it."""

import cv2
import numpy as np

import drawn_clips
from building_support import clip, cut, snapshot

_SCRIPT = "datasets/extract_frames.py"


def _frames(folder):
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix in (".png", ".jpg")
    )


def test_frames_become_files_once(tmp_path, run_script):
    root, output = tmp_path / "clips", tmp_path / "frames"
    clip(root / "a b/one.mp4", 10)
    clip(root / "two.avi", 3)
    clip(root / "two.MP4", 3)
    clip(root / "cut.mp4", 100)
    cut(root / "cut.mp4")
    before = snapshot(root)
    flags = ("-i", root, "-o", output, "-f", 4)
    done = run_script(_SCRIPT, *flags, check=False)
    assert done.returncode == 3
    assert "cut.mp4: cut short" in done.stderr
    summary = done.stderr.splitlines()[-1]
    assert "4 clips: " in summary
    assert "3 extracted" in summary and "1 unreadable" in summary
    wanted = [
        *(f"a b/one/{index:06d}.png" for index in (1, 3, 6, 8)),
        *(f"two.MP4/{index:06d}.png" for index in range(3)),
        *(f"two.avi/{index:06d}.png" for index in range(3)),
    ]
    assert _frames(output) == wanted
    capture = cv2.VideoCapture(str(root / "a b/one.mp4"))
    frames = [capture.read()[1] for _ in range(10)]
    image = cv2.imread(str(output / "a b/one/000006.png"))
    np.testing.assert_array_equal(image, frames[6])
    assert snapshot(root) == before

    # A run that was killed leaves a folder aside; what is complete is not touched.
    (output / "a b/one").rename(output / "a b/.one.unfinished")
    (output / "a b/.one.unfinished/000001.png").unlink()
    (root / "cut.mp4").unlink()
    clip(root / "new.mp4", 2)
    complete = snapshot(output / "two.avi")
    again = run_script(_SCRIPT, *flags)
    assert "2 clips: 2 extracted" in again.stderr
    assert _frames(output) == sorted([*wanted, "new/000000.png", "new/000001.png"])
    assert snapshot(output / "two.avi") == complete
    assert not list(output.rglob(".*"))


def test_tables_of_clips_are_copied_once_whatever_the_output(tmp_path, run_script):
    root = tmp_path / "clips"
    clip(root / "a/one.mp4", 3)
    (root / "a/labels.csv").write_text("path,label\none.mp4,real\n")
    for _ in range(2):
        run_script(_SCRIPT, "-i", root, "-o", root / "frames", "-f", 2)
    tables = sorted(str(x.relative_to(root)) for x in root.rglob("labels.csv"))
    assert tables == ["a/labels.csv", "frames/a/labels.csv"]
    assert len(_frames(root / "frames")) == 2


def test_usage_errors(tmp_path, run_script):
    root, output = tmp_path / "clips", tmp_path / "frames"
    clip(root / "one.mp4", 3)
    run_script(_SCRIPT, "-i", root, "-o", output, "-f", -1, "--frame_format=jpeg")
    assert _frames(output) == [f"one/{index:06d}.jpg" for index in range(3)]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("of the user")
    for arguments, message in (
        (("-i", root, "-o", output, "-f", 2), "was made with {'frames_per_video': -1"),
        (("-i", root, "-o", tmp_path / "other"), "holds other files"),
        (("-i", tmp_path / "none", "-o", output), "there is no clip"),
        (("-i", root, "-o", output, "-f", 0), "must be above 0"),
        (("-i", root, "-o", output, "--rate_factors=60"), "numbers from 0 to 51"),
    ):
        wrong = run_script(_SCRIPT, *arguments, check=False)
        assert wrong.returncode == 2
        assert message in wrong.stderr.splitlines()[-1]
        assert "Traceback" not in wrong.stderr


def test_a_name_too_long_for_a_folder_ends_no_run(tmp_path, run_script):
    root, output = tmp_path / "clips", tmp_path / "frames"
    # A folder is made aside, under a longer name.
    clip(root / ("n" * 250 + ".mp4"), 3)
    clip(root / "other.mp4", 3)
    done = run_script(_SCRIPT, "-i", root, "-o", output, "-f", 1, check=False)
    assert done.returncode == 3
    assert "no frames are written: " in done.stderr
    assert "File name too long" in done.stderr and "Traceback" not in done.stderr
    assert _frames(output) == ["other/000001.png"]
    assert not list(output.glob(".*"))


def test_what_is_wrong_with_a_clip_is_told(tmp_path, run_script):
    root, output = tmp_path / "clips", tmp_path / "frames"
    clip(root / "one.mp4", 3)
    drawn_clips.draw_hdr(root / "two.mp4")
    done = run_script(_SCRIPT, "-i", root, "-o", output, "-f", 1)
    (told,) = (line for line in done.stderr.splitlines() if "two.mp4" in line)
    assert told.endswith(": PQ of high dynamic range: its colors look washed out")
    summary = done.stderr.splitlines()[-1]
    assert "1 extracted" in summary and "1 extracted with a warning" in summary
    assert _frames(output) == ["one/000001.png", "two/000012.png"]


def test_frames_of_clips_that_were_compressed_say_so(tmp_path, run_script):
    root, output = tmp_path / "clips", tmp_path / "frames"
    clip(root / "one.mp4", 8)
    run_script(_SCRIPT, "-i", root, "-o", output, "-f", 4, "--rate_factors=18,40")
    names = ("000001.crf18", "000003.crf40", "000005.crf18", "000007.crf40")
    assert _frames(output) == [f"one/{name}.png" for name in names]
