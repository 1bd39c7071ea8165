import collections
import dataclasses

import cv2
import numpy as np
import pytest
import tensorflow as tf

from dfdetect.data import (
    classifier_input,
    conditions,
    detector_input,
    record_fields,
    unlabeled,
)
from dfdetect.data import prepared as data
from dfdetect.data.batches import NAME, Batches, Share, ShuffledSource
from dfdetect.media import decode, resize, source_files
from dfdetect.models import anchors, matching


def test_a_data_set_that_is_not_prepared_says_how_to(tmp_path):
    with pytest.raises(FileNotFoundError, match="datasets/prepare.py --dataset=heads"):
        data.open_builder(str(tmp_path), "heads")


def test_what_a_killed_build_left_is_no_data_set(tmp_path):
    (tmp_path / "labeled_faces" / "incomplete.ABC_1.0.0").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="labeled_faces is not prepared in"):
        data.open_builder(str(tmp_path), "labeled_faces")


def test_describe_names_data_and_fingerprint(prepared):
    described = data.describe_dataset(data.open_builder(str(prepared), "labeled_faces"))
    assert described["name"] == "labeled_faces"
    assert described["splits"] == {"train": 8, "validation": 4, "test": 4}
    assert len(described["fingerprint"]) >= 16


def test_classifier_evaluation_is_in_order_and_complete(prepared):
    builder = data.open_builder(str(prepared), "labeled_faces")
    batches = list(
        classifier_input.build_evaluation_batches(
            builder, "test", image_size=71, batch_size=3
        )
    )
    assert [crops.shape[0] for crops, _ in batches] == [3, 1]
    labels = np.concatenate([truths for _, truths in batches])
    assert sorted(labels.tolist()) == [0, 0, 1, 1]
    again = list(
        classifier_input.build_evaluation_batches(
            builder, "test", image_size=71, batch_size=4
        )
    )[0]
    np.testing.assert_array_equal(again[1], labels)
    # A crop is what decoding and resizing the file gives, and nothing else.
    files = sorted((prepared / "source" / "labeled_faces").glob("test*.png"))
    expected = [
        resize.resize(decode.decode_image(tf.io.read_file(str(path))), 71)
        for path in files
    ]
    found = sorted(again[0].numpy().tolist())
    np.testing.assert_allclose(found, sorted(np.array(expected).tolist()), atol=1e-3)


def _names(examples):
    return [x.decode() for x in examples.map(lambda x: x[NAME]).as_numpy_iterator()]


@pytest.mark.parametrize("num_wanted", [0, 1, 5, 8])
@pytest.mark.parametrize(("count", "batch_size"), [(2, 3), (3, 1), (4, 8), (3, 2)])
def test_shares_of_workers_are_whole_batches_in_order(
    prepared, num_wanted, count, batch_size
):
    builder = data.open_builder(str(prepared), "labeled_faces")
    wanted = np.zeros(8, bool)
    wanted[np.random.default_rng(0).permutation(8)[:num_wanted]] = True
    everything = np.array(_names(data.read_encoded(builder, "train")))
    whole = _names(data.read_chosen(builder, "train", wanted))
    assert whole == everything[wanted].tolist()
    parts = [
        _names(
            data.read_chosen(
                builder,
                "train",
                wanted,
                share=Share(count, place),
                batch_size=batch_size,
            )
        )
        for place in range(count)
    ]
    assert [name for part in parts for name in part] == whole
    batches = [-(-len(part) // batch_size) for part in parts]
    assert max(batches) - min(batches) <= 1 and (not whole or parts[0])
    ends = np.cumsum([len(part) for part in parts])
    assert all(end % batch_size == 0 or end == len(whole) for end in ends)


def test_a_share_of_all_records_reads_no_more(prepared):
    builder = data.open_builder(str(prepared), "labeled_faces")
    everything = _names(data.read_encoded(builder, "train"))
    share = data.read_chosen(builder, "train", share=Share(2, 1), batch_size=3)
    assert _names(share) == everything[6:] and int(share.cardinality()) == 2
    assert _names(data.read_encoded(builder, "train", 5)) == everything[5:]


def test_classifier_training_repeats_with_its_seed_and_changes_images(prepared):
    builder = data.open_builder(str(prepared), "labeled_faces")

    def first(seed, count=3):
        batches = classifier_input.build_training_batches(
            [builder], "train", image_size=71, batch_size=4, seed=seed
        ).from_step(0)
        return [
            (crops.numpy(), truths.numpy()) for crops, truths in batches.take(count)
        ]

    one, same, other = first(1), first(1), first(2)
    for a, b in zip(one, same, strict=True):
        np.testing.assert_allclose(a[0], b[0], atol=1e-3)
        np.testing.assert_array_equal(a[1], b[1])
    assert np.abs(one[0][0] - other[0][0]).max() > 1
    # Two batches of 4 are one pass over the 8 images, half of them fake.
    assert sum(truths.sum() for _, truths in one[:2]) == 4
    assert one[0][0].shape == (4, 71, 71, 3)
    assert min(c.min() for c, _ in one) >= 0 and max(c.max() for c, _ in one) <= 255.01


def _contexts(workers, replicas=1):
    return [
        tf.distribute.InputContext(workers, index, workers * replicas)
        for index in range(workers)
    ]


def _numbers(size, batch_size, seed=0):
    """Batches whose examples are the numbers from 0 on, with the seeds they get."""
    examples = tf.data.Dataset.range(size)
    return Batches(ShuffledSource(examples, seed), lambda *pair: pair, batch_size, seed)


def _take(batches, step, count, context=None):
    stream = batches.from_step(step, context).take(count)
    return [(seeds.numpy(), values.numpy()) for seeds, values in stream]


def test_a_stream_from_a_step_goes_on_as_the_whole_one():
    # 10 examples in batches of 4: epochs end within batches.
    batches = _numbers(10, 4)
    whole = _take(batches, 0, 10)
    for step in (1, 2, 5, 9):
        for one, other in zip(_take(batches, step, 1), whole[step:], strict=False):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])
    values = np.concatenate([values for _, values in whole])
    epochs = values.reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4
    seeds = np.concatenate([seeds for seeds, _ in whole])
    assert len({tuple(seed) for seed in seeds.tolist()}) == 40
    other = np.concatenate([v for _, v in _take(_numbers(10, 4, seed=1), 0, 10)])
    assert not np.array_equal(values, other)


