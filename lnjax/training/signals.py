"""SIGINT and SIGTERM as a request to stop after the current step."""

import signal
import threading
from typing import Any


class StopSignal:
    """While entered, SIGINT and SIGTERM set `requested` instead of ending the process.

    A second SIGINT ends it at once. In threads other than the main one, where Python cannot
    catch signals, nothing is changed.

    Attributes:
      name: name of the signal that came, "" before one did.
    """

    def __init__(self):
        self.name = ""
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return bool(self.name)

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _catch(self, number: int, _frame: Any) -> None:
        if self.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
