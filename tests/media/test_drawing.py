import cv2
import numpy as np
import pytest

from dfdetect.media import drawing

RED, YELLOW, GREEN, GRAY = (255, 0, 0), (255, 255, 0), (0, 255, 0), (128, 128, 128)


@pytest.mark.parametrize(
    "probability, expected",
    [
        (0.0, GREEN),
        (0.25, (128, 255, 0)),
        (0.5, YELLOW),
        (0.75, (255, 128, 0)),
        (1.0, RED),
        (float("nan"), GRAY),
    ],
)
def test_color_goes_from_green_over_yellow_to_red(probability, expected):
    assert drawing.probability_color(probability) == expected


def test_box_lies_where_it_says_and_the_rest_stays():
    image = np.full((200, 100, 3), 90, np.uint8)
    marked = drawing.annotate(image, [[0.5, 0.2, 0.9, 0.8]], [1.0])
    # 200 rows, 100 columns: rows 100 to 180, columns 20 to 80.
    for row, column in [(140, 20), (140, 80), (180, 50), (180, 20), (180, 80)]:
        assert tuple(marked[row, column]) == RED
    assert (marked[102:179, 22:79] == 90).all()
    assert (marked[182:] == 90).all() and (marked[:, 83:] == 90).all()
    assert (marked[:80] == 90).all(), "the label stands just above the box"
    assert (marked[80:99, 20:80] != 90).any()
    assert (image == 90).all(), "the argument is left alone"


def test_without_heads_the_image_is_the_same():
    image = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    assert np.array_equal(drawing.annotate(image, np.zeros((0, 4)), []), image)


@pytest.mark.parametrize("size", [(1, 1), (8, 300), (40, 30), (1500, 2000)])
def test_boxes_at_the_edges_and_beyond_stay_within(size):
    image = np.zeros((*size, 3), np.uint8)
    boxes = [[0, 0, 1, 1], [0, 0.9, 0.1, 1.2], [-0.5, -0.5, 2, 2], [0.5, 0.5, 0.5, 0.5]]
    marked = drawing.annotate(image, boxes, [0.2, 0.4, float("nan"), 0.6])
    assert marked.shape == image.shape and marked.dtype == np.uint8
    assert marked.any()


def test_the_most_suspicious_head_covers_the_others():
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = [[0.2, 0.2, 0.8, 0.8]] * 3
    marked = drawing.annotate(image, boxes, [float("nan"), 1.0, 0.0])
    assert tuple(marked[80, 50]) == RED


def test_number_of_probabilities_must_fit():
    image = np.zeros((10, 10, 3), np.uint8)
    with pytest.raises(ValueError, match="2 boxes need as many probabilities, got 1"):
        drawing.annotate(image, np.zeros((2, 4)), [0.5])


def test_encoded_colors_come_back_in_order():
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 0] = 200
    png = cv2.imdecode(np.frombuffer(drawing.encode_image(image, ".PNG"), np.uint8), 1)
    assert np.array_equal(png[..., ::-1], image)
    content = drawing.encode_image(image, ".jpg")
    assert content.startswith(b"\xff\xd8")
    jpeg = cv2.imdecode(np.frombuffer(content, np.uint8), 1)[..., ::-1]
    assert np.abs(jpeg.astype(int) - image).max() < 10


def test_heat_covers_its_square_alone():
    image = np.full((6, 8, 3), 100, np.uint8)
    maps = np.zeros((2, 2, 2), np.float32)
    maps[1] = 1.0
    shown = drawing.overlay_heat_maps(
        image, np.array([[0, 0, 2, 2], [2, 4, 4, 4]]), maps
    )
    assert (image == 100).all()
    # What is cold stays as it is.
    outside = np.ones((6, 8), bool)
    outside[2:6, 4:8] = False
    assert (shown[outside] == 100).all()
    red, green, blue = shown[3, 5].astype(int)
    assert red > 100 > green and blue < 60
    assert (shown[2:6, 4:8] == shown[3, 5]).all()
    empty = drawing.overlay_heat_maps(image, np.zeros((0, 4), int), np.zeros((0, 2, 2)))
    np.testing.assert_array_equal(empty, image)


def test_text_that_no_font_has_is_drawn_as_question_marks():
    assert drawing.make_drawable("caf\udce9 \u00e9 a") == "caf? ? a"
    canvas = np.zeros((40, 90, 3), np.uint8)
    drawing.draw_box(canvas, np.array([20, 5, 35, 80]), RED, text="\udce9")
    expected = np.zeros_like(canvas)
    drawing.draw_box(expected, np.array([20, 5, 35, 80]), RED, text="?")
    np.testing.assert_array_equal(canvas, expected)
