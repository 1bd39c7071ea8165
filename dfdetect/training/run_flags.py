"""Flags that every training script shares, and the start of a run from them."""

import copy
import dataclasses
import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import keras
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import app, flags

from dfdetect import script
from dfdetect.data import conditions
from dfdetect.models import kept_steps, weights
from dfdetect.training import (
    distribute,
    fused_batch_norm,
    loop,
    optimizers,
    rendezvous,
    run_checks,
    run_record,
    train_step,
)
from dfdetect.training.settings import Settings

FLAGS = flags.FLAGS

_log = logging.getLogger(__name__)

_NOT_OF_RUN = ("allow_changed_flags", "verbose")  # They change no result.

flags.DEFINE_string(
    "model_dir", None, "Folder for checkpoints, events, weights and manifest."
)
flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets, local or remote as gs://."
)
flags.DEFINE_integer(
    "batch_size", 16, "Images per step, over all devices.", lower_bound=1
)
flags.DEFINE_integer("steps", 10_000, "Optimizer steps in all.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of weights, order and augmentation.", 0)
flags.DEFINE_string(
    "snapshot",
    "none",
    'Where the weights start: "imagenet" (through Keras), "none" (random), a weights '
    "file or model folder of dfdetect, or a file of others, see "
    "dfdetect.models.foreign_weights.",
)
flags.DEFINE_integer(
    "snapshot_step",
    None,
    "Start from this step of the run in --snapshot (or --init_from), one of those that "
    "its checkpoints keep; by default from its best weights.",
    lower_bound=1,
)
flags.DEFINE_string(
    "validation_split",
    "validation",
    'Split that decides which weights are kept. "none": all is trained on, and the '
    "weights of the last step are kept.",
)
flags.DEFINE_bool(
    "allow_leaky_split",
    False,
    "Train even if a group is in the training split and in the one to validate on.",
)
flags.DEFINE_bool(
    "allow_changed_flags",
    False,
    "Let a run resume with other flags than it started with, such as --learning_rate "
    "or --batch_size; flags.txt notes them. Never with other data or another model.",
)

flags.DEFINE_enum(
    "strategy",
    "one",
    distribute.NAMES,
    "Where to train: one device; mirrored, all devices of this machine; multi_worker, "
    "the machines that TF_CONFIG names; tpu, the one that TPU_NAME names.",
)
flags.DEFINE_integer(
    "devices",
    None,
    "GPUs to use on each machine; without a GPU, parts to divide the processor into.",
)
flags.DEFINE_float(
    "start_timeout",
    600.0,
    "Seconds that the workers of --strategy=multi_worker wait for each other, and then "
    "at most, but at least 30, until they are connected.",
    lower_bound=0.0,
)
flags.DEFINE_bool(
    "deterministic",
    False,
    "Use only repeatable operations, one after the other on one thread: the same "
    "command ends with the same weights, bit for bit. Slower.",
)
flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "Number format of the layers; weights, logits and losses stay float32. "
    "mixed_float16 scales the loss.",
)

flags.DEFINE_enum("optimizer", "adamw", optimizers.RULES, "Update rule.")
flags.DEFINE_float("learning_rate", 1e-3, "Learning rate after the warm-up.")
flags.DEFINE_integer("warmup_steps", 0, "Steps of linear rise.", lower_bound=0)
flags.DEFINE_enum(
    "schedule",
    "cosine",
    optimizers.SCHEDULES,
    "Learning rate after the warm-up: a cosine down to 0 at --steps, or times "
    "--decay_factor every --decay_every steps, or constant.",
)
flags.DEFINE_float("decay_factor", 0.1, "See --schedule.")
flags.DEFINE_integer("decay_every", 1000, "See --schedule, in steps.", lower_bound=1)
flags.DEFINE_float("momentum", 0.9, "Momentum of --optimizer=sgd.")
flags.DEFINE_float("weight_decay", 1e-4, "Decoupled decay of kernels.")
flags.DEFINE_float(
    "clip_norm", 10.0, "Greatest global norm of the gradient; 0 for no limit."
)
flags.DEFINE_float(
    "ema_decay",
    0.0,
    "Evaluate and keep a moving average of the weights with this decay, such as .9998; "
    "0 for the weights themselves.",
)
flags.DEFINE_integer(
    "accumulate",
    1,
    "Parts of a batch to compute one after the other, for less memory; batch norms see "
    "each part by itself.",
    lower_bound=1,
)
flags.DEFINE_bool(
    "freeze_backbone", False, "Train only the layers on top of the backbone."
)
flags.DEFINE_bool("freeze_bn", False, "Freeze every batch norm.")
flags.DEFINE_bool(
    "synchronize_bn", True, "Let batch norms see the whole batch on many devices."
)

