import json

import pytest

from dfdetect import manifest

CLASSIFIER = {
    "kind": "classifier",
    "model": "xception",
    "image_size": 150,
    "crop_margin": 1.3,
    "temperature": 1.0,
    "thresholds": {"real_below": 0.5, "fake_from": 0.5},
    "labels": ["real", "fake"],
}


def test_round_trip_keeps_what_it_does_not_know(tmp_path):
    manifest.write(tmp_path, CLASSIFIER | {"metrics": {"auc": 0.5}})
    assert manifest.read(tmp_path, "classifier")["metrics"] == {"auc": 0.5}
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_absent_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        manifest.read(tmp_path, "classifier")


def test_wrong_kind_is_refused(tmp_path):
    manifest.write(tmp_path, CLASSIFIER)
    with pytest.raises(ValueError, match="kind 'detector', got 'classifier'"):
        manifest.read(tmp_path, "detector")


def test_missing_key_is_named(tmp_path):
    incomplete = {key: CLASSIFIER[key] for key in CLASSIFIER if key != "temperature"}
    (tmp_path / "manifest.json").write_text(json.dumps(incomplete))
    with pytest.raises(ValueError, match="lacks temperature"):
        manifest.read(tmp_path, "classifier")
    with pytest.raises(ValueError, match="lacks temperature"):
        manifest.write(tmp_path, incomplete)


def test_a_missing_threshold_is_named(tmp_path):
    described = CLASSIFIER | {"thresholds": {"fake_from": 0.5}}
    with pytest.raises(ValueError, match="thresholds of .* lack real_below"):
        manifest.write(tmp_path, described)


def test_broken_json_is_one_clear_error(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="must be JSON"):
        manifest.read(tmp_path, "classifier")


def test_parts_of_a_pipeline_are_checked():
    pipeline = {
        "kind": "pipeline",
        "format": 1,
        "detector": {"kind": "detector"},
        "classifier": CLASSIFIER,
        "max_detections": 100,
        "min_head_size": 16,
    }
    with pytest.raises(ValueError, match="detector of the manifest lacks phi"):
        manifest.check(pipeline, "pipeline")


def test_unknown_kind_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="kind must be one of"):
        manifest.write(tmp_path, {"kind": "poem"})


def test_versions_name_the_libraries():
    assert {"dfdetect", "tensorflow", "keras"} <= manifest.collect_versions().keys()
