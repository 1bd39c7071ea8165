"""Judges the images and clips of a whole corpus on Apache Beam.

    python serve/batch_detect.py --input='gs://bucket/photos/**' \
        --output=gs://bucket/run/part --beam_runner=DataflowRunner --beam_options=...

Writes the lines of `dfdetect detect` as OUTPUT-00003-of-00100.jsonl, and what became of
the files as OUTPUT-summary.json; serve/README.md, "Whole corpora", has the rest. Needs
`pip install dfdetect[beam]`. With --resume, a run that was interrupted or whose input
has grown judges only what no finished shard holds. The exit code is 0 where every file
was read, 3 where some were not, 2 for a usage error, 1 where the run failed.
"""

import hashlib
import json
import os
import pathlib
import sys

if __name__ == "__main__":
    from dfdetect import console

    # Before libraries are imported: their notes would bury the messages.
    console.capture()

from absl import app, flags

import dfdetect
from dfdetect import console, files, manifest, resumable, script
from dfdetect.corpora import beam_setup, file_access, shards
from dfdetect.corpora.shard_judge import COPIES, JudgeSettings
from dfdetect.export import graph_folder

_INPUT = flags.DEFINE_multi_string(
    "input",
    None,
    "A file, a folder (recursive) or a quoted pattern, here or on a file system of "
    "Beam (gs://bucket/**); may be given again.",
    required=True,
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Beginning of the names of what is written, such as FOLDER/part or "
    "gs://bucket/run/part.",
    required=True,
)
_RESUME = flags.DEFINE_bool(
    "resume", False, "Go on with an earlier run: pass over what it has finished."
)
_FORMAT = flags.DEFINE_enum(
    "format",
    "jsonl",
    ["jsonl", "parquet"],
    "parquet: besides the JSON Lines, a Parquet file for each shard.",
)
_COPIES = flags.DEFINE_enum(
    "copies",
    "none",
    COPIES,
    "suspicious: write copies with marks of files whose verdict is fake or uncertain, "
    "and crops of their suspicious heads, to OUTPUT-copies; all: of every file with "
    "heads.",
)
_FILES_PER_SHARD = flags.DEFINE_integer(
    "files_per_shard",
    None,
    "About how many files are judged, written and, after a failure, judged again "
    "together; by default at most 500 images or 60 clips, fewer of a small corpus.",
    lower_bound=1,
)
_BEAM_RUNNER = flags.DEFINE_string(
    "beam_runner",
    "DirectRunner",
    "DirectRunner, FlinkRunner, SparkRunner, DataflowRunner or DaskRunner.",
)
_BEAM_OPTIONS = flags.DEFINE_list(
    "beam_options",
    [],
    "Options of the runner, such as direct_running_mode=multi_processing,"
    "direct_num_workers=2.",
)
_ATTEMPTS = flags.DEFINE_integer(
    "attempts",
    3,
    "How often in a row the pipeline may fail without finishing a shard.",
    lower_bound=1,
)

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "Exported graph, at a path that each worker has; by default that of the included "
    "weights.",
)
_CLASSIFIER = flags.DEFINE_string(
    "classifier", None, "Packed file or folder of another classifier; as --model."
)
_TILE = flags.DEFINE_bool("tile", False, "Also search overlapping tiles.")
_CROPS = flags.DEFINE_bool("crops", False, "Each image is a crop of one head.")
_THRESHOLD = flags.DEFINE_float(
    "threshold", None, "Fake probability from which on it is a fake.", 0.0, 1.0
)
_FRAMES = flags.DEFINE_integer("frames", 32, "Frames of each clip; -1 for all.", -1)
_EVERY = flags.DEFINE_float("every", None, "Seconds between frames of a clip.", 1e-3)
_AGGREGATE = flags.DEFINE_enum(
    "aggregate",
    "mean",
    ["mean", "median", "max", "top_k", "confident"],
    "How the probabilities of a person's frames are combined.",
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images or frames at once.", 1)

_WEIGHTS = (".npz", ".json", ".pb")  # Of models and graphs.


def read_judge_settings() -> JudgeSettings:
    """Reads from the flags how files are judged.

    Raises:
        app.UsageError: Flags do not go together, or name no model.
    """
    if _FRAMES.value == 0:
        raise app.UsageError("--frames must be from 1 on, or -1 for all, got 0.")
    if _MODEL.value and (_CLASSIFIER.value or _TILE.value):
        raise app.UsageError("--model does not go with --classifier or --tile.")
    try:
        # Once, so that all workers take the same version.
        model = graph_folder.find_graph(_MODEL.value, script.say)
        if model:
            manifest.read(os.path.join(model, "assets"), "pipeline")
        if _CLASSIFIER.value:
            manifest.read(_CLASSIFIER.value, "classifier")
    except (OSError, ValueError) as error:
        raise app.UsageError(f"no model of dfdetect: {error}") from error
    return JudgeSettings(
        model=model,
        classifier=_CLASSIFIER.value,
        tile=_TILE.value,
        crops=_CROPS.value,
        threshold=_THRESHOLD.value,
        frames=_FRAMES.value,
        every=_EVERY.value,
        aggregate=_AGGREGATE.value,
        batch_size=_BATCH_SIZE.value,
        copies=_COPIES.value,
    )


def check_inputs(output: str) -> tuple[str, ...]:
    """Returns the inputs, after those on this machine have been looked for.

    Args:
        output: Prefix of the output, whose copies are no inputs.

    Raises:
        app.UsageError: There is no file for one.
    """
    inputs = tuple(os.path.expanduser(one) for one in _INPUT.value)
    for one in inputs:
        try:
            if not file_access.is_url(one):  # Those may take minutes to list.
                next(file_access.list_files(one, shards.name_copies(output)))
        except FileNotFoundError as error:
            raise app.UsageError(f"--input: {error}") from error
    return inputs


def check_earlier_run(output: str, judge: JudgeSettings) -> None:
    """Checks that an earlier run with this output judged alike, and notes the settings.

    Raises:
        FileExistsError: There is one, and --resume is not given or its settings differ.
    """
    total = shards.find_total(output)
    if total is not None and not _RESUME.value:
        raise FileExistsError(
            f"{output}-*.jsonl exists; --resume goes on with that run."
        )
    names = ("model", "classifier", "tile", "crops", "threshold", "frames", "every")
    settings = {name: getattr(judge, name) for name in (*names, "aggregate")}
    settings["version"] = dfdetect.__version__
    # The same paths may hold other weights by now.
    settings["weights"] = _hash_weights(judge)
    path = f"{output}-settings.json"
    if total is not None and file_access.exists(path):
        earlier = json.loads(file_access.read(path))
        # Runs of before there was one.
        earlier["settings"].setdefault("weights", settings["weights"])
        resumable.check_settings(output, earlier, settings)
    text = json.dumps({"settings": settings}, indent=2)
    file_access.write(path, f"{text}\n".encode())


def _hash_weights(judge: JudgeSettings) -> str:
    """Hashes the files of weights and manifests that judge, SHA-256."""
    from dfdetect.models import model_directory

    digest = hashlib.sha256()
    roots = [judge.model or model_directory.DEFAULT_WEIGHTS]
    roots += [judge.classifier] if judge.classifier else []
    for root in roots:
        found = pathlib.Path(root)
        for path in sorted(found.rglob("*")) if found.is_dir() else [found]:
            if path.suffix in _WEIGHTS and "checkpoints" not in path.parts:
                digest.update(files.sha256(path).encode())
    return digest.hexdigest()


def main(argv: list[str]) -> None:
    """Judges the files and says what became of them."""
    beam_setup.require_beam()
    from dfdetect.corpora import corpus_detection, running

    output = os.path.expanduser(_OUTPUT.value)
    judge = read_judge_settings()
    inputs = check_inputs(output)
    check_earlier_run(output, judge)

    def run_once() -> None:
        settings = corpus_detection.RunSettings(
            inputs=inputs,
            output=output,
            judge=judge,
            files_per_shard=_FILES_PER_SHARD.value,
            total=shards.find_total(output),
            with_parquet=_FORMAT.value == "parquet",
        )
        running.run(
            lambda pipeline: corpus_detection.build(pipeline, settings),
            _BEAM_RUNNER.value,
            _BEAM_OPTIONS.value,
        )

    try:
        running.run_until_done(
            run_once,
            _ATTEMPTS.value,
            script.say,
            lambda: len(shards.list_finished(output)),
        )
    except FileExistsError:
        raise
    except OSError as error:
        raise OSError(f"{error}; --resume goes on with it") from error
    sys.exit(say_summary(output))


def say_summary(output: str) -> int:
    """Says what became of the files; returns the exit code.

    Raises:
        OSError: The summary knows of no file, though the input has some.
    """
    path = f"{output}-summary.json"
    summary = json.loads(file_access.read(path))
    counts, statuses = summary["files"], summary["statuses"]
    if not (counts or summary["passed_over"]):
        raise OSError(f"the runner lost all results: {path} has no file.")
    verdicts = ", ".join(f"{n:,} {name}" for name, n in summary["verdicts"].items())
    script.say(
        f"{counts.get('judged', 0):,} files judged, {counts.get('from_earlier', 0):,} "
        f"by earlier runs: {verdicts or 'none'}; see {path}"
    )
    unread = statuses.get("unreadable", 0) + statuses.get("too_large", 0)
    return console.UNREAD if unread or counts.get("copies_lost") else 0


if __name__ == "__main__":
    script.run_main(main)
