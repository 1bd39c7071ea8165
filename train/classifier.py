"""Trains a classifier of head crops and keeps the weights that validate best.

    python train/classifier.py --data_dir=prepared --dataset=labeled_faces \
      --model_dir=runs/xception --model=xception --image_size=150 --steps=5000
"""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import app, flags

from dfdetect import labels, manifest, script
from dfdetect.data import (
    classifier_input,
    conditions,
    prepared,
    record_fields,
    sampling,
    self_blending,
)
from dfdetect.data.batches import Batches
from dfdetect.evaluation import classifier_validation, classifiers
from dfdetect.metrics import calibration, classification
from dfdetect.models import classifier, grad_cam, mobilenet, model_directory, weights
from dfdetect.training import (
    distillation,
    distribute,
    held_out,
    label_counts,
    loop,
    objectives,
    run_flags,
    train_step,
)

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(run_flags)
flags.adopt_module_key_flags(held_out)

_ORIGINS = ("source", "method")  # Fields that name the origin of records.

_DATASET = flags.DEFINE_list(
    "dataset",
    ["labeled_faces"],
    "Prepared data sets, by commas. Heads of one without labels, such as "
    "hollywood_heads, count as reals; with --self_blended, fakes are made of them.",
)
_WEIGHTS = flags.DEFINE_list(
    "dataset_weights", [], "Weights of the data sets; by default their sizes."
)
_SAMPLING = flags.DEFINE_enum(
    "sampling",
    "natural",
    sampling.MODES,
    "natural: all crops; balanced: as many reals as fakes; pairs: each real with a "
    "fake made of it.",
)
_SAMPLE_BY = flags.DEFINE_enum(
    "sample_by",
    None,
    _ORIGINS,
    "Field whose values are drawn equally often in each class, whichever data sets "
    "they are in. Records without one count as a source with the name of their data "
    "set.",
)
_WHERE = flags.DEFINE_multi_string(
    "where",
    [],
    "Train and validate only on records that meet this, FIELD=VALUE|VALUE or "
    "FIELD!=VALUE|VALUE, such as source!=STYLEGAN to leave a maker out. If given more "
    "than once, on those that meet all. Records without the field meet those with !.",
)
_SELF_BLENDED = flags.DEFINE_float(
    "self_blended",
    0.0,
    "Share of the fakes that are made by blending a real with itself.",
    lower_bound=0.0,
    upper_bound=1.0,
)
_SELF_BLENDING_MASKS = flags.DEFINE_list(
    "self_blending_masks",
    [],
    "Parts of the face that --self_blended replaces, each as often, of "
    f"{', '.join(self_blending.MASKS)}; by default the whole face, one time in five "
    "only its upper or lower part.",
)
_SELF_BLENDING_MISMATCHES = flags.DEFINE_list(
    "self_blending_mismatches",
    [],
    "Further differences between the copies that --self_blended joins, besides color "
    "and sharpness: resolution (one was generated at a small size and compressed), "
    "warp (the inserted face is rotated, sheared and tilted).",
)
_AUGMENTATION = flags.DEFINE_enum(
    "augmentation",
    "light",
    classifier_input.AUGMENTATIONS,
    "Random changes of crops. light: cropped, mirrored and colored. forensic: cropped, "
    "then degraded as by cameras, editors and platforms. makers: brought to a random "
    "size and JPEG quality, fakes and reals in the same way, so that these do not "
    "reveal the maker; then as light.",
)
_LEVEL_SHARE = flags.DEFINE_float(
    "level_share",
    1.0,
    "Share of the crops without a head box, from sets of cropped heads, that "
    "--augmentation=makers brings to a random size and quality; images with a head "
    "box, from sets of several sources, always are. Below 1 where the classes of the "
    "sets of crops are alike in size and compression, see audit.py.",
    lower_bound=0.0,
    upper_bound=1.0,
)
_ROTATED_SHARE = flags.DEFINE_float(
    "rotated_share",
    0.0,
    "Share of the crops, real and fake alike, that are rotated: by up to 45 degrees, "
    "15 of 100 of them by any angle.",
    lower_bound=0.0,
    upper_bound=1.0,
)
_GAMMA_SHARE = flags.DEFINE_float(
    "gamma_share",
    0.0,
    "Share of the crops, real and fake alike, whose gamma is changed by an exponent of "
    "0.4 to 3.5.",
    lower_bound=0.0,
    upper_bound=1.0,
)
_CACHE_MEGABYTES = flags.DEFINE_integer(
    "cache_megabytes",
    0,
    "Memory for decoded crops, so that each is decoded once; 0 for none. Batches stay "
    "the same.",
    lower_bound=0,
)
_MODEL = flags.DEFINE_enum(
    "model", "xception", classifier.NAMES + classifier.TEACHERS, "Architecture."
)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 299, "Side of the crops, px.")
_TRAINING_SIZE = flags.DEFINE_integer(
    "training_size",
    None,
    "Side of the crops in training, px; by default --image_size. Smaller ones cost "
    "less; as they are parts, their scale is that of whole ones (Touvron et al., "
    "Fixing the train-test resolution discrepancy, 2019).",
)
_DROPOUT = flags.DEFINE_float("dropout", 0.5, "Share of pooled features dropped.")
_DROP_CONNECT_RATE = flags.DEFINE_float(
    "drop_connect_rate", 0.2, "Chance to skip an EfficientNet's last residual block."
)
_CROP_MARGIN = flags.DEFINE_float(
    "crop_margin",
    1.3,
    "Side of a crop over the longer side of its head box. Images with a head box are "
    "cropped so, as the graph will; others must be cropped already.",
)

