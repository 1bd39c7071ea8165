"""Distills the mid-level features of a pretrained network; needs no labels.

See `dfdetect.training.distillation`. `--snapshot=MODEL_DIR` then starts a training.

    python train/distill.py --model=xception --teacher=squeezenet.h5 \
      --images=faces,more_faces --model_dir=runs/distilled
"""

import collections
import functools
import os
from collections.abc import Mapping

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import keras
import tensorflow as tf
from absl import app, flags

from dfdetect.data import unlabeled
from dfdetect.media import file_kinds, source_files
from dfdetect.models import classifier, squeezenet, weights
from dfdetect.training import distillation, loop, run_flags

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(run_flags)

_TEACHER_MAPS = ("fire5", "fire9", "fire9")  # Of strides 8, 16 and 32.
_STUDENTS = [name for name in distillation.STAGES if name in classifier.NAMES]

_MODEL = flags.DEFINE_enum("model", "xception", _STUDENTS, "The student.")
_TEACHER = flags.DEFINE_string(
    "teacher", None, "SqueezeNet 1.1 weights without top, Keras .h5.", required=True
)
_IMAGES = flags.DEFINE_list(
    "images", None, "Folders and globs of images, by commas.", required=True
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", 150, "Side of the student's input, px."
)
_TEACHER_SIZE = flags.DEFINE_integer("teacher_size", 224, "Side of the teacher's, px.")
_HELD_OUT = flags.DEFINE_integer("held_out", 256, "Number of images to measure on.", 1)

flags.mark_flags_as_required(["model_dir"])


def main(argv: list[str]) -> None:
    settings, strategy, record = run_flags.start_run(argv, ["explained"])
    kinds: collections.Counter[str] = collections.Counter()
    paths = source_files.find_images(_IMAGES.value, kinds)
    if kinds:
        print(file_kinds.describe_passed_over(kinds))
    if len(paths) < 2 * _HELD_OUT.value:
        raise app.UsageError(f"{len(paths)} images are too few to hold some out.")
    # Sorted names are grouped by source; every n-th is a fair sample of all.
    every = len(paths) // _HELD_OUT.value
    held_out = paths[::every]
    kept = sorted(set(paths) - set(held_out))
    sizes = (_IMAGE_SIZE.value, _TEACHER_SIZE.value)
    batches = functools.partial(
        unlabeled.build_training_batches, image_sizes=sizes, batch_size=FLAGS.batch_size
    )
    with strategy.scope():
        student, pair = _build_models()
    print(
        weights.load_snapshot(student, run_flags.find_starting_weights(FLAGS.snapshot))
    )
    run_flags.adapt_batch_norms(pair, strategy)
    evaluated_student, evaluation_model = _build_models()
    measure_loss = tf.function(
        lambda batch: loss(evaluation_model, batch, training=False)
    )

    def evaluate() -> dict[str, float]:
        steps = max(len(held_out) // FLAGS.batch_size, 1)
        guesses = [
            measure_loss(batch)
            for batch in batches(held_out, seed=0).from_step(0).take(steps)
        ]
        errors = [float(sums["loss"] / weight) for sums, weight in guesses]
        return {"explained": 1.0 - sum(errors) / len(errors)}

    def keep_best(figures: Mapping[str, float]) -> Mapping[str, float]:
        path = os.path.join(FLAGS.model_dir, weights.FILE_NAME)
        weights.save(evaluated_student, path)
        return figures

    loop.Run(
        pair,
        evaluation_model,
        loss=loss,
        batches=batches(kept, seed=FLAGS.seed),
        evaluate=evaluate,
        keep_best=keep_best,
        settings=settings,
        strategy=strategy,
        record=record,
    ).train()


def loss(
    pair: keras.Model, batch: tuple[tf.Tensor, tf.Tensor], training: bool = True
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Sums the images' errors, of each map and over all; returns them and their number.

    An error is a mean square; that of a constant is 1.
    """
    errors = distillation.map_errors(*pair(list(batch), training=training))
    losses = [tf.reduce_sum(error) for error in errors]
    sums = {"loss": tf.add_n(losses) / len(losses)} | {
        f"map{index}": loss for index, loss in enumerate(losses)
    }
    return sums, tf.cast(tf.shape(batch[0])[0], tf.float32)


def _build_models() -> tuple[keras.Model, keras.Model]:
    """Builds a student, and the pair of it and the teacher."""
    teacher = squeezenet.build(_TEACHER.value, _TEACHER_MAPS, _TEACHER_SIZE.value)
    student = classifier.build(_MODEL.value, _IMAGE_SIZE.value)
    taps = classifier.feature_maps(student, distillation.STAGES[_MODEL.value])
    return student, _build_pair(taps, teacher)


def _build_pair(taps: keras.Model, teacher: keras.Model) -> keras.Model:
    """Builds a model from both networks' images to their maps, to be made equal.

    The student's maps have as many channels as the teacher's, which are standardized
    by channel.
    """
    images = keras.Input(taps.input_shape[1:], name="student_images")
    teacher_images = keras.Input(teacher.input_shape[1:], name="teacher_images")
    guesses, targets = distillation.match_maps(taps(images), teacher(teacher_images))
    return keras.Model([images, teacher_images], [guesses, targets])


if __name__ == "__main__":
    run_flags.run_script(main)