flags.DEFINE_integer("eval_every", 500, "Steps between evaluations.", lower_bound=1)
flags.DEFINE_integer(
    "checkpoint_every",
    500,
    "Steps between checkpoints; each evaluation has one as well.",
    lower_bound=1,
)
flags.DEFINE_integer("keep", 2, "Checkpoints to keep.", lower_bound=1)
flags.DEFINE_string(
    "best_metric",
    None,
    "Validation figure by which the weights are kept; with a minus sign before it if "
    "less is better.",
)
flags.DEFINE_integer(
    "patience",
    0,
    "Evaluations without a better one after which to stop; 0 for never.",
    lower_bound=0,
)
flags.DEFINE_integer("log_every", 50, "Steps between log lines.", lower_bound=1)
flags.DEFINE_bool("histograms", False, "Show histograms of all weights in TensorBoard.")
flags.DEFINE_list(
    "profile_steps", [], "First and last step to profile for TensorBoard, as 10,20."
)


def run_script(main: Callable[[list[str]], None]) -> None:
    """Runs a script's `main` as `script.run_main` does.

    The exit code is 128 plus the signal's number after a signal, 138 after the loss of
    a worker. With `--verbosity=1` errors are shown with their traceback.
    """
    # A shell lets what it starts in the background ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    script.run_main(functools.partial(_run_main, main))


def start_run(
    argv: Sequence[str], metrics: Sequence[str]
) -> tuple[Settings, tf.distribute.Strategy, run_record.RunRecord]:
    """Checks the flags, and sets up the process and its seed.

    Args:
        argv: Arguments of `main`.
        metrics: Names of the validation figures; the first is the default
            `--best_metric`.

    Returns:
        The settings of the training loop, the strategy, and the record of the run,
        which the loop writes before its first step.

    Raises:
        app.UsageError: A value is out of range, or differs from that of the chief or of
            the run that resumes.
    """
    best_metric = FLAGS.best_metric or metrics[0]
    if best_metric.removeprefix("-") not in metrics:
        raise app.UsageError(
            f"--best_metric must be one of {list(metrics)}, got {best_metric}."
        )
    try:
        fields = {field.name for field in dataclasses.fields(Settings)}
        values: dict[str, Any] = {name: FLAGS[name].value for name in fields & {*FLAGS}}
        values["best_metric"] = best_metric
        values["loss_scaling"] = FLAGS.precision == "mixed_float16"
        values["profile_steps"] = tuple(map(int, FLAGS.profile_steps))
        values["hparams"] = {
            name: shown if isinstance(shown, int | float) else str(shown)
            for name, shown in _flag_values(argv[0]).items()
        }
        settings = Settings(**values)
        if FLAGS.deterministic:
            # With several threads, in a kernel or between kernels, sums sometimes
            # differ in the last bit despite enable_op_determinism (TensorFlow 2.20;
            # between kernels only if Grappler is on and the machine is busy).
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        strategy = distribute.build_strategy(
            FLAGS.strategy, FLAGS.devices, FLAGS.start_timeout, script.say
        )
        if FLAGS.batch_size % strategy.num_replicas_in_sync:
            raise ValueError(
                f"--batch_size must be a multiple of {strategy.num_replicas_in_sync} "
                f"devices, got {FLAGS.batch_size}."
            )
        record = _open_record()
        run_checks.check_flags(
            strategy,
            record,
            lines={name: FLAGS[name].serialize() for name in _flag_values(argv[0])},
            defaults={
                **{n: _default_line(flag) for n, flag in _find_flags(argv[0]).items()},
                "best_metric": f"--best_metric={metrics[0]}",
            },
            allowed=FLAGS.allow_changed_flags,
            say=script.say,
        )
        run_checks.check_warmup(strategy, record, settings)
    except ValueError as error:
        raise app.UsageError(str(error)) from error
    keras.utils.set_random_seed(FLAGS.seed)
    if FLAGS.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.mixed_precision.set_global_policy(FLAGS.precision)
    # Images are changed in parallel already, and threads that wait take CPU time.
    cv2.setNumThreads(0)
    return settings, strategy, record