_FREEZE_THROUGH = flags.DEFINE_string(
    "freeze_through",
    None,
    "Layer through which weights and batch-norm statistics are frozen.",
)
_BALANCE = flags.DEFINE_bool(
    "balance", False, "Weight real and fake crops so that both classes count the same."
)
_LABEL_SMOOTHING = flags.DEFINE_float(
    "label_smoothing", 0.0, "Share of a label given to both; .1 makes a fake .95.", 0, 1
)
_TEACHER = flags.DEFINE_string(
    "teacher",
    None,
    "Folder of a trained classifier whose feature maps are learned as well.",
)
_TEACHER_WEIGHT = flags.DEFINE_float(
    "teacher_weight", 1.0, "Weight of the errors of the feature maps beside the labels."
)
_PROJECTED = flags.DEFINE_integer(
    "projected", 256, "Validation crops in TensorBoard's projector.", lower_bound=0
)
_EXPLAINED = flags.DEFINE_integer(
    "explained", 64, "Validation crops in TensorBoard's heat maps.", lower_bound=0
)
_BN_MOMENTUM = flags.DEFINE_float(
    "bn_momentum", 0.99, "Momentum of the batch norms; lower for short runs."
)
_MAX_FALSE_POSITIVE_RATE = flags.DEFINE_float(
    "max_false_positive_rate",
    0.05,
    "Largest share of the real validation crops of any source that the verdict may "
    "call fake, in [0, 1).",
    lower_bound=0.0,
    upper_bound=0.999,
)
_MAX_FALSE_NEGATIVE_RATE = flags.DEFINE_float(
    "max_false_negative_rate",
    0.1,
    "Largest share of the fake validation crops that the verdict may call real, in [0, "
    "1); the mean over their sources.",
    lower_bound=0.0,
    upper_bound=0.999,
)

_MAX_SOURCE_FALSE_NEGATIVE_RATE = flags.DEFINE_float(
    "max_source_false_negative_rate",
    None,
    "Largest share of the fake validation crops of any one maker that the verdict may "
    "call real; by default only the mean counts.",
    lower_bound=0.0,
    upper_bound=0.999,
)

_CALIBRATION_CROPS = 128  # Crops that a .tflite snapshot's batch norms are fitted to.

for _flag, _known in (
    (_SELF_BLENDING_MASKS, self_blending.MASKS),
    (_SELF_BLENDING_MISMATCHES, self_blending.MISMATCHES),
):
    flags.register_validator(
        _flag,
        lambda names, known=frozenset(_known): known.issuperset(names),
        f"must be of {', '.join(_known)}.",
    )
flags.mark_flags_as_required(["model_dir", "data_dir"])


@flags.multi_flags_validator(
    [_SAMPLE_BY, _WEIGHTS, _SAMPLING],
    "--sample_by excludes --dataset_weights and --sampling=pairs.",
)
def _is_one_way_to_sample(values: dict[str, Any]) -> bool:
    others = values[_WEIGHTS.name] or values[_SAMPLING.name] == "pairs"
    return not (values[_SAMPLE_BY.name] and others)


