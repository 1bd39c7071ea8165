import hashlib
import zipfile

import pytest

from building_support import (
    builder_class,
    cut,
    draw_deepfake_challenge,
    encoded,
    prepare,
    records,
    snapshot,
    write,
)

DeepfakeChallenge = builder_class("deepfake_challenge")


@pytest.fixture(scope="module")
def challenge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("challenge")
    root = folder / "manual"
    draw_deepfake_challenge(root)
    before = snapshot(root)
    return root, before, prepare(DeepfakeChallenge(data_dir=folder / "data"), root)


def test_records_keep_what_the_file_was(challenge):
    root, _, builder = challenge
    found = {
        name: record
        for split in builder.info.splits
        for name, record in records(builder, split).items()
    }
    assert len(found) == 60
    assert found["0-CelebA/000003.jpg"]["image"] == (
        (root / "0-CelebA/000003.jpg").read_bytes()
    )
    with zipfile.ZipFile(root / "1-GDWCT.zip") as file:
        zipped = file.read("1-GDWCT/7.png")
    assert found["1-GDWCT/7.png"]["image"] == zipped
    kinds = {
        "0-CelebA": (0, b"CelebA", 178, 218, b"JPEG"),
        "1-STYLEGAN": (1, b"STYLEGAN", 32, 32, b"PNG"),
        "1-GDWCT": (1, b"GDWCT", 21, 21, b"PNG"),
    }
    for name, record in found.items():
        part, file_name = name.split("/")
        assert kinds[part] == tuple(
            record[key] for key in ("label", "source", "width", "height", "format")
        )
        assert record["num_bytes"] == len(record["image"])
        group = f"{part[2:]}/{file_name.split('.')[0]}"
        assert record["group"].decode() == group


def test_split_is_a_hash_of_the_group(challenge):
    for split in challenge[2].info.splits:
        for record in records(challenge[2], split).values():
            digest = hashlib.sha256(record["group"]).hexdigest()
            percent = int(digest[:16], 16) % 100
            expected = "train" if percent < 80 else "validation"
            assert split == ("test" if percent >= 90 else expected)


def test_metadata(challenge):
    metadata = challenge[2].info.metadata
    assert metadata["totals"] == {
        "real": 20,
        "fake": 40,
        "source/CelebA": 20,
        "source/STYLEGAN": 20,
        "source/GDWCT": 20,
        "n_skipped": 1,
    }
    skipped = [line for lines in metadata["skipped"].values() for line in lines]
    assert skipped == [
        "1-STYLEGAN/broken.png: no image that can be decoded: PNG, cut short or damaged"
    ]


def test_source_is_untouched(challenge):
    root, before, _ = challenge
    assert snapshot(root) == before


def test_zip_files_and_folders_give_the_same(challenge, tmp_path):
    root, _, builder = challenge
    for part in ("0-CelebA", "1-STYLEGAN"):
        with zipfile.ZipFile(tmp_path / f"{part}.zip", "w") as file:
            for path in (root / part).iterdir():
                file.write(path, path.name)  # without the folder inside
    (tmp_path / "1-GDWCT.zip").write_bytes((root / "1-GDWCT.zip").read_bytes())
    zipped = prepare(DeepfakeChallenge(data_dir=tmp_path / "data"), tmp_path)
    assert zipped.info.metadata["fingerprint"] == builder.info.metadata["fingerprint"]
    assert zipped.info.metadata["totals"] == builder.info.metadata["totals"]


def test_a_damaged_member_of_a_zip_file_is_skipped(tmp_path):
    images = [encoded(".png", 21, 21, number) for number in range(20)]
    with zipfile.ZipFile(tmp_path / "1-GDWCT.zip", "w") as file:
        for number, image in enumerate(images):
            file.writestr(f"{number}.png", image)
    content = (tmp_path / "1-GDWCT.zip").read_bytes()
    broken = content.replace(images[4], images[4][:-9] + b"\0" * 9)
    (tmp_path / "1-GDWCT.zip").write_bytes(broken)
    builder = prepare(DeepfakeChallenge(data_dir=tmp_path / "data"), tmp_path)
    assert builder.info.metadata["totals"]["fake"] == 19
    skipped = [s for lines in builder.info.metadata["skipped"].values() for s in lines]
    assert len(skipped) == 1 and skipped[0].startswith("1-GDWCT/4.png: cannot be read")


def test_an_empty_part_is_an_error(tmp_path):
    write(tmp_path / "0-FFHQ/readme.txt", "no images yet")
    with pytest.raises(ValueError, match="no image in .*0-FFHQ"):
        prepare(DeepfakeChallenge(data_dir=tmp_path / "data"), tmp_path)


def test_an_empty_folder_says_what_is_wanted(tmp_path):
    message = "has none of the parts; missing: 0-CelebA, .*Wanted: any of .*unict"
    with pytest.raises(FileNotFoundError, match=message):
        prepare(DeepfakeChallenge(data_dir=tmp_path / "data"), tmp_path)


def test_a_zip_file_that_was_cut_is_named(tmp_path):
    draw_deepfake_challenge(tmp_path)
    cut(tmp_path / "1-GDWCT.zip")
    with pytest.raises(
        ValueError, match="1-GDWCT.zip is not a ZIP file, or was not down"
    ):
        prepare(DeepfakeChallenge(data_dir=tmp_path / "data"), tmp_path)
