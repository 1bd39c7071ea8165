"""What the builders share: accounts, archives, tasks in threads."""

import hashlib
import itertools
import sys
import threading
import zipfile

import pytest

from building_support import encoded, write
from dfdetect.data.builders import archives, base, streams
from dfdetect.data.builders.account import Account


def _account(*names):
    account = Account()
    for name in names:
        account.counts["n"] += 1
        account.skip(name, "broken")
        account.take(name, name.encode())
    return account


def test_accounts_add_up_in_any_order():
    parts = [_account("c"), _account("a", "d"), _account(), _account("b")]
    wanted = _account("a", "b", "c", "d")
    for order in itertools.permutations(parts):
        total = Account()
        for part in order:
            total.add(part)
        assert total == wanted
    assert wanted.skipped == [f"{name}: broken" for name in "abcd"]
    assert Account.from_json(wanted.to_json()) == wanted


def test_fingerprint_is_the_sum_of_digests():
    def digest(*parts):
        hashed = b"".join(hashlib.sha256(part).digest() for part in parts)
        return int.from_bytes(hashlib.sha256(hashed).digest(), "big")

    account = Account()
    account.take("name", 1, b"bytes")
    account.take("ab", "c")
    wanted = digest(b"name", b"1", b"bytes") + digest(b"ab", b"c")
    assert account.fingerprint == wanted % 2**256
    other = Account()
    other.take("a", "bc")
    assert other.fingerprint != digest(b"ab", b"c")


def test_strict_accounts_stop():
    with pytest.raises(ValueError, match="a.png: broken"):
        Account(strict=True).skip("a.png", "broken")


def test_listed_lines_are_the_first_whatever_the_order():
    forward, backward = Account(), Account()
    for number in range(150):
        forward.skip(f"{number:03d}", "x")
        backward.skip(f"{149 - number:03d}", "x")
    assert forward == backward
    assert forward.counts["n_skipped"] == 150
    assert forward.skipped == [f"{number:03d}: x" for number in range(100)]


def test_hash_shares_out_percentages():
    groups = [f"g{number}" for number in range(2000)]
    shares = {"train": 0, "validation": 0, "test": 0}
    for group in groups:
        shares[base.split_by_hash(group, validation=20, test=5)] += 1
    # 75, 20 and 5 %, within three standard deviations.
    assert abs(shares["train"] - 1500) < 58
    assert abs(shares["validation"] - 400) < 54
    assert abs(shares["test"] - 100) < 30
    # The first 16 digits of `sha256sum` modulo 100: 62 for g0, 95 for g5, 82 for g21.
    assert [base.split_by_hash(g) for g in ("g0", "g5", "g21")] == [
        "train",
        "test",
        "validation",
    ]


def test_folder_and_archive_are_read_alike(tmp_path):
    files = {"a b/c.txt": b"1", "d.txt": b"22", "a b/.hidden": b"", ".x/y": b""}
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        file.writestr("folder/", "")
        for name, content in files.items():
            write(tmp_path / "folder" / name, content)
            file.writestr(name, content)
        file.writestr("__MACOSX/d.txt", b"dirt")
    for root in (tmp_path / "folder", tmp_path / "z.zip"):
        assert archives.list_members(root) == ["a b/c.txt", "d.txt"]
        assert archives.read_member(root, "a b/c.txt") == b"1"
        assert archives.read_member(root, "d.txt") == b"22"
    with pytest.raises(ValueError, match="cannot be read"):
        archives.read_member(tmp_path / "folder", "none.txt")
    write(tmp_path / "no.zip", b"PK but not really")
    with pytest.raises(ValueError, match="no.zip is not a ZIP file"):
        archives.list_members(tmp_path / "no.zip")
    digest = hashlib.sha256((tmp_path / "z.zip").read_bytes()).digest()
    assert archives.hash_file(tmp_path / "z.zip") == digest


@pytest.mark.parametrize("ending", [".jpg", ".png", ".bmp", ".webp"])
def test_images_are_measured_and_named(ending):
    image_bytes = encoded(ending, 6, 9)
    assert base.measure_extent(image_bytes) == (6, 9)
    names = {".jpg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP"}
    assert base.identify_format(image_bytes) == names[ending]
    with pytest.raises(ValueError, match="no image that can be decoded"):
        base.measure_extent(image_bytes[:20])
    assert base.identify_format(b"text") == ""


def _numbers(task, account):
    for number in task:
        account.counts["n"] += 1
        yield str(number), {"number": number}


def test_threads_make_all_records_and_add_up_their_accounts():
    account = Account()
    tasks = [range(start, start + 7) for start in range(0, 700, 7)]
    found = list(
        streams.run_in_threads(
            "train", tasks, process=_numbers, account=account, num_threads=5
        )
    )
    assert sorted(record["number"] for _, record in found) == list(range(700))
    assert account.counts["n"] == 700


def test_an_error_in_a_thread_reaches_the_reader_and_ends_the_others():
    def process(task, account):
        if task == 3:
            raise ValueError("task 3 is broken")
        while True:  # A task without end, as long as somebody reads.
            yield "x", {}

    before = threading.active_count()
    with pytest.raises(ValueError, match="task 3 is broken"):
        list(
            streams.run_in_threads(
                "train", [1, 2, 3], process=process, account=Account(), num_threads=3
            )
        )
    assert threading.active_count() == before


def test_a_reader_that_leaves_ends_the_threads():
    def process(task, account):
        while True:
            yield "x", {}

    before = threading.active_count()
    records = streams.run_in_threads(
        "train", [1, 2], process=process, account=Account(), num_threads=2
    )
    assert next(records) == ("x", {})
    records.close()
    assert threading.active_count() == before


def test_records_ahead_of_the_reader_are_bounded():
    made = []

    def process(task, account):
        for number in range(10_000):
            made.append(number)
            yield str(number), {}

    records = streams.run_in_threads(
        "train", [0], process=process, account=Account(), num_threads=1
    )
    for _ in range(10):
        next(records)
    threading.Event().wait(0.3)
    assert len(made) < 200
    records.close()


def test_a_missing_beam_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"pip install dfdetect\[beam\]"):
        streams.import_beam()
