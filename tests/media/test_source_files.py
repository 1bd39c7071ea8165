import os
from collections import Counter

import pytest

import drawn_clips
from dfdetect import files
from dfdetect.media import file_kinds, source_files


def touch(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def paths_and_copies(sources):
    return [(source.path, source.copy) for source in sources]


def test_folder_gives_its_images_in_order_and_mirrors_their_names(tmp_path):
    for name in ("b.JPG", "a.png", "sub/c d.webp", "sub/notes.txt", "sub/ü\n.gif"):
        touch(tmp_path / name)
    for hidden in (".x.jpg", ".git/y.jpg"):
        touch(tmp_path / hidden)
    sources, barren = source_files.find_sources([str(tmp_path)])
    assert barren == []
    assert paths_and_copies(sources) == [
        (str(tmp_path / "a.png"), "a.png"),
        (str(tmp_path / "b.JPG"), "b.JPG"),
        (str(tmp_path / "sub/c d.webp"), "sub/c d.png"),
        (str(tmp_path / "sub/ü\n.gif"), "sub/ü\n.png"),
    ]


def test_each_file_comes_once_and_copies_never_share_a_name(tmp_path):
    one, two = touch(tmp_path / "1/x.jpg"), touch(tmp_path / "2/x.jpg")
    gif, capital = touch(tmp_path / "2/x.png"), touch(tmp_path / "3/X.JPG")
    given = [one, two, str(tmp_path / "1/../1/x.jpg"), str(tmp_path / "2"), capital]
    sources, _ = source_files.find_sources(given)
    assert paths_and_copies(sources) == [
        (one, "x.jpg"),
        (two, "x-2.jpg"),
        (gif, "x.png"),
        (capital, "X-3.JPG"),
    ]


def test_patterns_are_expanded_unless_a_file_has_that_name(tmp_path):
    literal = touch(tmp_path / "a[1].jpg")
    touch(tmp_path / "a1.jpg")
    touch(tmp_path / "a.txt")
    touch(tmp_path / "deep/er/a2.jpg")
    assert [s.path for s in source_files.find_sources([literal])[0]] == [literal]
    found, _ = source_files.find_sources([str(tmp_path / "a*")])
    assert [s.path for s in found] == [str(tmp_path / "a1.jpg"), literal]
    found, _ = source_files.find_sources([str(tmp_path / "**/a?.jpg")])
    assert [os.path.basename(s.path) for s in found] == ["a1.jpg", "a2.jpg"]


def test_patterns_enter_no_linked_folders(tmp_path, monkeypatch):
    touch(tmp_path / "photos/a.jpg")
    touch(tmp_path / "photos/in [1]/b.jpg")
    touch(tmp_path / "photos/.hidden/c.jpg")
    for name in ("self", "again"):
        os.symlink(".", tmp_path / "photos" / name)
    wanted = ["photos/a.jpg", "photos/in [1]/b.jpg"]
    monkeypatch.chdir(tmp_path)
    for pattern in ("**/*.jpg", "photos/**", "ph*/**/*.jpg", "./**/**/*.jpg"):
        found, barren = source_files.find_sources([pattern])
        assert [os.path.normpath(s.path) for s in found] == wanted and not barren
    assert source_files.expand_pattern(str(tmp_path / "**/b.*")) == [
        str(tmp_path / wanted[1])
    ]
    jpeg = b"\xff\xd8\xff\xe0" + bytes(20)
    touch(tmp_path / "photos/in [1]/b.jpg", jpeg)
    assert source_files.find_images(["photos/in [1]"]) == wanted[1:]
    assert source_files.find_images(["**/*.jpg"]) == wanted[1:]


def test_what_names_nothing_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    given = [str(tmp_path / "empty"), str(tmp_path / "*.jpg")]
    assert source_files.find_sources(given) == ([], given)


def test_content_decides_and_what_is_passed_over_is_counted(tmp_path):
    image = b"\xff\xd8\xff\xe0" + bytes(20)
    clip = bytes(3) + b" ftypisom" + bytes(20)
    avif = bytes(3) + b" ftypavif" + bytes(20)
    folder = tmp_path / "in"
    taken = [
        touch(folder / "1.jfif", image),
        touch(folder / "2.pjpeg", image),
        touch(folder / "3 without ending", image),
        touch(folder / "4.3g2", clip),
        touch(folder / "5 clip.jpg", clip),
        touch(folder / "6 avif.jpg", avif),
        touch(folder / "7 text.mp4", b"text"),
    ]
    for name, content in {
        "a.heic": bytes(3) + b" ftypheic" + bytes(20),
        "b.HEIC": bytes(3) + b" ftypheix" + bytes(20),
        "c.tif": b"II*\0" + bytes(20),
        "d.ts": b"export const x = 1;",
        "e": b"text",
        "f.m4a": bytes(3) + b" ftypM4A " + bytes(20),
    }.items():
        touch(folder / name, content)
    kinds = Counter()
    sources, _ = source_files.find_sources([str(folder)], clips=True, passed_over=kinds)
    assert [source.path for source in sources] == taken
    are_clips = [False, False, False, True, True, False, True]
    assert [source.is_clip for source in sources] == are_clips
    expected = {"HEIC": 2, "TIFF": 1, ".ts": 1, "without ending": 1, "MPEG-4 audio": 1}
    assert kinds == expected
    assert file_kinds.describe_passed_over(kinds) == (
        "passed over 6 files: 1 .ts, 2 HEIC, 1 MPEG-4 audio, 1 TIFF, 1 without ending"
    )
    # Without clips: what is called like an image is told, the others are counted.
    sources, _ = source_files.find_sources(
        [str(folder)], passed_over=(kinds := Counter())
    )
    assert [source.path for source in sources] == [*taken[:3], *taken[4:6]]
    assert sources[3].problem == "a clip (MP4 or QuickTime); wanted is an image"
    assert kinds["MP4 or QuickTime"] == 1 and kinds[".mp4"] == 1
    # What is named outright is never passed over.
    outright = [str(folder / "c.tif"), taken[3]]
    sources, _ = source_files.find_sources(outright, passed_over=(kinds := Counter()))
    assert [source.path for source in sources] == outright and not kinds
    sources, _ = source_files.find_sources(
        [str(folder), outright[0]], passed_over=(kinds := Counter())
    )
    assert sources[-1].path == outright[0] and "TIFF" not in kinds


def test_named_outright_a_file_is_taken_whatever_it_is(tmp_path):
    given = [touch(tmp_path / "notes.txt"), str(tmp_path / "missing.jpg")]
    sources, barren = source_files.find_sources(given)
    assert [s.path for s in sources] == given and barren == []
    assert [s.copy for s in sources] == ["notes.png", "missing.jpg"]


def test_what_only_ffmpeg_knows_is_a_clip_when_named_outright(tmp_path):
    clip = drawn_clips.draw(tmp_path / "a.lxf", "-c:v", "ffv1", "-f", "nut")
    content = clip.read_bytes()
    # What comes before the frames of a recording, such as the rest of another one.
    clip.write_bytes(bytes(4) + content)
    assert file_kinds.identify_file(clip) == file_kinds.UNKNOWN
    noise = touch(tmp_path / "noise", bytes(range(256)) * 40)
    given = [str(clip), noise]
    sources, _ = source_files.find_sources(given, clips=True)
    assert [source.is_clip for source in sources] == [True, False]
    assert sources[0].copy == "a.mp4" and sources[1].problem == ""
    sources, _ = source_files.find_sources(given)
    assert sources[0].problem == "a clip (clip of another format); wanted is an image"


def test_broken_links_are_found_and_pipes_are_not(tmp_path):
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    sources, _ = source_files.find_sources([str(tmp_path)])
    assert [s.copy for s in sources] == ["broken.jpg"]
    with pytest.raises(FileNotFoundError):
        files.read(sources[0].path)


def test_output_folder_is_no_input(tmp_path):
    image = touch(tmp_path / "x.jpg")
    old_copy = touch(tmp_path / "out/x.jpg")
    sources, _ = source_files.find_sources(
        [str(tmp_path)], output=str(tmp_path / "out")
    )
    assert [s.path for s in sources] == [image]
    link = tmp_path / "link.jpg"
    link.symlink_to(old_copy)
    for given in (old_copy, str(link), str(tmp_path / "out")):
        with pytest.raises(ValueError, match="lies in the output folder"):
            source_files.find_sources([given], output=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="lies in the output folder"):
        source_files.find_sources([image], output=str(tmp_path))


def test_patterns_do_not_search_the_output_folder(tmp_path):
    for name in ("a.jpg", "b/c.jpg", "out/a.jpg", "out/b/c.jpg"):
        touch(tmp_path / name)
    for pattern in ("**/*.jpg", "**", "*", "*/**"):
        found, _ = source_files.find_sources(
            [str(tmp_path / pattern)], str(tmp_path / "out")
        )
        names = {os.path.relpath(x.path, tmp_path) for x in found}
        assert names <= {"a.jpg", "b/c.jpg"} and "b/c.jpg" in names, pattern


def test_read_stops_at_devices(monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 2**20)
    with pytest.raises(OSError, match="larger than 1 MiB"):
        files.read("/dev/zero")


def test_write_leaves_nothing_aside(tmp_path):
    target = tmp_path / "new/folder/x.png"
    files.write(str(target), b"one")
    files.write(str(target), b"two")
    assert target.read_bytes() == b"two"
    assert os.listdir(target.parent) == ["x.png"]
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        files.write(str(tmp_path / "taken"), b"three")
    assert sorted(os.listdir(tmp_path)) == ["new", "taken"]


def test_sample_is_a_jpeg():
    assert files.read(source_files.find_sample()).startswith(b"\xff\xd8\xff")


def test_a_folder_called_like_a_clip_or_an_image_is_a_folder(tmp_path):
    mp4, png = b"\0\0\0\x18ftypisom", b"\x89PNG\r\n\x1a\n"
    avi = touch(tmp_path / "x.avi", b"RIFF\0\0\0\0AVI LIST")
    inner = touch(tmp_path / "x.mp4" / "y.mp4", mp4)
    other = touch(tmp_path / "z.gif" / "a.png", png)
    gif = touch(tmp_path / "z.bmp", b"GIF89a")
    third = touch(tmp_path / "z.png" / "b.png", png)
    sources, barren = source_files.find_sources(
        [str(tmp_path)], str(tmp_path / "out"), clips=True
    )
    assert barren == []
    # No copy has the name of the folder of another.
    assert paths_and_copies(sources) == [
        (avi, "x-2.mp4"),
        (gif, "z-2.png"),
        (inner, "x.mp4/y.mp4"),
        (other, "z.gif/a.png"),
        (third, "z.png/b.png"),
    ]
    outright, _ = source_files.find_sources([str(tmp_path / "x.mp4")], clips=True)
    assert paths_and_copies(outright) == [(inner, "y.mp4")]
