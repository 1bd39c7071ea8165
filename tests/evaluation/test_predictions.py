import csv
import io
import time

import numpy as np
import pytest

from dfdetect.evaluation import predictions
from dfdetect.evaluation.audit import metadata_baseline
from dfdetect.evaluation.audit.survey import Survey
from dfdetect.metrics import classification


def _survey(labels, groups=None, filenames=None, **fields):
    count = len(labels)
    features = np.zeros((count, len(metadata_baseline.FEATURES)), np.float32)
    features[:, :2] = (100, 25)
    return Survey(
        np.full(count, "test"),
        filenames or [f"{i}.png" for i in range(count)],
        np.array(labels),
        {"group": [[name] for name in groups or ["g"] * count]},
        np.zeros((0, 32), np.uint8),
        np.zeros(0, bool),
        features,
        {name: np.array(values) for name, values in fields.items()},
    )


def test_videos_of_two_frames():
    scores = np.array([0.1, 0.4, 0.35, 0.8, 0.3, 0.5, 0.65, 0.7, 0.9, 0.95])
    survey = _survey(np.repeat([0, 0, 1, 1, 1], 2), video=np.repeat(list("edcba"), 2))
    videos = predictions.join_survey(survey, scores).by_video()
    assert videos.videos.tolist() == list("abcde")
    assert videos.probabilities == pytest.approx([0.925, 0.675, 0.4, 0.575, 0.25])
    assert videos.labels.tolist() == [1, 1, 1, 0, 0]
    assert videos.filenames.tolist() == [f"{i}.png" for i in (8, 6, 4, 2, 0)]
    summary = classification.compute_metrics(videos.labels, videos.probabilities)
    assert summary["auc"] == pytest.approx(0.8333333, abs=1e-6)


def test_a_real_video_and_its_fake_are_two():
    names = predictions.name_videos(_survey([0, 0, 1, 1], list("aaab")))
    assert names.tolist() == ["a/real", "a/real", "a/fake", "b/fake"]


@pytest.mark.parametrize("field", ["video", "clip"])
def test_a_field_names_the_video(field):
    survey = _survey([1, 1, 1], **{field: [7, 7, 8]}, method=["a", "b", "c"])
    assert predictions.name_videos(survey).tolist() == ["7", "7", "8"]
    # A real clip and a fake of one name are two.
    survey = _survey([0, 1, 1], **{field: [7, 7, 8]}, method=["a", "b", "c"])
    assert predictions.name_videos(survey).tolist() == ["real/7", "fake/7", "8"]


def test_many_names_take_no_time_that_grows_with_their_square():
    number = 10_000
    named = np.repeat([f"video {i}" for i in range(number)], 2)
    start = time.process_time()
    names = predictions.name_videos(_survey(np.tile([0, 1], number), video=named))
    assert names[:2].tolist() == ["real/video 0", "fake/video 0"]
    assert time.process_time() - start < 2


def test_clips_of_a_pair_are_told_apart_by_method_target_and_folder():
    rows = [
        (0, "youtube", "071", "", "youtube/071/000001.png"),
        (0, "youtube", "071", "", "youtube/071/000009.png"),
        (0, "youtube", "054", "", "youtube/054/000001.png"),
        (1, "Deepfakes", "071", "054", "Deepfakes/071_054/000001.png"),
        (1, "FaceSwap", "071", "054", "FaceSwap/071_054/000001.png"),
        # One actor, one source, two scenes.
        (1, "DFD", "01", "02", "DFD/01_02__kitchen/000001.png"),
        (1, "DFD", "01", "02", "DFD/01_02__hall/000001.png"),
    ]
    labels, methods, targets, sources, names = map(list, zip(*rows, strict=True))
    survey = _survey(
        labels,
        filenames=names,
        method=methods,
        target_id=targets,
        source_id=sources,
        compression=["c23"] * 7,
        frame=[1, 9, 1, 1, 1, 1, 1],
    )
    videos = predictions.name_videos(survey)
    assert videos[0] == videos[1] and len(set(videos)) == 6


def test_sizes_are_of_heads_without_their_margin():
    assert predictions.measure_head_sizes(_survey([0, 1])).tolist() == [50, 50]
    found = predictions.measure_head_sizes(_survey([0, 1], margin=[1.25, 0.0]))
    assert found.tolist() == [40, 50]


def test_sizes_are_of_the_boxes_within_the_image_where_records_have_them():
    nan = float("nan")
    boxes = {
        "ymin": [0.0, 0.0, nan, -0.5],
        "xmin": [0.0, 0.0, nan, 0.5],
        "ymax": [0.5, 0.0, nan, 0.5],
        "xmax": [0.5, 0.0, nan, 1.5],
    }
    found = predictions.measure_head_sizes(_survey([0, 1, 1, 0], **boxes))
    assert found.tolist() == [25, 50, 50, 25]


def test_table_has_a_row_for_each_image():
    survey = _survey([0, 1], ["a,b", "c"], ["x\n.png", "y.png"], method=["m", "n"])
    found = predictions.join_survey(survey, np.array([0.25, 1.0]))
    rows = list(csv.DictReader(io.StringIO(found.to_csv().decode())))
    assert rows[0] == {
        "image/filename": "x\n.png",
        "label": "real",
        "fake_probability": "0.25",
        "logit": "nan",
        "group": "a,b",
        "video": "a,b/real/m",
        "method": "m",
    }
    leaky = list(csv.DictReader(io.StringIO(found.to_csv(True).decode())))
    assert [row["leaky_split"] for row in leaky] == ["yes", "yes"]
