"""Reports of an ablation and of a single run: one HTML file, and its figures as PNG.

    write_report("results/warmup", runs, title="Does Post-LN need warm-up?", profile=profile,
                 provenance={"command": ..., "date": ..., "hardware": ..., "commit": ...})

The page has no script and asks the network for nothing: its figures are inline SVG.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from lnjax.analysis import report_template as html
from lnjax.analysis.figures import Drawing, save_png
from lnjax.analysis.findings import findings, run_findings
from lnjax.analysis.gradient_maps import gradient_limits, gradient_map
from lnjax.analysis.plots import loss_curves, stream_lines
from lnjax.analysis.profile_plots import last_gradient_plot, layer_gradient_plot, sublayer_plot
from lnjax.analysis.rate_plots import learning_rate_plot
from lnjax.analysis.records import RunRecord, as_records
from lnjax.analysis.report_tables import label_table, rate_table, run_facts, run_table
from lnjax.analysis.run_plots import run_losses, stream_over_training
from lnjax.analysis.style import LineStyle, rate_text, styles_for
from lnjax.analysis.summary import best_runs

__all__ = ["RunRecord", "write_report", "write_run_report"]

Section = tuple[str, list[tuple[str, Drawing | None]]]


def write_report(
    directory: str | Path,
    runs: Iterable[Any],
    *,
    title: str = "Ablation",
    profile: xr.Dataset | None = None,
    provenance: Mapping[str, Any] | None = None,
    references: Mapping[str, float] | None = None,
) -> Path:
    """Write report.html and figures/*.png of an ablation into `directory`.

    Args:
        directory: created if absent; an older report in it is overwritten.
        runs: `RunRecord`s, or mappings or objects with the same fields.
        title: the question the ablation asks.
        profile: measurements of untrained models (see `profile_plots`), if any.
        provenance: how the results came about: command, date, hardware, commit, versions, corpus.
        references: losses to draw as dashed lines, {"unigram entropy": 3.35}.

    Returns:
        The path of report.html.

    Raises:
        ValueError: there is no run, or a run lacks a field or has an unknown status.
    """
    records = as_records(runs)
    if not records:
        raise ValueError("write_report needs at least one run; got none")
    names = [str(name) for name in profile["placement"].values] if profile is not None else []
    styles = styles_for(records, names)
    sections = _ablation_figures(records, profile, styles, references)
    facts = (
        f"{len(records)} {'run' if len(records) == 1 else 'runs'}",
        f"learning rates {_span([run.learning_rate for run in records])}",
        *(str((provenance or {})[key]) for key in ("corpus", "date") if key in (provenance or {})),
    )
    tables = html.section("Results", label_table(records, styles), rate_table(records, styles))
    return _write(
        Path(directory),
        title,
        " · ".join(facts),
        [html.summary(findings(records, profile, references)), tables],
        sections,
        [html.section("All runs", run_table(records, styles))],
        provenance,
    )


def write_run_report(
    directory: str | Path,
    run: Any,
    *,
    title: str = "",
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write report.html and figures/*.png of a single run into `directory`.

    Args and errors as `write_report`; `title` is the run's label and learning rate by default.
    """
    (record,) = as_records([run])
    limits = gradient_limits([record])
    last = _last_step([record])
    sections: list[Section] = [
        (
            "Training",
            [
                ("loss", run_losses(record, last)),
                ("gradient per layer", gradient_map(record, limits, last)),
                ("stream", stream_over_training(record, "forward")),
                ("gradient of the stream", stream_over_training(record, "backward")),
            ],
        )
    ]
    title = title or f"{record.label}, learning rate {rate_text(record.learning_rate)}"
    lead = f"{record.placement} · seed {record.seed} · warm-up {record.warmup} steps · "
    return _write(
        Path(directory),
        title,
        lead + record.outcome,
        [html.summary(run_findings(record)), html.section("Result", run_facts(record))],
        sections,
        [],
        provenance,
    )


def _last_step(runs: Sequence[RunRecord]) -> float:
    return float(
        max([1, *(run.step for run in runs), *(s for run in runs for s in run.steps[-1:])])
    )


def _span(rates: Sequence[float]) -> str:
    low, high = rate_text(min(rates)), rate_text(max(rates))
    return low if low == high else f"{low} to {high}"


def _ablation_figures(
    runs: Sequence[RunRecord],
    profile: xr.Dataset | None,
    styles: Mapping[str, LineStyle],
    references: Mapping[str, float] | None,
) -> list[Section]:
    best = list(best_runs(runs).values())
    last = _last_step(best)
    limits = gradient_limits(best)
    sections: list[Section] = [
        (
            "Loss",
            [
                ("training loss", loss_curves(best, styles, "training", last, references)),
                ("held-out loss", loss_curves(best, styles, "held-out", last, references)),
                ("loss against learning rate", learning_rate_plot(runs, styles)),
            ],
        ),
        (
            "Gradient of each layer over training",
            [
                (f"gradient per layer of {run.label}", gradient_map(run, limits, last))
                for run in best
            ],
        ),
        (
            "Residual stream",
            [
                ("stream at the first record", stream_lines(best, styles, "start")),
                ("stream at the end", stream_lines(best, styles, "end")),
            ],
        ),
    ]
    if profile is not None:
        sections.append(
            (
                "Before training",
                [
                    ("last block's gradient against depth", last_gradient_plot(profile, styles)),
                    ("untrained gradient per layer", layer_gradient_plot(profile, styles)),
                    ("untrained stream", sublayer_plot(profile, styles, "stream_rms")),
                    ("untrained backward stream", sublayer_plot(profile, styles, "backward_l2")),
                ],
            )
        )
    return sections


def _write(
    directory: Path,
    title: str,
    lead: str,
    before: Sequence[str],
    sections: Sequence[Section],
    after: Sequence[str],
    provenance: Mapping[str, Any] | None,
) -> Path:
    """Lay out the page, write it and its figures; numbers and file names follow the page."""
    figures = directory / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    path = directory / "report.html"
    if path.exists():  # a figure of the last report that this one lacks would mislead
        for name in html.figure_names(path.read_text(encoding="utf-8")):
            (figures / f"{name}.png").unlink(missing_ok=True)
    parts, count, taken = [*before], 0, set()
    for heading, items in sections:
        drawings = [_unique(drawing, taken) for _, drawing in items if drawing is not None]
        absent = [name for name, drawing in items if drawing is None]
        missing = f"Not shown, because the runs recorded no data for it: {', '.join(absent)}."
        parts.append(
            html.section(
                heading,
                html.figure_grid(drawings, count + 1),
                html.note(missing if absent else ""),
            )
        )
        count += len(drawings)
        for drawing in drawings:
            save_png(drawing, figures)
    parts += after
    if provenance:
        parts.append(html.section("How this was made", html.provenance_list(provenance)))
    path.write_text(html.page(title, lead, parts), encoding="utf-8")
    return path


def _unique(drawing: Drawing, taken: set[str]) -> Drawing:
    """The drawing under a name not yet taken: two labels may differ in punctuation only."""
    name, number = drawing.name, 2
    while name in taken:
        name, number = f"{drawing.name}-{number}", number + 1
    taken.add(name)
    return Drawing(name, drawing.figure, drawing.alt, drawing.caption)
