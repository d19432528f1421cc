"""Sentences that state what an ablation found, each computed from its runs."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from lnjax.analysis.records import RunRecord, by_label, by_learning_rate, join
from lnjax.analysis.style import rate_text, short_number
from lnjax.analysis.summary import (
    best_runs,
    last_block_gradient,
    loss_of,
    power_law,
    summary_table,
)

_LITTLE = 0.05  # a loss lowered by less than this share of its initial value is called "barely"


def findings(
    runs: Sequence[RunRecord],
    profile: xr.Dataset | None = None,
    references: Mapping[str, float] | None = None,
) -> list[str]:
    """What to read in the report, one sentence or two per item; nothing that was not measured."""
    table = summary_table(runs)
    items = [
        _counts(runs),
        *_ranking(table),
        *_barely(runs, table),
        *(_no_better(table, name, loss) for name, loss in (references or {}).items()),
        *_divergences(runs),
        *_edges(runs, table),
        *_gradients(table),
        *_streams(table),
        *(_slopes(profile) if profile is not None else []),
    ]
    return [item for item in items if item]


def run_findings(run: RunRecord) -> list[str]:
    """What to read in the report of a single run."""
    losses = [
        f"{name} {short_number(loss)}"
        for name, loss in (
            ("initial", run.initial_loss),
            ("training", run.training_loss),
            ("held-out", run.held_out_loss),
        )
        if math.isfinite(loss)
    ]
    table = summary_table([run])
    items = [f"The run {run.outcome}."]
    if losses:
        items[0] += f" Loss in nats per token: {join(losses)}."
    norms, steps = run.values("gradient_norm"), run.steps
    good = np.isfinite(norms) & (norms > 0)
    if good.any() and norms.shape == steps.shape:
        peak = int(np.argmax(np.where(good, norms, -1)))
        items.append(
            f"Largest finite gradient norm: {short_number(norms[peak])} at step {steps[peak]:g}, "
            f"{short_number(norms[peak] / np.median(norms[good]))} times the median."
        )
        if not np.isfinite(norms).all():
            first = steps[np.flatnonzero(~np.isfinite(norms))[0]]
            items.append(f"The gradient norm is first not finite at step {first:g}.")
    return [*items, *_gradients(table), *_streams(table)]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _counts(runs: Sequence[RunRecord]) -> str:
    ended = [
        f"{count} {status}"
        for status in ("finished", "diverged", "interrupted")
        if (count := sum(run.status == status for run in runs))
    ]
    return f"{_plural(len(runs), 'run')} of {_plural(len(by_label(runs)), 'label')}: {join(ended)}."


def _ranking(table: pd.DataFrame) -> list[str]:
    kind = table.attrs["loss"]
    column = "held_out_loss" if kind == "held-out" else "training_loss"
    ranked = table[table[column].notna()].sort_values(column, kind="stable")
    if ranked.empty:
        return ["No label has a finished run with a loss, so nothing is ranked."]

    def described(label: str) -> str:
        row = ranked.loc[label]
        seeds = int(row["seeds"])
        over = f", median of {seeds} seeds" if seeds > 1 else ""
        rate = rate_text(row["best_learning_rate"])
        return f"{row[column]:.3f} nats per token ({label}, learning rate {rate}{over})"

    first, rest = ranked.index[0], ranked.index[1:]
    items = [f"Lowest {kind} loss: {described(first)}."]
    if len(rest):
        gaps = [
            f"{label} +{ranked.loc[label, column] - ranked.loc[first, column]:.3f}"
            for label in rest
        ]
        items[0] += f" Above it: {join(gaps)}."
        tied = [
            label
            for label in rest
            if ranked.loc[label, "loss_low"] <= ranked.loc[first, "loss_high"]
            and ranked.loc[[first, label], "seeds"].min() > 1
        ]
        if tied:
            verb = "overlap" if len(tied) > 1 else "overlaps"
            items.append(
                f"The range over seeds of {join(tied)} {verb} that of {first}: these runs do not "
                "settle the order."
            )
        if ranked["seeds"].max() == 1:
            items.append("Every loss rests on one seed; differences carry no error estimate.")
    if kind == "training":
        items.append("No held-out loss was recorded; labels are compared by training loss.")
    return items


def _barely(runs: Sequence[RunRecord], table: pd.DataFrame) -> list[str]:
    kind = table.attrs["loss"]
    stuck = []
    for label, run in best_runs(runs).items():
        loss, start = loss_of(run, kind), run.initial_loss
        if run.status == "finished" and math.isfinite(loss) and math.isfinite(start):
            if loss > (1 - _LITTLE) * start:
                stuck.append(f"{label} (from {start:.3f} to {loss:.3f})")
    if not stuck:
        return []
    return [f"Barely learned, even at the best learning rate: {join(stuck)}."]


def _no_better(table: pd.DataFrame, name: str, loss: float) -> str:
    """Labels that do not get below a reference, by a hundredth of it."""
    kind = "held_out_loss" if table.attrs["loss"] == "held-out" else "training_loss"
    labels = [label for label, row in table.iterrows() if row[kind] > 0.99 * loss]
    if not labels:
        return ""
    return f"No better than the {name} ({loss:.3f}), even at the best rate: {join(labels)}."


def _divergences(runs: Sequence[RunRecord]) -> list[str]:
    items = []
    for label, group in by_label(runs).items():
        lost = [run for run in group if run.status == "diverged"]
        if not lost:
            continue
        first = min(lost, key=lambda run: run.step)
        lowest = rate_text(min(run.learning_rate for run in lost))
        item = f"{label}: {len(lost)} of {_plural(len(group), 'run')} diverged"
        if len(group) > 1:
            item += f", the lowest learning rate at which one did is {lowest}"
        if len(lost) > 1:
            item += f"; the earliest {first.outcome} at learning rate " + rate_text(
                first.learning_rate
            )
        else:
            item += f"; it {first.outcome}"
        items.append(item + ".")
    return items


def _edges(runs: Sequence[RunRecord], table: pd.DataFrame) -> list[str]:
    """Labels whose best learning rate is the lowest or highest one that was tried."""
    low, high = [], []
    for label, group in by_label(runs).items():
        rates, best = list(by_learning_rate(group)), table.loc[label, "best_learning_rate"]
        if len(rates) < 2 or not math.isfinite(best):
            continue
        if math.isclose(best, rates[0], rel_tol=1e-5):
            low.append(label)
        elif math.isclose(best, rates[-1], rel_tol=1e-5):
            high.append(label)
    parts = [
        f"the {side} rate tried ({join(labels)})"
        for side, labels in (("lowest", low), ("highest", high))
        if labels
    ]
    if not parts:
        return []
    return [f"The best learning rate is {join(parts)}: the optimum may lie outside the sweep."]


def _gradients(table: pd.DataFrame) -> list[str]:
    return _two_times(
        table,
        "gradient_ratio",
        "Gradient norm of the last block over that of the first",
    )


def _streams(table: pd.DataFrame) -> list[str]:
    return _two_times(
        table, "stream_growth", "RMS of the stream after the last block over its input"
    )


def _two_times(table: pd.DataFrame, column: str, quantity: str) -> list[str]:
    """`quantity` of every label at the first record and at the end, largest first."""
    parts = []
    ordered = table.sort_values(f"{column}_start", ascending=False, kind="stable")
    for label, row in ordered.iterrows():
        start, end = row[f"{column}_start"], row[f"{column}_end"]
        if math.isfinite(start) and math.isfinite(end):
            parts.append(f"{label} {short_number(start)}× → {short_number(end)}×")
    return [f"{quantity}, first record → end: {'; '.join(parts)}."] if parts else []


def _slopes(profile: xr.Dataset) -> list[str]:
    parts = []
    for name in (str(name) for name in profile["placement"].values):
        depths, norms = last_block_gradient(profile, name)
        slope = power_law(depths, norms)
        if math.isfinite(slope):
            parts.append(f"{name} {slope:+z.2f}".replace("-", "−"))
            span = f"{depths[0]:g} to {depths[-1]:g}"
    if not parts:
        return []
    return [
        "Untrained, the gradient of the last block's MLP output matrix varies as a power of the "
        f"depth with exponent {join(parts)} (depths {span}; Xiong et al. 2020 bound it by 0 for "
        "Post-LN and −0.5 for Pre-LN)."
    ]
