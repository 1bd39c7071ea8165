"""What people get of the evaluation of a chain: figures, warnings and files."""

import csv

import pytest

import tiny_heads
from dfdetect.evaluation import chain_evaluation
from dfdetect.reports import chain_report
from drawn_faces import BAND, DRAWN, Others, look, prepare

PLOTS = ["0_roc.png", "1_roc.png", "2_roc.png"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of a sound set and of one with a leaky split, after that of both."""
    sound = prepare(tmp_path_factory.mktemp("sound"), {"test": DRAWN})
    groups = {"train": DRAWN[:1], "test": DRAWN}
    leaky = prepare(tmp_path_factory.mktemp("leaky"), groups, Others)
    sets = [look(sound), look(leaky, allow_leaky_split=True)]
    together, each = chain_evaluation.evaluate_graph(
        "tiny", tiny_heads.build(), sets=sets, say=lambda _: None
    )
    return [together, *each]


def read(folder, name):
    return (folder / name).read_text().replace("\N{NO-BREAK SPACE}", " ")


def test_report_of_several_sets(results, tmp_path):
    chain_report.write_report(str(tmp_path), results[0], results[1:])
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == [*PLOTS, "predictions.csv", "report.html", "report.md"]
    for name in ("report.html", "report.md"):
        page = read(tmp_path, name)
        assert "(LEAKY SPLIT)" in page and "all sets together" in page
        for result in results:
            for way in ("chain", "crops", "gap"):
                found = result.figures[way]
                low, high = found["auc_interval"]
                assert f"{found['auc']:.3f} [{low:.3f}, {high:.3f}]" in page
            for warning in result.figures["warnings"]:
                assert warning in page
        for text in ("Heads found", "Verdicts", "By source", "By data set"):
            assert text in page
    with open(tmp_path / "predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and {row["leaky_split"] for row in rows} == {"yes"}
    assert [row["dataset"] for row in rows] == ["faces"] * 6 + ["others"] * 6


def test_report_of_one_set(results, tmp_path):
    chain_report.write_report(str(tmp_path), results[1], results[1:2])
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["predictions.csv", "report.html", "report.md", "roc.png"]
    lines = read(tmp_path, "report.md").splitlines()
    assert "LEAKY" not in "\n".join(lines) and "all sets" not in "\n".join(lines)
    row = next(line for line in lines if line.startswith("| real, whole images"))
    # Columns are those that occur: fake, real and no head.
    assert row == "| real, whole images | 1 | 1 | 1 |"
    row = next(line for line in lines if line.startswith("| all images"))
    assert row == "| all images | 6 | 2 | 2 | 2 |"
    row = next(line for line in lines if line.startswith("| swap"))
    assert row.startswith("| swap | 0 (+ all reals) | 2 | 0.500 [")
    table = (tmp_path / "predictions.csv").read_bytes()
    assert table == results[1].answers.to_csv(BAND)
    assert b"leaky_split" not in table
