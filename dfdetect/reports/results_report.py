"""Writes the page of `dfdetect report`: from result lines of any run and number."""

import itertools
import os
import pathlib
import re
import secrets
import shutil
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
import tensorflow as tf

from dfdetect import console, files, manifest
from dfdetect.media import clip_decoding, decode
from dfdetect.models import model_directory
from dfdetect.reports import clip_copies, result_files
from dfdetect.reports import page as report_page
from dfdetect.reports.page import about, overview

MOST_ON_ONE_PAGE = 2000
NUM_SUSPICIOUS = 500
_FILES_PER_PAGE = 1000

_LISTING = re.compile(r"\d{4,}\.html")
# What a line without the form of a result leads to.
_DAMAGED = (
    KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError,
    jinja2.TemplateError,
)  # fmt: skip


def write_report(
    paths: Sequence[str],
    output: str,
    *,
    command: Sequence[str],
    say: Callable[[str], None],
    with_images: bool = True,
) -> int:
    """Writes a report of result lines, in bounded memory.

    Up to `MOST_ON_ONE_PAGE` files, `output` shows each. Of more it shows numbers, a
    histogram and the `NUM_SUSPICIOUS` most suspicious, and the folder beside it, such
    as `REPORT-pages`, has a row for each file.

    Args:
        paths: JSON Lines files; none may be `output`.
        output: The page, which ends in .html.
        command: The arguments of `dfdetect`.
        say: Prints a line.
        with_images: Whether to read the images and clips for small copies of them.

    Returns:
        Number of lines that are left out, as they are not result lines.

    Raises:
        FileExistsError: The folder of the pages has other files.
        OSError: A file cannot be read or written.
        ValueError: There is no result line.
    """
    survey = result_files.survey(paths, NUM_SUSPICIOUS)
    for problem in survey.problems:
        say(problem)
    if not survey.num_lines:
        raise ValueError(f"no result lines in {', '.join(paths)}")
    folder = pathlib.Path(output).with_suffix("")
    folder = folder.with_name(f"{folder.name}-pages")
    if survey.num_lines <= MOST_ON_ONE_PAGE:
        chosen: Any = (line for line in result_files.read(paths))
        number, pages = survey.num_lines, []
    else:
        pages = _write_listings(paths, survey.num_lines, folder, output)
        chosen = (result_files.read_at(paths, place) for place in survey.suspicious)
        number = len(survey.suspicious)
    title = f"Deepfake report: {survey.num_lines:,} files" if pages else ""
    classifier = manifest.read(
        os.path.join(model_directory.DEFAULT_WEIGHTS, "classifier"), "classifier"
    )
    page = report_page.ReportPage(
        output,
        survey.thresholds,
        crop_margin=classifier["crop_margin"],
        about=about.render_of_lines(survey.thresholds, command=command),
        num_files=number,
        title=title,
        overview=overview.render(survey, pages, _FILES_PER_PAGE) if pages else "",
        caption=f"The {number:,} most suspicious files" if pages else "All files",
    )
    num_wrong = survey.num_wrong
    with page, console.Progress(number, say) as shown:
        for line in chosen:
            try:
                outcome = _add(page, line, with_images)
            # The line has what is asked for, but not in the form of a result.
            except _DAMAGED as error:
                say(f"{line['path']!r}: left out, as its line is damaged: {error!r}")
                num_wrong += 1
                outcome = "damaged"
            shown.count(outcome)
    return num_wrong


def _add(
    page: report_page.ReportPage, line: Mapping[str, Any], with_images: bool
) -> str:
    """Adds a file, with small images where it can be read; returns what is shown."""
    is_read = line["status"] not in ("unreadable", "too_large")
    if line["kind"] == "video":
        frames = _read_key_frames(line) if with_images and is_read else []
        page.add_clip(line, frames)
        return "with images" if frames else "without images"
    image = None
    if with_images and is_read and line["kind"] == "image":
        image = _read_image(line)
    page.add_image(image, line)
    return "without images" if image is None else "with images"


def _read_image(line: Mapping[str, Any]) -> Any:
    """Reads an image, `[height, width, 3]` uint8; None if it is no longer the same."""
    try:
        content = files.read(line["path"])
        image = decode.decode_image(tf.constant(content)).numpy()
    except (OSError, ValueError, tf.errors.InvalidArgumentError):
        return None
    return image if image.shape[:2] == (line["height"], line["width"]) else None


def _read_key_frames(line: Any) -> list[tuple[float, bytes]]:
    try:
        return clip_copies.read_key_frames(line)
    except (OSError, clip_decoding.UnreadableClipError):
        return []


def _write_listings(
    paths: Sequence[str], num_lines: int, folder: pathlib.Path, output: str
) -> list[str]:
    """Writes the pages that list all files; returns the links to them."""
    if folder.exists() and not (
        folder.is_dir() and all(_LISTING.fullmatch(x) for x in os.listdir(folder))
    ):
        raise FileExistsError(f"{folder} has other files; name another --output.")
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.tmp")
    aside.mkdir(parents=True)
    num_pages = -(-num_lines // _FILES_PER_PAGE)
    names = [f"{i + 1:04d}.html" for i in range(num_pages)]
    lines = result_files.read(paths)
    start = f"../{urllib.parse.quote(pathlib.PurePath(output).name)}"
    try:
        for i, name in enumerate(names):
            listed = overview.name_files(i, _FILES_PER_PAGE, num_lines)
            content = overview.render_listing(
                itertools.islice(lines, _FILES_PER_PAGE),
                first=i * _FILES_PER_PAGE + 1,
                caption=f"{listed} of {num_lines:,}",
                title=f"Deepfake report, page {i + 1:,} of {num_pages:,}",
                start=start,
                before=names[i - 1] if i else "",
                after=names[i + 1] if i + 1 < num_pages else "",
            )
            (aside / name).write_bytes(content.encode())
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return [f"{urllib.parse.quote(folder.name)}/{name}" for name in names]
