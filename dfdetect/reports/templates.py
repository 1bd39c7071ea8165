"""HTML from Jinja2 templates; every value that they are given is escaped."""

import os
from collections.abc import Callable, Mapping
from typing import IO, Any

import jinja2
import markupsafe


class Templates:
    """The templates of one folder, each read when it is first needed.

    Only `markupsafe.Markup`, which is what `render` returns, is written as it is. A
    name without a value is an error.

    Args:
        folder: Folder of the templates.
        filters: Functions by the names under which templates apply them to a value.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        filters: Mapping[str, Callable[..., object]] | None = None,
    ) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folder),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(filters or {})

    def render(self, name: str, **values: Any) -> markupsafe.Markup:
        """Returns the HTML of a template."""
        return markupsafe.Markup(self._environment.get_template(name).render(values))

    def write(self, file: IO[bytes], name: str, **values: Any) -> None:
        """Writes the HTML of a template piece by piece, as UTF-8.

        Iterators among the values are consumed as they are written, so that the whole
        is never in memory. Characters that UTF-8 has no bytes for are written as
        backslash escapes.
        """
        stream = self._environment.get_template(name).stream(values)
        stream.dump(file, encoding="utf-8", errors="backslashreplace")
