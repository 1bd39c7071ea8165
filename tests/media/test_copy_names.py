"""Names of copies: distinct, with a suffix that can be written, and short enough."""

import pathlib

from dfdetect.media import copy_names


def test_names_are_distinct_also_in_lower_case_and_from_charts():
    files = [("a.webp", False), ("A.PNG", False), ("a.mov", True), ("a.mp4.png", False)]
    assert copy_names.choose_names(files) == [
        "a.png",
        "A-2.PNG",
        "a.mp4",
        "a.mp4-2.png",
    ]


def test_a_folder_of_the_same_name_is_no_file():
    names = copy_names.choose_names([("x.png/1.jpg", False), ("x.gif", False)])
    assert names == ["x.png/1.jpg", "x-2.png"]


def test_long_names_are_cut_in_whole_characters_and_can_be_written(tmp_path):
    files = [("\u00e4" * 126 + ".gif", False), ("\u00e4" * 126 + ".webm", True)]
    names = copy_names.choose_names(files, str(tmp_path / "not" / "yet"))
    for name in (*names, names[1] + copy_names.CHART_SUFFIX):
        assert set(pathlib.PurePath(name).name.split(".")[0]) == {"\u00e4"}
        (tmp_path / name).write_bytes(b"x")


def test_names_that_other_copies_have_are_not_chosen():
    files = [("a.gif", False), ("b.avi", True), ("c.png", False)]
    found = copy_names.choose_names(files, taken=["A.png", "b.mp4.png"])
    assert found == ["a-2.png", "b-2.mp4", "c.png"]


def test_equal_names_of_many_folders_are_numbered():
    names = copy_names.choose_names([("face.jpg", False)] * 500 + [("Face.jpg", False)])
    assert names[:3] == ["face.jpg", "face-2.jpg", "face-3.jpg"]
    assert names[-2:] == ["face-500.jpg", "Face-501.jpg"] and len({*names}) == 501