def main(argv: list[str]) -> None:
    builders = [prepared.open_builder(FLAGS.data_dir, name) for name in _DATASET.value]
    settings, strategy = run_flags.start_run(argv, classification.METRICS)
    run_flags.check_data(builders, strategy)

    trained_on = [*_WHERE.value, *held_out.training_conditions()]
    where = [conditions.parse_condition(text) for text in trained_on]
    split = held_out.validation_split()
    validated_on = [conditions.parse_condition(text) for text in _WHERE.value]
    validated_on += held_out.validation_conditions()
    record_fields.check_values(builders, sorted({"train", split} - {"none"}), where)
    natural = _SAMPLING.value == "natural" and not _SAMPLE_BY.value
    makes_fakes = bool(_SELF_BLENDED.value) and not natural
    label_counts.check_labels(builders, where, makes_fakes)
    validation = _load_validation(builders, split, validated_on, strategy)
    if validation is not None and distribute.is_chief(strategy):
        for line in validation.describe_sizes():
            script.say(line)
    batches = _build_batches(builders, where)

    with strategy.scope():
        student, model = _build_models(_TRAINING_SIZE.value or _IMAGE_SIZE.value)
    report = _load_snapshot(student, batches)
    print(report)
    freeze_through = "pool" if FLAGS.freeze_backbone else _FREEZE_THROUGH.value
    if freeze_through:
        _freeze(student, freeze_through)
    run_flags.adapt_batch_norms(student, strategy)

    evaluated_student, evaluation_model = _build_models(_IMAGE_SIZE.value)
    logits_function = classifiers.build_logits_function(evaluated_student)
    embed = tf.function(classifier.build_embedding_model(evaluated_student))
    heat_maps = grad_cam.build_heat_maps_function(evaluated_student)
    origins = {name: _name_origins(builders, where, name) for name in _ORIGINS}

    def evaluate() -> Mapping[str, float]:
        assert validation is not None
        return validation.measure(logits_function)

    def describe(figures: Mapping[str, float]) -> dict[str, Any]:
        calibrated = calibration.default_calibration()
        if validation is not None:
            calibrated = validation.calibrate(
                _MAX_FALSE_POSITIVE_RATE.value,
                _MAX_FALSE_NEGATIVE_RATE.value,
                _MAX_SOURCE_FALSE_NEGATIVE_RATE.value,
            )
        return {
            **_describe_model(calibrated),
            "data": [prepared.describe_dataset(builder) for builder in builders],
            "where": trained_on,
            "origins": origins,
            "validation_split": held_out.describe_validation(),
            "metrics": {"validation": figures},
            "versions": manifest.collect_versions(),
        }

    def keep_best(figures: Mapping[str, float]) -> dict[str, Any]:
        path = os.path.join(FLAGS.model_dir, weights.FILE_NAME)
        weights.save(evaluated_student, path)
        described = describe(figures)
        manifest.write(FLAGS.model_dir, described)
        if validation is not None:
            validation.write_embeddings(embed, FLAGS.model_dir, _PROJECTED.value)
            validation.write_heat_maps(heat_maps, _EXPLAINED.value)
        return described

    loop.Run(
        model,
        evaluation_model,
        loss=_build_loss(builders, where),
        batches=batches,
        evaluate=None if validation is None else evaluate,
        keep_best=keep_best,
        settings=settings,
        strategy=strategy,
        describe=describe,
        evaluate_start=report.is_complete,
    ).train()


def _load_validation(
    builders: Sequence[tfds.core.DatasetBuilder],
    split: str,
    where: Sequence[conditions.Condition],
    strategy: tf.distribute.Strategy,
) -> classifier_validation.ClassifierValidation | None:
    if split == "none":
        return None
    return classifier_validation.ClassifierValidation(
        classifier_validation.select_labeled_sets(builders, split, where),
        split,
        where,
        image_size=_IMAGE_SIZE.value,
        batch_size=FLAGS.batch_size,
        crop_margin=_CROP_MARGIN.value,
        strategy=strategy,
    )


