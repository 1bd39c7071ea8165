"""The layers of the package: imports point down, and few modules are flat."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]

# From the lowest up; those of one line never import each other. See dfdetect/README.md.
LAYERS = (
    {"boxes", "console", "files", "iterators", "labels"},
    {"resumable", "script"},
    {"manifest", "media", "metrics"},
    {"models"},
    {"pipeline"},
    {"data", "retrieval"},
    {"export", "training"},
    {"evaluation", "serving"},
    {"reports"},
    {"corpora"},
    {"cli"},
    {"__main__"},
)
MOST_FLAT = 10


def _imports(path):
    """Returns the names that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _upward():
    levels = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
    for path in sorted((ROOT / "dfdetect").rglob("*.py")):
        own, *_ = path.relative_to(ROOT / "dfdetect").with_suffix("").parts
        for name in _imports(path):
            package, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if package != "dfdetect" or other in ("", "__version__", own):
                continue
            # The package itself imports its front door lazily.
            if name.startswith("dfdetect.export.detector_api") and own == "__init__":
                continue
            if own == "__init__" or levels[other] >= levels[own]:
                yield f"{path.relative_to(ROOT)} imports {name}"


def test_imports_point_down():
    assert not list(_upward())


def test_batches_and_graph_meet_below_both():
    importing = {
        path.name
        for path in (ROOT / "dfdetect/data").rglob("*.py")
        if any(name.startswith("dfdetect.pipeline") for name in _imports(path))
    }
    assert importing == {"crop_heads.py"}


def test_few_modules_lie_flat_and_each_has_a_layer():
    flat = {path.stem for path in (ROOT / "dfdetect").glob("*.py")}
    assert len(flat) <= MOST_FLAT
    rooms = {path.parent.name for path in (ROOT / "dfdetect").glob("*/*.py")}
    assert flat | rooms == {"__init__"}.union(*LAYERS)


def test_scripts_import_no_scripts():
    folders = ("datasets", "serve", "train")
    scripts = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    names = {path.stem for path in scripts} | {*folders}
    for path in scripts:
        assert not names & {name.split(".")[0] for name in _imports(path)}, path
