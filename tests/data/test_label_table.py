"""`labels.csv` as spreadsheets, scripts and people leave it."""

import pytest

from dfdetect.data import label_table

TEXT = "path,label,split,group\nmüll/a.png,real,train,Zoë\nb.png,fake,val,Zoë\n"
ROWS = [
    ("müll/a.png", 0, "train", "Zoë", "t/labels.csv:2"),
    ("b.png", 1, "validation", "Zoë", "t/labels.csv:3"),
]


def _read(content, files=("müll/a.png", "b.png"), **more):
    said = []
    rows = label_table.read_table(
        content,
        "t/labels.csv",
        exists=lambda path: path in files,
        say=said.append,
        **more,
    )
    return [(r.path, r.label, r.split, r.group, r.where) for r in rows], said


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_encodings_are_told_by_their_content(encoding):
    assert _read(TEXT.encode(encoding)) == (ROWS, [])


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_a_code_page_is_guessed_and_the_line_told(encoding):
    rows, said = _read(TEXT.encode(encoding))
    assert rows == ROWS
    assert len(said) == 1 and said[0].startswith("t/labels.csv:2 is not UTF-8")


@pytest.mark.parametrize("before", ["\n", " \n\n", "sep=;\n", "SEP=;\r\n"])
def test_lines_before_the_header_are_passed_over(before):
    text = TEXT.replace(",", ";") if "=" in before else TEXT
    rows, said = _read((before + text).encode())
    assert [row[:4] for row in rows] == [row[:4] for row in ROWS] and not said
    assert rows[0][4] == f"t/labels.csv:{2 + before.count(chr(10))}"


@pytest.mark.parametrize("content", [bytes(range(256)) * 9, b"\x89PNG\r\n\x1a\n\0\0\0"])
def test_a_binary_file_is_told_in_one_printable_line(content):
    with pytest.raises(ValueError, match="a table of text, got a binary file") as error:
        _read(content)
    assert str(error.value).isprintable()


def test_a_strange_header_is_cut_and_printable():
    with pytest.raises(ValueError, match="columns must be") as error:
        _read(b"\x1b[31m" + b"x" * 500 + b"\n1\n")
    assert str(error.value).isprintable() and len(str(error.value)) < 250


def test_damaged_utf_16_names_file_and_line():
    content = TEXT.encode("utf-16-le")
    with pytest.raises(ValueError, match="t/labels.csv:3: damaged UTF-16-LE.*as UTF-8"):
        _read(content[:-1])


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace(",", ";"),
        TEXT.replace(",", "\t"),
        TEXT.replace(",", ", "),
        TEXT.replace(",", " , ").replace("\n", " \r\n"),
        TEXT.replace("real", "REAL").replace("fake", "Fake"),
        TEXT.replace("real", "0").replace("fake", "1.0"),
        TEXT.replace(",val,", ",valid,").replace(",train,", ",Training,"),
        TEXT.replace("path,label", "Path,LABEL"),
        TEXT.replace("\n", "\n\n") + ",,,\n",
        TEXT.replace("müll/", "müll\\"),
        TEXT.replace("müll/a.png", '"müll/a.png"'),
    ],
)
def test_what_people_write_is_the_same_table(text):
    rows, said = _read(text.encode())
    assert [row[:4] for row in rows] == [row[:4] for row in ROWS] and said == []


def test_further_columns_are_ignored_and_told():
    lines = TEXT.splitlines()
    text = "\n".join([f"{lines[0]},method,age", *(f"{x},f2f,4" for x in lines[1:])])
    rows, said = _read(text.encode())
    assert rows == ROWS
    assert said == ["t/labels.csv: the columns 'method', 'age' are ignored"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("path\nb.png\n", "csv:1: columns must be path,label and may be split,group"),
        ("", "csv:1: columns must be .*got none"),
        ("path,label\nb.png,genuine\n", "csv:2: label must be .*'genuine'"),
        ("path,label,split\nb.png,0,holdout\n", "csv:2: split must be .*'holdout'"),
        ("path,label\nb.png\n", "csv:2: the number of fields .*1 for 2"),
        ("path,label\n/b.png,real\n", "csv:2: path must lead into"),
        ("path,label\nx/../b.png,real\n", "csv:2: path must lead into"),
        ("path,label\nnone.png,real\n", "csv:2: there is no file 'none.png'"),
        ("path,label\nb.png,0\nb.png,1\n", "csv:3: .*in line 2 already"),
        ("path,label\nb.png,0\n.//b.png,1\n", "csv:3: .*in line 2 already"),
        ("path,label\n", "csv: no files listed"),
    ],
)
def test_errors_name_file_and_line(text, message):
    with pytest.raises(ValueError, match=message):
        _read(text.encode())


def test_a_quote_that_is_never_closed_is_told_with_its_line():
    content = 'path,label\nb.png,fake\n"a.png,real\n' + "x.png,real\n" * 20_000
    with pytest.raises(ValueError, match=r"t/labels.csv:3: .*is a quote left open\?"):
        _read(content.encode())
