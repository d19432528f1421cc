"""Numbers that summarise an ablation: one row per label, for the terminal and the report."""

import math
import statistics
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float

from lnjax.analysis.records import RunRecord, as_records, by_label, by_learning_rate

When = Literal["start", "end"]
LossKind = Literal["held-out", "training"]


def block_gradient(data: xr.Dataset) -> xr.DataArray:
    """Gradient L2 norm of a whole block: root of the summed squares over its weight groups.

    Returns the dims of `gradient_l2` without "group". A group that a layer lacks is NaN at every
    step and left out of the sum; a group that is NaN at some steps only makes the block NaN there.
    """
    squares = data["gradient_l2"].astype("float64") ** 2
    norm = np.sqrt(squares.sum("group", skipna=True, min_count=1))
    if "step" not in squares.dims:
        return norm
    missing = squares.isnull()
    return norm.where(~(missing & ~missing.all("step")).any("group"))


def loss_kind(runs: Iterable[RunRecord]) -> LossKind:
    """The loss runs are ranked by: held-out, or training where nothing was evaluated."""
    return "held-out" if any(math.isfinite(run.held_out_loss) for run in runs) else "training"


def loss_of(run: RunRecord, kind: LossKind) -> float:
    return run.held_out_loss if kind == "held-out" else run.training_loss


