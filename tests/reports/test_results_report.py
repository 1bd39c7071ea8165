"""`dfdetect report`: pages of result lines, few and many."""

import json
import os
import tracemalloc

import cv2
import numpy as np
import pytest

import report_page_support as support
import tiny_heads
from dfdetect import resumable
from dfdetect.cli import main as cli
from dfdetect.pipeline import result_formats
from dfdetect.reports import result_files, results_report


def _write(path, lines):
    text = "".join(f"{result_formats.json_line(line)}\n" for line in lines)
    path.write_text(text)
    return str(path)


def _many(count, random):
    """Yields image lines; every tenth has no head, and the verdicts fit .3 and .7."""
    for i in range(count):
        probability = round(float(random.random()), 6)
        names = ("real", "uncertain", "fake")
        verdict = names[(probability >= 0.3) + (probability >= 0.7)]
        if i % 10 == 0:
            yield {
                **support.image_result(f"folder/{i}.jpg", (), None),
                "status": "no_head",
            }
        else:
            yield support.image_result(f"folder/{i}.jpg", (probability,), verdict)


def test_a_few_lines_become_one_page_with_images(tmp_path, capsys):
    red = tiny_heads.frame((24, 24, tiny_heads.RED))
    path = tmp_path / "a b.png"
    cv2.imwrite(str(path), red[..., ::-1])
    here = support.image_result(str(path), (0.9,), "fake")
    here |= {"height": red.shape[0], "width": red.shape[1]}
    first = _write(tmp_path / "1.jsonl", [here, support.image_result("gone.jpg")])
    broken = support.unreadable("c<script>.jpg") | {"warning": "an empty file"}
    second = _write(tmp_path / "2.jsonl", [broken, support.clip_result("d.mp4")])
    output = tmp_path / "new" / "report.html"
    assert cli.main(["report", first, second, "--output", str(output)]) == 0
    page = support.Page(output)
    text = output.read_text()
    assert text.count("<article ") == 4
    assert text.count("data:image/jpeg") == 2  # The image and its head.
    assert "an empty file" in text and "<script>.jpg" not in text
    assert "do not say which model" in page.text
    assert "2 with images" not in capsys.readouterr().err
    assert os.listdir(output.parent) == ["report.html"]


def test_lines_that_are_none_are_told_and_left_out(tmp_path, capsys):
    good = support.image_result("a.jpg")
    path = tmp_path / "r.jsonl"
    path.write_text(
        f'{json.dumps(good)}\n{{"path": 1}}\nno json\n[]\n'
        f"{json.dumps(good | {'fake_probability': 7})}\n\n"
        f"{json.dumps(good | {'heads': [{}]})}\n"
        f"{json.dumps(good | {'heads': [None]})}\n"
    )
    output = tmp_path / "r.html"
    assert cli.main(["report", str(path), f"--output={output}", "--no_images"]) == 3
    said = capsys.readouterr().err
    for number, problem in ((2, "'path' of a result"), (3, "no JSON"), (4, "got list")):
        assert f"r.jsonl', line {number}: " in said and problem in said
    assert "a fake probability must be in [0, 1], got 7" in said
    assert "left out, as its line is damaged" in said
    assert "6 lines are not result lines" in said
    assert output.read_text().count("<article ") == 1

    path.write_text("")
    before = output.read_text()
    with pytest.raises(SystemExit, match="2"):
        cli.main(["report", str(path), f"--output={output}"])
    assert "no result lines in" in capsys.readouterr().err
    assert output.read_text() == before
    with pytest.raises(SystemExit, match="2"):
        cli.main(["report", str(path), f"--output={path}"])
    assert "must end in .html" in capsys.readouterr().err


def test_the_settings_of_a_resumable_run_are_no_result_line(tmp_path, capsys):
    path, output = tmp_path / "r.jsonl", tmp_path / "r.html"
    with resumable.Journal(str(path), {"model": None}) as journal:
        journal.append(support.image_result("a.jpg"))
    assert cli.main(["report", str(path), f"--output={output}", "--no_images"]) == 0
    assert "not result lines" not in capsys.readouterr().err
    assert output.read_text().count("<article ") == 1


def test_many_lines_are_numbers_the_most_suspicious_and_pages(tmp_path):
    lines = list(_many(2400, np.random.default_rng(3)))
    path = _write(tmp_path / "r.jsonl", lines)
    output = tmp_path / "report.html"
    code = cli.main(["report", path, f"--output={output}", "--no_images"])
    assert code == 0
    page = support.Page(output)
    text = output.read_text()
    assert text.count("<article ") == results_report.NUM_SUSPICIOUS == 500
    ordered = sorted((x["fake_probability"] or 0 for x in lines), reverse=True)
    assert f"{100 * ordered[0]:.1f} %" in page.text
    num_fake = sum(x["verdict"] == "fake" for x in lines)
    assert f"fake {num_fake:,}" in " ".join(page.text.split())
    assert "2,160 ok" in page.text and "240 no_head" in page.text
    assert "2,400 files" in page.text

    # Rows of all files, in their order.
    pages = sorted((tmp_path / "report-pages").iterdir())
    assert [one.name for one in pages] == ["0001.html", "0002.html", "0003.html"]
    for one in pages:
        assert f"report-pages/{one.name}" in text
    rows = [row for one in pages for row in one.read_text().split("<tr ")[1:]]
    assert len(rows) == 2400
    assert all(f"folder/{i}.jpg" in row for i, row in enumerate(rows))
    middle = pages[1].read_text()
    assert 'href="0001.html"' in middle and 'href="0003.html"' in middle
    assert 'href="../report.html"' in middle

    # Again, over its own pages, but never over something else.
    assert cli.main(["report", path, f"--output={output}", "--no_images"]) == 0
    (tmp_path / "report-pages" / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["report", path, f"--output={output}", "--no_images"])
    assert (tmp_path / "report-pages" / "mine.txt").exists()


def test_a_survey_tells_thresholds_and_takes_little_memory(tmp_path):
    path = _write(tmp_path / "r.jsonl", _many(4_000, np.random.default_rng(1)))
    tracemalloc.start()
    found = result_files.survey([path, path], 100)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2e6
    assert found.num_lines == 8_000
    assert found.thresholds["real_below"] == pytest.approx(0.3, abs=3e-3)
    assert found.thresholds["fake_from"] == pytest.approx(0.7, abs=3e-3)
    assert sum(map(sum, found.bins.values())) == 7_200
    chosen = [result_files.read_at([path, path], x) for x in found.suspicious]
    values = [line["fake_probability"] for line in chosen]
    assert values == sorted(values, reverse=True) and len(values) == 100
    assert found.suspicious[0].file == 0 and found.suspicious[1].file == 1
