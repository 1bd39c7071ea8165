"""Markdown to HTML that is one file, may be read by a screen reader, and runs nothing.

HTML within the Markdown is text: tags come from Markdown alone.
"""

import base64
import string
import xml.etree.ElementTree as etree
from collections.abc import Mapping

import markdown
import markupsafe
from markdown import extensions, treeprocessors


def convert(text: str, images: Mapping[str, bytes] | None = None) -> markupsafe.Markup:
    """Converts Markdown with tables to HTML.

    A paragraph in bold letters before a table becomes its caption, a quotation a
    warning, and consecutive images with a paragraph each become figures side by side.
    A table whose head is empty has rows of names and values.

    Args:
        text: Markdown. Any punctuation may be escaped by a backslash, as in CommonMark.
        images: PNGs that become part of the HTML, by the names that `text` gives them.
    """
    converter = markdown.Markdown(
        extensions=["tables", _OneFile(images or {})], output_format="html"
    )
    return markupsafe.Markup(converter.convert(text))


class _OneFile(extensions.Extension):
    def __init__(self, images: Mapping[str, bytes]) -> None:
        super().__init__()
        self._images = images

    def extendMarkdown(self, md: markdown.Markdown) -> None:  # noqa: N802
        md.ESCAPED_CHARS = list(string.punctuation)
        md.preprocessors.deregister("html_block")
        md.inlinePatterns.deregister("html")
        # After "inline", which makes the elements, and before "unescape".
        md.treeprocessors.register(_Rearrangement(self._images), "one_file", 5)


class _Rearrangement(treeprocessors.Treeprocessor):
    """Rearranges the elements below the root."""

    def __init__(self, images: Mapping[str, bytes]) -> None:
        super().__init__()
        self._images = images

    def run(self, root: etree.Element) -> None:
        children, root[:] = list(root), []
        plots = None
        for child in children:
            image = child.find("img")
            if image is not None:
                if plots is None:
                    plots = etree.SubElement(root, "div", {"class": "plots"})
                plots.append(self._build_figure(image))
                continue
            plots = None
            if child.tag == "table":
                has_caption = len(root) > 0 and _is_caption(root[-1])
                caption = root[-1] if has_caption else None
                if caption is not None:
                    root.remove(caption)
                root.append(_frame_table(child, caption))
            elif child.tag == "blockquote":
                for paragraph in child:
                    paragraph.attrib |= {"class": "warning", "role": "alert"}
                    root.append(paragraph)
            else:
                root.append(child)

    def _build_figure(self, image: etree.Element) -> etree.Element:
        content = self._images[image.attrib["src"]]
        data = base64.b64encode(content).decode()
        image.set("src", f"data:image/png;base64,{data}")
        figure = etree.Element("figure")
        figure.append(image)
        etree.SubElement(figure, "figcaption").text = image.attrib["alt"]
        return figure


def _is_caption(element: etree.Element) -> bool:
    return (
        element.tag == "p"
        and [child.tag for child in element] == ["strong"]
        and not (element.text or element[0].tail)
    )


def _frame_table(table: etree.Element, caption: etree.Element | None) -> etree.Element:
    """Puts a table into a box that scrolls sideways, and says what its heads head."""
    head, body = table.find("thead"), table.find("tbody")
    if head is not None and not any(_has_content(cell) for cell in head.iter("th")):
        table.remove(head)
        table.set("class", "facts")
    for cell in table.iter("th"):
        cell.set("scope", "col")
    for row in [] if body is None else list(body):
        # The library adds an empty row to a table without rows.
        if body is not None and not any(_has_content(cell) for cell in row):
            body.remove(row)
            continue
        row[0].tag = "th"
        row[0].set("scope", "row")
    if caption is not None:
        caption.tag = "caption"
        table.insert(0, caption)
    frame = etree.Element("div", {"class": "wide", "tabindex": "0"})
    frame.append(table)
    return frame


def _has_content(cell: etree.Element) -> bool:
    return bool((cell.text or "").strip()) or len(cell) > 0
