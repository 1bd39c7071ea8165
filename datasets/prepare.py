"""Prepares one dataset of this folder for training.

    python datasets/prepare.py --dataset=labeled_faces --manual_dir=FACES --data_dir=DIR

TFDS writes aside and renames at the end, so that an interrupted run leaves no half
dataset and is simply started again.
"""

import importlib.util
import os
import pathlib
import sys
from types import ModuleType

# Before TensorFlow is imported: its start-up notes would bury the messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
import tensorflow_datasets as tfds

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
        print(f"{builder.data_path} is there already; --overwrite prepares it again.")
    else:
        mode = tfds.download.GenerateMode.REUSE_CACHE_IF_EXISTS
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=manual_dir, download_mode=mode, try_download_gcs=False
            )
        )
    print(f"{builder.info.full_name} in {builder.data_path}")
    for split, info in builder.info.splits.items():
        print(f"  {split}: {info.num_examples:,} images, {info.num_bytes / 1e6:,.0f} MB")
    for key, value in builder.info.metadata.items():
        if not isinstance(value, dict):
            print(f"  {key}: {value}")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    manual_dir = pathlib.Path(_MANUAL_DIR.value).expanduser()
    if not manual_dir.is_dir():
        print(f"--manual_dir: no folder {manual_dir}.", file=sys.stderr)
        sys.exit(2)
    try:
        _prepare(_DATASET.value, manual_dir, pathlib.Path(_DATA_DIR.value).expanduser())
    except (ValueError, OSError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
