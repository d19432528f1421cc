"""Figures that compare trained runs: loss over training and the residual stream.

Every function returns a `Drawing`, or None where the runs hold nothing to draw. Nothing here
touches pyplot or leaves settings behind.
"""

import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lnjax.analysis.figures import Drawing, panel, plain, styled
from lnjax.analysis.records import RunRecord, join
from lnjax.analysis.style import (
    MUTED,
    LineStyle,
    log_axis,
    log_limits,
    run_name,
    short_number,
    step_axis,
)
from lnjax.analysis.summary import LossKind, When, stream_profile

DASHED = (0, (4, 3))
NATS = "loss (nats per token)"


def entry(style: LineStyle, label: str, **changes) -> Line2D:
    """The legend's line of a label."""
    return Line2D([], [], **{"color": style.color, "linestyle": style.dash, **changes}, label=label)


Curves = Mapping[str, tuple[Float[np.ndarray, " x"], Float[np.ndarray, " x"]]]


def coinciding(curves: Curves, limits: tuple[float, float]) -> list[list[str]]:
    """Groups of labels whose curves cannot be told apart on a log axis with these limits."""
    tolerance = 0.006 * math.log(limits[1] / limits[0])  # about one pixel
    groups: list[list[str]] = []
    for label, (x, y) in curves.items():
        for group in groups:
            other_x, other_y = curves[group[0]]
            if np.array_equal(x, other_x) and np.abs(np.log(y / other_y)).max() < tolerance:
                group.append(label)
                break
        else:
            groups.append([label])
    return groups


def draw_curves(
    axes: Axes,
    curves: Curves,
    styles: Mapping[str, LineStyle],
    limits: tuple[float, float] | None = None,
) -> str:
    """Positive curves on a log axis; returns a sentence about those that coincide, or "".

    Normalized streams often agree to the last digit; the curves of such a group take turns, one
    dash each, so that none hides another.
    """
    limits = limits or log_limits(np.concatenate([y for _, y in curves.values()]))
    axes.set_yscale("log")
    axes.set_ylim(*limits)
    log_axis(axes.yaxis, *limits)
    same = []
    for group in coinciding(curves, limits):
        for turn, label in enumerate(group):
            (x, y), style = curves[label], styles[label]
            dash = style.dash if len(group) == 1 else (7 * turn, (7, 7 * (len(group) - 1)))
            marker = "o" if x.size == 1 else ""
            axes.plot(x, y, color=style.color, ls=dash, marker=marker, ms=5, dash_capstyle="butt")
        if len(group) > 1:
            same.append(" = ".join(group))
    if not same:
        return ""
    return f" Drawn in alternating dashes because they coincide: {'; '.join(same)}."


def cross(axes: Axes, x: float, y: float, color: str, size: float = 8, **where) -> None:
    """The mark of a divergence: a cross with a white rim, never clipped away."""
    for width, paint in ((4.6, "white"), (2.2, color)):
        axes.plot([x], [y], "x", ms=size, mew=width, color=paint, clip_on=False, zorder=6, **where)


# --- loss over training -----------------------------------------------------------------------


def loss_series(
    run: RunRecord, kind: LossKind
) -> tuple[Float[np.ndarray, " step"], Float[np.ndarray, " step"]]:
    """(steps, loss), up to the last finite loss: a diverged run is drawn until it broke down."""
    names = ("evaluation_step", "evaluation_loss") if kind == "held-out" else ("step", "loss")
    steps, losses = (run.values(name) for name in names)
    if steps.size != losses.size:
        return np.zeros(0), np.zeros(0)
    good = np.isfinite(losses)
    return steps[good], losses[good]


