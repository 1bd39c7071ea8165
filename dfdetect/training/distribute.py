"""Devices and machines of a training: a `tf.distribute` strategy by name.

Several machines find each other by the environment variable `TF_CONFIG`. The first of
them is the chief: only it reads checkpoints and writes.
"""

import functools
import json
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dfdetect.data.batches import WHOLE, Share
from dfdetect.training import exit_timer, rendezvous

# Exit code of a worker that cannot go on without another one. Kubeflow's training
# operator restarts what ends with a code from 128 on; 138 is free for programs.
LOST_WORKER_CODE = 138
NAMES = ("one", "mirrored", "multi_worker", "tpu")

# To connect takes seconds, also where `start_timeout` lets workers not wait at all.
_LEAST_TO_CONNECT = 30.0

_EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


def build_strategy(
    name: str,
    devices: int | None = None,
    start_timeout: float = 600.0,
    say: Callable[[str], None] = print,
) -> tf.distribute.Strategy:
    """Builds a strategy; call it before any other use of TensorFlow.

    Args:
        name: "one" device; "mirrored", the devices of this machine; "multi_worker",
            those of every machine in `TF_CONFIG`; or "tpu", the one that `TPU_NAME`
            names.
        devices: Number of GPUs to use on each machine, or without a GPU, of parts to
            divide its processor into. By default all GPUs, or the whole processor.
        start_timeout: Longest time in seconds that workers wait for each other, and
            then until they are connected. As nothing can be raised out of that, the
            process ends with `LOST_WORKER_CODE` where a worker is lost meanwhile.
        say: Called with lines that name the missing workers.

    Raises:
        rendezvous.WorkerMissing: A worker did not start in time.
        OSError: The port of this worker is in use.
        ValueError: The name is unknown, there are fewer devices, or `TF_CONFIG` or
            `TPU_NAME` is missing or wrong.
    """
    if name not in NAMES:
        raise ValueError(f"strategy must be one of {NAMES}, got {name!r}.")
    if devices is not None and (devices < 1 or (name == "one" and devices > 1)):
        raise ValueError(f"devices must fit the strategy {name}, got {devices}.")
    if name == "tpu":
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    if name == "multi_worker":
        tf_config = os.environ.get("TF_CONFIG", "")
        check_tf_config(tf_config)
        rendezvous.wait_for_workers(tf_config, start_timeout, say)
    if devices is not None:
        _select_devices(devices)
    if name == "mirrored":
        kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        return tf.distribute.MirroredStrategy(
            [device.name for device in tf.config.list_logical_devices(kind)]
        )
    if name == "multi_worker":
        limit = max(start_timeout, _LEAST_TO_CONNECT)
        say(
            "all workers are here and connect; ends with code "
            f"{LOST_WORKER_CODE} if that takes more than {limit:g} s"
        )
        with exit_timer.exiting_after(limit, LOST_WORKER_CODE):
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        # TensorFlow handles SIGTERM as a notice of preemption that nothing reads.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return strategy
    return tf.distribute.get_strategy()


def _select_devices(count: int) -> None:
    gpus = tf.config.list_physical_devices("GPU")
    if count > len(gpus) > 0:
        raise ValueError(f"devices must be at most {len(gpus)} GPUs, got {count}.")
    if gpus:
        tf.config.set_visible_devices(gpus[:count], "GPU")
    else:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * count,
        )


def check_tf_config(text: str) -> None:
    """Checks the content of `TF_CONFIG`.

    Raises:
        ValueError: It is empty, not JSON, or not a cluster of workers with a task.
    """
    if not text:
        raise ValueError(
            f"multi_worker needs TF_CONFIG, such as {_EXAMPLE}; it is not set."
        )
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        kind, index = task["type"], int(task["index"])
        tasks = {name: list(hosts) for name, hosts in cluster.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"TF_CONFIG must be like {_EXAMPLE}, got {text!r} ({error!r})."
        ) from error
    if not tasks.keys() <= {"chief", "worker"}:
        raise ValueError(
            f"TF_CONFIG may name chief and worker only, got {sorted(tasks)}."
        )
    if not 0 <= index < len(tasks.get(kind, ())):
        raise ValueError(
            f"TF_CONFIG has no task {kind} {index}: its cluster is {cluster}."
        )
    hosts = [host for names in tasks.values() for host in names]
    for host in hosts:
        name, _, port = str(host).rpartition(":")
        if not name or not port.isdigit() or hosts.count(host) > 1:
            raise ValueError(
                f"TF_CONFIG must name each task once as host:port, got {host!r}."
            )


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Returns how many processes train together."""
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    return max(len(resolver.cluster_spec().as_dict().get("worker", ())), 1) + len(
        resolver.cluster_spec().as_dict().get("chief", ())
    )


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the one that writes."""
    if num_workers(strategy) == 1:
        return True
    resolver = strategy.cluster_resolver
    has_chief = "chief" in resolver.cluster_spec().as_dict()
    return resolver.task_id == 0 and (resolver.task_type == "chief" or not has_chief)


