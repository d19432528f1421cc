"""How fast a run trains."""

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Speed:
    """The time that training steps take: from the end of a sitting's first step, which compiles,
    to the end of its last, without pauses (evaluations, the saving of checkpoints).

    Attributes:
      steps, seconds: what was timed, in earlier sittings too.
    """

    steps: int = 0
    seconds: float = 0.0
    _since: float | None = field(default=None, init=False)

    def finished_step(self) -> None:
        """A step's results have arrived."""
        now = time.monotonic()
        if self._since is not None:
            self.steps += 1
            self.seconds += now - self._since
        self._since = now

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While entered, no time passes. No step may be under way."""
        entered = time.monotonic()
        yield
        if self._since is not None:
            self._since += time.monotonic() - entered

    @property
    def steps_per_second(self) -> float:
        """NaN before anything was timed."""
        return self.steps / max(self.seconds, 1e-9) if self.steps else math.nan
