"""README files: the length of the first one, and that all links exist."""

import pathlib
import re
import subprocess

import pytest

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def _pages() -> list[pathlib.Path]:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=_ROOT, capture_output=True, text=True
    ).stdout.split()
    # A source distribution has no history.
    return [_ROOT / x for x in listed] or sorted(_ROOT.glob("*/**/*.md"))


def _anchors(page: pathlib.Path) -> set[str]:
    """Returns the anchors that GitHub makes of headings, and explicit ones."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", x.lower()).replace(" ", "-") for x in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)"', text))


def test_first_readme_has_at_most_250_lines() -> None:
    text = (_ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250


@pytest.mark.parametrize("page", _pages(), ids=lambda x: str(x.relative_to(_ROOT)))
def test_relative_links_exist(page: pathlib.Path) -> None:
    broken = []
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        if not linked.exists():
            broken.append(target)
        elif anchor and anchor not in _anchors(linked):
            broken.append(target)
    assert not broken
