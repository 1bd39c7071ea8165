"""Pages that people send each other: one set of sections as Markdown and as HTML.

The HTML is one file that needs no other and no network: images are inside, there is
no script, and it is readable on a phone, on paper and in the dark.
"""

import base64
import dataclasses
import html
import re
from collections.abc import Sequence

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; --warn: #c33; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto;
  padding: 1rem; }
h1, h2, h3 { line-height: 1.2; }
h2 { border-top: 1px solid var(--line); padding-top: 1rem; margin-top: 2.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0 1rem; }
caption { text-align: left; font-weight: bold; padding: .3rem 0; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top; font-variant-numeric: tabular-nums; }
.facts td { overflow-wrap: anywhere; }
thead th { background: var(--soft); }
.warning { border: 2px solid var(--warn); border-left-width: .6rem; padding: .6rem 1rem;
  border-radius: .3rem; margin: .6rem 0; font-weight: bold; overflow-wrap: anywhere; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; flex: 1 1 18rem; max-width: 26rem; }
img { width: 100%; height: auto; background: #fff; border-radius: .3rem; }
figcaption { font-size: .85rem; }
@media print { body { max-width: none; font-size: 11px; }
  figure, tr, .warning { break-inside: avoid; } .wide { overflow: visible; } }
"""


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; a warning stands out."""

    text: str
    is_warning: bool = False


@dataclasses.dataclass(frozen=True)
class Link:
    """A table's cell that leads to a section of the same page, by its title."""

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
    """A PNG, and the name of the file that the Markdown shows."""

    file_name: str
    content: bytes
    caption: str


Block = Text | Table | Image


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in order."""

    title: str
    blocks: Sequence[Block]


def images(sections: Sequence[Section]) -> dict[str, bytes]:
    """The files that the Markdown shows, by name."""
    blocks = [block for section in sections for block in section.blocks]
    return {b.file_name: b.content for b in blocks if isinstance(b, Image)}


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """The page as Markdown; its images lie beside it, see `images`."""
    lines = [f"# {_plain(title)}", ""]
    for section in sections:
        lines += [f'<a id="{_anchor(section.title)}"></a>', ""]
        lines += [f"## {_plain(section.title)}", ""]
        for block in section.blocks:
            lines += [*_markdown(block), ""]
    return "\n".join(lines)


def to_html(title: str, sections: Sequence[Section]) -> str:
    """The page as one file of HTML."""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{_STYLE}</style>\n</head>\n<body>",
            f"<h1>{html.escape(title)}</h1>",
            sections_html(sections),
            "</body>\n</html>\n",
        ]
    )


def sections_html(sections: Sequence[Section]) -> str:
    """The sections as HTML, for a page of one's own."""
    parts = []
    for section in sections:
        parts.append(f'<section id="{_anchor(section.title)}">')
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        inside = False
        for block in section.blocks:
            if isinstance(block, Image) != inside:
                parts.append("</div>" if inside else '<div class="plots">')
                inside = not inside
            parts += _html(block)
        parts += ["</div>"] * inside + ["</section>"]
    return "\n".join(parts)


def _markdown(block: Block) -> list[str]:
    if isinstance(block, Text):
        text = _plain(block.text)
        return [f"> **Warning:** {text}" if block.is_warning else text]
    if isinstance(block, Image):
        return [f"![{_plain(block.caption)}]({block.file_name})"]
    width = len(block.columns or block.rows[0])
    lines = [f"**{_plain(block.caption)}**", ""] if block.caption else []
    lines.append(_row(block.columns or [""] * width))
    lines.append("|" + "---|" * width)
    return lines + [_row(row) for row in block.rows]


def _row(cells: Sequence[str | Link]) -> str:
    texts = [
        f"[{_plain(cell.text)}](#{_anchor(cell.title)})"
        if isinstance(cell, Link)
        else _plain(cell)
        for cell in cells
    ]
    return f"| {' | '.join(texts)} |"


def _html(block: Block) -> list[str]:
    if isinstance(block, Text):
        kind = ' class="warning" role="alert"' if block.is_warning else ""
        return [f"<p{kind}>{html.escape(block.text)}</p>"]
    if isinstance(block, Image):
        content = base64.b64encode(block.content).decode()
        caption = html.escape(block.caption)
        return [
            f'<figure><img alt="{caption}" src="data:image/png;base64,{content}">',
            f"<figcaption>{caption}</figcaption></figure>",
        ]
    kind = "" if block.columns else ' class="facts"'
    lines = [f'<div class="wide"><table{kind}>']
    if block.caption:
        lines.append(f"<caption>{html.escape(block.caption)}</caption>")
    if block.columns:
        cells = "".join(f'<th scope="col">{html.escape(c)}</th>' for c in block.columns)
        lines.append(f"<thead><tr>{cells}</tr></thead>")
    lines.append("<tbody>")
    for first, *others in block.rows:
        cells = "".join(f"<td>{_cell(cell)}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{_cell(first)}</th>{cells}</tr>')
    return [*lines, "</tbody></table></div>"]


def _cell(cell: str | Link) -> str:
    if isinstance(cell, Link):
        return f'<a href="#{_anchor(cell.title)}">{html.escape(cell.text)}</a>'
    return html.escape(cell)


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"


def _plain(text: str) -> str:
    """On one line, with nothing that Markdown would take for its own."""
    # Underlines within words, and brackets before no other, are plain as they are.
    return re.sub(
        r"([\\`*<>|]|(?<!\w)_|_(?!\w)|\](?=[(\[:]))", r"\\\1", " ".join(text.split())
    )
