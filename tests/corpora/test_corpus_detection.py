"""`serve/batch_detect.py` and its Beam pipeline, against `dfdetect detect`."""

import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jsonschema
import pytest

import mixed_corpus
import tiny_heads
from dfdetect.cli import main
from dfdetect.corpora import shard_judge, shards
from dfdetect.export import saved_pipeline
from dfdetect.media import source_files

beam = pytest.importorskip("apache_beam")
from apache_beam.options import pipeline_options  # noqa: E402
from apache_beam.testing import util  # noqa: E402

from dfdetect.corpora import corpus_detection, running  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "serve" / "batch_detect.py"
SCHEMA = json.loads((ROOT / "dfdetect" / "schema" / "result.schema.json").read_text())
TWO_PROCESSES = (
    "--beam_options=direct_running_mode=multi_processing,direct_num_workers=2"
)
# Libraries may lie on a path of their own, as Dask's may.
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    ),
}


@pytest.fixture(scope="module", autouse=True)
def load_once():
    """Runs within this process share the graph."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_pipeline, "load", functools.cache(saved_pipeline.load))
        yield


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    directory = tmp_path_factory.mktemp("graph") / "1"
    saved_pipeline.save(tiny_heads.build(), str(directory))
    return str(directory)


def _detect(capsys, graph, folder):
    """Returns the lines of `dfdetect detect`, sorted by path."""
    capsys.readouterr()
    assert main.main(["detect", "--model", graph, str(folder)]) == 3
    return _sorted(capsys.readouterr().out.splitlines())


def _sorted(lines):
    return sorted(map(json.loads, lines), key=lambda line: line["path"])


def _read(output):
    """Returns the lines of all shards, sorted by path."""
    return _sorted(
        line
        for path in sorted(output.parent.glob(f"{output.name}-*-of-*.jsonl"))
        for line in path.read_text().split("\n")
        if line
    )


def _command(graph, folder, output, *more):
    return [
        sys.executable,
        str(SCRIPT),
        f"--input={folder}",
        f"--output={output}",
        f"--model={graph}",
        "--files_per_shard=8",
        *more,
    ]


def _judge(graph, folder, output, **settings):
    """Runs the pipeline within this process; returns the summary."""
    options = pipeline_options.PipelineOptions(["--allow_unsafe_triggers"])
    with beam.Pipeline("DirectRunner", options=options) as pipeline:
        corpus_detection.build(
            pipeline,
            corpus_detection.RunSettings(
                inputs=(str(folder),),
                output=str(output),
                judge=shard_judge.JudgeSettings(model=graph, copies="suspicious"),
                files_per_shard=8,
                **settings,
            ),
        )
    return json.loads(pathlib.Path(f"{output}-summary.json").read_text())


def _run(*arguments):
    """Runs the script; returns its exit code and what it says."""
    done = subprocess.run(
        _command(*arguments),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def test_shards_hold_the_lines_of_detect(tmp_path, capsys, graph):
    folder, output = tmp_path / "corpus", tmp_path / "run" / "part"
    number = mixed_corpus.draw(folder)
    summary = _judge(graph, folder, output, with_parquet=True)
    lines = _read(output)
    assert lines == _detect(capsys, graph, folder)
    assert len(lines) == number
    for line in lines:
        jsonschema.validate(line, SCHEMA)
        assert line["status"] != "unreadable" or line["warning"]
    names = {pathlib.Path(line["path"]).name: line for line in lines}
    assert names["crossing.mp4"]["verdict"] == "fake"
    assert names["gone.jpg"]["warning"] == "No such file or directory"

    assert summary["files"]["judged"] == number
    assert summary["statuses"]["unreadable"] == 5
    assert summary["passed_over"] == {".txt": 1}
    assert summary["kinds"] == {"image": number - 3, "video": 3}
    assert summary["verdicts"]["fake"] == sum(x["verdict"] == "fake" for x in lines)
    assert summary["seconds"]["judge_images"] > 0
    _check_copies(lines, summary, tmp_path / "run" / "part-copies")
    _check_parquet(lines, output)

    _check_lost_copies(graph, folder, output)

    # Again, with one more file: no other one is judged, no other shard written.
    mixed_corpus.write_image(folder / "new.png", tiny_heads.frame())
    before = {path: path.stat().st_mtime_ns for path in output.parent.glob("*.jsonl")}
    counts = _judge(graph, folder, output, total=shards.find_total(str(output)))
    assert counts["files"]["judged"] == 1
    assert counts["files"]["from_earlier"] == number
    assert _read(output) == _detect(capsys, graph, folder)
    after = {path: path.stat().st_mtime_ns for path in output.parent.glob("*.jsonl")}
    assert sum(before[path] != after[path] for path in before) == 1


def test_a_shard_without_a_line_is_written_once(tmp_path, graph):
    folder, output = tmp_path / "corpus", tmp_path / "part"
    folder.mkdir()
    (folder / "notes.txt").write_text("a note\n")
    _judge(graph, folder, output, total=1)
    (shard,) = tmp_path.glob("*.jsonl")
    assert shard.read_text() == ""
    os.utime(shard, ns=(0, 0))
    counts = _judge(graph, folder, output, total=1)
    assert counts["passed_over"] == {".txt": 1}
    assert shard.stat().st_mtime_ns == 0  # It was not written again.


def test_a_summary_of_no_file_is_an_error(tmp_path):
    """As where a runner loses results, which ends without an error of its own."""
    tables = {"files": {}, "statuses": {}, "verdicts": {}, "passed_over": {}}
    (tmp_path / "part-summary.json").write_text(json.dumps(tables))
    code = f"import runpy; run = runpy.run_path({str(SCRIPT)!r}); run['say_summary']"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}({str(tmp_path / 'part')!r})"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "OSError: the runner lost all results" in done.stderr


def test_what_is_known_of_files_that_have_gone_stays(tmp_path):
    """Although their copies are not there, and cannot be made any more."""
    lines = {
        str(tmp_path / name): json.dumps(
            {"path": str(tmp_path / name), "kind": "image", "status": "ok",
             "verdict": verdict, "heads": []}
        )
        for name, verdict in (("a.png", "fake"), ("b.png", "fake"), ("c.png", "real"))
    }  # fmt: skip
    there = source_files.FoundFile(str(tmp_path / "b.png"), "b.png")
    shard = shards.build_shard(0, 1, [there])
    output = str(tmp_path / "part")
    path = pathlib.Path(shard.name(output, ".jsonl"))
    path.write_bytes(shards.encode_lines(lines))
    settings = corpus_detection.RunSettings(
        inputs=(str(tmp_path),),
        output=output,
        judge=shard_judge.JudgeSettings(model="model", copies="suspicious"),
    )
    todo, account = corpus_detection._pass_over(shard, settings)
    assert [one.path for one in todo.files] == [str(tmp_path / "b.png")]
    assert account.tables["files"]["from_earlier"] == 2
    assert account.tables["verdicts"] == {"fake": 1, "real": 1}


def test_runs_whose_names_begin_alike_are_apart(tmp_path):
    for name in (
        "part2-00000-of-00032",
        "part-00001-of-00100",
        "part-x-00001-of-00007",
    ):
        (tmp_path / f"{name}.jsonl").write_text("")
    for suffix in ("-00000-of-00032.npz.aside", "-copies", "-1-of-2.jsonl"):
        (tmp_path / f"part{suffix}").write_text("")
    assert shards.find_total(str(tmp_path / "part")) == 100
    assert shards.list_finished(f"{tmp_path}//part") == {
        str(tmp_path / "part-00001-of-00100.jsonl"): 100
    }
    assert shards.find_total(str(tmp_path / "part2")) == 32
    assert shards.find_total(str(tmp_path / "par")) is None


@pytest.mark.parametrize(
    ("weight", "given", "expected"),
    [
        (0, {}, 1),
        (7, {}, 1),
        (100, {}, 2),  # Of six batches.
        (1600, {}, 25),  # Of eight batches.
        (3200, {}, 32),
        (1_000_000, {}, 2000),
        (1_000_000, {"most": 2000}, 500),
        (1000, {"batch_size": 32}, 4),
        (1000, {"files_per_shard": 300}, 4),
        (1000, {"files_per_shard": 300, "total": 7}, 7),
        # As many for each process, as long as each has a full batch.
        (160, {"num_processes": 2}, 4),
        (1600, {"num_processes": 2}, 26),
        (100, {"num_processes": 16}, 12),
        (7, {"num_processes": 16}, 1),
    ],
)
def test_shards_have_full_batches_and_all_processes_shards(weight, given, expected):
    division = shards.Division(**{"batch_size": 8, "most": 500, **given})
    assert division.choose_total(weight) == expected


def test_a_clip_counts_as_a_batch_of_images():
    files = [source_files.FoundFile(path, path) for path in ("a.jpg", "b.MP4", "notes")]
    division = shards.Division(batch_size=8, most=500)
    assert list(map(division.weigh, files)) == [1, 8, 1]
    division = shards.Division(batch_size=8, most=500, files_per_shard=10)
    assert list(map(division.weigh, files)) == [1, 1, 1]


@pytest.mark.parametrize("total", [None, 5])
def test_shards_are_the_same_wherever_files_are_divided(tmp_path, total):
    for i in range(40):
        (tmp_path / f"{i}.jpg").write_bytes(b"a")
    inputs = (str(tmp_path), str(tmp_path / "7.jpg"))
    division = shards.Division(batch_size=8, most=500, files_per_shard=8, total=total)
    expected = corpus_detection.list_shards(inputs, division)
    assert len(expected) == (total or 6)
    assert sum(len(shard.files) for shard in expected) == 40
    options = pipeline_options.PipelineOptions(["--allow_unsafe_triggers"])
    with beam.Pipeline("DirectRunner", options=options) as pipeline:
        found = corpus_detection.divide(pipeline, inputs, division)
        util.assert_that(found, util.equal_to(expected))


@pytest.mark.parametrize(
    ("finished", "expected"),
    [
        ([0, 0, 0], ["attempt 1 of 2 failed: 1"]),
        ([0, 1, 1], ["attempt 1 of 2 failed: 1"]),
        ([0, 1, 4, 4], ["attempt 1 of 2 failed: 1", "attempt 1 of 2 failed: 2"]),
        ([0, 0, 4, 4], ["attempt 1 of 2 failed: 1", "attempt 1 of 2 failed: 2"]),
    ],
)
def test_a_run_is_started_again_as_long_as_it_gets_on(finished, expected):
    said, tried = [], []

    def fail():
        tried.append(1)
        raise KeyError(len(tried))

    counts = iter(finished)
    with pytest.raises(OSError, match="failed 2 times, at last by"):
        running.run_until_done(fail, 2, said.append, lambda: next(counts))
    assert said == expected
    assert not list(counts)


def test_output_of_another_run_is_refused_at_once():
    def refuse():
        raise FileExistsError("there")

    said = []
    with pytest.raises(FileExistsError, match="there"):
        running.run_until_done(refuse, 2, said.append, lambda: 0)
    assert not said


def _judge_watched(monkeypatch, graph, folder, watch):
    """Judges a folder as one shard; `watch` is told the images of each call."""
    judge = shard_judge.ShardJudge(shard_judge.JudgeSettings(model=graph), "part")
    detect = judge._detect

    def detect_watched(image_bytes):
        watch(list(image_bytes.numpy()))
        return detect(image_bytes)

    monkeypatch.setattr(judge, "_detect", detect_watched)
    shard = shards.build_shard(0, 1, source_files.list_files(str(folder)))
    return judge.judge(shard)


def test_batches_are_full_however_files_are_read(tmp_path, monkeypatch, graph):
    for i in range(21):
        mixed_corpus.write_image(tmp_path / f"{i:02d}.png", tiny_heads.frame())
    # As with large images: each is read alone.
    monkeypatch.setattr(shard_judge, "_BYTES_READ", 1)
    sizes = []
    judged = _judge_watched(
        monkeypatch, graph, tmp_path, lambda images: sizes.append(len(images))
    )
    # Of half a batch each, two at a time.
    assert sorted(sizes) == [1, 4, 4, 4, 4, 4]
    assert len(judged.lines) == 21
    seconds = judged.account.tables["seconds"]
    assert seconds["judge_images"] > 0 and seconds["wait_for_files"] > 0


def test_an_image_that_cannot_be_judged_costs_no_other_its_line(
    tmp_path, monkeypatch, graph
):
    for i in range(30):
        mixed_corpus.write_image(
            tmp_path / f"{i:02d}.png", tiny_heads.frame((24, 24, tiny_heads.RED))
        )
    mixed_corpus.write_image(tmp_path / "13.png", tiny_heads.frame())
    poison = (tmp_path / "13.png").read_bytes()

    def refuse(images):
        if poison in images:
            raise RuntimeError("no\nmemory")

    judged = _judge_watched(monkeypatch, graph, tmp_path, refuse)
    lines = {pathlib.Path(path).name: json.loads(x) for path, x in judged.lines.items()}
    assert len(lines) == 30
    refused = lines.pop("13.png")
    assert refused["warning"] == "judging it failed: RuntimeError: no memory"
    assert {line["verdict"] for line in lines.values()} == {"fake"}
    assert not any(line.get("warning") for line in lines.values())
    assert judged.account.tables["files"]["judged"] == 30


@pytest.mark.slow
def test_two_processes_of_dask_equal_detect(tmp_path, capsys, graph):
    distributed = pytest.importorskip("dask.distributed")
    folder, output = tmp_path / "corpus", tmp_path / "run" / "part"
    number = mixed_corpus.draw(folder, 100)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1) as cluster,
        distributed.Client(cluster) as client,
    ):
        code, said = _run(
            graph,
            folder,
            output,
            "--beam_runner=DaskRunner",
            f"--beam_options=dask_client_address={cluster.scheduler_address}",
        )
        assert code == 3, said
        # Both have judged.
        workers = client.run(lambda: "tensorflow" in sys.modules)
    assert list(workers.values()) == [True, True]
    lines = _read(output)
    assert lines == _detect(capsys, graph, folder)
    assert len(lines) == number


@pytest.mark.slow
def test_the_script_resumes_only_what_was_judged_alike(tmp_path, graph):
    folder, output = tmp_path / "corpus", tmp_path / "run" / "part"
    graph = shutil.copytree(graph, tmp_path / "graph")
    number = mixed_corpus.draw(folder)
    code, said = _run(graph, folder / "*.nothing", output)
    assert code == 2 and "no file matches" in said
    code, said = _run(graph, folder, output)
    assert code == 3, said
    assert f"{number} files judged, 0 by earlier runs" in said
    code, said = _run(graph, folder, output)
    assert code == 2 and "--resume" in said
    code, said = _run(graph, folder, output, "--resume", "--threshold=.9")
    assert code == 2 and "threshold (there None, here 0.9)" in said
    code, said = _run(graph, folder, output, "--resume")
    assert code == 3, said
    assert f"0 files judged, {number} by earlier runs" in said
    (path,) = graph.rglob("saved_model.pb")
    path.write_bytes(path.read_bytes() + b"\n")  # Another graph at the same place.
    code, said = _run(graph, folder, output, "--resume")
    assert code == 2 and "weights (there " in said


def _check_copies(lines, summary, folder):
    suspicious = [x for x in lines if x["verdict"] in ("fake", "uncertain")]
    assert summary["files"]["copies"] == len(suspicious) > 3
    assert "copies_lost" not in summary["files"]
    copies = [path for path in folder.rglob("*") if path.is_file()]
    clips = [x for x in suspicious if x["kind"] == "video"]
    assert sum(path.suffix == ".mp4" for path in copies) == len(clips) == 2
    crops = [path for path in copies if "-head" in path.name]
    heads = [
        head
        for x in suspicious
        for head in x["heads"]
        if head["fake_probability"] >= 0.3
    ]
    assert len(crops) == len(heads)


def _check_lost_copies(graph, folder, output):
    """A copy that is not there is made up for, and copies are no input."""
    copies = folder.parent / "run" / "part-copies"
    there = sorted(copies.rglob("*"))
    clips = [x for x in there if x.suffix == ".mp4"]
    images = [x for x in there if ".mp4" not in x.name and "-head" not in x.name]
    lost = [clips[0], next(x for x in images if x.suffix == ".png")]
    for path in lost:
        path.unlink()
    total = shards.find_total(str(output))
    before = _read(output)
    counts = _judge(graph, folder.parent, output, total=total)["files"]
    assert counts["judged"] == counts["copies"] == 2
    assert counts["from_earlier"] == len(before) - 2
    assert sorted(copies.rglob("*")) == there and _read(output) == before


def _check_parquet(lines, output):
    from pyarrow import parquet

    rows = [
        row
        for path in sorted(output.parent.glob("*.parquet"))
        for row in parquet.read_table(path).to_pylist()
    ]
    assert len(rows) == len(lines)
    by_path = {row["path"]: row for row in rows}
    for line in lines:
        row = by_path[line["path"].encode(errors="backslashreplace").decode()]
        assert row["verdict"] == line["verdict"]
        assert [x["box"] for x in row["heads"]] == [x["box"] for x in line["heads"]]


@pytest.mark.slow
def test_two_processes_equal_detect_on_a_hundred_files(tmp_path, capsys, graph):
    folder, output = tmp_path / "corpus", tmp_path / "run" / "part"
    number = mixed_corpus.draw(folder, 100)
    code, said = _run(graph, folder, output, TWO_PROCESSES)
    assert code == 3, said
    lines = _read(output)
    assert lines == _detect(capsys, graph, folder)
    assert len(lines) == number


@pytest.mark.slow
def test_a_killed_worker_ends_in_the_same_output(tmp_path, capsys, graph):
    folder, output = tmp_path / "corpus", tmp_path / "run" / "part"
    number = mixed_corpus.draw(folder, 300)
    process = subprocess.Popen(
        _command(graph, folder, output, TWO_PROCESSES),
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    worker = None
    while not (worker and list(output.parent.glob("part-*.jsonl"))):
        assert process.poll() is None
        worker = worker or _find_worker(process.pid)
        time.sleep(0.01)
    os.kill(worker, signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == 3, said
    assert "attempt 1 of 3 failed" in said
    lines = _read(output)
    assert lines == _detect(capsys, graph, folder)
    summary = json.loads((tmp_path / "run" / "part-summary.json").read_text())
    assert summary["files"]["from_earlier"] > 0
    counts = summary["files"]
    assert counts["judged"] + counts["from_earlier"] == number


def _find_worker(parent):
    """Finds a process of Beam's worker below a process; None before there is one."""
    command = ["ps", "-eww", "-o", "pid=", "-o", "ppid=", "-o", "args="]
    listed = subprocess.check_output(command, text=True)
    rows = [line.split(None, 2) for line in listed.splitlines()]
    below = {str(parent)}
    for _ in range(3):
        below |= {pid for pid, above, _ in rows if above in below}
    workers = [
        int(pid)
        for pid, _, words in rows
        if pid in below and "sdk_worker_main" in words and not words.startswith("/bin")
    ]
    return workers[0] if workers else None
