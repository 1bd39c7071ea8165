import builtins

import numpy as np
import pytest

from dfdetect.metrics import coco

EXTENT = (200, 400)
NOTHING = np.zeros((0, 4)), np.zeros(0)


def _heads(boxes, difficult=()):
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    return boxes / np.tile(EXTENT, 2), np.isin(np.arange(len(boxes)), difficult)


def _found(boxes, scores):
    return _heads(boxes)[0], np.array(scores)


HEADS = [[0, 0, 20, 20], [0, 50, 50, 100], [0, 200, 150, 350]]  # 20, 50 and 150 px


def test_perfect_detections_have_all_there_is(capsys):
    figures = coco.compute_metrics(
        [_found(HEADS, [0.9, 0.8, 0.7]), NOTHING],
        [_heads(HEADS), _heads([])],
        [EXTENT, EXTENT],
    )
    assert figures == pytest.approx(dict.fromkeys(coco.METRICS, 1.0))
    assert capsys.readouterr().out == ""


def test_overlaps_and_sizes_are_told_apart():
    # The head of 50 px by its upper 40: an overlap of .8, right at 7 of 10 levels.
    # Those of 20 and 150 px are not found.
    figures = coco.compute_metrics(
        [_found([[0, 50, 40, 100]], [0.9])], [_heads(HEADS)], [EXTENT]
    )
    # One head of three, precision 1 up to there: 34 of the 101 recalls 0 to .33.
    assert figures["ap50"] == figures["ap75"] == pytest.approx(34 / 101)
    assert figures["ap"] == pytest.approx(0.7 * 34 / 101)
    assert figures["ar100"] == pytest.approx(0.7 / 3)
    assert (figures["ap_small"], figures["ap_large"]) == (0, 0)
    assert figures["ap_medium"] == pytest.approx(0.7)


def test_difficult_heads_count_neither_way():
    found = [_found([HEADS[1], HEADS[0]], [0.9, 0.8])]
    figures = coco.compute_metrics(found, [_heads(HEADS[:2], difficult=[1])], [EXTENT])
    assert figures["ap"] == pytest.approx(1) and np.isnan(figures["ap_medium"])
    figures = coco.compute_metrics(found, [_heads(HEADS[:1])], [EXTENT])
    assert figures["ap"] == pytest.approx(0.5)


def test_nothing_found_and_nothing_to_find():
    assert coco.compute_metrics([NOTHING], [_heads(HEADS)], [EXTENT])["ap"] == 0
    empty = coco.compute_metrics(
        [_found(HEADS, [0.9, 0.8, 0.7])], [_heads([])], [EXTENT]
    )
    assert np.isnan(list(empty.values())).all()


def test_without_the_package_it_names_the_extra(monkeypatch):
    imported = builtins.__import__

    def lacking(name, *arguments, **more):
        if name.startswith("pycocotools"):
            raise ImportError(name)
        return imported(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(ImportError, match=r"pip install dfdetect\[evaluate\]"):
        coco.compute_metrics([NOTHING], [_heads(HEADS)], [EXTENT])