def smoothed(losses: Float[np.ndarray, " step"]) -> tuple[Float[np.ndarray, " step"], int]:
    """(centred running mean, its window in records); the window is 1 below 100 records."""
    window = 1 if losses.size < 100 else max(3, losses.size // 40 | 1)
    if window == 1:
        return losses, 1
    sums = np.cumsum(np.concatenate([[0.0], losses]))
    # at the ends the window shrinks on both sides, so that the mean stays centred
    half = np.minimum(np.arange(losses.size), np.arange(losses.size)[::-1])
    half = np.minimum(half, window // 2)
    index = np.arange(losses.size)
    return (sums[index + half + 1] - sums[index - half]) / (2 * half + 1), window


def loss_limits(runs: Sequence[RunRecord], series: Sequence[np.ndarray]) -> tuple[float, float]:
    """Limits of a loss axis: from the lowest loss to a little above the highest initial one."""
    values = np.concatenate([np.zeros(0), *series])
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    start = max((run.initial_loss for run in runs if math.isfinite(run.initial_loss)), default=high)
    high = min(high, max(start * 1.05, low * 1.05))
    room = 0.05 * (high - low) or 0.05 * max(abs(low), 1e-3)
    return low - room, high + room


@styled
def loss_curves(
    runs: Sequence[RunRecord],
    styles: Mapping[str, LineStyle],
    kind: LossKind,
    last_step: float,
    references: Mapping[str, float] | None = None,
) -> Drawing | None:
    """Loss over training, one line per run; diverged runs end in a cross."""
    series = {id(run): loss_series(run, kind) for run in runs}
    shown = [run for run in runs if series[id(run)][1].size or run.status == "diverged"]
    if not any(series[id(run)][1].size for run in shown):
        return None
    marker = "." if kind == "held-out" else ""
    figure, axes = panel(
        "Training loss" if kind == "training" else "Held-out loss during training",
        [entry(styles[run.label], run_name(run)) for run in shown],
    )
    low, high = loss_limits(shown, [series[id(run)][1] for run in shown])
    if references:
        low = min([low, *(value - 0.04 * (high - low) for value in references.values())])
    cut, window = False, 1
    for run in shown:
        style, (steps, losses) = styles[run.label], series[id(run)]
        mean, width = smoothed(losses)
        if width > 1:
            axes.plot(steps, losses, color=style.color, lw=0.6, alpha=0.3)
        window = max(window, width)
        axes.plot(steps, mean, color=style.color, ls=style.dash, marker=marker, ms=5)
        cut = cut or bool((losses > high).any())
        if run.status == "diverged":
            at, value = (steps[-1], mean[-1]) if losses.size else (run.step, high)
            cross(axes, at, min(value, high), style.color)
    for name, value in (references or {}).items():
        axes.axhline(value, color=MUTED, lw=1, ls=DASHED, zorder=1.5)
        axes.annotate(
            plain(name),
            (1, value),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            color=MUTED,
        )
    step_axis(axes, last_step)
    axes.set_ylim(low, high)
    axes.set_ylabel(NATS)
    diverged = [run for run in shown if run.status == "diverged"]
    furthest = " (the one it got furthest at, where all diverged)" if diverged else ""
    notes = [
        " A cross marks where a run diverged." if diverged else "",
        f" Thick lines are running means over {window} records, thin ones the records."
        if window > 1
        else "",
        f" Losses above {short_number(high)} are cut off." if cut else "",
    ]
    ends = "; ".join(
        f"{run_name(run)}: {short_number(loss_of_last(series[id(run)]))}" for run in shown
    )
    return Drawing(
        name=f"{kind}-loss",
        figure=figure,
        alt=f"{kind} loss over training steps. Last values: {ends}.".capitalize(),
        caption=f"{kind.capitalize()} loss over training, each label at its best learning rate"
        f"{furthest}; lower is better.{''.join(notes)}",
    )


def loss_of_last(series: tuple[np.ndarray, np.ndarray]) -> float:
    return float(series[1][-1]) if series[1].size else math.nan


# --- the residual stream ----------------------------------------------------------------------


@styled
def stream_lines(
    runs: Sequence[RunRecord], styles: Mapping[str, LineStyle], at: When
) -> Drawing | None:
    """RMS of the residual stream against depth, one line per run, at the start or the end.

    The scale is common to both figures.
    """
    profiles = {run.label: (run, stream_profile(run.telemetry, at)) for run in runs}
    curves = {}
    for label, (_, (depth, rms)) in profiles.items():
        if (rms > 0).any():
            curves[label] = (depth[rms > 0], rms[rms > 0])
    if not curves:
        return None
    when = "first record" if at == "start" else "end of training"
    figure, axes = panel(
        f"Residual stream, {when}", [entry(styles[label], label) for label in curves]
    )
    both = [stream_profile(run.telemetry, moment)[1] for run in runs for moment in ("start", "end")]
    same = draw_curves(axes, curves, styles, log_limits(np.concatenate(both)))
    axes.set_ylabel("stream RMS")
    depth_axis(axes, max(depth[-1] for depth, _ in curves.values()))
    stopped = [run for run, _ in profiles.values() if run.status != "finished" and at == "end"]
    note = (
        " Not finished, so shown at the last record without a NaN or infinity: "
        + join([run_name(run) for run in stopped])
        + "."
        if stopped
        else ""
    )
    values = "; ".join(
        f"{label}: {short_number(rms[0])} to {short_number(rms[-1])}"
        for label, (_, rms) in curves.items()
    )
    return Drawing(
        name=f"stream-{at}",
        figure=figure,
        alt=f"Root mean square of the residual stream against depth at the {when}. {values}.",
        caption=f"Root mean square of the residual stream against depth, {when}: 0 is the input "
        "of block 1, half a block later the input of its MLP. A rising line is a stream that "
        "grows, a flat one a stream that is normalized. Both stream figures share the scale."
        + same
        + note,
    )


def depth_axis(axes: Axes, last: float) -> None:
    axes.set_xlim(0, max(last, 1))
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(7, integer=True))
    axes.set_xlabel("blocks passed")
