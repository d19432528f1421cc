"""One finished, diverged or interrupted run, as tables, figures and reports read it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

STATUSES = ("finished", "diverged", "interrupted")


def number(value: Any) -> float:
    """`value` as a float; NaN for None (JSON's null) and for what is not a number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


@dataclass(frozen=True)
class RunRecord:
    """A run of an ablation: what was varied, how it ended, and its telemetry.

    `label` names the line of the comparison ("pre_ln", "post_ln, no warm-up"); runs that share it
    differ in learning rate and seed only. `result` is the content of result.json, `telemetry` the
    dataset of the run's history; both may be None for a run that left nothing behind, which then
    counts as interrupted.
    """

    label: str
    placement: str
    learning_rate: float
    warmup: int = 0
    seed: int = 0
    result: Mapping[str, Any] | None = None
    telemetry: xr.Dataset | None = field(default=None, repr=False)
    path: str | PathLike[str] = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(
                f"run {self.label!r} (seed {self.seed}) has status {self.status!r}; "
                f"result['status'] must be one of {', '.join(STATUSES)}"
            )

    @property
    def status(self) -> str:
        return (self.result or {}).get("status", "interrupted")

    @property
    def step(self) -> int:
        """The step at which the run ended; the last recorded step where the result lacks it."""
        step = number((self.result or {}).get("step"))
        if math.isfinite(step):
            return int(step)
        steps = self.steps
        return int(steps[-1]) if steps.size else 0

    @property
    def steps(self) -> Float[np.ndarray, " step"]:
        return self.values("step")

    @property
    def held_out_loss(self) -> float:
        """Held-out loss of the last evaluation; NaN if there was none."""
        loss = number((self.result or {}).get("evaluation_loss"))
        return loss if math.isfinite(loss) else last_finite(self.values("evaluation_loss"))

    @property
    def training_loss(self) -> float:
        """Training loss at the end; NaN if none was recorded."""
        loss = number((self.result or {}).get("final_loss"))
        return loss if math.isfinite(loss) else last_finite(self.values("loss"))

    @property
    def initial_loss(self) -> float:
        loss = number((self.result or {}).get("initial_loss"))
        if math.isfinite(loss):
            return loss
        return last_finite(self.values("loss")[::-1])

    @property
    def outcome(self) -> str:
        """How the run ended, in words: "finished", "diverged at step 120 (loss is not finite)"."""
        if self.status == "finished":
            return "finished"
        reason = str((self.result or {}).get("reason") or "").strip()
        return f"{self.status} at step {self.step}" + (f" ({reason})" if reason else "")

    def values(self, name: str) -> Float[np.ndarray, "..."]:
        """A telemetry variable or coordinate as float64; empty (length 0) where it is absent."""
        if self.telemetry is None or name not in self.telemetry.variables:
            return np.zeros(0)
        return np.asarray(self.telemetry[name].values, dtype=np.float64)


def last_finite(values: Float[np.ndarray, " n"]) -> float:
    """The last finite entry of a series; NaN if there is none."""
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if finite.size else math.nan


def as_records(runs: Iterable[Any]) -> list[RunRecord]:
    """Runs given as RunRecord, as mappings, or as objects with the same attributes.

    Raises:
        ValueError: a run lacks label, placement or learning_rate.
    """
    return [_as_record(run) for run in runs]


def _as_record(run: Any) -> RunRecord:
    if isinstance(run, RunRecord):
        return run
    names = [item.name for item in fields(RunRecord)]
    if isinstance(run, Mapping):
        given = {name: run[name] for name in names if name in run}
    else:
        given = {name: getattr(run, name) for name in names if hasattr(run, name)}
    missing = [name for name in ("label", "placement", "learning_rate") if name not in given]
    if missing:
        raise ValueError(
            f"a run of the report lacks {', '.join(missing)}; give a RunRecord, or a dict with "
            f"the keys {', '.join(names)}"
        )
    return RunRecord(**{**given, "learning_rate": number(given["learning_rate"])})


def join(parts: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and c"; with semicolons where a part holds a comma itself."""
    parts = list(parts)
    if any("," in part for part in parts):
        return "; ".join(parts)
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def by_label(runs: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs grouped by label, labels in the order in which they first appear."""
    groups: dict[str, list[RunRecord]] = {}
    for run in runs:
        groups.setdefault(run.label, []).append(run)
    return groups


def by_learning_rate(runs: Iterable[RunRecord]) -> dict[float, list[RunRecord]]:
    """Runs grouped by learning rate, in increasing order; rates equal to 6 digits are one."""
    groups: dict[float, list[RunRecord]] = {}
    for run in sorted(runs, key=lambda run: (run.learning_rate, run.seed)):
        groups.setdefault(float(f"{run.learning_rate:.6g}"), []).append(run)
    return groups
