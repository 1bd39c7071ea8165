"""A SavedModel as TensorFlow Serving loads it: a session, and signatures that name
tensors.
"""

import collections
import contextlib
import functools
import os
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

from dfdetect import manifest
from dfdetect.export import inspection
from dfdetect.retrieval import neighbours

Arrays = Mapping[str, np.ndarray]

DEFAULT_SIGNATURE = "serving_default"

# Which outputs are wanted is the client's choice, so that there may be very many.
_MOST_CALLABLES = 64


class SavedModel:
    """A loaded graph.

    A graph that is an export of ours and optimized already is not optimized again, see
    `inspection.is_optimized`.

    Args:
        directory: With the `saved_model.pb`.
        tags: Tags of the graph in it.
        session_config: Settings of TensorFlow's threads.
        run_seconds: Bound of one run of the graph; 0 for none. The operations that it
            is at are waited for.

    Attributes:
        signatures: By name, as in the file.
        run_seconds: See above.

    Raises:
        OSError: There is no SavedModel.
        RuntimeError: It has no graph with these tags.
        tf.errors.OpError: It cannot be read or restored.
    """

    def __init__(
        self,
        directory: str,
        tags: Sequence[str] = ("serve",),
        session_config: config_pb2.ConfigProto | None = None,
        run_seconds: float = 0.0,
    ) -> None:
        self.run_seconds = run_seconds
        config = config_pb2.ConfigProto()
        if session_config is not None:
            config.CopyFrom(session_config)
        if _is_optimized(directory):
            config.graph_options.rewrite_options.disable_meta_optimizer = True
        self._session, meta_graph = _load(directory, tags, config)
        self.signatures: dict[str, meta_graph_pb2.SignatureDef] = dict(
            meta_graph.signature_def
        )
        self._lock = threading.Lock()
        self._callables: collections.OrderedDict[Any, _Callable] = (
            collections.OrderedDict()
        )

    def run(self, feeds: Arrays, fetches: Sequence[str]) -> dict[str, np.ndarray]:
        """Runs the graph; safe from many threads.

        Args:
            feeds: Values by tensor name.
            fetches: Names of tensors.

        Raises:
            tf.errors.OpError: The graph refuses the feeds, or takes too long.
        """
        names = tuple(sorted(feeds)), tuple(sorted(set(fetches)))
        with self._lock:
            run = self._callables.get(names)
            if run is None:
                make = functools.partial(self._make_callable, *names)
                run = self._callables[names] = _Callable(make)
            self._callables.move_to_end(names)
            if len(self._callables) > _MOST_CALLABLES:
                self._callables.popitem(last=False)
        values = run(*(feeds[name] for name in names[0]))
        return {
            # A single string comes as plain bytes.
            name: np.asarray(value, object if isinstance(value, bytes) else None)
            for name, value in zip(names[1], values, strict=True)
        }

    def close(self) -> None:
        """Frees the graph and its variables."""
        self._callables.clear()
        self._session.close()

    def _make_callable(self, feeds: Sequence[str], fetches: Sequence[str]) -> Any:
        # `Session.run` refuses a feed whose shape disagrees with the placeholder's.
        # TensorFlow Serving does not, and neither does this.
        options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
        options.run_options.timeout_in_ms = round(self.run_seconds * 1e3)
        return self._session._make_callable_from_options(options)


class _Callable:
    """What runs some outputs of a graph; it is prepared by the first call.

    TensorFlow may take seconds for that, in which only calls of the same outputs wait.

    Args:
        make: Prepares it.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._run: Any = None

    def __call__(self, *values: np.ndarray) -> Any:
        if self._run is None:
            with self._lock:
                if self._run is None:
                    self._run = self._make()
        return self._run(*values)


def _is_optimized(directory: str) -> bool:
    try:
        described = manifest.read(os.path.join(directory, "assets"), "pipeline")
    except (OSError, ValueError):
        return False  # It is not ours.
    return inspection.is_optimized(described)


def _load(directory, tags, session_config):
    # First, as TensorFlow looks up what functions are made of when they are called.
    scann = inspection.SCANN.encode()
    for name in ("saved_model.pb", "saved_model.pbtxt"):
        path = os.path.join(directory, name)
        if os.path.exists(path) and scann in pathlib.Path(path).read_bytes():
            # Without it, TensorFlow says which operation is missing.
            with contextlib.suppress(ImportError):
                neighbours.import_scann_ops()
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph, config=session_config)
    try:
        with graph.as_default():
            meta_graph = inspection.load_into_session(session, directory, list(tags))
    except BaseException:
        session.close()
        raise
    return session, meta_graph
