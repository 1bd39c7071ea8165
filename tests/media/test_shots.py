import itertools

import numpy as np
import pytest

from dfdetect.media import shots, video


def test_a_change_of_colors_is_a_cut_and_motion_is_none():
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 256, (2, 90, 160, 3), np.uint8)
    scenes[0, ..., 0] //= 4
    scenes[1, ..., 2] //= 4
    shot_counter = shots.ShotCounter()
    moved = [np.roll(scenes[0], 20 * i, axis=1) for i in range(5)]
    assert [shot_counter.add(image) for image in moved] == [0] * 5
    assert shot_counter.add(scenes[1]) == 1
    assert shot_counter.add(scenes[1]) == 1
    assert shot_counter.add(scenes[0]) == 2


def test_sizes_may_differ():
    shot_counter = shots.ShotCounter()
    assert shot_counter.add(np.full((9, 9, 3), 99, np.uint8)) == 0
    assert shot_counter.add(np.full((300, 200, 3), 99, np.uint8)) == 0


@pytest.mark.slow
def test_scenes_of_faceforensics_are_told_apart(sample_data):
    folder = sample_data("faceforensics/original_sequences")
    paths = sorted(folder.rglob("*.mp4"))
    views = []
    for path in paths:
        frames = list(video.Reader(path, video.Sampling(every=0.5)))
        assert {frame.shot for frame in frames} == {0}
        views.append(frames[len(frames) // 2].image[..., ::-1])
    for one, other in itertools.permutations(views, 2):
        shot_counter = shots.ShotCounter()
        assert [shot_counter.add(one), shot_counter.add(other)] == [0, 1]
