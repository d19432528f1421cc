"""Final loss against learning rate, with no diverged run dropped."""

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter

from lnjax.analysis.figures import Drawing, panel, styled
from lnjax.analysis.plots import NATS, entry, loss_limits
from lnjax.analysis.records import RunRecord, by_label, by_learning_rate
from lnjax.analysis.style import LineStyle, log_limits, rate_text, short_number, value_ticks
from lnjax.analysis.summary import LossKind, loss_kind, loss_of


@styled
def learning_rate_plot(
    runs: Sequence[RunRecord], styles: Mapping[str, LineStyle]
) -> Drawing | None:
    """Final loss against learning rate; every diverged run is a cross in a strip at the top.

    Dots are runs (seeds), lines their medians. Hollow: interrupted. A triangle at the top: a
    finished run whose loss is beyond the axis.
    """
    runs = [run for run in runs if math.isfinite(run.learning_rate) and run.learning_rate > 0]
    kind = loss_kind(runs)
    scored = [run for run in runs if run.status != "diverged" and math.isfinite(loss_of(run, kind))]
    groups = by_label(runs)
    strips = [
        label for label, group in groups.items() if any(run.status == "diverged" for run in group)
    ]
    if not scored and not strips:
        return None
    figure, axes = panel(
        f"{kind.capitalize()} loss against learning rate",
        [entry(styles[label], label, marker=styles[label].marker, ms=5) for label in groups],
        plot_height=226.0 + 14 * len(strips),
    )
    axes.set_xscale("log")
    rates = [run.learning_rate for run in runs]
    left, right = log_limits(np.array(rates), margin=0.08, least=4.0)
    axes.set_xlim(left, right)
    value_ticks(axes.xaxis, list(by_learning_rate(runs)), left, right, rate_text)
    axes.set_xlabel("learning rate")
    axes.set_ylabel(NATS)

    low, high = loss_limits(runs, [np.array([loss_of(run, kind) for run in scored])])
    share = min(0.06 + 0.065 * len(strips), 0.5) if strips else 0.0
    axes.set_ylim(low, low + (high - low) / (1 - share))
    ticks = [x for x in axes.yaxis.get_major_locator()() if low <= x <= high] if scored else []
    for label in groups:
        _loss_dots(axes, [run for run in scored if run.label == label], styles[label], kind, high)
    gap = ticks[1] - ticks[0] if len(ticks) > 1 else 0.1
    digits = max(0, -math.floor(math.log10(gap) + 1e-9))
    if strips:
        axes.add_patch(
            Rectangle((0, 1 - share), 1, share, transform=axes.transAxes, color="#f1f2f4", zorder=0)
        )
        ticks.append(low + (high - low) / (1 - share) * (1 - share / 2))
        for row, label in enumerate(strips):
            y = 1 - share * (row + 1) / (len(strips) + 1)
            _crosses(axes, groups[label], styles[label], y)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda y, _: "diverged" if y > high else f"{y:.{digits}f}")
    )
    if strips:
        axes.yaxis.get_gridlines()[-1].set_visible(False)

    partly = any(
        len({run.status == "diverged" for run in seeds}) > 1
        for label in strips
        for seeds in by_learning_rate(groups[label]).values()
    )
    diverged = sum(run.status == "diverged" for run in runs)
    crosses = (
        " Crosses in the strip at the top: learning rates at which a run diverged "
        f"({diverged} of {len(runs)} runs)" + (", with how many of its seeds." if partly else ".")
        if diverged
        else " No run diverged."
    )
    hollow = " Hollow: interrupted." if any(run.status == "interrupted" for run in scored) else ""
    beyond = (
        f" Triangles: losses above {short_number(high)}."
        if any(loss_of(run, kind) > high for run in scored)
        else ""
    )
    return Drawing(
        name="learning-rate",
        figure=figure,
        alt=f"{kind} loss at the end against learning rate on a logarithmic axis, "
        f"{len(groups)} labels, {diverged} diverged runs.".capitalize(),
        caption=f"{kind.capitalize()} loss at the end of training against learning rate. Dots are "
        f"runs, lines the median over seeds.{crosses}{hollow}{beyond} A wide, flat valley is a "
        "placement that forgives a badly chosen learning rate.",
    )


def _loss_dots(
    axes: Axes, runs: Sequence[RunRecord], style: LineStyle, kind: LossKind, high: float
) -> None:
    finished = by_learning_rate([run for run in runs if run.status == "finished"])
    medians = [
        statistics.median(loss_of(run, kind) for run in group) for group in finished.values()
    ]
    axes.plot(list(finished), np.minimum(medians, high), color=style.color, ls=style.dash)
    for run in runs:
        loss = loss_of(run, kind)
        axes.plot(
            [run.learning_rate],
            [min(loss, high)],
            "^" if loss > high else style.marker,
            color=style.color,
            mfc=style.color if run.status == "finished" else "white",
            ms=5,
            mew=1.2,
            clip_on=False,
            zorder=4,
        )


def _crosses(axes: Axes, runs: Sequence[RunRecord], style: LineStyle, y: float) -> None:
    """One cross per learning rate with a divergence, with "2/3" where not every seed diverged."""
    where = axes.get_xaxis_transform()
    for rate, group in by_learning_rate(runs).items():
        lost = sum(run.status == "diverged" for run in group)
        if not lost:
            continue
        # the label's marker around the cross tells labels of one color apart
        axes.plot(
            [rate], [y], style.marker, ms=10, mfc="white", mec=style.color, mew=0.9, transform=where
        )
        axes.plot([rate], [y], "x", ms=4.5, mew=1.8, color=style.color, transform=where)
        if lost < len(group):
            axes.annotate(
                f"{lost}/{len(group)}",
                (rate, y),
                xycoords=where,
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=9.5,
                color=style.color,
            )
