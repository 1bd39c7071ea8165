"""Worker processes of Beam's DirectRunner, watched so that a run ends when one dies.

With `direct_running_mode=multi_processing`, Beam (2.77) notices the end of a process by
the connections that it had. So it waits forever for one that ended before it connected,
and at the end of a failed run for one that connects afterwards
(https://github.com/apache/beam/issues/19674).
"""

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

from apache_beam.portability import python_urns
from apache_beam.runners.portability import local_job_service
from apache_beam.runners.portability.fn_api_runner import worker_handlers

_POLL_SECONDS = 0.2


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Ends runs within the block when one of their processes dies.

    Raises:
        ChildProcessError: A run failed, and processes had died; says how.
    """
    deaths: list[str] = []
    _register(functools.partial(_WatchedHandler, deaths))
    try:
        yield
    # Runners raise whatever they like.
    except Exception as error:
        if not deaths:
            raise
        raise ChildProcessError(
            f"{error}; {deaths[0]}; 137 and -9 mean that it was killed, as where "
            "memory is short"
        ) from error
    finally:
        _register(worker_handlers.SubprocessSdkWorkerHandler)


def _register(constructor: Any) -> None:
    """Sets what Beam makes for each process of a run that starts."""
    worker_handlers.WorkerHandler.register_environment(
        python_urns.SUBPROCESS_SDK, bytes
    )(constructor)


class _WatchedHandler(worker_handlers.SubprocessSdkWorkerHandler):
    """The runner's side of a process.

    Args:
        deaths: Gets a sentence when the process dies.
        arguments: Those of Beam's own handler.
    """

    def __init__(self, deaths: list[str], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._deaths = deaths
        self._closing = threading.Event()

    def start_worker(self) -> None:
        """Starts the process, and a thread that waits for its end."""
        self.worker = local_job_service.SubprocessSdkWorker(
            self._worker_command_line,
            self.control_address,
            self.provision_info,
            self.worker_id,
        )
        self.worker_thread = threading.Thread(target=self._run_worker)
        self.worker_thread.start()

    def close(self) -> None:
        """Ends the process, and waits for its end."""
        self._closing.set()
        # Beam ends connected processes only; one that connects later finds this.
        self.control_conn.push(worker_handlers.BeamFnControlServicer._DONE_MARKER)
        try:
            super().close()
        finally:
            # Beam leaves out this step where a connection was broken.
            self.worker_thread.join()

    def _run_worker(self) -> None:
        try:
            self.worker.run()
            if self._closing.is_set():
                return
            how = "Worker subprocess exited before its work was done"
        # As Beam raises it, or the system where no process can be started.
        except (OSError, RuntimeError) as error:
            how = str(error)
        self._deaths.append(f"{how} ({self.worker_id})")
        self._fail_requests(RuntimeError(how))

    def _fail_requests(self, error: RuntimeError) -> None:
        """Fails what the runner asks of the process, until the runner gives up."""
        # Or the runner may wait for room to send more.
        threading.Thread(target=self._take_inputs, daemon=True).start()
        # A broken connection raises here what the runner knows already.
        with contextlib.suppress(Exception):
            self.data_conn.close()
        while not self._closing.wait(_POLL_SECONDS):
            # The runner may ask for more meanwhile, which fails the next time.
            with contextlib.suppress(RuntimeError):
                self.control_conn.abort(error)

    def _take_inputs(self) -> None:
        """Takes what the runner sends, as the process would."""
        for _ in self.data_conn._write_outputs():
            pass