def get_share(strategy: tf.distribute.Strategy) -> Share:
    """Returns which of the workers this process is; the chief is the first."""
    count = num_workers(strategy)
    if count == 1:
        return WHOLE
    resolver = strategy.cluster_resolver
    chiefs = len(resolver.cluster_spec().as_dict().get("chief", ()))
    first = chiefs if resolver.task_type == "worker" else 0
    return Share(count, first + resolver.task_id)


def all_reduce(values: Any) -> Any:
    """Sums each tensor of a nest over all replicas, within `strategy.run`."""
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def share(
    strategy: tf.distribute.Strategy, values: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Gives every worker the chief's arrays, over the network.

    Every worker must call it at the same point, and it returns at the same time: it is
    a barrier as well.

    Args:
        strategy: Strategy of the training.
        values: Float or int64 arrays; only the shapes of the other workers' count.

    Returns:
        The chief's arrays.
    """
    if num_workers(strategy) == 1:
        return list(values)

    shared = _build_broadcast(strategy)([tf.constant(value) for value in values])
    return [strategy.experimental_local_results(value)[0].numpy() for value in shared]


def share_number(strategy: tf.distribute.Strategy, number: int) -> int:
    """Returns the chief's number; every worker waits here for the others."""
    return int(share(strategy, [np.array(number, np.int64)])[0])


def gather(strategy: tf.distribute.Strategy, rows: np.ndarray) -> np.ndarray:
    """Concatenates the rows of all workers, those of the chief first.

    Every worker must call it at the same point, and gets the same.

    Args:
        strategy: Strategy of the training.
        rows: `[N, ...]` float or int64; only N may differ between workers.
    """
    share = get_share(strategy)
    if share.count == 1:
        return rows

    def add_up(array: np.ndarray) -> np.ndarray:
        total = _build_sum_of_workers(strategy)(tf.constant(array))
        return strategy.experimental_local_results(total)[0].numpy()

    counts = np.zeros(share.count, np.int64)
    counts[share.place] = len(rows)
    ends = np.cumsum(add_up(counts))
    # Zeros where others have rows: the sum of all is exact.
    everything = np.zeros((ends[-1], *rows.shape[1:]), rows.dtype)
    everything[ends[share.place] - len(rows) : ends[share.place]] = rows
    # An empty tensor ends the process by SIGSEGV (TensorFlow 2.20).
    return add_up(everything) if everything.size else everything


def share_bytes(strategy: tf.distribute.Strategy, content: bytes) -> bytes:
    """Gives every worker the chief's bytes; see `share`."""
    if num_workers(strategy) == 1:
        return content
    length = int(share(strategy, [np.array(len(content), np.int64)])[0])
    padded = content[:length].ljust(length, b"\0")
    numbers = np.frombuffer(padded, np.uint8).astype(np.int64)
    return share(strategy, [numbers])[0].astype(np.uint8).tobytes()


def count_failures(strategy: tf.distribute.Strategy, failed: bool) -> int:
    """Counts the workers that failed; every worker must call it at the same point."""
    if num_workers(strategy) == 1:
        return int(failed)
    local = strategy.num_replicas_in_sync // num_workers(strategy)
    total = _build_sum(strategy)(tf.constant(float(failed) / local))
    return round(float(strategy.experimental_local_results(total)[0]))


def describe_loss(message: str) -> str:
    """Returns what TensorFlow's message says of a lost worker, in one line."""
    lines = message.splitlines()
    # A traceback comes before it.
    told = [line for line in lines if "Collective ops is aborted by" in line]
    return (told or lines)[0][:200]


@functools.cache
def _build_sum(strategy: tf.distribute.Strategy) -> Callable[[Any], Any]:
    """Builds a function that gives all replicas the sum of their tensors."""
    return tf.function(
        lambda tensor: strategy.run(lambda x: all_reduce(tf.identity(x)), (tensor,))
    )


@functools.cache
def _build_sum_of_workers(strategy: tf.distribute.Strategy) -> Callable[[Any], Any]:
    """Builds a function that gives all replicas the sum of the workers' tensors."""
    local = strategy.num_replicas_in_sync // num_workers(strategy)

    def add_up(tensor: tf.Tensor) -> Any:
        context = tf.distribute.get_replica_context()
        is_first = tf.equal(context.replica_id_in_sync_group % local, 0)
        return all_reduce(tf.where(is_first, tensor, tf.zeros_like(tensor)))

    return tf.function(lambda tensor: strategy.run(add_up, (tensor,)))


@functools.cache
def _build_broadcast(strategy: tf.distribute.Strategy) -> Callable[[Any], Any]:
    """Builds a function that gives all replicas the tensors of the first one."""

    def sum_of_one(tensors: list[tf.Tensor]) -> Any:
        context = tf.distribute.get_replica_context()
        first = tf.equal(context.replica_id_in_sync_group, 0)
        return all_reduce([tf.where(first, t, tf.zeros_like(t)) for t in tensors])

    return tf.function(lambda tensors: strategy.run(sum_of_one, args=(tensors,)))
