import pytest
from building_support import clip, cut

from dfdetect import video


def test_bin_centres():
    # Four parts of 10 frames are 2.5 long: 1.25, 3.75, 6.25, 8.75.
    assert video.bin_centres(10, 4) == [1, 3, 6, 8]
    assert video.bin_centres(1, 1) == [0]
    assert video.bin_centres(300, 1) == [150]
    assert video.bin_centres(3, 32) == [0, 1, 2]
    assert video.bin_centres(3, -1) == [0, 1, 2]
    assert video.bin_centres(0, 32) == []


def test_frames_have_their_index_time_and_pixels(tmp_path):
    clip(tmp_path / "a.mp4", 12, 48, 64, rate=10)
    frames = list(video.frames(tmp_path / "a.mp4", [0, 5, 11]))
    assert [frame.index for frame in frames] == [0, 5, 11]
    assert [frame.time for frame in frames] == pytest.approx([0.0, 0.5, 1.1])
    for frame in frames:
        assert frame.image.shape == (48, 64, 3)
        assert abs(frame.image.mean() - 20 * frame.index % 256) < 3


def test_a_clip_cut_short_gives_the_frames_it_has(tmp_path):
    clip(tmp_path / "a.mp4", 100)
    cut(tmp_path / "a.mp4")
    assert video.num_frames(tmp_path / "a.mp4") == 100
    there = video.num_frames(tmp_path / "a.mp4", decode=True)
    assert 10 < there < 90
    frames = list(video.frames(tmp_path / "a.mp4", [0, there - 1, there, 99]))
    assert [frame.index for frame in frames] == [0, there - 1]


@pytest.mark.parametrize("content", [b"", b"no clip", b"\0" * 1000])
def test_what_is_no_clip_says_so(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ValueError, match="a.mp4 is no clip that can be decoded"):
        video.num_frames(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="a.mp4 is no clip that can be decoded"):
        list(video.frames(tmp_path / "a.mp4", [0]))
