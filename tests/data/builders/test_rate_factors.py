"""Frames of clips that were compressed anew."""

import numpy as np
import pytest

import drawn_clips
from dfdetect.data.builders import frames as clips
from dfdetect.data.builders import rate_factors
from dfdetect.media import video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    # Of an odd size, which H.264 cannot hold.
    path = tmp_path_factory.mktemp("clips") / "a.mkv"
    return drawn_clips.draw(
        path, "-c:v", "ffv1", size="161x121", rate=12, source="testsrc"
    )


def _decoded(path):
    return list(video.read_frames(path, range(12)))


def test_all_frames_come_out_in_order_the_coarser_the_higher_the_factor(clip):
    before = _decoded(clip)
    errors = []
    for factor in (10, 28, 45):
        wanted = dict.fromkeys(range(12), factor)
        found = list(rate_factors.compress_frames(iter(before), wanted))
        assert [x.index for x in found] == list(range(12))
        assert [x.time for x in found] == [x.time for x in before]
        pairs = list(zip(before, found, strict=True))
        assert all(a.image.shape == b.image.shape for a, b in pairs)
        differences = [np.abs(a.image - b.image.astype(float)).mean() for a, b in pairs]
        errors.append(np.mean(differences))
        # No frame has taken the place of another one.
        for place, frame in enumerate(found):
            others = [
                np.abs(frame.image - x.image.astype(float)).mean() for x in before
            ]
            assert np.argmin(others) == place or factor == 45
    assert 0 < errors[0] < errors[1] < errors[2]
    # What is left at 10 is that colors are kept at half the resolution.
    assert errors[0] < 9 and errors[2] > 1.5 * errors[0]


def test_a_stream_that_changes_its_size_keeps_both(clip):
    frames = _decoded(clip)[:2]
    small = [video.Frame(2, 0.2, frames[0].image[:40, :60].copy())]
    found = list(rate_factors.compress_frames(frames + small, {0: 23, 1: 40, 2: 23}))
    assert [x.image.shape for x in found] == [(121, 161, 3)] * 2 + [(40, 60, 3)]


def test_frames_have_their_factors_in_turns(clip):
    wanted, frames, _ = clips.encode_frames(clip, 4, "png", (10, 45))
    plain_wanted, plain, _ = clips.encode_frames(clip, 4, "png")
    assert wanted == plain_wanted == [1, 4, 7, 10]
    found, plain = list(frames), list(plain)
    assert [index for index, _, _ in found] == wanted
    assert [time for _, time, _ in found] == [time for _, time, _ in plain]
    # What is finer takes more bytes.
    sizes = [len(image_bytes) for _, _, image_bytes in found]
    assert min(sizes[::2]) > 0 and sizes[0] != sizes[1]
    for _ in range(8):  # Data sets have fingerprints.
        again = [x for _, _, x in clips.encode_frames(clip, 4, "png", (10, 45))[1]]
        assert again == [x for _, _, x in found]
    factors = [clips.choose_factor(place, (10, 45)) for place in range(4)]
    assert factors == [10, 45, 10, 45]
    everything, frames, _ = clips.encode_frames(clip, -1, "png", (10, 45))
    assert [index for index, _, _ in frames] == everything == list(range(12))


@pytest.mark.parametrize("factor", ["52", "-1", "x", "1.5", ""])
def test_what_is_no_rate_factor_is_told(factor):
    with pytest.raises(ValueError, match=f"whole numbers from 0 to 51, got '{factor}'"):
        rate_factors.parse_rate_factors(["18", factor])


def test_texts_and_numbers_are_rate_factors():
    assert (
        rate_factors.parse_rate_factors(["18", 40]) == (18, 40)
        and rate_factors.parse_rate_factors([]) == ()
    )
