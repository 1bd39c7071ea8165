"""The work behind `dfdetect search`: known images similar to the given ones."""

import functools
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from dfdetect import console, files, iterators
from dfdetect.cli import side_outputs
from dfdetect.media import decode, file_kinds, source_files
from dfdetect.pipeline import embedding, findings, result_formats
from dfdetect.reports import contact_sheet
from dfdetect.retrieval import lookup
from dfdetect.retrieval.entries import Exclusion, Neighbour
from dfdetect.retrieval.index import Index

Found = list[list[Neighbour]]

_BATCH = 8
_LOSS = "a contact sheet is missing"


def search_files(
    embedder: embedding.Embedder,
    index: Index,
    sources: Sequence[source_files.Source],
    *,
    top_k: int = 10,
    keep_self: bool = False,
    sheet: str = "",
    passed_over: str = "",
) -> int:
    """Prints a line of JSON for each query, and draws a contact sheet.

    Args:
        embedder: Embeds whole images or heads; it must fit the index.
        index: The index; with thumbnails if a sheet is wanted.
        sources: The queries.
        top_k: Number of neighbours of each query.
        keep_self: Whether an entry with the query's own bytes is a result.
        sheet: File of the contact sheet, see `contact_sheet.Sheets`, or "" for none.
        passed_over: The summary's note on files that were passed over.

    Returns:
        Number of queries that could not be read, and of sheets that could not be
        written.
    """
    # The same bytes in every locale; names that are not UTF-8 pass unchanged.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    unread = 0
    spared = [source.path for source in sources]
    sheets = contact_sheet.Sheets(sheet, top_k, spared) if sheet else None
    with console.Progress(
        len(sources), console.say, noun="image", note=passed_over
    ) as shown:
        for query in embed_queries(embedder, sources):
            found, itself = find_neighbours(query, index, top_k, keep_self)
            with shown.paused():
                line = build_result_line(query, found, embedder.of_heads)
                with files.name_errors("standard output"):
                    print(result_formats.json_line(line), flush=True)
                if told := query.problem or query.warning:
                    console.say(f"{query.source.path!r}: {told}")
                if itself:
                    console.say(
                        f"{query.source.path!r}: left out the same file, "
                        f"{min(itself)!r}; --keep_self lists it"
                    )
            if sheets:
                write = functools.partial(_add_rows, sheets, query, found)
                with shown.paused():
                    unread += side_outputs.fails_to_write(sheet, _LOSS, write)
            unread += bool(query.problem)
            shown.count(query.embedded.status)
    if sheets:
        unread += side_outputs.fails_to_write(sheet, _LOSS, sheets.finish)
    return unread


class Query:
    """An image to search for.

    Attributes:
        source: The file.
        content: Its bytes; empty when they could not be read.
        embedded: Its embeddings.
        problem: Why there is no answer, or "".
        warning: What is to be known of the answer, or "".
    """

    def __init__(
        self,
        source: source_files.Source,
        content: bytes,
        embedded: embedding.Embedded,
        problem: str,
    ) -> None:
        self.source = source
        self.content = content
        self.embedded = embedded
        self.problem = problem or (
            source_files.describe_unread(embedded.status, content)
        )
        self.warning = ""
        if not self.problem:
            self.warning = file_kinds.describe_animated(content, "searched")


def embed_queries(
    embedder: embedding.Embedder, sources: Sequence[source_files.Source]
) -> Iterator[Query]:
    """Reads and embeds images in order."""
    for batch in iterators.batched(sources, _BATCH):
        contents, problems = zip(*(findings.read(x) for x in batch), strict=True)
        embedded = iter(embedder([x for x in contents if x is not None]))
        for source, content, problem in zip(batch, contents, problems, strict=True):
            one = embedder.mark_unreadable() if content is None else next(embedded)
            yield Query(source, content or b"", one, problem)


def find_neighbours(
    query: Query, index: Index, top_k: int, keep_self: bool
) -> tuple[Found, set[str]]:
    """Finds the nearest entries for each embedded part of a query.

    Returns:
        The entries, and the names of those with the query's own bytes that were met
        and left out.
    """
    embeddings = query.embedded.embeddings
    found = index.search(embeddings, top_k)
    if keep_self:
        return found, set()
    own = hashlib.sha256(query.content).hexdigest()
    nearest = [neighbour.entry for neighbours in found for neighbour in neighbours]
    itself = {entry.source or entry.id for entry in nearest if entry.digest == own}
    if itself:
        others = Exclusion(digest=own)
        found = index.search(embeddings, top_k, [others] * len(embeddings))
    return found, itself


def build_result_line(query: Query, found: Found, of_heads: bool) -> dict[str, Any]:
    """Builds a query's result line, with `neighbours`, or `heads` that have them."""
    answers = [[lookup.describe_neighbour(x) for x in row] for row in found]
    line: dict[str, Any] = {
        "path": query.source.path,
        "status": query.embedded.status,
    }
    if query.warning:
        line["warning"] = query.warning
    if not of_heads:
        return {**line, "neighbours": answers[0] if answers else []}
    boxes = query.embedded.boxes
    line["heads"] = [
        {"box": [round(float(x), 6) for x in box], "neighbours": answer}
        for box, answer in zip(boxes, answers, strict=True)
    ]
    return line


def _add_rows(sheets: contact_sheet.Sheets, query: Query, found: Found) -> None:
    if not found:
        return
    image = decode.decode_image(tf.constant(query.content)).numpy()
    name = os.path.basename(query.source.path)
    for box, row in zip(query.embedded.boxes, found, strict=True):
        sheets.add(image, box, name, row)
