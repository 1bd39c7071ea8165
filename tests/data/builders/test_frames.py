"""Clips that give no frames, or frames and a warning."""

import pytest

import drawn_clips
from dfdetect.data.builders import frames as clips
from dfdetect.media import image_status

H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")


@pytest.mark.parametrize("count", [2, -1])
@pytest.mark.parametrize(
    "options", [("-s", "320x240"), ("-aspect", "16:3")], ids=["stored", "displayed"]
)
def test_frames_that_are_too_large_are_told(tmp_path, monkeypatch, count, options):
    path = drawn_clips.draw(tmp_path / "a.mp4", *H264, *options)
    assert list(clips.encode_frames(path, count, "jpeg").frames)
    monkeypatch.setattr(image_status, "MAX_PIXELS", 160 * 120 * 2)
    with pytest.raises(ValueError, match="^more than 64 megapixels$"):
        clips.encode_frames(path, count, "jpeg")


@pytest.mark.parametrize("count", [2, -1])
def test_what_is_wrong_with_a_clip_comes_with_its_frames(tmp_path, count):
    path = drawn_clips.draw_hdr(tmp_path / "a.mp4")
    encoded = clips.encode_frames(path, count, "jpeg")
    assert encoded.warning.startswith("PQ of high dynamic range")
    assert len(list(encoded.frames)) == len(encoded.wanted) == (2 if count > 0 else 25)
    path = drawn_clips.draw(tmp_path / "b.mp4", *H264)
    assert clips.encode_frames(path, count, "jpeg").warning == ""
