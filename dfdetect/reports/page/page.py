"""Writes a report as the results come, in bounded memory."""

import base64
import contextlib
import hashlib
import pathlib
import shutil
import string
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import IO, Any

import tensorflow as tf

from dfdetect import files
from dfdetect.media import decode
from dfdetect.metrics import calibration
from dfdetect.reports.page import entries, formatting
from dfdetect.reports.page import thumbnails as thumbnails_module

_FOLDER = pathlib.Path(__file__).parent
# With more, a browser lays entries out only once they are looked at: sorting a
# thousand took seconds.
_MANY = 50


class Report:
    """A page that grows by one file after the other, and is there once all have come.

    Used as a context: at its end the page replaces what stood at `path`; where an
    exception ends it, `path` stays as it is. Until then rows and entries lie in files
    without a name beside it, which are gone whatever happens.

    Args:
        path: Of the page; its folder is made.
        thresholds: See `calibration.decide_verdict`.
        crop_margin: That of the graph's classifier; None where each image is one head.
        about: HTML of the sections that follow the files, see `about.html`.
        num_files: How many will come, about; by it the size of images is chosen.
        thumbnails: JPEGs of the known images by the id of their entry, where heads
            are looked up in an index; else None.
        explainer: What makes heat maps of heads, or None for none.
    """

    def __init__(
        self,
        path: str,
        thresholds: calibration.Thresholds,
        crop_margin: float | None,
        about: str,
        num_files: int = 1,
        thumbnails: Mapping[str, bytes] | None = None,
        explainer: thumbnails_module.Explainer | None = None,
    ) -> None:
        self._path = pathlib.Path(path)
        self._thresholds = thresholds
        self._crop_margin = crop_margin
        self._about = about
        self._most_bytes = thumbnails_module.bytes_of_a_file(num_files)
        self._thumbnails = thumbnails
        self._explainer = explainer
        self._verdicts: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Report":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._rows, self._entries = (
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
                self._assemble()

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
            shown: What is shown of it; key frames are made small here.
            problem: Why there is no answer, or "".

        Raises:
            OSError: It cannot be written; the file is left out.
        """
        shown = shown or thumbnails_module.Thumbnails()
        left = self._most_bytes - sum(head.size for head in shown.heads.values())
        frames = thumbnails_module.key_frames(shown.key_frames, left)
        shown = thumbnails_module.Thumbnails(shown.image, shown.heads, frames)
        number = self._verdicts.total() + 1
        row = entries.row(number, result, self._thumbnails is not None)
        article = entries.article(number, result, shown, problem, self._thresholds)
        places = self._rows.tell(), self._entries.tell()
        try:
            with files.name_errors(self._path):
                files.write_all(self._rows, row.encode())
                files.write_all(self._entries, article.encode())
        except OSError:
            for spooled, place in zip((self._rows, self._entries), places, strict=True):
                spooled.seek(place)
                spooled.truncate()
            raise
        self._verdicts[result["verdict"] or "none"] += 1
        self._statuses[result["status"]] += 1

    def add_image(
        self, content: bytes, result: Mapping[str, Any], problem: str = ""
    ) -> None:
        """Adds an image file with its heads, heat maps and known images.

        Args:
            content: The bytes of the file; not looked at when there is a problem.
            result: The result line.
            problem: Why there is no answer, or "".
        """
        shown = None
        if not problem:
            shown = thumbnails_module.of_image(
                decode.decode_image(tf.constant(content)).numpy(),
                result["heads"],
                self._crop_margin,
                self._most_bytes,
                self._explainer,
                self._thumbnails,
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
                `thumbnails.key_times` names.
            problem: Why there is no answer, or "".
        """
        most = self._most_bytes // 2
        heads = thumbnails_module.of_tracks(
            result["heads"],
            frames,
            self._crop_margin,
            most,
            self._explainer,
            self._thumbnails,
            thumbnails_module.set_aside(result),
        )
        self.add(
            result,
            thumbnails_module.Thumbnails(heads=heads, key_frames=frames),
            problem,
        )

    def _assemble(self) -> None:
        """Writes the page around what has been added."""
        template = (_FOLDER / "page.html").read_text("utf-8")
        before, between, after = template.split("<!-- spooled -->\n")
        with files.open_atomic(str(self._path)) as page:
            page.write(self._filled(before))
            _append(self._rows, page)
            page.write(self._filled(between))
            _append(self._entries, page)
            page.write(self._filled(after))

    def _filled(self, template: str) -> bytes:
        style = (_FOLDER / "style.css").read_text("utf-8")
        script = (_FOLDER / "page.js").read_text("utf-8")
        columns = [*entries.COLUMNS]
        if self._thumbnails is not None:
            columns.append(entries.FAMILIARITY)
        num_files = self._verdicts.total()
        return (
            string.Template(template)
            .substitute(
                title=f"Deepfake report: {formatting.count(num_files, 'file')}",
                style=style,
                style_hash=_hash(style),
                script=script,
                script_hash=_hash(script),
                counts=" ".join(
                    f"{formatting.tag(None if name == 'none' else name)} {number:,}"
                    for name in ("fake", "uncertain", "real", "none")
                    if (number := self._verdicts[name])
                ),
                columns="".join(f'<th scope="col">{name}</th>' for name in columns),
                verdicts=_options(self._verdicts),
                statuses=_options(self._statuses),
                many=' class="many"' if num_files > _MANY else "",
                about=self._about,
            )
            .encode(errors="backslashreplace")
        )


def _options(counts: Counter[str]) -> str:
    return "".join(
        f'<option value="{formatting.text(name)}">'
        f"{'no verdict' if name == 'none' else formatting.text(name)} ({number:,})"
        "</option>"
        for name, number in sorted(counts.items())
    )


def _hash(text: str) -> str:
    """As the page's policy names what may run or style it."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _append(spooled: IO[bytes], page: IO[bytes]) -> None:
    spooled.seek(0)
    shutil.copyfileobj(spooled, page, 1 << 20)
