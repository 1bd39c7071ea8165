import cv2
import numpy as np
import pytest

from dfdetect.metrics import coco, detection_protocol
from dfdetect.reports import detection_report

EXTENT = (240, 320)


def _boxes(*boxes):
    return np.array(boxes, np.float64).reshape(-1, 4) / np.tile(EXTENT, 2)


LEFT, MIDDLE, RIGHT = (50, 20, 90, 60), (50, 140, 90, 180), (50, 250, 90, 290)
PLAIN = np.zeros(1, bool)
# Found; one missed and one false, two low ones besides; a false one; nothing at all.
TRUTH = [
    (_boxes(LEFT), PLAIN),
    (_boxes(LEFT), PLAIN),
    (_boxes(), PLAIN[:0]),
    (_boxes(), PLAIN[:0]),
]
FOUND = [
    (_boxes(LEFT), np.array([0.9])),
    (_boxes(MIDDLE, RIGHT, RIGHT), np.array([0.85, 0.1, 0.05])),
    (_boxes(MIDDLE), np.array([0.8])),
    (_boxes(), np.array([])),
]
EXTENTS = [EXTENT] * 4


@pytest.fixture(scope="module")
def figures():
    metrics = {
        **detection_protocol.compute_metrics(FOUND, TRUTH, EXTENTS),
        "coco": coco.compute_metrics(FOUND, TRUTH, EXTENTS),
    }
    metrics["f1_score_threshold"] = 0.5  # The three detections of high scores count.
    data = {"name": "heads", "config": "", "version": "1.0.0", "fingerprint": "abc"}
    return {
        "model": "m",
        "split": "test",
        "where": ["source=a|b", "group@0/5"],
        "data": data,
        "metrics": metrics,
    }


def test_errors_count_from_the_threshold_on():
    matches = detection_protocol.match_images(FOUND, TRUTH, EXTENTS)
    missed, wrong, scores = detection_report.count_errors(matches, 0.5)
    assert missed.tolist() == [0, 1, 0, 0]
    assert wrong.tolist() == [0, 1, 1, 0]
    assert scores == pytest.approx([0, 0.85, 0.8, 0])
    missed, wrong, _ = detection_report.count_errors(matches, 0.95)
    assert missed.tolist() == [1, 1, 0, 0] and wrong.tolist() == [0, 0, 0, 0]


def _images(places):
    gray = np.full((*EXTENT, 3), 90, np.uint8)
    return {place: (f"image{place}.png", gray.copy()) for place in places}


def test_report_has_all_figures_and_the_worst_images(figures, tmp_path):
    folder = tmp_path / "new"
    detection_report.write_report(
        str(folder), figures, FOUND, TRUTH, extents=EXTENTS, images=_images
    )
    lines = (folder / "report.md").read_text().splitlines()
    assert "| fingerprint | abc |" in lines and "| data | heads 1.0.0 |" in lines
    assert r"| chosen | source=a\|b and group@0/5 |" in lines
    assert lines[-2:] == ["| image1.png | 1 | 1 |", "| image2.png | 0 | 1 |"]
    names = {line.split(" | ")[0].strip("| ") for line in lines}
    numbers = {name for name, value in figures["metrics"].items() if np.isscalar(value)}
    assert numbers | {f"coco {name}" for name in coco.METRICS} <= names
    assert {*detection_protocol.SIZE_NAMES, "0.01", "0.1", "1"} <= names
    assert cv2.imread(str(folder / "precision_recall.png")).shape[2] == 3
    sheet = cv2.imread(str(folder / "worst_images.jpg"))[..., ::-1].astype(int)
    # Twice as large: the true head at 40 .. 120, the false one at 280 .. 360.
    red, green, blue = sheet[140, 38:43].mean(0)
    assert green > red + 50 and green > blue + 50
    red, green, blue = sheet[140, 278:283].mean(0)
    assert red > green + 20 > blue + 50
    assert np.abs(sheet[140, 80] - 90).max() < 10


def test_without_errors_there_is_an_empty_sheet(figures, tmp_path):
    right = [(_boxes(LEFT), np.array([0.9]))], [(_boxes(LEFT), PLAIN)]
    detection_report.write_report(
        str(tmp_path), figures, *right, extents=EXTENTS[:1], images=_images
    )
    assert cv2.imread(str(tmp_path / "worst_images.jpg")).max() == 0


def test_curve_of_nothing_is_a_image():
    matches = detection_protocol.match_images(FOUND[3:], TRUTH[3:], EXTENTS[3:])
    content = np.frombuffer(detection_report.draw_precision_recall(matches), np.uint8)
    assert cv2.imdecode(content, 1) is not None
    matches = detection_protocol.match_images(FOUND[3:], TRUTH[:1], EXTENTS[3:])
    assert detection_report.draw_precision_recall(matches).startswith(b"\x89PNG")
