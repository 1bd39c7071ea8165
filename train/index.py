"""Builds an index of known images, in which `dfdetect search` finds similar ones.

    python train/index.py --images=FOLDER --output=INDEX
    python train/index.py --data_dir=DATA --dataset=labeled_faces --output=INDEX \
        [--heads] [--embedding=forgery] [--target_recall=.99]
    python train/index.py --images='gs://bucket/**' --output=INDEX \
        --shards=gs://bucket/run/part --beam_runner=DataflowRunner --beam_options=...
    python train/index.py --merge=INDEX1,INDEX2 --output=INDEX

An interrupted run resumes with the same command; an older index at --output stays until
the new one is complete. --add adds to it. With --beam_runner the images are embedded by
Apache Beam, into files beginning with --shards, of which the index is built; without it
--shards builds one of the files that are there. Prints the number of entries and the
searcher. The exit code is 2 for a usage error, and 1 where
nothing could be indexed.
"""

import collections
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

from dfdetect.export import runtime

runtime.set_variables()  # Before TensorFlow is imported.

import tensorflow_datasets as tfds
from absl import app, flags, logging

from dfdetect import console, files, script
from dfdetect.corpora import beam_setup, file_access, shards
from dfdetect.data import prepared, records
from dfdetect.export import graph_cache, graph_folder
from dfdetect.media import file_kinds, source_files
from dfdetect.pipeline import embedding
from dfdetect.retrieval import index as index_module
from dfdetect.retrieval import index_building, merging, storage

_ATTEMPTS = 3  # Of a run on Beam, in a row without a finished shard.