def _build_batches(
    builders: Sequence[tfds.core.DatasetBuilder],
    where: Sequence[conditions.Condition],
) -> Batches:
    try:
        dataset_weights = [float(weight) for weight in _WEIGHTS.value] or None
    except ValueError as error:
        raise app.UsageError(f"--dataset_weights: {error}") from error
    return classifier_input.build_training_batches(
        builders,
        "train",
        image_size=_TRAINING_SIZE.value or _IMAGE_SIZE.value,
        batch_size=FLAGS.batch_size,
        seed=FLAGS.seed,
        augmentation=_AUGMENTATION.value,
        sampling_mode=_SAMPLING.value,
        weights=dataset_weights,
        self_blended=_SELF_BLENDED.value,
        crop_margin=_CROP_MARGIN.value,
        cache_bytes=_CACHE_MEGABYTES.value * 10**6,
        sample_by=_SAMPLE_BY.value,
        where=where,
        level_share=_LEVEL_SHARE.value,
        rotated_share=_ROTATED_SHARE.value,
        gamma_share=_GAMMA_SHARE.value,
        blending=self_blending.Blending(
            tuple(_SELF_BLENDING_MASKS.value), tuple(_SELF_BLENDING_MISMATCHES.value)
        ),
    )


def _build_models(image_size: int) -> tuple[keras.Model, keras.Model]:
    """Builds the classifier, and the model to train: it alone or with its teacher."""
    student = classifier.build(
        _MODEL.value,
        image_size,
        dropout=_DROPOUT.value,
        bn_momentum=_BN_MOMENTUM.value,
        drop_connect_rate=_DROP_CONNECT_RATE.value,
    )
    if not _TEACHER.value:
        return student, student
    teacher, described = model_directory.load_classifier(_TEACHER.value, image_size)
    return student, distillation.build_with_teacher(
        _MODEL.value, student, described["model"], teacher
    )


def _load_snapshot(student: keras.Model, batches: Batches) -> weights.LoadReport:
    if not FLAGS.snapshot.endswith(".tflite"):
        start = run_flags.find_starting_weights(FLAGS.snapshot)
        return weights.load_snapshot(student, start)
    if _MODEL.value not in classifier.TEACHERS:
        raise app.UsageError(f"--snapshot: {_MODEL.value} has no weights in .tflite.")
    first = batches.from_step(0).take(-(-_CALIBRATION_CROPS // FLAGS.batch_size))
    crops = np.concatenate([crops for crops, _ in first])
    mobilenet.load_tflite(student, FLAGS.snapshot, crops)
    keys = tuple(weights.variables(student))
    missing = tuple(key for key in keys if key.startswith("logits"))
    loaded = tuple(key for key in keys if key not in missing)
    return weights.LoadReport(loaded=loaded, missing=missing)


def _freeze(model: keras.Model, last: str) -> None:
    """Freezes the layers from the input through the one named `last`."""
    layers = train_step.flatten_layers(model)
    names = [layer.name for layer in layers]
    if last not in names:
        raise app.UsageError(f"--freeze_through: no layer {last!r} in {names}")
    for layer in layers[: names.index(last) + 1]:
        layer.trainable = False


def _build_loss(
    builders: Sequence[tfds.core.DatasetBuilder],
    where: Sequence[conditions.Condition],
) -> train_step.LossFunction:
    class_weights = [1.0, 1.0]
    if _BALANCE.value:
        class_weights = label_counts.balanced_class_weights(builders, where)
    options: dict[str, Any] = {
        "class_weights": class_weights,
        "label_smoothing": _LABEL_SMOOTHING.value,
    }
    if not _TEACHER.value:
        return functools.partial(objectives.classification, **options)
    return functools.partial(
        objectives.distilled_classification,
        teacher_weight=_TEACHER_WEIGHT.value,
        **options,
    )


def _describe_model(calibrated: Mapping[str, Any]) -> dict[str, Any]:
    """Builds the part of a manifest that tells how to use the classifier."""
    return {
        "kind": "classifier",
        "model": _MODEL.value,
        "image_size": _IMAGE_SIZE.value,
        "crop_margin": _CROP_MARGIN.value,
        **calibrated,
        "labels": list(labels.NAMES),
    }


def _name_origins(
    builders: Sequence[tfds.core.DatasetBuilder],
    where: Sequence[conditions.Condition],
    field: str,
) -> dict[str, list[str]]:
    """Names the makers of fakes and sources of reals that are trained on, by label."""
    found = [record_fields.name_origins(b, "train", where, field) for b in builders]
    return {
        name: sorted({origin for origins in found for origin in origins[name]})
        for name in labels.NAMES
    }


if __name__ == "__main__":
    run_flags.run_script(main)