def best_run(runs: Iterable[Any]) -> RunRecord:
    """The run that stands for its label: the median seed of the best learning rate.

    The best learning rate has the lowest median over seeds of the final held-out loss (training
    loss where nothing was evaluated). A run that did not finish counts as infinitely bad, however
    low its loss was on the way. If no rate has a finite median, the one with the fewest
    unfinished runs is taken, then the one whose runs got furthest.

    Raises:
        ValueError: there is no run.
    """
    records = as_records(runs)
    if not records:
        raise ValueError("best_run needs at least one run; got none")
    kind = loss_kind(records)

    def cost(run: RunRecord) -> float:
        loss = loss_of(run, kind)
        return loss if run.status == "finished" and math.isfinite(loss) else math.inf

    def rank(item: tuple[float, list[RunRecord]]) -> tuple[float, ...]:
        rate, group = item
        costs = [cost(run) for run in group]
        unfinished = sum(run.status != "finished" for run in group) / len(group)
        return (statistics.median(costs), unfinished, -float(max(run.step for run in group)), rate)

    _, group = min(by_learning_rate(records).items(), key=rank)
    # the low median: a run that exists, never an average of two
    ordered = sorted(group, key=lambda run: (cost(run), -run.step, run.seed))
    return ordered[(len(ordered) - 1) // 2]


def best_runs(runs: Iterable[Any]) -> dict[str, RunRecord]:
    """`best_run` of every label."""
    return {label: best_run(group) for label, group in by_label(as_records(runs)).items()}


def _pick(
    values: Float[np.ndarray, "step ..."], usable: Bool[np.ndarray, " step"], at: When
) -> Float[np.ndarray, "..."] | None:
    """The first or last record of `values` among the usable ones; None if none is."""
    if at not in ("start", "end"):
        raise ValueError(f"at must be 'start' or 'end', not {at!r}")
    index = np.flatnonzero(usable)
    if not index.size:
        return None
    return values[index[0] if at == "start" else index[-1]]


def gradient_ratio(telemetry: xr.Dataset | None, at: When = "end") -> float:
    """Gradient norm of the last block over that of the first, at the first or last usable record.

    A record is usable if both norms are finite and above 0: in a run that diverged, "end" is the
    last record before the breakdown. NaN if there is no such record.
    """
    if telemetry is None or "gradient_l2" not in telemetry:
        return math.nan
    norms = block_gradient(telemetry).transpose("step", "layer").values
    ends = norms[:, [0, -1]] if norms.shape[1] else np.full((len(norms), 2), np.nan)
    picked = _pick(ends, (np.isfinite(ends) & (ends > 0)).all(axis=1), at)
    return math.nan if picked is None else float(picked[1] / picked[0])


def sublayer_series(
    telemetry: xr.Dataset | None, forward: bool = True
) -> tuple[Float[np.ndarray, " site"], Float[np.ndarray, "step site"]]:
    """The residual stream at every depth and step: its RMS, or backward the L2 norm of dL/dx.

    Returns (blocks passed, values): 0 is the input of block 1, l - 1/2 the input of the MLP of
    block l, L the output of the last block (where it was recorded). Shapes (0,) and (0, 0) where
    the telemetry lacks the stream.
    """
    empty = np.zeros(0), np.zeros((0, 0))
    name, output = ("activation_rms", "output_rms") if forward else _BACKWARD
    if telemetry is None or name not in telemetry:
        return empty
    data = telemetry[name]
    if "site" in data.dims:
        if "stream" not in data["site"].values:
            return empty
        data = data.sel(site="stream")
    data = data.transpose("step", "layer", "sublayer")
    steps, layers, sublayers = data.shape
    values = data.values.astype(np.float64).reshape(steps, layers * sublayers)
    depth = np.arange(layers * sublayers) / max(sublayers, 1)
    if output in telemetry:
        last = telemetry[output].values.astype(np.float64)
        return np.append(depth, layers), np.concatenate([values, last[:, None]], axis=1)
    return depth, values


_BACKWARD = ("backward_l2", "output_backward_l2")


def stream_profile(
    telemetry: xr.Dataset | None, at: When = "end"
) -> tuple[Float[np.ndarray, " site"], Float[np.ndarray, " site"]]:
    """(blocks passed, RMS) of the stream at the first or last record without a NaN or infinity.

    Both empty if there is no such record; depths as in `sublayer_series`.
    """
    depth, values = sublayer_series(telemetry)
    picked = _pick(values, np.isfinite(values).all(axis=1), at)
    return (np.zeros(0), np.zeros(0)) if picked is None else (depth, picked)


def stream_growth(telemetry: xr.Dataset | None, at: When = "end") -> float:
    """RMS of the stream after the last block over its RMS before the first; NaN if unknown."""
    if telemetry is None or "output_rms" not in telemetry:
        return math.nan
    _, rms = stream_profile(telemetry, at)
    return float(rms[-1] / rms[0]) if rms.size and rms[0] > 0 else math.nan


def power_law(depth: Float[np.ndarray, " n"], value: Float[np.ndarray, " n"]) -> float:
    """Exponent of the least-squares power law value ~ depth^exponent.

    NaN below two points, and where no power law holds: a point lies off it by a factor above three
    (exponential growth without norms).
    """
    depth, value = np.asarray(depth, np.float64), np.asarray(value, np.float64)
    good = np.isfinite(depth) & np.isfinite(value) & (depth > 0) & (value > 0)
    if np.unique(depth[good]).size < 2:
        return math.nan
    x, y = np.log(depth[good]), np.log(value[good])
    slope, offset = np.polyfit(x, y, 1)
    off = np.abs(y - slope * x - offset).max()
    return float(slope) if off <= math.log(3) else math.nan


def last_block_gradient(
    profile: xr.Dataset, placement: str, group: str = "mlp.out"
) -> tuple[Float[np.ndarray, " depth"], Float[np.ndarray, " depth"]]:
    """(depths, gradient L2 norm of `group` in the last block), finite positive values only."""
    depths = profile["depth"].values.astype(np.float64)
    if "gradient_l2" not in profile or group not in profile["group"].values:
        return np.zeros(0), np.zeros(0)
    norms = profile["gradient_l2"].sel(placement=placement, group=group)
    layers = profile["layer"].values
    last = np.array(
        [norms.sel(depth=d, layer=d).item() if d in layers else np.nan for d in depths], np.float64
    )
    good = np.isfinite(last) & (last > 0)
    return depths[good], last[good]


def _row(group: list[RunRecord], kind: LossKind) -> dict[str, Any]:
    best = best_run(group)
    peers = [run for run in group if math.isclose(run.learning_rate, best.learning_rate)]
    done = [run for run in peers if run.status == "finished"]
    losses = [loss for run in done if math.isfinite(loss := loss_of(run, kind))]

    def median(values: list[float]) -> float:
        finite = [value for value in values if math.isfinite(value)]
        return statistics.median(finite) if finite else math.nan

    return {
        "runs": len(group),
        **{name: sum(run.status == name for run in group) for name in _COUNTS},
        "best_learning_rate": best.learning_rate if losses else math.nan,
        "seeds": len(losses),
        "held_out_loss": median([run.held_out_loss for run in done]),
        "training_loss": median([run.training_loss for run in done]),
        "loss_low": min(losses, default=math.nan),
        "loss_high": max(losses, default=math.nan),
        "gradient_ratio_start": gradient_ratio(best.telemetry, "start"),
        "gradient_ratio_end": gradient_ratio(best.telemetry, "end"),
        "stream_growth_start": stream_growth(best.telemetry, "start"),
        "stream_growth_end": stream_growth(best.telemetry, "end"),
    }


_COUNTS = ("finished", "diverged", "interrupted")


def summary_table(runs: Iterable[Any]) -> pd.DataFrame:
    """One row per label (the index), in order of appearance.

    Columns: runs, finished, diverged, interrupted (counts over all learning rates and seeds);
    best_learning_rate; seeds (finished runs at that rate); held_out_loss, training_loss (median
    over those seeds); loss_low, loss_high (their range, of the loss runs are ranked by);
    gradient_ratio_start/_end and stream_growth_start/_end of `best_run`. NaN where unknown: a
    label without a finished run has no loss. `attrs["loss"]` is "held-out" or "training".
    """
    records = as_records(runs)
    kind = loss_kind(records)
    rows = {label: _row(group, kind) for label, group in by_label(records).items()}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "label"
    table.attrs["loss"] = kind
    return table


def learning_rate_table(runs: Iterable[Any]) -> pd.DataFrame:
    """Loss in words, labels by learning rates; every run that did not finish is named.

    A cell reads "1.532" (one seed), "1.532 (1.52–1.55)" (median and range over seeds), or states
    what happened: "diverged at step 120 (loss is not finite)", "1.532; 1 of 3 diverged". Empty
    where nothing was run.
    """
    records = as_records(runs)
    kind = loss_kind(records)
    rates = list(by_learning_rate(records))
    rows = {}
    for label, group in by_label(records).items():
        cells = by_learning_rate(group)
        rows[label] = [_cell(cells.get(rate, []), kind) for rate in rates]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=rates)
    table.index.name = "label"
    return table


def _cell(group: list[RunRecord], kind: LossKind) -> str:
    if len(group) == 1 and group[0].status != "finished":
        return group[0].outcome
    losses = [loss_of(run, kind) for run in group if run.status == "finished"]
    losses = [loss for loss in losses if math.isfinite(loss)]
    parts = []
    if losses:
        spread = f" ({min(losses):.3f}–{max(losses):.3f})" if len(losses) > 1 else ""
        parts.append(f"{statistics.median(losses):.3f}{spread}")
    for status in ("diverged", "interrupted"):
        ended = [run.step for run in group if run.status == status]
        if ended:
            first, last = min(ended), max(ended)
            steps = f"step {first}" if first == last else f"steps {first}–{last}"
            parts.append(f"{len(ended)} of {len(group)} {status} at {steps}")
    return "; ".join(parts) or ("no loss recorded" if group else "")
