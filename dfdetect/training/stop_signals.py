"""Signals that ask a training to stop, noted until it can."""

import signal
import threading
from typing import Any


class StopSignals:
    """Notes SIGTERM and SIGINT; a second one ends the process at once.

    Attributes:
        number: Number of the signal that came; None before.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)

    def close(self) -> None:
        """Restores the previous handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.number = number
        self.close()
