"""Opens what several commands take: files, an index, and a graph."""

import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dfdetect import console, manifest
from dfdetect.cli.parser import Parser
from dfdetect.export import graph_folder, runtime
from dfdetect.media import file_kinds, source_files

if TYPE_CHECKING:
    from dfdetect.pipeline import interfaces


def open_index(
    directory: str, parser: Parser, *, thumbnails: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Loads the index in a folder, and its manifest."""
    runtime.set_variables()
    from dfdetect.retrieval import storage

    try:
        return storage.load(directory, thumbnails, console.say)
    except ValueError as error:
        parser.error(f"--index: {error}")


def find_sources(
    paths: Sequence[str],
    output: str,
    parser: Parser,
    *,
    clips: bool = False,
    shard: tuple[int, int] | None = None,
) -> tuple[list[source_files.Source], str]:
    """Finds the images, and clips if they are wanted, that are named; at least one.

    A shard, see `source_files.find_sources`, may have none. Its copies have a folder of
    their own, as they are named without regard to the files of other shards.

    Returns:
        The files, and a note on files in folders that were passed over, or "".
    """
    kinds: Counter[str] = Counter()
    try:
        sources, barren = source_files.find_sources(paths, output, clips, kinds, shard)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    wanted = "images or clips" if clips else "images"
    passed_over = file_kinds.describe_passed_over(kinds)
    if not sources and not (shard and len(barren) < len(paths)):
        note = f" ({passed_over})" if passed_over else ""
        parser.error(f"no {wanted} in {', '.join(barren)}{note}")
    for path in barren:
        console.say(f"no {wanted} in {path}")
    if shard:
        folder = f"shard-{shard[0] + 1}-of-{shard[1]}"
        sources = [
            dataclasses.replace(source, copy=os.path.join(folder, source.copy))
            for source in sources
        ]
    return sources, passed_over


def find_graph(path: str, tile: bool, parser: Parser) -> str:
    """Returns the folder of the graph that a path names, see `graph_folder.find_graph`.

    What is not a graph of dfdetect is refused, before TensorFlow is imported.
    """
    try:
        directory = graph_folder.find_graph(path, console.say)
        described = manifest.read(os.path.join(directory, "assets"), "pipeline")
    except (FileNotFoundError, ValueError) as error:
        parser.error(f"--model: {error}")
    if tile and not described["detector"].get("tile_size"):
        parser.error(f"--tile: the graph was exported without it: {directory}")
    return directory


def load_graph(
    directory: str | None, tile: bool, classifier: str | None = None
) -> "interfaces.Pipeline":
    """Loads an exported graph, or the one of the default weights.

    Args:
        directory: Folder of the exported graph; None for the default weights.
        tile: See `graph_cache.load`.
        classifier: See `graph_cache.load`.

    Raises:
        FileNotFoundError: The package has no default weights.
        ValueError: The classifier's weights do not fit.
    """
    runtime.set_variables()
    from dfdetect.export import graph_cache

    try:
        return graph_cache.load(directory, console.say, tile, classifier)
    except FileNotFoundError as error:
        if directory is not None:
            raise
        raise FileNotFoundError(
            f"no default weights: {error.filename} is missing; "
            "name a graph with --model"
        ) from error
