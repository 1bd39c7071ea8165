"""Documents of sections, as Markdown and as one self-contained file of HTML.

The HTML needs no other file and no network: images are embedded and there is no
script. It is readable on a phone, on paper and in the dark.
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import markupsafe

from dfdetect.reports import markdown_html, templates

_TEMPLATES = templates.Templates(pathlib.Path(__file__).parent)


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; a warning stands out."""

    text: str
    is_warning: bool = False


@dataclasses.dataclass(frozen=True)
class Link:
    """A cell of a table that links to a section of the same document, by its title."""

    text: str
    title: str


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows below a head; without `columns`, rows of names and values."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Link]]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Image:
    """A PNG, and the name of the file by which the Markdown refers to it."""

    file_name: str
    content: bytes
    caption: str


Block = Text | Table | Image


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and the blocks below it, in order."""

    title: str
    blocks: Sequence[Block]


def collect_images(sections: Sequence[Section]) -> dict[str, bytes]:
    """Returns the files that the Markdown refers to, by name."""
    blocks = [block for section in sections for block in section.blocks]
    return {b.file_name: b.content for b in blocks if isinstance(b, Image)}


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """Returns the document as Markdown; `collect_images` gives its images."""
    lines = [f"# {_escape(title)}", ""]
    for section in sections:
        lines += [f'<a id="{_anchor(section.title)}"></a>', ""]
        lines += _section_lines(section)
    return "\n".join(lines)


def to_html(title: str, sections: Sequence[Section]) -> str:
    """Returns the document as one file of HTML, converted from its Markdown."""
    return _TEMPLATES.render(
        "document.html",
        title=title,
        sections=render_sections(sections),
    )


def render_sections(sections: Sequence[Section]) -> markupsafe.Markup:
    """Returns the sections as HTML, as a part of another page."""
    images = collect_images(sections)
    converted = [
        (
            _anchor(section.title),
            markdown_html.convert("\n".join(_section_lines(section)), images),
        )
        for section in sections
    ]
    return _TEMPLATES.render("sections.html", sections=converted)


def _section_lines(section: Section) -> list[str]:
    lines = [f"## {_escape(section.title)}", ""]
    for block in section.blocks:
        lines += [*_block_lines(block), ""]
    return lines


def _block_lines(block: Block) -> list[str]:
    if isinstance(block, Text):
        text = _escape(block.text)
        if block.is_warning:
            return [f"> **Warning:** {text}"]
        # Else the paragraph could be a heading or an item of a list.
        return [re.sub(r"^(\d*)([#+=.)-])", r"\1\\\2", text)]
    if isinstance(block, Image):
        return [f"![{_escape(block.caption)}]({block.file_name})"]
    width = len(block.columns or block.rows[0])
    lines = [f"**{_escape(block.caption)}**", ""] if block.caption else []
    lines.append(_table_row(block.columns or [""] * width))
    lines.append("|" + "---|" * width)
    return lines + [_table_row(row) for row in block.rows]


def _table_row(cells: Sequence[str | Link]) -> str:
    texts = [
        f"[{_escape(cell.text)}](#{_anchor(cell.title)})"
        if isinstance(cell, Link)
        else _escape(cell)
        for cell in cells
    ]
    return f"| {' | '.join(texts)} |"


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"


def _escape(text: str) -> str:
    """Puts text on one line and escapes what Markdown would interpret."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", " ".join(text.split()))
    # Underscores within words, and brackets before no other, stay as they are.
    return re.sub(r"([\\`*<>|]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:]))", r"\\\1", text)
