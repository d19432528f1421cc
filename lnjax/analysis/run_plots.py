"""Figures of one run: its losses, and its stream, forward and backward, as training goes on."""

from typing import Literal

import matplotlib
import numpy as np
from jaxtyping import Bool
from matplotlib.lines import Line2D

from lnjax.analysis.figures import Drawing, panel, styled
from lnjax.analysis.plots import NATS, cross, depth_axis, loss_limits, loss_series, smoothed
from lnjax.analysis.records import RunRecord
from lnjax.analysis.style import PALETTE, log_axis, log_limits, short_number, step_axis, step_text
from lnjax.analysis.summary import sublayer_series

_SNAPSHOTS = 4


@styled
def run_losses(run: RunRecord, last_step: float) -> Drawing | None:
    """Training and held-out loss of one run in one panel."""
    series = {kind: loss_series(run, kind) for kind in ("training", "held-out")}
    drawn = {kind: item for kind, item in series.items() if item[1].size}
    if not drawn:
        return None
    looks = {"training": (PALETTE[0], "-", ""), "held-out": (PALETTE[1], "-", "o")}
    handles = [
        Line2D([], [], color=color, ls=dash, marker=marker, ms=4, label=kind)
        for kind, (color, dash, marker) in looks.items()
        if kind in drawn
    ]
    figure, axes = panel("Loss", handles)
    low, high = loss_limits([run], [losses for _, losses in drawn.values()])
    for kind, (steps, losses) in drawn.items():
        color, dash, marker = looks[kind]
        mean, window = smoothed(losses)
        if window > 1:
            axes.plot(steps, losses, color=color, lw=0.6, alpha=0.3)
        axes.plot(steps, mean, color=color, ls=dash, marker=marker, ms=4)
    if run.status == "diverged" and "training" in drawn:
        steps, losses = drawn["training"]
        cross(axes, steps[-1], min(losses[-1], high), looks["training"][0])
    step_axis(axes, last_step)
    axes.set_ylim(low, high)
    axes.set_ylabel(NATS)
    ends = ", ".join(f"{kind} {short_number(losses[-1])}" for kind, (_, losses) in drawn.items())
    ended = "" if run.status == "finished" else f" The run {run.outcome}."
    if any((losses > high).any() for _, losses in drawn.values()):
        ended += f" Losses above {short_number(high)} are cut off."
    return Drawing(
        name="loss",
        figure=figure,
        alt=f"Loss over training; last values: {ends}.",
        caption=f"Loss over training; last values: {ends}. A gap that opens between the two is "
        f"overfitting.{ended}",
    )


def _snapshots(usable: Bool[np.ndarray, " step"]) -> list[int]:
    """About four usable records, denser at the start, where most happens."""
    index = np.flatnonzero(usable)
    if index.size <= _SNAPSHOTS:
        return index.tolist()
    picks = np.geomspace(1, index.size, _SNAPSHOTS).round().astype(int) - 1
    return index[np.unique(picks)].tolist()


@styled
def stream_over_training(
    run: RunRecord, direction: Literal["forward", "backward"]
) -> Drawing | None:
    """The stream's RMS, or the L2 norm of its gradient, against depth at about four steps."""
    forward = direction == "forward"
    depth, values = sublayer_series(run.telemetry, forward)
    usable = np.isfinite(values).all(axis=1) & (values > 0).any(axis=1)
    rows = _snapshots(usable)
    if not rows:
        return None
    steps = run.steps
    shades = matplotlib.colormaps["viridis_r"](np.linspace(0.12, 1.0, len(rows)))
    handles = [
        Line2D([], [], color=shade, label=f"step {step_text(steps[row])}")
        for row, shade in zip(rows, shades, strict=True)
    ]
    title = "Residual stream" if forward else "Gradient of the stream"
    figure, axes = panel(f"{title}, over training", handles)
    axes.set_yscale("log")
    for row, shade in zip(rows, shades, strict=True):
        axes.plot(depth, np.where(values[row] > 0, values[row], np.nan), color=shade)
    limits = log_limits(values[rows])
    axes.set_ylim(*limits)
    log_axis(axes.yaxis, *limits)
    depth_axis(axes, float(run.telemetry.sizes["layer"]))
    quantity = "root mean square of the residual stream" if forward else "L2 norm of dL/dx"
    axes.set_ylabel("stream RMS" if forward else "L2 norm of dL/dx")
    first, last = values[rows[0]], values[rows[-1]]
    change = (
        f"At step {steps[rows[0]]:g} it goes from {short_number(first[0])} at the embedding to "
        f"{short_number(first[-1])} at the last point; at step {steps[rows[-1]]:g} from "
        f"{short_number(last[0])} to {short_number(last[-1])}."
    )
    return Drawing(
        name="stream" if forward else "backward-stream",
        figure=figure,
        alt=f"{quantity} against depth at {len(rows)} steps of training. {change}",
        caption=f"{quantity[0].upper()}{quantity[1:]} against depth, from light (early) to dark "
        f"(late). {change}",
    )