_IMAGES = flags.DEFINE_multi_string(
    "images",
    [],
    "A folder, an image, a quoted pattern, or a .txt file with one of them on each "
    "line; may be given again.",
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of prepared data sets.")
_DATASET = flags.DEFINE_string(
    "dataset", None, "A prepared data set of labeled images; NAME or NAME/CONFIG."
)
_SPLIT = flags.DEFINE_list(
    "split", [], "Splits of it, with commas between; by default all."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the index.", required=True)
_ADD = flags.DEFINE_bool(
    "add",
    False,
    "Add to the index at --output, whose searcher stays; entries of the same names, "
    "and all heads of an image that is indexed again, are replaced.",
)
_HEADS = flags.DEFINE_bool(
    "heads", False, "Index each head in the images rather than the whole of them."
)
_EMBEDDING = flags.DEFINE_enum(
    "embedding",
    "content",
    embedding.KINDS,
    "content: copies and sources are near; forgery: fakes of one make are.",
)
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "Exported graph that embeds, or a folder of its versions; by default our weights.",
)
_SEARCHER = flags.DEFINE_enum(
    "searcher",
    "auto",
    ["auto", "brute_force", "scann"],
    "How the index is searched; by default according to its size.",
)
_TARGET_RECALL = flags.DEFINE_float(
    "target_recall",
    0.98,
    "Recall of the nearest ten that ScaNN is tuned to.",
    0.0,
    1.0,
)
_THUMBNAIL = flags.DEFINE_integer(
    "thumbnail", 96, "Longest side of kept small copies in pixels; 0 for none.", 0
)
_MERGE = flags.DEFINE_list(
    "merge",
    [],
    "Indexes to make one of; of entries of the same names, and of the heads of an "
    "image, those of the last one stay.",
)
_SHARDS = flags.DEFINE_string(
    "shards",
    None,
    "Names of the shards of embeddings up to -00000-of-00100, such as FOLDER/part.",
)
_PRECISION = flags.DEFINE_enum(
    "precision", "float16", ["float16", "float32"], "How shards keep embeddings."
)
_FILES_PER_SHARD = flags.DEFINE_integer(
    "files_per_shard",
    None,
    "About how many files a shard has; by default at most 2000, fewer of a small "
    "corpus.",
    lower_bound=1,
)
_BEAM_RUNNER = flags.DEFINE_string(
    "beam_runner",
    None,
    "Embed on Apache Beam (pip install dfdetect[beam]): DirectRunner, FlinkRunner, "
    "SparkRunner, DataflowRunner or DaskRunner. Needs --images and --shards.",
)
_BEAM_OPTIONS = flags.DEFINE_list(
    "beam_options", [], "Options of the runner, see serve/batch_detect.py."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images at once.", lower_bound=1)


def iterate_files(
    sources: list[source_files.Source],
) -> Iterator[index_building.IndexedImage]:
    """Yields image files, whose labels are unknown."""
    for source in sources:
        path = os.path.abspath(source.path)
        yield index_building.IndexedImage(
            path, functools.partial(files.read, path), source=path
        )


def iterate_records(
    builder: tfds.core.DatasetBuilder, splits: list[str]
) -> Iterator[index_building.IndexedImage]:
    """Yields the records of a data set."""
    name = builder.info.full_name
    for split in splits:
        for record in records.read_records(builder, split):
            yield index_building.IndexedImage(
                f"{name}/{split}/{record.index}",
                functools.partial(bytes, record.image_bytes),
                record.label,
                f"{name}/{split}: {record.filename}",
                record.group,
            )


def find_sources() -> list[source_files.Source]:
    """Finds the files that --images names.

    Raises:
        app.UsageError: A name matches nothing.
    """
    names: list[str] = []
    for name in _IMAGES.value:
        if name.endswith(".txt"):
            with open(name, encoding="utf-8", errors="surrogateescape") as file:
                names += filter(None, map(str.strip, file))
        else:
            names.append(name)
    kinds: collections.Counter[str] = collections.Counter()
    sources, barren = source_files.find_sources(names, passed_over=kinds)
    if kinds:
        script.say(file_kinds.describe_passed_over(kinds))
    for name in barren:
        script.say(f"no images in {name}")
    if not sources:
        raise app.UsageError(f"--images must hold images: {', '.join(names)}.")
    return sources


def select_images() -> tuple[
    Iterator[index_building.IndexedImage], int, dict[str, Any]
]:
    """Selects the images to index.

    Returns:
        The images, their number, and what identifies them among others.

    Raises:
        app.UsageError: The flags name neither files nor a data set, or both.
    """
    if bool(_IMAGES.value) == bool(_DATASET.value):
        raise app.UsageError("either --images or --dataset must be given.")
    if _IMAGES.value:
        sources = find_sources()
        listed = json.dumps([os.path.abspath(source.path) for source in sources])
        digest = hashlib.sha256(listed.encode()).hexdigest()
        return iterate_files(sources), len(sources), {"files_sha256": digest}
    if not _DATA_DIR.value:
        raise app.UsageError("--dataset needs --data_dir.")
    builder = prepared.open_builder(
        os.path.expanduser(_DATA_DIR.value), str(_DATASET.value)
    )
    records.check_labeled(builder)
    there = list(builder.info.splits)
    splits = _SPLIT.value or there
    if not set(splits) <= set(there):
        raise app.UsageError(
            f"--split must be of {','.join(there)}, got {','.join(splits)}."
        )
    total = sum(builder.info.splits[split].num_examples for split in splits)
    origin = {"dataset": prepared.describe_dataset(builder), "splits": splits}
    return iterate_records(builder, splits), total, origin


def embed_shards() -> None:
    """Embeds --images into --shards on Apache Beam, but for what is there already.

    Raises:
        app.UsageError: The flags do not go together.
        OSError: The run failed.
    """
    if not (_IMAGES.value and _SHARDS.value) or _DATASET.value:
        raise app.UsageError("--beam_runner needs --images and --shards.")
    beam_setup.require_beam()
    from dfdetect.corpora import embedding_shards, running

    prefix = os.path.expanduser(str(_SHARDS.value))
    # Once, so that all workers take the same version.
    model = graph_folder.find_graph(_MODEL.value, script.say)

    def run_once() -> None:
        settings = embedding_shards.EmbeddingSettings(
            inputs=tuple(_IMAGES.value),
            output=prefix,
            model=model,
            kind=_EMBEDDING.value,
            of_heads=_HEADS.value,
            thumbnail_side=_THUMBNAIL.value,
            batch_size=_BATCH_SIZE.value,
            precision=_PRECISION.value,
            files_per_shard=_FILES_PER_SHARD.value,
            total=shards.find_total(prefix),
        )
        build_transforms = embedding_shards.build(settings)
        running.run(build_transforms, str(_BEAM_RUNNER.value), _BEAM_OPTIONS.value)

    running.run_until_done(
        run_once,
        _ATTEMPTS,
        script.say,
        lambda: len(shards.list_finished(prefix)),
    )


def merge_parts(output: str) -> index_module.Index:
    """Makes an index of --merge or of --shards.

    Raises:
        app.UsageError: There is no shard.
    """
    if _MERGE.value:
        parts = [merging.open_index(os.path.expanduser(x)) for x in _MERGE.value]
    else:
        prefix = os.path.expanduser(str(_SHARDS.value))
        paths = [x for x in shards.list_finished(prefix) if x.endswith(".npz")]
        if not paths:
            raise app.UsageError(f"--shards: there is no {prefix}-*.npz.")
        parts = [merging.open_shard(path, file_access.read) for path in paths]
    if _ADD.value:
        parts.insert(0, merging.open_index(output))
    return merging.merge(
        parts,
        output,
        searcher=_SEARCHER.value,
        target_recall=_TARGET_RECALL.value,
        say=script.say,
    )


def build_from_images(output: str) -> index_module.Index:
    """Embeds images in this process and makes an index of them."""
    found, total, origin = select_images()
    older = None
    if _ADD.value:
        older, _ = storage.load(output, thumbnails=True, say=script.say)
    model = graph_cache.load(_MODEL.value, script.say)
    embedder = embedding.Embedder(model, _EMBEDDING.value, _HEADS.value)
    return index_building.build_index(
        found,
        total,
        origin=origin,
        embedder=embedder,
        output=output,
        say=script.say,
        batch_size=_BATCH_SIZE.value,
        thumbnail_side=_THUMBNAIL.value,
        searcher=_SEARCHER.value,
        target_recall=_TARGET_RECALL.value,
        older=older,
    )


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # TFDS warns about its internals.
    console.exit_on_sigterm()
    output = os.path.expanduser(_OUTPUT.value)
    # Fail before the slow part.
    storage.check_destination(output)
    if _MERGE.value and (_IMAGES.value or _DATASET.value or _SHARDS.value):
        raise app.UsageError("--merge does not go with --images, --dataset, --shards.")
    if _BEAM_RUNNER.value:
        embed_shards()
    if _MERGE.value or _SHARDS.value:
        index = merge_parts(output)
    else:
        index = build_from_images(output)
    searcher, _ = index.snapshot()
    assert searcher is not None
    print(f"{output}: {len(index):,} entries, {json.dumps(searcher.describe())}")


if __name__ == "__main__":
    script.run_main(main)