def check_data(
    builders: Sequence[tfds.core.DatasetBuilder],
    strategy: tf.distribute.Strategy,
    record: run_record.RunRecord,
) -> None:
    """See `run_checks.check_data`."""
    run_checks.check_data(
        strategy,
        record,
        builders=builders,
        batch_size=FLAGS.batch_size,
        say=script.say,
    )


def check_leaks(
    builders: Sequence[tfds.core.DatasetBuilder],
    split: str,
    strategy: tf.distribute.Strategy,
    *,
    where: Sequence[conditions.Condition],
    validated_on: Sequence[conditions.Condition],
) -> None:
    """See `run_checks.check_leaks`."""
    run_checks.check_leaks(
        strategy,
        builders,
        split,
        where=where,
        validated_on=validated_on,
        allowed=FLAGS.allow_leaky_split,
        say=script.say,
    )


def find_starting_weights(name: str) -> str:
    """Finds the weights that `--snapshot` or `--init_from` name; returns the path.

    Args:
        name: Value of the flag.

    Raises:
        FileNotFoundError: `--snapshot_step` is not kept.
    """
    if FLAGS.snapshot_step is None:
        return name
    return kept_steps.find(name, FLAGS.snapshot_step)


def warn_of_frozen_random(model: keras.Model, report: weights.LoadReport) -> None:
    """Warns of weights that are frozen without having been loaded."""
    keys = weights.find_frozen_random(model, report)
    if keys:
        script.say(
            f"WARNING: {len(keys)} weights are frozen as they were initialized "
            f"({keys[0]}, ...): start from weights that have them, with --snapshot."
        )


def adapt_batch_norms(model: keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Freezes, synchronizes and fuses the batch norms of a model, by the flags."""
    if FLAGS.freeze_bn:
        train_step.freeze_batch_norms(model)
    if FLAGS.synchronize_bn and strategy.num_replicas_in_sync > 1:
        for layer in train_step.find_batch_norms(model):
            layer.synchronized = True
    fused_batch_norm.fuse_batch_norms(model)


def _find_flags(script: str) -> dict[str, flags.Flag]:
    """Finds the flags that a script defines or adopts and that belong to a run."""
    return {
        flag.name: flag
        for flag in FLAGS.get_key_flags_for_module(script)
        if flag.name not in _NOT_OF_RUN
    }


def _flag_values(script: str) -> dict[str, Any]:
    """Returns the values of those that have one."""
    found = _find_flags(script).items()
    return {name: flag.value for name, flag in found if flag.value not in (None, [])}


def _default_line(flag: flags.Flag) -> str:
    """Returns the line of a flag by default; "" where it has no value."""
    if flag.default in (None, []):
        return ""
    untouched = copy.deepcopy(flag)
    untouched.unparse()
    return untouched.serialize()


def _open_record() -> run_record.RunRecord:
    steps = kept_steps.list_steps(os.path.join(FLAGS.model_dir, kept_steps.FOLDER))
    return run_record.RunRecord(FLAGS.model_dir, (steps or [0])[-1])


def _run_main(main: Callable[[list[str]], None], argv: list[str]) -> None:
    try:
        main(argv)
    except loop.Interrupted as interrupted:
        _log.info("%s", interrupted)
        sys.exit(128 + interrupted.signal)
    except (loop.WorkerLost, rendezvous.WorkerMissing) as lost:
        script.say(str(lost))
        sys.exit(distribute.LOST_WORKER_CODE)
    except (OSError, ValueError, FloatingPointError, tf.errors.OpError) as error:
        _log.debug("", exc_info=True)
        if isinstance(error, OSError | ValueError):
            raise
        if isinstance(error, loop.LOST) and FLAGS.strategy == "multi_worker":
            reason = distribute.describe_loss(error.message)
            script.say(f"another worker is lost; start all of them again ({reason})")
            sys.exit(distribute.LOST_WORKER_CODE)
        raise ValueError(str(error)) from error
