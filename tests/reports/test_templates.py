import io
import tracemalloc

import jinja2
import markupsafe
import pytest

from dfdetect.reports import templates


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.html").write_text('<b title="{{ x }}">{{ x | twice }}</b>')
    (tmp_path / "parts.html").write_text("{% for x in parts %}{{ x }}{% endfor %}")
    return templates.Templates(tmp_path, {"twice": lambda x: x * 2})


def test_values_are_escaped_and_html_is_not(folder):
    assert (
        folder.render("a.html", x='"<') == '<b title="&#34;&lt;">&#34;&lt;&#34;&lt;</b>'
    )
    inner = folder.render("a.html", x=1)
    assert folder.render("parts.html", parts=[inner, "<i>"]) == inner + "<i>"


def test_a_missing_value_is_an_error(folder):
    with pytest.raises(jinja2.UndefinedError, match="'x' is undefined"):
        folder.render("a.html")


def test_parts_are_written_as_they_come(folder):
    file = io.BytesIO()
    folder.write(file, "parts.html", parts=iter(["ü", "\udcff", "<"]))
    assert file.getvalue() == "ü\\udcff&lt;".encode()
    tracemalloc.start()
    part = markupsafe.Markup("x" * 10**6)
    with open("/dev/null", "wb") as sink:
        folder.write(sink, "parts.html", parts=(part + str(i) for i in range(50)))
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()
