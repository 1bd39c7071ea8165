import subprocess
import sys

import pytest

from dfdetect import console
from dfdetect.cli import main

HEAVY = "tensorflow keras numpy cv2 matplotlib"


def run(*arguments, code=None):
    code = code or "import sys; from dfdetect.cli import main; sys.exit(main.main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "arguments, expected",
    [(["--help"], "detect"), (["detect", "--help"], "PATH"), (["--version"], "0.")],
)
def test_help_answers_without_heavy_imports(arguments, expected):
    code = f"""import sys
from dfdetect.cli import main
try:
    main.main()
finally:
    print([name for name in "{HEAVY}".split() if name in sys.modules])
"""
    done = run(*arguments, code=code)
    assert done.returncode == 0 and done.stderr == ""
    assert expected in done.stdout
    assert done.stdout.endswith("\n[]\n")


def test_without_a_command_it_shows_the_help():
    done = run()
    assert done.returncode == console.USAGE
    assert done.stdout == "" and "COMMAND" in done.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--batch_size", "0"], "a whole number from 1 on, not '0'"),
        (["--batch_size", "1.5"], "a whole number from 1 on, not '1.5'"),
        (["--threshold", "1.01"], "a number from 0 to 1, not '1.01'"),
        (["--threshold", "nan"], "a number from 0 to 1, not 'nan'"),
        (["--thresh", "0.5"], "unknown arguments: --thresh"),
        (["x.jpg", "--explain"], "--explain needs --output DIR or --report FILE"),
        (
            ["x.jpg", "--report", "{tmp}/r.html", "--resume", "{tmp}/j"],
            "--report does not go with --resume",
        ),
        (["{tmp}/empty"], "no images or clips in {tmp}/empty"),
        (
            ["{tmp}/*.jpg", "{tmp}/empty"],
            "no images or clips in {tmp}/*.jpg, {tmp}/empty",
        ),
        (["x.jpg", "--output", "{tmp}/file"], "--output must be a folder: {tmp}/file"),
        (["{tmp}/file", "--output", "{tmp}"], "{tmp}/file lies in the output folder"),
        (
            ["x.jpg", "--model", "{tmp}/empty"],
            "--model: {tmp}/empty is not a graph of dfdetect: it must be a folder with "
            "a saved_model.pb, or one of versions named by numbers, got neither.",
        ),
        (["x.jpg", "--model", "{tmp}/foreign"], "--model: "),
        (
            ["x.jpg", "--classifier", "{tmp}/empty", "--model", "{tmp}/empty"],
            "--classifier does not go with --model: a graph has its own",
        ),
        (
            ["x.jpg", "--classifier", "{tmp}/none"],
            "a folder with a manifest.json: No such file or directory: {tmp}/none/",
        ),
        (
            ["x.jpg", "--classifier", "{tmp}/file"],
            "--classifier: {tmp}/file must be a folder with a manifest.json, or a file",
        ),
    ],
)
def test_usage_errors_are_one_line(arguments, message, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "saved_model.pb").write_text("")
    with pytest.raises(SystemExit) as stop:
        main.main(["detect", *(x.format(tmp=tmp_path) for x in arguments)])
    assert stop.value.code == console.USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message.format(tmp=tmp_path) in shown.err
    assert shown.err.count("\n") == 1
