"""Records of a prepared split, one by one and in any order."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

import labelled_images
from dfdetect import labels
from dfdetect.data import (
    batches,
    classifier_input,
    crop_cache,
    record_index,
    sampling,
)
from dfdetect.data import prepared as data
from dfdetect.data import records as records_module
from dfdetect.data.batches import NAME, Batches
from dfdetect.media import decode, resize


@pytest.fixture(scope="module")
def faces(prepared):
    return data.open_builder(str(prepared), "labeled_faces")


def test_records_are_those_that_tfds_reads(faces):
    index = record_index.RecordIndex(faces, "train")
    expected = {e[NAME].numpy().decode(): e for e in data.read_encoded(faces, "train")}
    assert len(expected) == len(index.catalog.labels) == 8
    for place in (5, 0, 7, 2):
        example = tf.train.Example.FromString(index.read(place)).features.feature
        record = expected[index.name(place)]
        assert example["image"].bytes_list.value[0] == record["image"].numpy()
        assert index.catalog.labels[place] == record["label"].numpy()
        assert index.catalog.origins[place] == record["group"].numpy().decode()


def test_batches_hold_what_the_sampler_says(faces):
    index = record_index.RecordIndex(faces, "train")
    sampler = sampling.Sampler([index.catalog], 4, seed=0, mode="pairs")
    source = record_index.SampledRecords([index], sampler, batch_size=4)
    assert source.size == 8
    for first in (0, 8):
        draws = [sampler.batch(first // 4), sampler.batch(first // 4 + 1)]
        records = np.concatenate([d.records for d in draws])
        found = [example for (example,) in source.from_index(first).take(8)]
        assert [e[NAME].numpy().decode() for e in found] == [*map(index.name, records)]
        truths = [e["label"].numpy() for e in found]
        np.testing.assert_array_equal(truths, index.catalog.labels[records])


@pytest.mark.parametrize("mode", ["balanced", "pairs"])
def test_batches_of_another_size_are_read_from_where_the_former_ended(mode, faces):
    index = record_index.RecordIndex(faces, "train")

    def build(size):
        sampler = sampling.Sampler([index.catalog], size, seed=0, mode=mode)
        source = record_index.SampledRecords([index], sampler, batch_size=size)
        return sampler, Batches(source, lambda _, example: example[NAME], size, seed=0)

    _, former = build(4)
    sampler, later = build(6)
    # Two batches of 4 are one and a third of 6.
    later = later.placed(2, former.position(2))
    assert [later.position(step) for step in (2, 3)] == [8, 14]
    for step, names in zip((2, 3), later.from_step(2).take(2), strict=True):
        records = sampler.batch_at(later.position(step)).records
        wanted = [*map(index.name, records)]
        assert [name.decode() for name in names.numpy()] == wanted


def test_a_blended_real_is_a_fake_and_looks_different(faces):
    def batches(share, mode="pairs"):
        return classifier_input.build_training_batches(
            [faces],
            "train",
            image_size=71,
            batch_size=4,
            seed=0,
            augmentation="none",
            sampling_mode=mode,
            self_blended=share,
        )

    (crops, truths), *_ = batches(1.0).from_step(0).take(1)
    assert sorted(truths.numpy()) == [0, 0, 1, 1]
    files = [
        resize.resize(decode.decode_image(e["image"]), 71)
        for e in data.read_encoded(faces, "train")
        if e["label"] == labels.REAL
    ]
    distance = [
        min(float(tf.reduce_mean(tf.abs(crop - file))) for file in files)
        for crop in crops
    ]
    real = truths.numpy() == 0
    assert max(np.array(distance)[real]) < 0.01
    assert min(np.array(distance)[~real]) > 0.1


def test_data_sets_are_mixed(faces, tmp_path):
    image = tf.io.encode_png(tf.zeros([8, 8, 3], tf.uint8)).numpy()
    images = [(f"{i}.png", i % 2, image) for i in range(4)]
    black = labelled_images.prepare(tmp_path, {"train": images})
    batches = classifier_input.build_training_batches(
        [faces, black],
        "train",
        image_size=32,
        batch_size=8,
        seed=0,
        augmentation="forensic",
        sampling_mode="balanced",
        weights=[1, 1],
    )
    for crops, truths in batches.from_step(0).take(2):
        assert truths.numpy().sum() == 4
        assert crops.shape == (8, 32, 32, 3)
        assert 0 <= crops.numpy().min() and crops.numpy().max() <= 255


def test_each_head_of_a_image_is_a_real_one_of_its_own(prepared):
    builder = data.open_builder(str(prepared), "hollywood_heads")
    index = record_index.RecordIndex(builder, "train")
    images = {e[NAME].numpy().decode(): e for e in data.read_encoded(builder, "train")}
    boxes = {name: e["objects"]["bbox"].numpy().tolist() for name, e in images.items()}
    number = len(index.catalog.labels)
    assert number == sum(map(len, boxes.values())) > 4
    assert set(index.catalog.labels) == {labels.REAL}
    for place in range(number):
        assert index.box(place).tolist() in boxes[index.name(place)]
    # The drawn heads have sides of 16 to 32 px, the images of 160 x 96.
    larger = record_index.RecordIndex(builder, "train", least_side=25)
    sides = [
        max((box[2] - box[0]) * 96, (box[3] - box[1]) * 160)
        for found in boxes.values()
        for box in found
    ]
    assert 0 < len(larger.catalog.labels) == sum(side >= 25 for side in sides)


def test_heads_that_the_graph_would_judge_are_reals_to_measure(prepared):
    builder = data.open_builder(str(prepared), "hollywood_heads")
    batches = list(
        classifier_input.build_real_batches(
            builder, "train", image_size=100, batch_size=3, crop_margin=1.0
        )
    )
    # Of sides of at least a quarter of 100 px.
    larger = record_index.RecordIndex(builder, "train", least_side=25)
    assert sum(len(truths) for _, truths in batches) == len(larger.catalog.labels) > 0
    for crops, truths in batches:
        assert crops.shape[1:] == (100, 100, 3) and not truths.numpy().any()
        middles = crops.numpy()[:, 45:55, 45:55]
        expected = np.broadcast_to([220, 170, 120], middles.shape)
        np.testing.assert_allclose(middles, expected, atol=12)
    faces = data.open_builder(str(prepared), "labeled_faces")
    with pytest.raises(ValueError, match="labeled_faces must have labels or head box"):
        classifier_input.build_real_batches(
            faces, "train", image_size=100, batch_size=3
        )


def test_heads_are_cut_from_their_images_and_blended(prepared):
    builder = data.open_builder(str(prepared), "hollywood_heads")
    batches = classifier_input.build_training_batches(
        [builder],
        "train",
        image_size=32,
        batch_size=4,
        seed=0,
        augmentation="none",
        sampling_mode="pairs",
        self_blended=0.5,
        crop_margin=1.0,
    )
    (crops, truths), *_ = batches.from_step(0).take(1)
    assert sorted(truths.numpy()) == [0, 0, 1, 1]
    # A bright disc fills the square around it, corners left out.
    centers = crops.numpy()[truths.numpy() == 0, 12:20, 12:20]
    np.testing.assert_allclose(
        centers, np.broadcast_to([220, 170, 120], centers.shape), atol=12
    )
    corners = crops.numpy()[truths.numpy() == 0, :2, :2]
    assert corners.mean() < 80


# A memory that takes a part both keeps crops and makes others anew.
@pytest.mark.parametrize(
    "share",
    [
        pytest.param(0.0, marks=pytest.mark.slow),
        0.4,
        pytest.param(1.0, marks=pytest.mark.slow),
    ],
)
def test_batches_are_the_same_with_crops_in_memory(prepared, faces, share):
    """Heads of images among them, and a memory for some of them alone."""
    builders = [faces, data.open_builder(str(prepared), "hollywood_heads")]
    crops = sum(
        len(record_index.RecordIndex(builder, "train", least_side=8).catalog.labels)
        for builder in builders
    )
    most = round(share * crops * 100 * 100 * 3)
    settings = {
        "image_size": 32,
        "batch_size": 4,
        "seed": 0,
        "sampling_mode": "balanced",
        "self_blended": 0.3,
        "crop_margin": 1.2,
    }
    plain = classifier_input.build_training_batches(builders, "train", **settings)
    plain = plain.from_step(0).take(9)
    batches = classifier_input.build_training_batches(
        builders, "train", **settings, cache_bytes=most
    )
    for _ in range(2):  # What is kept serves another iterator, too.
        for expected, found in zip(plain, batches.from_step(0).take(9), strict=True):
            for one, other in zip(expected, found, strict=True):
                np.testing.assert_array_equal(one, other)


def test_a_memory_for_crops_takes_what_fits():
    cache = crop_cache.CropCache(most_bytes=150)
    keep = tf.function(cache.keep)
    crops = {number: tf.fill([5, 5, 3], tf.cast(number, tf.uint8)) for number in (1, 2)}
    small = tf.fill([2, 2, 3], tf.cast(3, tf.uint8))
    for number, crop in (*crops.items(), (1, crops[1]), (3, small)):
        kept = keep(tf.constant([0, number], tf.int64), crop)
        np.testing.assert_array_equal(kept, crop)
    assert cache.get((0, 2)) is cache.get((1, 1)) is None
    np.testing.assert_array_equal(decode.unpack(cache.get((0, 1))), crops[1])
    np.testing.assert_array_equal(decode.unpack(cache.get((0, 3))), small)


def test_what_is_no_set_of_labeled_images_is_refused(faces, tmp_path):
    class Images(labelled_images.LabelledImages, skip_registration=True):
        VERSION = "1.0.0"
        lacking = ("label",)

    image = tf.io.encode_png(tf.zeros([8, 8, 3], tf.uint8)).numpy()
    bare = labelled_images.prepare(tmp_path, {"train": [("a", 0, image)]}, Images)
    with pytest.raises(ValueError, match="must have images with a label or objects"):
        record_index.RecordIndex(bare, "train")
    with pytest.raises(ValueError, match="augmentation must be one of .*'some'"):
        classifier_input.build_training_batches(
            [faces], "train", image_size=32, batch_size=8, seed=0, augmentation="some"
        )


def _cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def _drop_the_last_record(path):
    """Cut where a record ends: only the number of records tells."""
    kept = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())[:-1]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in kept:
            writer.write(record)


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda path: _cut(path, 5000), "is damaged"),
        (_drop_the_last_record, "7 of 8 records"),
        (lambda path: path.unlink(), "is damaged .*No such file"),
    ],
)
def test_a_damaged_file_of_a_set_is_named(prepared, tmp_path, spoil, reason):
    shutil.copytree(prepared / "labeled_faces", tmp_path / "labeled_faces")
    (path,) = (tmp_path / "labeled_faces").rglob("*train.tfrecord*")
    spoil(path)
    builder = data.open_builder(str(tmp_path), "labeled_faces")
    for read in (
        lambda: record_index.RecordIndex(builder, "train"),
        lambda: records_module.check_files(builder, "train"),
    ):
        with pytest.raises(ValueError, match=f"^{path} .*{reason}") as raised:
            read()
        assert "\n" not in str(raised.value)
    records_module.check_files(builder, "validation")


def test_a_changed_byte_is_told_when_its_record_is_read(prepared, tmp_path):
    shutil.copytree(prepared / "labeled_faces", tmp_path / "labeled_faces")
    (path,) = (tmp_path / "labeled_faces").rglob("*train.tfrecord*")
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(bytes(content))
    builder = data.open_builder(str(tmp_path), "labeled_faces")
    index = record_index.RecordIndex(builder, "train")
    assert len(index.read(7)) > 1000  # The others can be read.
    with pytest.raises(ValueError, match=f"^{path} is damaged .the record at byte 12 "):
        index.read(0)
    with pytest.raises(ValueError, match=f"^{path} .*is damaged"):
        records_module.check_files(builder, "train")


@pytest.mark.parametrize("mode, self_blended", [("natural", 0.0), ("pairs", 0.5)])
def test_workers_read_their_share_of_each_batch_alone(faces, mode, self_blended):
    index = record_index.RecordIndex(faces, "train")
    sampler = sampling.Sampler(
        [index.catalog], 4, seed=0, mode=mode, self_blended=self_blended
    )
    source = record_index.SampledRecords([index], sampler, batch_size=4)
    whole = list(source.from_index(8).take(12).as_numpy_iterator())
    read = []
    index.read_several = lambda places, real=index.read_several: (
        read.append(len(places)) or real(places)
    )
    for place in range(2):
        share = batches.Share(2, place)
        found = list(source.from_index(8, share).take(6).as_numpy_iterator())
        for (one,), (other,) in zip(whole[place::2], found, strict=True):
            assert one.keys() == other.keys()
            for name, value in one.items():
                np.testing.assert_array_equal(value, other[name])
    assert read and set(read) == {2}  # Of the four records of a batch.
