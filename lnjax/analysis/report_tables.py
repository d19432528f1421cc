"""The tables of a report, in words and rounded for reading."""

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from lnjax.analysis.records import RunRecord, number
from lnjax.analysis.report_template import table
from lnjax.analysis.style import LineStyle, rate_text, short_number
from lnjax.analysis.summary import (
    gradient_ratio,
    learning_rate_table,
    loss_kind,
    stream_growth,
    summary_table,
)


def _loss_text(loss: float) -> str:
    return f"{loss:.3f}" if math.isfinite(loss) else "—"


def _speed(run: RunRecord) -> str:
    speed = number((run.result or {}).get("tokens_per_second"))
    return f"{speed:,.0f}" if math.isfinite(speed) else "—"


def label_table(runs: Sequence[RunRecord], styles: Mapping[str, LineStyle]) -> str:
    """One row per label: its best loss, gradients, stream and how its runs ended."""
    data = summary_table(runs)
    kind = data.attrs["loss"]
    column = "held_out_loss" if kind == "held-out" else "training_loss"
    rows = []
    for label, row in data.iterrows():
        low, high = _loss_text(row["loss_low"]), _loss_text(row["loss_high"])
        rate = row["best_learning_rate"]
        rows.append(
            [
                str(label),
                _loss_text(row[column]),
                f"{low}–{high}" if row["seeds"] > 1 else "—",
                rate_text(rate) if math.isfinite(rate) else "—",
                *(
                    short_number(row[f"{name}_{at}"])
                    for name in ("gradient_ratio", "stream_growth")
                    for at in ("start", "end")
                ),
                *(str(int(row[name])) for name in ("finished", "diverged", "interrupted")),
            ]
        )
    columns = {
        "label": "",
        f"best {kind} loss": "number",
        "range over seeds": "number",
        "learning rate": "number",
        "gradient last / first, start": "number",
        "gradient last / first, end": "number",
        "stream growth, start": "number",
        "stream growth, end": "number",
        "finished": "number",
        "diverged": "number",
        "interrupted": "number",
    }
    caption = (
        f"Per label: median {kind} loss (nats per token) over the finished seeds of its best "
        "learning rate. Of that rate's median run: gradient norm of the last block over that of "
        "the first, and RMS of the stream after the last block over its input, at the first "
        "record and at the last one without a NaN or infinity. Then how many runs ended how."
    )
    colors = [styles[str(label)].color for label in data.index]
    return table(caption, columns, rows, "by-label", colors)


def rate_table(runs: Sequence[RunRecord], styles: Mapping[str, LineStyle]) -> str:
    """Loss of every label at every learning rate, divergences stated."""
    data = learning_rate_table(runs)
    kind = loss_kind(runs)
    rows = [[str(label), *(cell or "not run" for cell in row)] for label, *row in data.itertuples()]
    words = {
        rate_text(rate): "words" if data[rate].str.len().max() > 24 else "" for rate in data.columns
    }
    caption = (
        f"{kind.capitalize()} loss (nats per token) at each learning rate: median over the "
        "finished seeds, in brackets their range."
    )
    colors = [styles[str(label)].color for label in data.index]
    return table(caption, {"label": "", **words}, rows, "by-learning-rate", colors)


def run_table(runs: Sequence[RunRecord], styles: Mapping[str, LineStyle]) -> str:
    """Every run, none left out."""
    rows = [
        [
            run.label,
            rate_text(run.learning_rate),
            str(run.warmup),
            str(run.seed),
            run.outcome,
            _loss_text(run.held_out_loss),
            _loss_text(run.training_loss),
            str(run.step),
            _speed(run),
            PurePath(run.path).name or "—",
        ]
        for run in runs
    ]
    columns = {
        "label": "",
        "learning rate": "number",
        "warm-up": "number",
        "seed": "number",
        "outcome": "words",
        "held-out loss": "number",
        "training loss": "number",
        "steps": "number",
        "tokens per second": "number",
        "directory": "",
    }
    caption = "Every run with its last losses (nats per token), in the order given."
    return table(caption, columns, rows, "every-run", [styles[run.label].color for run in runs])


def run_facts(run: RunRecord) -> str:
    """The numbers of a single run."""
    seconds = number((run.result or {}).get("wall_seconds"))
    rows = [
        ["outcome", run.outcome],
        ["steps", str(run.step)],
        ["initial loss", _loss_text(run.initial_loss)],
        ["training loss", _loss_text(run.training_loss)],
        ["held-out loss", _loss_text(run.held_out_loss)],
        *(
            [f"{name}, {words}", short_number(measure(run.telemetry, at))]
            for name, measure in (
                ("gradient norm, last block / first", gradient_ratio),
                ("stream growth", stream_growth),
            )
            for at, words in (("start", "first record"), ("end", "end"))
        ),
        ["wall time", f"{seconds:.0f} s" if math.isfinite(seconds) else "—"],
        ["tokens per second", _speed(run)],
    ]
    caption = "The run in numbers; losses in nats per token."
    return table(caption, {"quantity": "", "value": ""}, rows, "in-numbers")
