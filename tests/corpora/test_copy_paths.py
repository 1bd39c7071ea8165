"""Which files get copies, and where."""

import json
import subprocess
import sys

from dfdetect.corpora import copy_paths, shards


def test_copies_that_are_wanted_and_not_there_are_missing(tmp_path):
    shard, folder = shards.Shard(3, 8, ()), str(tmp_path / "copies")
    lines = {
        path: {"path": path, "kind": kind, "verdict": verdict, "heads": heads}
        for path, kind, verdict, heads in (
            ("/a/fake.jpg", "image", "fake", [{}]),
            ("/a/there.png", "image", "uncertain", [{}]),
            ("/b/there.png", "image", "fake", [{}]),
            ("/a/real.png", "image", "real", [{}]),
            ("/a/empty.png", "image", None, []),
            ("/a/clip.mkv", "video", "fake", [{}]),
            ("/a/chart.mkv", "video", "fake", [{}]),
        )
    }
    texts = {path: json.dumps(line) for path, line in lines.items()}

    def missing(write_all):
        return copy_paths.find_missing(shard, texts, folder, write_all=write_all)

    suspicious = {
        path for path, x in lines.items() if x["verdict"] in ("fake", "uncertain")
    }
    assert missing(False) == suspicious
    assert missing(True) == suspicious | {"/a/real.png"}
    (tmp_path / "copies" / "00003").mkdir(parents=True)
    for path, suffix in (
        ("/a/there.png", ".png"),
        ("/a/clip.mkv", ".mp4"),
        ("/a/chart.mkv", ".mp4.png"),
        ("/a/fake.jpg", "-head0.png"),
    ):
        stem = copy_paths.name_stem(folder, shard, path)
        with open(f"{stem}{suffix}", "w", encoding="utf-8"):
            pass
    assert missing(False) == {"/a/fake.jpg", "/b/there.png", "/a/chart.mkv"}


def test_files_are_passed_over_without_tensorflow():
    program = (
        "import sys; from dfdetect.corpora import copy_paths; "
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
