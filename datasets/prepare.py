"""Prepares one dataset of this folder for training.

    python datasets/prepare.py --dataset=labeled_faces --manual_dir=FACES --data_dir=DIR

A data set is written aside and renamed at the end, so that an interrupted run leaves no
half dataset and is simply started again. With --overwrite the old one stays until the
new one is complete, and the disk holds both. The exit code is 2 for a usage error, 1
where the source files cannot be used, 130 after an interrupt.
"""

import contextlib
import importlib.util
import inspect
import io
import logging
import pathlib
import signal
import sys
from types import FrameType, ModuleType
from typing import Any, NoReturn

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import absl.logging
import tensorflow_datasets as tfds
from absl import app, flags
from tensorflow_datasets.core import shuffle

from dfdetect import console, script
from dfdetect.data import record_columns
from dfdetect.data.builders import replacement, streams

_FOLDER = pathlib.Path(__file__).resolve().parent
_SUFFIX = "_dataset_builder"
_NAMES = sorted(p.parent.name for p in _FOLDER.glob(f"*/*{_SUFFIX}.py"))

# TFDS sorts records by a hash: in memory up to so many bytes, beyond in files. Its
# gigabyte would be most of what a build takes.
_SORTED_IN_MEMORY = 2**26

_DATASET = flags.DEFINE_string(
    "dataset", None, f"One of {', '.join(_NAMES)}, or NAME/CONFIG.", required=True
)
_MANUAL_DIR = flags.DEFINE_string(
    "manual_dir", None, "Folder of the source files; only read."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder for prepared datasets; made if absent.", required=True
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite",
    False,
    "Prepare again what --data_dir already has, which stays until all is done.",
)
_BEAM_RUNNER = flags.DEFINE_string(
    "beam_runner",
    None,
    "Run on Apache Beam (pip install dfdetect[beam]): DirectRunner, FlinkRunner, "
    "SparkRunner or DataflowRunner.",
)
_BEAM_OPTIONS = flags.DEFINE_list(
    "beam_options",
    [],
    "Options of the runner, such as direct_running_mode=multi_processing,"
    "direct_num_workers=2.",
)

# What builders take; see their READMEs. What is not given stays as they say.
_OPTIONS = [
    flags.DEFINE_bool("strict", False, "Stop at the first file that cannot be used."),
    flags.DEFINE_integer(
        "num_threads", None, "Source files at once; by default the cores.", 1
    ),
    flags.DEFINE_integer(
        "frames_per_video",
        None,
        "faceforensics: frames at the centers of equal parts of a clip; -1 for all.",
    ),
    flags.DEFINE_enum(
        "frame_format", None, ["png", "jpeg"], "faceforensics: how frames are kept."
    ),
    flags.DEFINE_list(
        "rate_factors",
        None,
        "faceforensics: compress clips by H.264 at these constant rate factors, such "
        "as 18,23,30,40, a frame at each in turn.",
    ),
    flags.DEFINE_integer(
        "frame_stride",
        None,
        "hollywood_heads: frames that training frames of a film are apart at least.",
    ),
    flags.DEFINE_bool(
        "download", False, "hollywood_heads: fetch the ZIP file; no --manual_dir then."
    ),
    flags.DEFINE_string("url", None, "hollywood_heads: where to fetch it."),
    flags.DEFINE_string("sha256", None, "hollywood_heads: what it must hash to."),
    flags.DEFINE_bool(
        "leaky_random_split",
        False,
        "labeled_faces: share out images without group and split one by one. Images of "
        "one video then stand in training and in the test: figures are too good.",
    ),
    flags.DEFINE_list(
        "columns", None, "labeled_faces: further columns of labels.csv to keep."
    ),
    flags.DEFINE_list(
        "lists",
        None,
        "labeled_faces: train.txt,val.txt,test.txt, lines of PATH LABEL; by default "
        "those in the folder.",
    ),
    flags.DEFINE_integer(
        "sv", None, "cvcs, labeled_heads: percent of the groups for validation."
    ),
    flags.DEFINE_integer(
        "st", None, "cvcs, labeled_heads: percent of the groups for the test."
    ),
    flags.DEFINE_list(
        "head_names", None, "labeled_heads: classes that are heads, such as head,face."
    ),
    flags.DEFINE_list(
        "other_names", None, "labeled_heads: classes of things that are not heads."
    ),
    flags.DEFINE_enum(
        "compression", None, ["raw", "c23", "c40"], "cvcs: of faceforensics."
    ),
]


def _load(name: str) -> ModuleType:
    """Imports a builder by its path: nothing here is an importable package."""
    module_name = f"{name}{_SUFFIX}"  # TFDS takes the dataset's name from it.
    path = _FOLDER / name / f"{module_name}.py"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"Cannot load {path}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module


