import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

import dfdetect

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the checkout: building leaves files behind."""
    copy = tmp_path_factory.mktemp("checkout") / "dfdetect"
    shutil.copytree(
        ROOT,
        copy,
        ignore=shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info"),
    )
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(copy)],
        check=True,
        capture_output=True,
    )
    (path,) = (copy / "dist").glob("*.whl")
    return path


def test_wheel_holds_the_package_only(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    metadata = f"dfdetect-{dfdetect.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"dfdetect", metadata}
    for source in (ROOT / "dfdetect").rglob("*.py"):
        assert str(source.relative_to(ROOT)) in names


def test_wheel_holds_the_default_weights(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for part in ("detector", "classifier", "content"):
        if not (ROOT / "dfdetect" / "default_weights" / part).exists():
            pytest.skip(f"no default weights of the {part} yet")
        for name in ("manifest.json", "weights.npz"):
            assert f"dfdetect/default_weights/{part}/{name}" in names


def test_wheel_holds_the_schema_of_result_lines(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "dfdetect/schema/result.schema.json" in names


def test_wheel_holds_the_page_to_try_a_model(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    files = list((ROOT / "dfdetect" / "serving" / "demo").iterdir())
    assert {file.suffix for file in files} == {".html", ".css", ".js", ".svg"}
    for file in files:
        assert str(file.relative_to(ROOT)) in names


def test_wheel_holds_the_templates_of_reports(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    files = [
        file
        for kind in ("html", "css", "js")
        for file in (ROOT / "dfdetect" / "reports").rglob(f"*.{kind}")
    ]
    assert {"document.html", "page.html", "page.js", "style.css"} <= {
        file.name for file in files
    }
    for file in files:
        assert str(file.relative_to(ROOT)) in names


def test_wheel_brings_the_command_and_the_core(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = f"dfdetect-{dfdetect.__version__}.dist-info"
    entry_points = archive.read(f"{metadata}/entry_points.txt").decode()
    assert "dfdetect = dfdetect.cli.main:main" in entry_points
    lines = archive.read(f"{metadata}/METADATA").decode().splitlines()
    core = {
        line.removeprefix("Requires-Dist: ")
        for line in lines
        if line.startswith("Requires-Dist: ") and "extra ==" not in line
    }
    assert {"tensorflow==2.20.*", "keras-cv==0.9.*", "scann==1.4.2"} <= core
    assert not any(line.startswith("tensorflow-cpu") for line in core)
