"""The work behind `dfdetect detect`: files in, one result for each out, in order."""

import csv
import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dfdetect import console, files, resumable
from dfdetect.cli import side_outputs
from dfdetect.media import source_files
from dfdetect.metrics import calibration
from dfdetect.pipeline import findings, interfaces, result_formats, result_lines
from dfdetect.reports import clip_copies, image_copies
from dfdetect.reports import page as report_page

# `retrieval.lookup.Lookup`: maps an image and its boxes to known images of each.
Lookup = Callable[[np.ndarray, np.ndarray], list[result_lines.KnownImages]]

_COPY = "copy"  # Key of a journal's lines: name of the copy that was written.


def judge_files(
    graph: interfaces.Signature,
    sources: Sequence[source_files.Source],
    thresholds: calibration.Thresholds,
    *,
    batch_size: int = 8,
    output: str = "",
    as_csv: bool = False,
    explainer: image_copies.Explainer | None = None,
    lookup: Lookup | None = None,
    judge_clip: findings.ClipJudge | None = None,
    journal: resumable.Journal | None = None,
    page: report_page.ReportPage | None = None,
    passed_over: str = "",
) -> int:
    """Judges files, prints and writes the results, and summarizes the run.

    For a single image, a sentence describes at the end what was found.

    Args:
        graph: The signature `serving_default`.
        sources: Files to read.
        thresholds: See `calibration.decide_verdict`.
        batch_size: Images judged at once.
        output: Folder of the copies with heads marked, or "" for none.
        as_csv: Whether to print a table with a row for each head, not JSON Lines.
        explainer: Makes heat maps for the copies.
        lookup: Adds to each judged head the known images most like it.
        judge_clip: Judges sources that are clips.
        journal: Records each result line. Sources with a line in it are not read
            again; that line is printed in their place.
        page: A report to which each file is added as well.
        passed_over: The summary's note on files that were passed over.

    Returns:
        Number of files that could not be read, or whose copy or part of the report
        could not be written.
    """
    printer = _Printer(as_csv, bool(lookup))
    noted = _NotedLines(journal)
    if noted.copies:
        sources = _keep_copies(sources, noted.copies, output)
    todo = [source for source in sources if source.path not in noted.places]
    found = findings.find_in_sources(
        graph, todo, thresholds, batch_size=batch_size, judge_clip=judge_clip
    )
    unread = 0
    done = len(sources) - len(todo)
    with console.Progress(
        len(sources), console.say, done=done, note=passed_over
    ) as shown:
        for source in sources:
            if source.path in noted.places:
                last = noted.read(source.path)
                with shown.paused():
                    printer.show(last)
                    unread += _say_if_unread(source.path, last)
                continue
            finding = next(found)
            if lookup and not source.is_clip:
                _look_up(finding, lookup)
            problem = finding.problem or finding.result.get("warning")
            with shown.paused():
                if not journal:
                    printer.show(finding.result)
                if problem:
                    console.say(f"{source.path!r}: {problem}")
                is_lost = _write_outputs(finding, output, thresholds, explainer, page)
                if journal:
                    # Recorded once the file is done, and shown once it is recorded.
                    if not is_lost:
                        journal.append(_note_copy(finding, output))
                    printer.show(finding.result)
            unread += bool(finding.problem) or is_lost
            last = finding.result
            shown.count(last["verdict"] or last["status"])
    if len(sources) == 1 and not sources[0].is_clip and not unread:
        _say_what_was_found(sources[0], last, output)
    return unread


class _Printer:
    """Prints result lines, as JSON or as rows of a table."""

    def __init__(self, as_csv: bool, with_lookup: bool) -> None:
        # The same bytes in every locale; names that are not UTF-8 pass unchanged.
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
        self._with_lookup = with_lookup
        self._table = csv.writer(sys.stdout, lineterminator="\n") if as_csv else None
        if self._table:
            more = result_formats.LOOKUP_COLUMNS if with_lookup else ()
            self._table.writerow(result_formats.CSV_COLUMNS + more)

    def show(self, result: result_lines.ResultLine) -> None:
        with files.name_errors("standard output"):
            if self._table:
                self._table.writerows(
                    result_formats.csv_rows(result, self._with_lookup)
                )
            else:
                print(result_formats.json_line(result))
            sys.stdout.flush()


def _say_if_unread(path: str, noted: result_lines.ResultLine) -> bool:
    """Says so if the file of a line noted before could not be read; returns whether."""
    is_unread = noted["status"] in findings.UNREAD
    if is_unread:
        status = noted["status"].replace("_", " ")
        console.say(f"{path!r}: {status}, as noted before")
    return is_unread