def _builder(dataset: str, data_dir: pathlib.Path) -> Any:
    """The builder of `NAME` or `NAME/CONFIG` with the options that were given.

    Raises:
        app.UsageError: There is no such dataset or config, or it has no such option.
    """
    name, _, config = dataset.partition("/")
    if name not in _NAMES:
        raise app.UsageError(
            f"--dataset must be one of {', '.join(_NAMES)}, got {name}."
        )
    builder_class = _load(name).Builder
    configs = [config.name for config in builder_class.BUILDER_CONFIGS]
    # A builder with configs of any name checks the name itself.
    if not builder_class.any_config and config not in (configs or [""]):
        raise app.UsageError(
            f"--dataset={name} {'needs a config' if configs else 'has no configs'}: "
            f"{', '.join(f'{name}/{c}' for c in configs) or name}; got {dataset}."
        )
    options = {flag.name: flag.value for flag in _OPTIONS if flag.present}
    known: set[str] = set()
    for base in builder_class.__mro__:
        known.update(inspect.signature(base.__init__).parameters)
    unknown = [f"--{option}" for option in options if option not in known]
    if unknown:
        raise app.UsageError(f"{', '.join(unknown)} does not apply to {name}.")
    if config:
        options["config"] = config
    try:
        builder = builder_class(data_dir=data_dir, **options)
        if replacement.restore(builder):
            script.say("putting back the data set that an interrupted --overwrite left")
            builder = builder_class(data_dir=data_dir, **options)
        return builder
    except ValueError as error:
        raise app.UsageError(str(error)) from error


def _manual_dir() -> pathlib.Path | None:
    if flags.FLAGS.download:
        return None
    if not _MANUAL_DIR.value:
        raise app.UsageError("--manual_dir must have a value.")
    manual_dir = pathlib.Path(_MANUAL_DIR.value).expanduser()
    if not manual_dir.is_dir() or not any(manual_dir.iterdir()):
        raise app.UsageError(
            f"--manual_dir: {manual_dir} is not a folder, or is empty."
        )
    return manual_dir


def _prepare(builder: Any, manual_dir: pathlib.Path | None) -> None:
    if builder.data_path.exists() and not _OVERWRITE.value:
        before = dict(builder.info.metadata).get("settings")
        if before != builder.settings():
            raise ValueError(
                f"{builder.info.full_name} was prepared with {before}, not with "
                f"{builder.settings()}; --overwrite does it again."
            )
        print("Prepared already; --overwrite does it again.")
    else:
        shuffle.MAX_MEM_BUFFER_SIZE = _SORTED_IN_MEMORY
        source = manual_dir or "the network"
        script.say(f"preparing {builder.info.full_name} from {source}")
        config = tfds.download.DownloadConfig(
            manual_dir=manual_dir,
            download_mode=tfds.download.GenerateMode.REUSE_CACHE_IF_EXISTS,
            try_download_gcs=False,
            **_beam(),
        )
        # TFDS would delete what is there before it looks at the source files.
        exists = builder.data_path.exists()
        with replacement.replace(builder) if exists else contextlib.nullcontext():
            # TFDS prints of a download of unknown size, whatever there is to do.
            with contextlib.redirect_stdout(io.StringIO()), _watched_workers():
                builder.download_and_prepare(download_config=config)
    record_columns.write_columns(builder)
    _print_summary(builder.info)


def _beam() -> dict[str, Any]:
    if _BEAM_RUNNER.value is None:
        return {}
    streams.import_beam()
    from dfdetect.corpora import running

    options = running.parse_options(_BEAM_RUNNER.value, _BEAM_OPTIONS.value)
    return {"beam_runner": _BEAM_RUNNER.value, "beam_options": options}


def _watched_workers() -> contextlib.AbstractContextManager[None]:
    if _BEAM_RUNNER.value is None:
        return contextlib.nullcontext()
    from dfdetect.corpora import worker_processes

    return worker_processes.watched()


def _print_summary(info: tfds.core.DatasetInfo) -> None:
    print(f"{info.full_name} in {info.data_dir}")
    for split in info.splits.values():
        counts = info.metadata["counts"][split.name]
        numbers = "".join(f", {n:,} {name}" for name, n in counts.items() if n)
        print(f"  {split.name}: {split.num_examples:,} images{numbers}")
    for split, lines in info.metadata["skipped"].items():
        for line in lines:
            print(f"  skipped in {split}: {line}")
        if more := info.metadata["counts"][split]["n_skipped"] - len(lines):
            print(f"  skipped in {split}: {more:,} more, which are not listed")
    for key in ("settings", "fingerprint"):
        print(f"  {key}: {info.metadata[key]}")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    # An exception lets TFDS remove what it has written so far.
    raise KeyboardInterrupt


def main(argv: list[str]) -> None:
    """Prepares the dataset and prints what it holds."""
    if console.stream().isatty():
        sys.stderr = console.stream()  # Where TFDS shows its bars.
    else:
        tfds.disable_progress_bar()
    absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS talks of itself.
    logging.getLogger("dfdetect").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _interrupt)
    data_dir = pathlib.Path(_DATA_DIR.value).expanduser()
    builder = _builder(_DATASET.value, data_dir)
    _prepare(builder, _manual_dir())


if __name__ == "__main__":
    script.run_main(main)
