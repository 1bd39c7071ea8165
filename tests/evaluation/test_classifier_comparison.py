"""What cannot be measured on one set costs no figures of the others."""

import pytest

import clips
from dfdetect.evaluation import (
    classifier_comparison,
    evaluation_set,
    peer_detectors,
    robustness,
)
from dfdetect.reports import classification_report

_MODEL = ("brightness", (clips.brightness, clips.MANIFEST))


@pytest.fixture(name="builder", scope="module")
def _builder(tmp_path_factory):
    return clips.prepare(tmp_path_factory.mktemp("clips"))


def _load(builder, *where):
    return evaluation_set.load_evaluation_set(
        builder, "test", say=print, where=where, num_resamples=20
    )


def test_altered_crops_of_one_class_have_a_reason(builder, monkeypatch, tmp_path):
    measured = []

    def measure_robustness(*arguments, truths, **options):
        measured.append(len(truths))
        return {}

    monkeypatch.setattr(robustness, "measure_robustness", measure_robustness)
    said = []
    both, fakes = _load(builder), _load(builder, "method!=original")
    results = classifier_comparison.measure_each(
        [_MODEL], [both, fakes], say=said.append, with_robustness=True
    )
    assert said[0].startswith(
        "WARNING: no robustness on clips test: The 24 crops drawn"
    )
    assert measured == [36] and results[0].figures["robustness"] == {}
    reason = results[1].figures["robustness"]["reason"]
    assert reason == "The 24 crops drawn must be both reals and fakes."
    classification_report.write_report(str(tmp_path), results[1:])
    assert f"Robustness: not measured. {reason}" in (tmp_path / "report.md").read_text()


def test_too_few_crops_have_a_reason(builder):
    (result,) = classifier_comparison.measure_each(
        [_MODEL],
        [_load(builder)],
        say=print,
        with_robustness=True,
        robustness_crops=2,  # No group is that small.
    )
    assert result.figures["robustness"]["reason"].startswith("The 0 crops drawn")
    assert result.figures["metrics"]["auc"] > 0.5


def test_detectors_of_others_are_measured_by_themselves(builder, tmp_path):
    judged = _load(builder)
    rows = [f"{name},{0.25}" for name in judged.survey.filenames]
    table = tmp_path / "theirs.csv"
    table.write_text("\n".join(["path,fake_probability", *rows]))
    peers = peer_detectors.open_peers([str(table)], [], say=print)
    results = classifier_comparison.measure_peers(peers, [judged, judged])
    assert [result.figures["metrics"]["auc"] for result in results] == [0.5, 0.5]
    table.write_text("path,fake_probability\nother.png,.5\n")
    peers = peer_detectors.open_peers([str(table)], [], say=print)
    with pytest.raises(ValueError, match="names no record of test of clips"):
        classifier_comparison.measure_peers(peers, [judged])