def _say_what_was_found(
    source: source_files.Source, result: result_lines.ResultLine, output: str
) -> None:
    """Describes in one sentence what was found in an image, and where to see it."""
    sentence = f"{source.path!r}: {result_formats.describe_image(result)}"
    if output:
        copy = os.path.join(output, source.copy)
        sentence += f"; the copy to look at is {copy!r}"
    elif result["heads"]:
        sentence += "; --output DIR writes a copy with the heads marked"
    console.say(sentence)


def _write_outputs(
    finding: findings.Finding,
    output: str,
    thresholds: calibration.Thresholds,
    explainer: image_copies.Explainer | None,
    page: report_page.ReportPage | None,
) -> bool:
    """Writes the copy and the part of the report; returns whether one is missing."""
    source, is_lost = finding.source, False
    if output and not finding.problem:
        write = functools.partial(_write_copy, finding, output, thresholds, explainer)
        is_lost = side_outputs.fails_to_write(source.path, "no copy is written", write)
    if page:
        write = functools.partial(_add_to_page, page, finding)
        is_lost |= side_outputs.fails_to_write(
            source.path, "left out of the report", write
        )
    return is_lost


class _NotedLines:
    """The result lines that an earlier run has left in a journal.

    Attributes:
        places: Their places, by the paths of their files.
        copies: The names of the copies that were written, likewise.
    """

    def __init__(self, journal: resumable.Journal | None) -> None:
        self._journal = journal
        self.places: dict[str, int] = {}
        self.copies: dict[str, str] = {}
        # Not the lines themselves: those of clips are long.
        for place, line in journal.places() if journal else ():
            self.places[line["path"]] = place
            if _COPY in line:
                self.copies[line["path"]] = line[_COPY]

    def read(self, path: str) -> result_lines.ResultLine:
        assert self._journal is not None
        line = self._journal.read(self.places[path])
        line.pop(_COPY, None)
        return line


def _note_copy(finding: findings.Finding, output: str) -> dict[str, Any]:
    """Returns the result line as a journal has it, with the name of the copy."""
    has_copy = output and not finding.problem
    return {**finding.result, **({_COPY: finding.source.copy} if has_copy else {})}


def _keep_copies(
    sources: Sequence[source_files.Source], copies: Mapping[str, str], output: str
) -> list[source_files.Source]:
    """Gives sources the copies that they have, and others copies beside them.

    Sources that have come since would else take names of copies that are there.
    """
    others = [source for source in sources if source.path not in copies]
    named = source_files.name_copies(others, output, copies.values())
    by_path = {source.path: source for source in named}
    return [
        by_path.get(source.path)
        or dataclasses.replace(source, copy=copies[source.path])
        for source in sources
    ]


def _write_copy(
    finding: findings.Finding,
    output: str,
    thresholds: calibration.Thresholds,
    explainer: image_copies.Explainer | None,
) -> None:
    """Writes the copy with marks, and the chart of a clip, into `output`."""
    copy = os.path.join(output, finding.source.copy)
    stem = os.path.splitext(os.path.basename(finding.source.path))[0]
    if not os.path.basename(copy).startswith(stem):
        console.say(f"{finding.source.path!r}: its copy has a shorter name: {copy!r}")
    if not finding.source.is_clip:
        files.write(copy, image_copies.draw_copy(finding, explainer))
        return
    clip_copies.write_copy(finding.source.path, finding.result, copy)
    chart = os.path.join(output, finding.source.chart)
    clip_copies.write_chart(finding.result, thresholds, chart)


def _add_to_page(page: report_page.ReportPage, finding: findings.Finding) -> None:
    if not finding.source.is_clip:
        image = None if finding.problem else finding.image
        page.add_image(image, finding.result, finding.problem)
        return
    frames = [] if finding.problem else clip_copies.read_key_frames(finding.result)
    page.add_clip(finding.result, frames, finding.problem)


def _look_up(finding: findings.Finding, lookup: Lookup) -> None:
    """Adds to each judged head the known images that are most like it.

    An image with an unfamiliar head is not called real.
    """
    judged = [x for x in finding.result["heads"] if x["fake_probability"] is not None]
    if judged:
        image = finding.image
        boxes = np.array([head["box"] for head in judged], np.float32)
        for head, known in zip(judged, lookup(image, boxes), strict=True):
            head.update(known)
        finding.result["verdict"] = calibration.doubt_unfamiliar(
            finding.result["verdict"], any(head["unfamiliar"] for head in judged)
        )
