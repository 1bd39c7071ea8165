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
    assert list(clips.encode_frames(path, count, "jpeg")[1])
    monkeypatch.setattr(image_status, "MAX_PIXELS", 160 * 120 * 2)
    with pytest.raises(ValueError, match="^more than 64 megapixels$"):
        clips.encode_frames(path, count, "jpeg")
