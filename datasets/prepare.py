"""Prepares one dataset of this folder for training.

    python datasets/prepare.py --dataset=labeled_faces --manual_dir=FACES --data_dir=DIR

TFDS writes aside and renames at the end, so that an interrupted run leaves no half
dataset and is simply started again. The exit code is 2 for a usage error and 1 where
the source files cannot be used.
"""

import importlib.util
import os
import pathlib
import sys
from types import ModuleType
from typing import NoReturn

# Before TensorFlow is imported: its start-up notes would bury the messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow_datasets as tfds
from absl import app, flags, logging

_FOLDER = pathlib.Path(__file__).resolve().parent
_SUFFIX = "_dataset_builder"
_NAMES = sorted(p.parent.name for p in _FOLDER.glob(f"*/*{_SUFFIX}.py"))

_DATASET = flags.DEFINE_enum("dataset", None, _NAMES, "What to prepare.", required=True)
_MANUAL_DIR = flags.DEFINE_string(
    "manual_dir", None, "Folder of the source files; only read.", required=True
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder for prepared datasets; made if absent.", required=True
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Prepare again what --data_dir already has."
)


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


def _prepare(name: str, manual_dir: pathlib.Path, data_dir: pathlib.Path) -> None:
    builder = _load(name).Builder(data_dir=data_dir)
    if builder.data_path.exists() and not _OVERWRITE.value:
        print("Prepared already; --overwrite does it again.")
    else:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=manual_dir,
                download_mode=tfds.download.GenerateMode.REUSE_CACHE_IF_EXISTS,
                try_download_gcs=False,
            )
        )
    _print_summary(builder.info)


def _print_summary(info: tfds.core.DatasetInfo) -> None:
    print(f"{info.full_name} in {info.data_dir}")
    for split in info.splits.values():
        counts = info.metadata["counts"][split.name]
        numbers = "".join(f", {n:,} {name}" for name, n in counts.items() if n)
        print(f"  {split.name}: {split.num_examples:,} images{numbers}")
    for key, value in info.metadata.items():
        if not isinstance(value, dict):
            print(f"  {key}: {value}")


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        return _exit(2, str(error))


def _exit(code: int, message: str) -> NoReturn:
    print("prepare.py:", " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


def main(argv: list[str]) -> None:
    """Checks the flags, prepares the dataset and prints what it holds."""
    if len(argv) > 1:
        _exit(2, f"unknown arguments: {' '.join(argv[1:])}")
    manual_dir = pathlib.Path(_MANUAL_DIR.value).expanduser()
    if not manual_dir.is_dir() or not any(manual_dir.iterdir()):
        _exit(2, f"--manual_dir: {manual_dir} is no folder, or an empty one.")
    logging.set_verbosity(logging.WARNING)  # The progress bars say the same.
    try:
        _prepare(_DATASET.value, manual_dir, pathlib.Path(_DATA_DIR.value).expanduser())
    except (ValueError, OSError) as error:
        _exit(1, str(error))


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
