import functools
import itertools

import cv2
import numpy as np
import pytest

from dfdetect.evaluation import composed_clips

GREEN, BLUE = (0, 200, 0), (0, 0, 200)
ROOM = np.full((90, 160, 3), 60, np.uint8)


def portrait(color):
    """A colored head of 60 x 40 pixels on white."""
    image = np.full((100, 80, 3), 255, np.uint8)
    image[20:80, 20:60] = color
    return composed_clips.Portrait(image, np.array([20.0, 20.0, 80.0, 60.0]))


def compose(name, **more):
    parts = composed_clips.SCENES[name]
    people = [portrait(GREEN), portrait(BLUE)][: len(parts)]
    return composed_clips.compose_clip(parts, people, room=ROOM, num_frames=20, **more)


@functools.cache
def truths_of(name):
    """The truths of each frame, without its image."""
    return [truths for _, truths in compose(name)]


@pytest.mark.parametrize("name", composed_clips.SCENES)
def test_heads_are_where_the_truth_says(name):
    made = list(compose(name))
    assert [frame.index for frame, _ in made] == list(range(20))
    assert made[1][0].time == pytest.approx(0.1)
    for frame, truths in made[::5]:
        assert frame.image.shape == (720, 1280, 3) and frame.image.dtype == np.uint8
        for truth in truths:
            top, left, bottom, right = truth.box * (720, 1280, 720, 1280)
            y, x = round((top + bottom) / 2), round((left + right) / 2)
            color = frame.image[y - 5 : y + 5, x - 5 : x + 5].mean((0, 1))
            np.testing.assert_allclose(color, (GREEN, BLUE)[truth.part], atol=12)


@pytest.mark.slow  # A quarter of a minute: composes a clip of each scene.
def test_who_is_there_and_counts():
    def seen(name):
        return [[truth.part for truth in truths] for truths in truths_of(name)]

    assert seen("speaker") == [[0]] * 20
    assert seen("entering") == [[0]] * 12 + [[0, 1]] * 8
    assert seen("passing") == [[0]] * 18 + [[0, 1]] * 2
    counts = {
        name: [truth.counts for truth in truths_of(name)[-1]]
        for name in ("poster", "inset", "pair", "behind", "entering", "passing")
    }
    assert counts == {
        **dict.fromkeys(("poster", "inset", "passing"), [True, False]),
        **dict.fromkeys(("pair", "behind", "entering"), [True, True]),
    }


def test_a_poster_never_moves_and_people_do():
    boxes = np.array([[x.box for x in truths] for truths in truths_of("poster")])
    assert np.ptp(boxes[:, 1], axis=0).max() == 0
    assert np.ptp(boxes[:, 0], axis=0).min() > 0.01


def test_the_seed_decides():
    images = []
    for seed in (1, 1, 2):
        (third,) = itertools.islice(compose("pair", seed=seed), 3, 4)
        images.append(third[0].image)
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).any()


def test_each_part_needs_a_portrait():
    with pytest.raises(ValueError, match="2 parts need as many portraits, got 1"):
        next(
            composed_clips.compose_clip(
                composed_clips.SCENES["pair"], [portrait(GREEN)], room=ROOM
            )
        )


def test_a_folder_of_voc_layout_is_read(tmp_path):
    for name in ("JPEGImages", "Annotations", "Splits"):
        (tmp_path / name).mkdir()
    box = "<bndbox><xmin>6.5</xmin><ymin>1</ymin><xmax>9</xmax><ymax>4</ymax></bndbox>"
    for stem, found in (("a", f"<object>{box}</object>"), ("b", ""), ("c", "")):
        cv2.imwrite(str(tmp_path / f"JPEGImages/{stem}.png"), np.zeros((5, 10, 3)))
        (tmp_path / f"Annotations/{stem}.xml").write_text(
            f"<annotation>{found}</annotation>"
        )
    (tmp_path / "Splits/val.txt").write_text("a\nb\n")
    first, second = composed_clips.read_images(str(tmp_path), "val")
    assert first.image.shape == (5, 10, 3)
    np.testing.assert_array_equal(first.box, [1, 6.5, 4, 9])
    np.testing.assert_array_equal(second.box, [0, 0, 0, 0])
