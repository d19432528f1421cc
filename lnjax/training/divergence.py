"""When a run counts as diverged."""

import math
from dataclasses import dataclass


@dataclass
class Divergence:
    """Decides whether a run has diverged: not finite, or far above its first loss for long.

    Attributes:
      margin: nats above the first loss; patience: steps in a row.
      half: float16, where a single overflow is skipped by the loss scale.
      reason: why the run has diverged, "" while it has not.
    """

    margin: float
    patience: int
    half: bool
    first: float | None = None
    above: int = 0
    overflows: int = 0
    reason: str = ""

    def update(self, steps: int, loss: float, finite: bool) -> bool:
        """Take in the loss of the last of `steps` steps; true once the run has diverged."""
        if not finite:
            self.overflows += 1
            # 25 halvings take the largest loss scale to 1: what still overflows is divergence.
            if not self.half or self.overflows > 25:
                what = "loss" if not math.isfinite(loss) else "gradient"
                self.reason = f"{what} not finite at step {steps}"
        else:
            self.overflows = 0
            self.first = loss if self.first is None else self.first
            self.above = self.above + 1 if loss > self.first + self.margin else 0
            if self.above >= self.patience:
                self.reason = (
                    f"loss {loss:.2f} at step {steps}, more than {self.margin:g} nats above the "
                    f"first ({self.first:.2f}) for {self.above} steps"
                )
        return bool(self.reason)
