"""Keeps the versions of models that are wanted, and swaps them without a gap.

A new version is loaded before the old one goes, the old one goes when its last request
has been answered, and a version that does not load leaves the old one where it is.
"""

import concurrent.futures
import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator

from tensorflow_serving.apis import get_model_status_pb2, model_pb2
from tensorflow_serving.config import model_server_config_pb2

from dfdetect.serving import config, errors, model_state, servable, versions

_LOADS_AT_ONCE = 2
_LOADING_SECONDS = 2.0  # That a closing store waits for loads.
_TICK = 1.0  # Seconds, of what waits for no file: loads to be tried again.


class ModelStore:
    """The models of one server.

    Args:
        load: Loads a version: name, number, path.
        poll_seconds: Interval at which folders are read; 0: only when configured.
        max_retries: Number of attempts after a load failed.
        retry_seconds: Seconds between these attempts.
        say: Called with a line about each change of a version.
        unavailable_labels: Whether a new label may stand for a version that is not
            loaded.
    """

    def __init__(
        self,
        load: Callable[[str, int, str], servable.Servable],
        poll_seconds: float = 1.0,
        max_retries: int = 5,
        retry_seconds: float = 60.0,
        say: Callable[[str], None] = lambda line: None,
        unavailable_labels: bool = False,
    ) -> None:
        self._load = load
        self._poll_seconds = poll_seconds
        self._max_retries = max_retries
        self._retry_seconds = retry_seconds
        self._say = say
        self._unavailable_labels = unavailable_labels
        self._changed = threading.Condition()
        self._configuring = threading.Lock()
        self._models: dict[str, model_state.Model] = {}
        self._closing = threading.Event()
        self._loaders = concurrent.futures.ThreadPoolExecutor(
            _LOADS_AT_ONCE, "load-model"
        )
        self._poller = threading.Thread(target=self._poll, name="poll", daemon=True)
        self._poller.start()

    def configure(self, wanted: model_server_config_pb2.ModelServerConfig) -> None:
        """Replaces the models that are wanted.

        Labels are checked before anything is changed, as TensorFlow Serving does: a
        label that moves, and a new one without `unavailable_labels`, needs a version
        that is available. The first list of a server may have any. Where no list is
        set, as in a file that is just being written, nothing changes, as there.

        Raises:
            errors.ServingError: A name, a path or a label will not do; nothing has
                changed.
        """
        config.check_models(wanted)
        if wanted.WhichOneof("config") is None:
            return
        listed = {model.name: model for model in wanted.model_config_list.config}
        with self._configuring:
            with self._changed:
                if self._models:
                    model_state.check_labels(
                        self._models, listed, self._unavailable_labels
                    )
            found = {name: _find(model) for name, model in listed.items()}
            for name in listed:
                if not found[name]:
                    found_none = f"No versions of servable {name} found under base path"
                    hint = "; it is itself a version: name the folder that it lies in"
                    is_one = versions.is_version(listed[name].base_path)
                    self._say(found_none + (hint if is_one else ""))
            with self._changed:
                for name, model in listed.items():
                    kept = self._models.setdefault(name, model_state.Model(model))
                    kept.config = model
                    kept.aspired = versions.choose_versions(found[name], model)
                for name, gone in self._models.items():
                    if name not in listed:
                        gone.config = model_server_config_pb2.ModelConfig()
                        gone.aspired = {}
                self._advance()

    def wait_until_settled(self, timeout: float | None = None) -> dict[str, str]:
        """Waits until a load of each version that is wanted has been tried.

        Returns:
            By the name of the model why it has no available version, where a version
            did not load.
        """

        def settled() -> bool:
            return self._closing.is_set() or all(
                version.state in (model_state.State.AVAILABLE, model_state.State.END)
                or version.error is not None
                for model in self._models.values()
                for number, version in model.versions.items()
                if number in model.aspired
            )

        with self._changed:
            self._changed.wait_for(settled, timeout)
            return {
                name: str(model.versions[number].error)
                for name, model in self._models.items()
                for number in model.aspired
                if not model.available() and model.versions[number].error
            }

    @contextlib.contextmanager
    def use(self, spec: model_pb2.ModelSpec) -> Iterator[servable.Servable]:
        """Yields the servable that a request names; it is not freed inside the block.

        Raises:
            errors.ServingError: No such version is available.
        """
        with self._changed:
            version = model_state.find_version(self._models, spec)
            version.users += 1
        try:
            assert version.loaded is not None
            yield version.loaded
        finally:
            with self._changed:
                version.users -= 1
                if not version.users:
                    self._advance()

    def names(self) -> list[str]:
        """Names of the models that are wanted, in the order in which they came."""
        with self._changed:
            return [name for name, model in self._models.items() if model.config.name]

    def known(self, name: str) -> bool:
        """Whether there is or was a model of that name."""
        return name in self._models

    def ready(self) -> bool:
        """Whether each model that is wanted has an available version."""
        with self._changed:
            wanted = [model for model in self._models.values() if model.config.name]
            return bool(wanted) and all(model.available() for model in wanted)

    def unavailable_label(self) -> str:
        """See `model_state.unavailable_label`."""
        with self._changed:
            return model_state.unavailable_label(self._models)

    def status(
        self, spec: model_pb2.ModelSpec
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """See `model_state.build_status`."""
        with self._changed:
            return model_state.build_status(self._models, spec)

    def stop_loading(self) -> None:
        """Starts no more loads; what is available stays."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()

    def close(self, deadline: float = math.inf) -> bool:
        """Frees all models; waits for those that use them, and for loads a little.

        Args:
            deadline: Time of `time.monotonic` after which it waits no longer.

        Returns:
            Whether all has ended; else threads are still at it.
        """
        self.stop_loading()
        self._poller.join()
        with self._changed:
            for model in self._models.values():
                model.aspired = {}
            self._advance()
            self._changed.wait_for(
                lambda: not any(map(_is_held, self._versions())), _until(deadline)
            )
            # A graph that is being loaded cannot be interrupted.
            if deadline < math.inf:
                deadline = min(deadline, time.monotonic() + _LOADING_SECONDS)
            ended = self._changed.wait_for(
                lambda: all(map(_has_ended, self._versions())), _until(deadline)
            )
        self._loaders.shutdown(wait=ended, cancel_futures=not ended)
        return ended

    def _versions(self) -> Iterator[model_state.Version]:
        for model in self._models.values():
            yield from model.versions.values()

    def _poll(self) -> None:
        looked = time.monotonic()
        while not self._closing.wait(min(self._poll_seconds or _TICK, _TICK)):
            if self._poll_seconds and time.monotonic() >= looked + self._poll_seconds:
                looked = time.monotonic()
                self._look()
            with self._changed:
                self._advance()

    def _look(self) -> None:
        # A configuration must not be undone by what was seen before it.
        with self._configuring:
            for model in list(self._models.values()):
                if not model.config.name:
                    continue
                try:
                    found = _find(model.config)
                except errors.ServingError:
                    continue  # It may come back; till then everything stays.
                with self._changed:
                    model.aspired = versions.choose_versions(found, model.config)

    def _advance(self) -> None:
        """Starts what is due; called with the lock held."""
        for name, model in self._models.items():
            for number, path in model.aspired.items():
                version = model.versions.get(number)
                if version is None:
                    version = model.versions[number] = model_state.Version(path)
                if self._due(version):
                    version.path = path
                    version.state, version.busy = model_state.State.LOADING, True
                    self._loaders.submit(self._load_version, name, number, version)
            free = not model.aspired or any(
                n in model.aspired for n in model.available()
            )
            for number, version in list(model.versions.items()):
                if number in model.aspired or version.busy:
                    continue
                if version.state == model_state.State.AVAILABLE and free:
                    version.state = model_state.State.UNLOADING
                if version.state == model_state.State.UNLOADING and not version.users:
                    version.busy = True
                    self._loaders.submit(self._free_version, name, number, version)
                elif version.state in (
                    model_state.State.START,
                    model_state.State.LOADING,
                ):
                    version.state = model_state.State.END  # given up
                if version.state == model_state.State.END:
                    version.attempts = 0  # It may be published again.
        self._changed.notify_all()

    def _due(self, version: model_state.Version) -> bool:
        if version.busy or self._closing.is_set():
            return False
        if version.state == model_state.State.END:
            return version.attempts == 0
        return (
            version.state in (model_state.State.START, model_state.State.LOADING)
            and time.monotonic() >= version.next_attempt
        )

    def _load_version(
        self, name: str, number: int, version: model_state.Version
    ) -> None:
        loaded, problem = None, None
        self._say(f"Loading servable version {{name: {name} version: {number}}}")
        try:
            loaded = self._load(name, number, version.path)
        except BaseException as error:
            problem = errors.to_serving_error(error, name, [version.path])
        with self._changed:
            version.busy = False
            version.attempts += 1
            version.error, version.loaded = problem, loaded
            if loaded is not None:
                version.state = model_state.State.AVAILABLE
            elif version.attempts > self._max_retries:
                version.state = model_state.State.END
            else:
                version.next_attempt = time.monotonic() + self._retry_seconds
            self._advance()
        self._say(
            f"Failed to load servable version {{name: {name} version: {number}}}: "
            f"{problem}"
            if problem
            else f"Successfully loaded servable version "
            f"{{name: {name} version: {number}}}"
        )

    def _free_version(
        self, name: str, number: int, version: model_state.Version
    ) -> None:
        assert version.loaded is not None
        version.loaded.close()
        with self._changed:
            version.loaded, version.busy = None, False
            version.state = model_state.State.END
            self._advance()
        self._say(f"Done unloading servable version {{name: {name} version: {number}}}")


def _is_held(version: model_state.Version) -> bool:
    """Whether a version is used, or being freed."""
    return version.state in (model_state.State.AVAILABLE, model_state.State.UNLOADING)


def _has_ended(version: model_state.Version) -> bool:
    return version.state == model_state.State.END and not version.busy


def _until(deadline: float) -> float | None:
    return None if deadline == math.inf else max(deadline - time.monotonic(), 0.0)


def _find(model: model_server_config_pb2.ModelConfig) -> dict[int, str]:
    try:
        return versions.find_versions(model.base_path)
    except Exception as error:
        raise errors.ServingError(
            "NOT_FOUND", f"Could not find base path for servable {model.name}"
        ) from error