def test_all_of_a_pass_are_shuffled_however_many_they_are():
    size = 30_000  # As the sorted paths of two folders.
    batches = _numbers(size, 1000)
    firsts = [_take(batches, step, 1)[0][1] for step in (0, 30)]
    for values in firsts:
        assert len({*values.tolist()}) == 1000
        assert 0.4 < np.mean(values < size // 2) < 0.6
    assert not np.array_equal(*firsts)


def test_workers_and_devices_share_each_batch():
    batches = _numbers(10, 4)
    whole = _take(batches, 3, 2)
    for workers, replicas in ((2, 1), (1, 2), (2, 2)):
        shares = [
            _take(batches, 3, 2 * replicas, c) for c in _contexts(workers, replicas)
        ]
        for step in range(2):
            values = [
                value
                for share in shares
                for _, part in share[step * replicas : (step + 1) * replicas]
                for value in part.tolist()
            ]
            assert sorted(values) == sorted(whole[step][1].tolist())
    with pytest.raises(ValueError, match="multiple of 3 devices, got 4"):
        batches.from_step(0, _contexts(3)[0])


def test_examples_come_with_those_that_follow_on_every_worker():
    examples = tf.data.Dataset.range(10)
    source = ShuffledSource(examples, seed=0, following=3)
    batches = Batches(source, lambda seed, *four: (seed, tf.stack(four)), 4, seed=0)
    alone = np.concatenate([values for _, values in _take(_numbers(10, 4), 0, 12)])
    whole = _take(batches, 0, 8)
    fours = np.concatenate([values for _, values in whole])
    expected = np.lib.stride_tricks.sliding_window_view(alone, 4)
    np.testing.assert_array_equal(fours, expected[: len(fours)])
    for step in (1, 2, 5):
        np.testing.assert_array_equal(_take(batches, step, 1)[0][1], whole[step][1])
        shares = [_take(batches, step, 1, context)[0] for context in _contexts(2)]
        for index, (seeds, values) in enumerate(shares):
            np.testing.assert_array_equal(seeds, whole[step][0][index::2])
            np.testing.assert_array_equal(values, whole[step][1][index::2])


def test_a_record_that_cannot_be_read_is_named(tmp_path):
    for index in range(5):
        image = np.full((80, 80, 3), 50 * index, np.uint8)
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    broken = tmp_path / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    paths = source_files.find_images([str(tmp_path)])
    batches = unlabeled.build_training_batches(paths, (32,), batch_size=2, seed=0)
    assert batches.unreadable(0).startswith(f"{broken}: ")
    # One is not blamed for those that come with it.
    joined = dataclasses.replace(
        batches,
        prepare=lambda seed, *three: [batches.prepare(seed, one) for one in three],
        source=dataclasses.replace(batches.source, following=2),
    )
    assert joined.unreadable(0).startswith(f"{broken}: ")
    whole = unlabeled.build_training_batches(paths[:3], (32,), batch_size=2, seed=0)
    assert whole.unreadable(0).startswith("none of")


def test_crops_that_are_not_augmented_are_those_of_the_evaluation(prepared):
    builder = data.open_builder(str(prepared), "labeled_faces")
    batches = classifier_input.build_training_batches(
        [builder], "train", image_size=71, batch_size=8, seed=0, augmentation="none"
    )
    crops, truths = next(iter(batches.from_step(0)))
    expected, labels = next(
        iter(
            classifier_input.build_evaluation_batches(
                builder, "train", image_size=71, batch_size=8
            )
        )
    )
    order, same = (np.argsort(x.numpy().sum((1, 2, 3))) for x in (crops, expected))
    np.testing.assert_allclose(crops.numpy()[order], expected.numpy()[same], atol=1e-3)
    np.testing.assert_array_equal(truths.numpy()[order], labels.numpy()[same])


def test_labels_are_counted_with_metadata_and_without(prepared):
    builder = data.open_builder(str(prepared), "labeled_faces")
    foreign = data.open_builder(str(prepared), "labeled_faces")
    foreign.info.metadata.clear()
    assert classifier_input.count_labels(builder, "train") == [4, 4]
    assert classifier_input.count_labels(foreign, "validation") == [2, 2]


@pytest.mark.parametrize("mosaic", [pytest.param(0.0, marks=pytest.mark.slow), 0.7])
def test_detector_training_targets_lie_on_the_drawn_heads(prepared, mosaic):
    builder = data.open_builder(str(prepared), "hollywood_heads")
    grid = anchors.Anchors(128, 2.0)
    batches = detector_input.build_training_batches(
        [builder],
        "train",
        grid=grid,
        image_size=128,
        batch_size=2,
        seed=0,
        scales=(1.0, 1.5),
        mosaic=mosaic,
    ).from_step(0)
    seen = 0
    for images, class_targets, box_targets in batches.take(6):
        assert images.shape == (2, 128, 128, 3)
        assert class_targets.shape == (2, len(grid.boxes))
        for index in range(2):
            positive = class_targets[index].numpy() >= 0
            boxes = anchors.decode(box_targets[index], grid.boxes).numpy()[positive]
            for y1, x1, y2, x2 in boxes * 128:
                middle = images[index, int((y1 + y2) / 2), int((x1 + x2) / 2)]
                assert middle[0] > 110  # Heads are bright, the rest below 72 in red.
                seen += 1
            absent = class_targets[index].numpy()[~positive]
            assert np.all(absent == matching.BACKGROUND)
    assert seen > 5


@pytest.mark.slow
def test_mosaics_are_the_same_after_a_restart_on_two_workers(prepared):
    builder = data.open_builder(str(prepared), "hollywood_heads")
    batches = detector_input.build_training_batches(
        [builder],
        "train",
        grid=anchors.Anchors(128, 2.0),
        image_size=128,
        batch_size=2,
        seed=0,
        scales=(0.3, 2.0),
        mosaic=0.5,
        jpeg_quality=(30, 95),
    )
    shapes = [spec.shape.as_list() for spec in batches.from_step(0).element_spec]
    assert all(None not in shape for shape in shapes)
    # 6 images: more than an epoch.
    whole = [[part.numpy() for part in batch] for batch in batches.from_step(0).take(5)]
    shares = batches.from_step(2, _contexts(2)[1]).take(3)
    for batch, share in zip(whole[2:], shares, strict=True):
        for expected, part in zip(batch, share, strict=True):
            np.testing.assert_array_equal(part[0], expected[1])


def test_images_that_are_not_augmented_are_those_of_the_evaluation(prepared):
    builder = data.open_builder(str(prepared), "hollywood_heads")
    grid = anchors.Anchors(128, 2.0)
    batches = detector_input.build_training_batches(
        [builder],
        "train",
        grid=grid,
        image_size=128,
        batch_size=6,
        seed=0,
        scales=(0.1, 2.0),
        augmentation="none",
    )
    images, class_targets, box_targets = next(iter(batches.from_step(0)))
    expected = next(
        iter(
            detector_input.build_evaluation_batches(
                builder, "train", image_size=128, batch_size=6
            )
        )
    )
    order, same = (
        np.argsort(shown.numpy().sum((1, 2, 3)))
        for shown in (images, expected["images"])
    )
    np.testing.assert_array_equal(
        images.numpy()[order], expected["images"].numpy()[same]
    )
    for one, other in zip(order, same, strict=True):
        positive = class_targets[one].numpy() >= 0
        learnt = anchors.decode(box_targets[one], grid.boxes).numpy()[positive]
        boxes = resize.letterbox_boxes(expected["boxes"][other], 96, 160).numpy()
        distances = np.abs(boxes[:, None] - learnt).max(-1)
        for axis in range(2 if len(boxes) else 0):  # Each is one of the others.
            assert distances.min(axis).max() < 1e-5
        assert (len(boxes) == 0) == (len(learnt) == 0)


def test_detector_evaluation_gives_the_boxes_of_the_originals(prepared):
    builder = data.open_builder(str(prepared), "hollywood_heads")
    batches = list(
        detector_input.build_evaluation_batches(
            builder, "validation", image_size=128, batch_size=2
        )
    )
    assert [len(batch["images"]) for batch in batches] == [2, 1]
    counts = sorted(
        len(boxes) for batch in batches for boxes in batch["boxes"].to_list()
    )
    assert counts == [0, 1, 2]
    for batch in batches:
        assert batch["images"].shape[1:] == (128, 128, 3)
        assert batch["extents"].numpy().tolist() == [[96, 160]] * len(batch["images"])
        # 160 x 96 fills the upper 77 rows; below is the padding.
        below = batch["images"][:, 100].numpy().reshape(-1, 3)
        np.testing.assert_allclose(below - resize.MEAN_PIXEL, 0, atol=1e-3)


def test_images_are_those_of_the_places_in_the_split(prepared):
    builder = data.open_builder(str(prepared), "hollywood_heads")
    batch = next(
        iter(
            detector_input.build_evaluation_batches(
                builder, "train", image_size=128, batch_size=6
            )
        )
    )
    found = detector_input.read_images(builder, "train", [4, 1])
    assert sorted(found) == [1, 4]
    folder = prepared / "source" / "hollywood_heads" / "JPEGImages"
    for place, (name, image) in found.items():
        content = tf.io.read_file(str(folder / name))
        np.testing.assert_array_equal(image, decode.decode_image(content))
        np.testing.assert_allclose(
            resize.letterbox(image, 128), batch["images"][place], atol=1e-3
        )
    # Of chosen records, places count these alone.
    where = [conditions.parse_condition(f"image/filename!={found[1][0]}")]
    ((name, _),) = detector_input.read_images(builder, "train", [3], where).values()
    assert name == found[4][0]
    with pytest.raises(ValueError, match="No record of train of .* meets image/f.*=a"):
        record_fields.parse_conditions(builder, "train", ["image/filename=a"])


def test_find_images_takes_folders_globs_and_lists(tmp_path):
    for name in ("a.png", "sub/b.JPG", "sub/c.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"" if name.endswith(".txt") else b"\xff\xd8\xff\xe0")
    (tmp_path / "sub" / "d.jpg").write_text("no image")
    listed = tmp_path / "list.txt"
    listed.write_text(f"{tmp_path / 'a.png'}\n")
    a, b = str(tmp_path / "a.png"), str(tmp_path / "sub" / "b.JPG")
    passed_over = collections.Counter()
    assert source_files.find_images([str(tmp_path)], passed_over) == [a, b]
    assert passed_over == {".txt": 1, "empty": 1, ".jpg": 1}
    assert source_files.find_images([str(tmp_path / "*.png")]) == [a]
    assert source_files.find_images([str(listed)]) == [a]
    listed.write_text(f"{a}\n\n{a}.gone\nelsewhere.png\n")
    with pytest.raises(FileNotFoundError, match=r"got 2 .* first '.*a.png.gone'"):
        source_files.find_images([str(listed)])
    with pytest.raises(FileNotFoundError, match="none"):
        source_files.find_images([str(tmp_path / "none")])


def test_unlabeled_training_shows_one_window_at_both_sizes(tmp_path):
    random = np.random.default_rng(0)
    for index in range(3):
        image = cv2.resize(
            random.integers(0, 256, (6, 6, 3)).astype(np.uint8), (90, 90)
        )
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    batches = unlabeled.build_training_batches(
        source_files.find_images([str(tmp_path)]), (32, 64), batch_size=3, seed=0
    )
    small, large = next(iter(batches.from_step(0)))
    assert small.shape == (3, 32, 32, 3) and large.shape == (3, 64, 64, 3)
    shrunk = tf.image.resize(large, [32, 32], antialias=True)
    assert np.abs(shrunk - small).mean() < 4
