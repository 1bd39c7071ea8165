"""Writes a report as the results come, in bounded memory."""

import codecs
import contextlib
import pathlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import markupsafe
import numpy as np

from dfdetect import files
from dfdetect.metrics import calibration
from dfdetect.reports.page import entries, formatting
from dfdetect.reports.page import thumbnails as thumbnails_module

# With more, a browser lays entries out only when they come into view: sorting a
# thousand took seconds.
_MANY = 50


class ReportPage:
    """A page that grows by one file after the other and is written at the end.

    Used as a context: at its end the page replaces what was at `path`; where an
    exception ends it, `path` stays as it is. Until then rows and entries are kept in
    unnamed temporary files beside it, which disappear in any case.

    Args:
        path: File of the page; its folder is made.
        thresholds: See `calibration.decide_verdict`.
        crop_margin: Crop margin of the graph's classifier; None where each image is
            one head.
        about: HTML of the sections that follow the files, see `about.render`.
        num_files: Approximate number of files; it decides the size of images.
        thumbnails: JPEGs of the known images by the id of their entry, where heads
            are looked up in an index; else None.
        explainer: Makes heat maps of heads; None for none.
        title: Title of the page; by default the number of files.
        overview: HTML that stands before the files instead of the numbers of verdicts.
        caption: Caption of the table of files.
    """

    def __init__(
        self,
        path: str,
        thresholds: calibration.Thresholds,
        *,
        crop_margin: float | None,
        about: str,
        num_files: int = 1,
        thumbnails: Mapping[str, bytes] | None = None,
        explainer: thumbnails_module.Explainer | None = None,
        title: str = "",
        overview: str = "",
        caption: str = "All files",
    ) -> None:
        self._path = pathlib.Path(path)
        self._thresholds = thresholds
        self._crop_margin = crop_margin
        self._about = about
        self._max_bytes = thumbnails_module.compute_max_bytes(num_files)
        self._thumbnails = thumbnails
        self._explainer = explainer
        self._title = title
        self._overview = overview
        self._caption = caption
        self._verdicts: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "ReportPage":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._rows, self._articles = (
            self._open.enter_context(
                # Without a buffer: what a full disk does not take can be undone.
                tempfile.TemporaryFile(dir=self._path.parent, buffering=0)
            )
            for _ in range(2)
        )
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        with self._open:
            if kind is None:
                self._write_page()

    def add(
        self,
        result: Mapping[str, Any],
        shown: thumbnails_module.Thumbnails | None = None,
        problem: str = "",
    ) -> None:
        """Adds a file.

        Args:
            result: The result line. Of a video it has `frames`, each with `time` in
                seconds and `heads` with `box`, `score`, `fake_probability` and
                `track`; `tracks`, each with `track`, `first_time`, `last_time`,
                `num_heads`, `fake_probability` and maybe `verdict`, `matters` and
                `set_aside`; `heads`, the most suspicious one of each track with `track`
                and `time`; and maybe `duration`, `warning`, `deciding_track` and
                `main_person`.
            shown: Images of the file; key frames are made small here.
            problem: Why there is no answer, or "".

        Raises:
            OSError: It cannot be written; the file is left out.
        """
        shown = shown or thumbnails_module.Thumbnails()
        left = self._max_bytes - sum(head.size for head in shown.heads.values())
        frames = thumbnails_module.shrink_key_frames(shown.key_frames, left)
        shown = thumbnails_module.Thumbnails(shown.image, shown.heads, frames)
        number = self._verdicts.total() + 1
        row = entries.render_row(number, result, self._thumbnails is not None)
        article = entries.render_article(
            number,
            result,
            thumbnails=shown,
            problem=problem,
            thresholds=self._thresholds,
        )
        places = self._rows.tell(), self._articles.tell()
        try:
            with files.name_errors(self._path):
                files.write_all(self._rows, row.encode())
                files.write_all(self._articles, article.encode())
        except OSError:
            for spooled, place in zip(
                (self._rows, self._articles), places, strict=True
            ):
                spooled.seek(place)
                spooled.truncate()
            raise
        self._verdicts[result["verdict"] or "none"] += 1
        self._statuses[result["status"]] += 1

    def add_image(
        self,
        image: np.ndarray | None,
        result: Mapping[str, Any],
        problem: str = "",
    ) -> None:
        """Adds an image with its heads, heat maps and known images.

        Args:
            image: `[height, width, 3]` uint8 RGB; None when there is a problem.
            result: The result line.
            problem: Why there is no answer, or "".
        """
        shown = None
        if image is not None:
            shown = thumbnails_module.make_thumbnails(
                image,
                result["heads"],
                margin=self._crop_margin,
                max_bytes=self._max_bytes,
                explainer=self._explainer,
                thumbnails=self._thumbnails,
            )
        self.add(result, shown, problem)

    def add_clip(
        self,
        result: Mapping[str, Any],
        frames: Sequence[tuple[float, bytes]],
        problem: str = "",
    ) -> None:
        """Adds a clip with its time line, key frames, heat maps and known images.

        Args:
            result: See `add`.
            frames: Seconds and a JPEG of any size, without marks; best those that
                `thumbnails.choose_key_times` returns.
            problem: Why there is no answer, or "".
        """
        heads = thumbnails_module.crop_tracks(
            result["heads"],
            frames,
            margin=self._crop_margin,
            max_bytes=self._max_bytes // 2,
            explainer=self._explainer,
            thumbnails=self._thumbnails,
            aside=thumbnails_module.find_set_aside(result),
        )
        self.add(
            result,
            thumbnails_module.Thumbnails(heads=heads, key_frames=frames),
            problem,
        )

    def _write_page(self) -> None:
        """Writes the page around what has been added."""
        columns = [*entries.COLUMNS]
        if self._thumbnails is not None:
            columns.append(entries.FAMILIARITY)
        num_files = self._verdicts.total()
        with files.open_atomic(str(self._path)) as page:
            formatting.TEMPLATES.write(
                page,
                "page.html",
                title=self._title
                or f"Deepfake report: {formatting.format_count(num_files, 'file')}",
                overview=markupsafe.Markup(self._overview),
                caption=self._caption,
                style=formatting.load_asset("style.css"),
                script=formatting.load_asset("page.js"),
                verdicts=self._verdicts,
                statuses=self._statuses,
                columns=columns,
                rows=_read_parts(self._rows),
                is_large=num_files > _MANY,
                articles=_read_parts(self._articles),
                about=markupsafe.Markup(self._about),
            )


def _read_parts(spooled: IO[bytes]) -> Iterator[markupsafe.Markup]:
    """Reads back the HTML that was rendered before, a megabyte at a time."""
    spooled.seek(0)
    reader = codecs.getreader("utf-8")(spooled)
    while part := reader.read(1 << 20):
        yield markupsafe.Markup(part)
