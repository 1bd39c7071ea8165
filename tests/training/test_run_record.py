"""A run resumes as the same run: flags and data are compared with its own."""

import json

import pytest

from dfdetect.training import run_record

LINES = {
    "learning_rate": "--learning_rate=0.1",
    "batch_size": "--batch_size=8",
    "steps": "--steps=40",
    "image_size": "--image_size=96",
    "log_every": "--log_every=5",
    "balance": "--nobalance",
}
DEFAULTS = {
    **LINES,
    "best_metric": "--best_metric=auc",
    "notes": "",
    "label_smoothing": "--label_smoothing=0.0",
}
DATA = {"name": "faces", "config": "", "fingerprint": "ab", "splits": {"train": 4}}


def _check(folder, step=10, allowed=False, **changes):
    lines = {n: t for n, t in {**LINES, **changes}.items() if t is not None}
    record = run_record.RunRecord(str(folder), step)
    notes = record.check_flags(lines, DEFAULTS, allowed)
    record.write()
    return notes


@pytest.fixture(name="run")
def _run(tmp_path):
    assert _check(tmp_path, step=0) == []
    return tmp_path


def test_the_same_flags_go_on(run):
    before = (run / "flags.txt").read_text()
    assert "--learning_rate=0.1\n" in before
    assert _check(run) == [] and (run / "flags.txt").read_text() == before
    # One that came with a later version, at its default; and one of no consequence.
    assert _check(run, label_smoothing="--label_smoothing=0.0") == []
    assert _check(run, log_every="--log_every=50") == []


@pytest.mark.parametrize(
    "name, line",
    [
        ("learning_rate", "--learning_rate=0.2"),
        ("batch_size", "--batch_size=16"),
        ("balance", "--balance"),
        ("label_smoothing", "--label_smoothing=0.1"),
        ("notes", "--notes=a=b\n--notes=c=d"),
    ],
)
def test_a_flag_that_changes_the_course_must_be_allowed(run, name, line):
    before = (run / "flags.txt").read_text()
    with pytest.raises(ValueError, match="--allow_changed_flags continues") as raised:
        _check(run, **{name: line})
    assert line.replace("\n", " ") in str(raised.value)
    assert (DEFAULTS[name] or "no such flag") in str(raised.value)
    assert "step 10" in str(raised.value) and "\n" not in str(raised.value)
    assert (run / "flags.txt").read_text() == before
    (note,) = _check(run, allowed=True, **{name: line})
    assert note.startswith(f"from step 10 on {line.splitlines()[0]}")
    text = (run / "flags.txt").read_text()
    assert text.startswith(f"# {note}\n") and f"\n{line}\n" in text
    # The new value is the run's own from now on, and the note stays.
    assert _check(run, step=20, **{name: line}) == []
    assert (run / "flags.txt").read_text() == text


def test_more_steps_are_noted_and_fewer_than_done_change_nothing(run):
    assert _check(run, steps="--steps=60") == [
        "from step 10 on --steps=60 (before: --steps=40)"
    ]
    text = (run / "flags.txt").read_text()
    assert _check(run, steps="--steps=5") == []
    # Not even with them are other flags those of the run.
    with pytest.raises(ValueError, match="--learning_rate=0.2 now"):
        _check(run, steps="--steps=5", learning_rate="--learning_rate=0.2")
    assert (run / "flags.txt").read_text() == text
    # To end where it is changes the run: its last step is evaluated.
    assert _check(run, steps="--steps=10") == [
        "from step 10 on --steps=10 (before: --steps=60)"
    ]


def test_another_model_is_another_run(run):
    message = "--image_size=128 now, --image_size=96 before; that would be another run"
    with pytest.raises(ValueError, match=message):
        _check(run, allowed=True, image_size="--image_size=128")
    # Until there is a checkpoint, nothing has begun.
    assert _check(run, step=0, image_size="--image_size=128") == []


def test_another_metric_is_another_run(run):
    # Its best step may be one whose weights are gone.
    with pytest.raises(ValueError, match="--best_metric=-log_loss now, .* another run"):
        _check(run, allowed=True, best_metric="--best_metric=-log_loss")


def test_other_data_are_another_run(tmp_path):
    record = run_record.RunRecord(str(tmp_path), 0)
    record.check_data([DATA])
    assert not [*tmp_path.iterdir()]  # Another check may refuse the run.
    record.write()
    record = run_record.RunRecord(str(tmp_path), 10)
    record.check_data([dict(DATA)])
    with pytest.raises(ValueError, match="fingerprint of .* faces was ab .*is cd now"):
        record.check_data([{**DATA, "fingerprint": "cd"}])
    assert json.loads((tmp_path / "data.json").read_text()) == [DATA]


def test_a_run_whose_flags_and_data_are_unknown_says_so(tmp_path):
    record = run_record.RunRecord(str(tmp_path), 10)
    for name, notes in (
        ("flags.txt", record.check_flags(LINES, DEFAULTS, False)),
        ("data.json", record.check_data([DATA])),
    ):
        (note,) = notes
        assert note.startswith(f"{tmp_path / name} is missing: whether the {name[:4]}")
        assert "until step 10 is unknown" in note
    record.write()
    assert record.check_flags(LINES, DEFAULTS, False) == record.check_data([DATA]) == []


def test_workers_may_differ_in_what_is_their_own_only():
    chief = {
        "log_every": "--log_every=5",
        "devices": "--devices=1",
        "snapshot": "--snapshot=none",
        "data_dir": "--data_dir=a",
        "keep": "--keep=2",
    }
    own = {name: f"{line}0" for name, line in chief.items()}
    assert run_record.describe_differences(
        {**own, "snapshot_step": "--snapshot_step=3"}, chief
    ) == [
        "--devices=10, the chief --devices=1",
        "--log_every=50, the chief --log_every=5",
        "--snapshot_step=3, the chief no --snapshot_step",
    ]


def test_flag_files_are_parsed_by_name():
    lines = ["--nobalance", "--where=a", "--where=b", "--model=x=y", "--histograms"]
    assert run_record.parse_flag_lines(lines) == {
        "balance": "--nobalance",
        "where": "--where=a\n--where=b",
        "model": "--model=x=y",
        "histograms": "--histograms",
    }
