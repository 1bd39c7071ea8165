"""Finds the versions of a model, and chooses those that are served."""

from collections.abc import Mapping

import tensorflow as tf
from tensorflow_serving.config import model_server_config_pb2

from dfdetect.serving import options

_LARGEST = 2**63 - 1


def find_versions(base_path: str) -> dict[int, str]:
    """Finds the versions in a folder: those whose names are numbers.

    Args:
        base_path: Local, or any that `tf.io.gfile` reads.

    Returns:
        Their paths by number. `00000123` is 123; of two names of one number, the last
        in order.

    Raises:
        tf.errors.OpError: There is no such folder.
    """
    found = {}
    for name in sorted(tf.io.gfile.listdir(base_path)):
        name = name.rstrip("/")  # as of object stores
        if name.isascii() and name.isdecimal() and int(name) <= _LARGEST:
            found[int(name)] = tf.io.gfile.join(base_path, name)
    return found


def is_version(path: str) -> bool:
    """Whether a folder holds a model, rather than versions of one."""
    return any(
        tf.io.gfile.exists(tf.io.gfile.join(path, name)) for name in options.MODEL_FILES
    )


def choose_versions(
    found: Mapping[int, str], model: model_server_config_pb2.ModelConfig
) -> dict[int, str]:
    """Chooses the versions that the policy of a model asks for."""
    policy = model.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        chosen = set(found)
    elif choice == "specific":
        chosen = set(found) & set(policy.specific.versions)
    else:
        count = policy.latest.num_versions or 1
        chosen = set(sorted(found)[-count:])
    return {number: found[number] for number in sorted(chosen)}
