"""What the chain says of drawn images, beside their given heads."""

import csv
import io

import cv2
import numpy as np
import pytest
import tensorflow as tf

import drawn_faces
import tiny_heads
import tiny_pipeline
from dfdetect.evaluation import chain_answers, chain_evaluation
from dfdetect.media import source_files
from dfdetect.pipeline import findings
from drawn_faces import BAND, DARK_FAKE, DARK_REAL, DRAWN, SIDES
from tiny_heads import FAKE, REAL


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    return drawn_faces.look(
        drawn_faces.prepare(tmp_path_factory.mktemp("faces"), {"test": DRAWN})
    )


@pytest.fixture(scope="module")
def by_name(judged):
    """What is said of each image."""
    answers = chain_answers.judge_set(tiny_heads.build(), judged, print, batch_size=4)
    table = answers.to_csv(BAND).decode()
    return {x["image/filename"][0]: x for x in csv.DictReader(io.StringIO(table))}


def test_answers_are_those_of_detect_and_of_the_given_heads(by_name):
    expected = {
        "a": (1, REAL, "real", REAL),
        "b": (1, FAKE, "fake", FAKE),
        "c": (0, None, "no_head", DARK_REAL),
        "d": (0, None, "no_head", DARK_FAKE),
        "e": (2, FAKE, "fake", FAKE),
        "f": (2, FAKE, "fake", REAL),
    }
    assert sorted(by_name) == sorted(expected)
    for name, (num_heads, probability, verdict, of_crop) in expected.items():
        row = by_name[name]
        assert int(row["num_heads"]) == num_heads and row["verdict"] == verdict
        assert float(row["crop_probability"]) == pytest.approx(of_crop, abs=1e-4)
        assert row["given_heads"] == "1" and row["given_head_share"] == "0.25"
        assert row["crop_verdict"] == ("real" if of_crop < 0.3 else "fake")
        if probability is None:
            assert row["fake_probability"] == row["head_share"] == ""
        else:
            said = float(row["fake_probability"])
            assert said == pytest.approx(probability, abs=1e-4)
            assert row["head_share"] == "0.25"
    assert [by_name["f"][x] for x in ("label", "source", "group", "dataset")] == [
        "real",
        "camera",
        "3",
        "faces",
    ]


def test_detect_says_the_same(by_name, tmp_path):
    paths = {name: tmp_path / f"{name}.png" for name in by_name}
    for name, _, _, _, heads in DRAWN:
        paths[name].write_bytes(drawn_faces.encode(heads))
    sources, _ = source_files.find_sources([str(path) for path in paths.values()])
    for found in findings.find_in_sources(tiny_heads.build().detect, sources, BAND):
        row = by_name[found.source.path.split("/")[-1][0]]
        verdict = found.result["verdict"] or found.result["status"]
        assert verdict == row["verdict"]
        assert len(found.result["heads"]) == int(row["num_heads"])
        if found.result["fake_probability"] is not None:
            said = float(row["fake_probability"])
            assert said == pytest.approx(found.result["fake_probability"], abs=1e-6)


def test_heads_that_are_too_small_and_files_that_are_broken(tmp_path):
    class Bytes(drawn_faces.Faces, skip_registration=True):
        def _records(self, examples):
            for name, content in examples:
                yield (
                    name,
                    {
                        "image": content,
                        "image/filename": name,
                        "label": 0,
                        "group": name,
                        "source": "s",
                        **dict.fromkeys(SIDES, 0.0),
                    },
                )

    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    contents = [
        cv2.imencode(".png", image)[1].tobytes() for image in (noise, noise[:16, :16])
    ]
    examples = [("good", contents[0]), ("small", contents[1])]
    # Its header is sound, so that it can be prepared.
    examples.append(("broken", contents[0][:500]))
    builder = drawn_faces.prepare(tmp_path, {"test": examples}, Bytes)
    graph = tiny_pipeline.build()
    found = chain_answers.judge_set(
        graph, drawn_faces.look(builder), print, batch_size=2
    )
    rows = dict(zip(found.filenames, range(3), strict=True))
    good, small, broken = (rows[name] for name in ("good", "small", "broken"))
    verdicts = found.verdicts(BAND)
    assert (verdicts[small], verdicts[broken]) == ("head_too_small", "unreadable")
    assert found.num_heads[[good, small, broken]].tolist() == [3, 3, 0]
    assert np.isnan(found.probabilities[[small, broken]]).all()
    assert found.crop_verdicts(BAND)[broken] == "unreadable"
    assert not np.isnan(found.head_shares[small])
    # Without a box, the file as it is is the crop.
    of_files = graph.classify_crops(tf.constant(contents))["fake_probability"].numpy()
    assert found.crop_probabilities[[good, small]] == pytest.approx(of_files)
    outputs = graph.detect(tf.constant(contents[:1]))
    best = np.argmax(outputs["fake_probabilities"][0, :3])
    box = outputs["boxes"][0, best].numpy()
    sides = (box[2:] - box[:2]) * [90, 120]
    assert found.head_shares[good] == pytest.approx(sides.max() / 120, abs=1e-6)
    assert found.probabilities[good] == pytest.approx(
        float(outputs["fake_probability"][0])
    )
    figures = chain_evaluation.measure(found, BAND, 5)
    text = "\n".join(chain_evaluation.find_warnings(figures))
    assert "UNREADABLE: 1 of 3 images cannot be read." in text
