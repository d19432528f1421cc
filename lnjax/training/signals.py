"""SIGINT and SIGTERM as a request to stop after the current step."""

import signal
import threading
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

_AGREE_EVERY = 4
"""Steps between the moments at which the processes of a run tell each other of signals."""


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

    def before(self, step: int) -> bool:
        """Whether to stop before a step: the same in all processes, whichever the signal reached.

        They agree every few steps, because each time waits for the step that is being computed.
        """
        if jax.process_count() == 1:
            return self.requested
        if step % _AGREE_EVERY:
            return False
        mine = signal.Signals[self.name] if self.name else 0
        number = int(multihost_utils.process_allgather(np.int32(mine)).max())
        if number:
            self.name = signal.Signals(number).name
        return number != 0

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
