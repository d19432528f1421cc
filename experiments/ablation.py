"""The classic placements side by side: train each at several learning rates, and report.

Question: where the norm sits, does a 12-block language model train, how well, at which learning
rates, and what do its layers' gradients look like, at the start and at the end?
Source: the papers of the placements (printed by `lnjax.placements`); warm-up and Post-LN: Xiong et
al. 2020, arXiv:2002.04745. Every placement has the same data, budget and learning rates.
Command: python -m experiments.ablation --workdir=runs/ablation      (or: make ablation)
Time: five and a half minutes on 2 CPU cores, half a minute of it the profile of untrained models;
killed half way, the same command finishes the rest; when all is done it takes seconds.
Expect: a table of held-out losses (nats per byte) with their learning rates, gradient of the last
over the first block, growth of the stream, how the runs ended; report.html with the figures,
summary.csv; one directory per run, for lnjax.open(path). Diverged runs are results and stay in
every table. Post-LN learns byte frequencies and no more at most rates, a little more with warm-up
at the lowest; the others end near 2.0 nats per byte, DeepNorm a little above.
"""

import signal
import sys
from pathlib import Path

from absl import flags

from experiments import command_line, environment, profiles

_WORKDIR = flags.DEFINE_string("workdir", "runs/ablation", "Where runs and report are written.")
_PLACEMENTS = flags.DEFINE_list(
    "placements",
    ["post_ln", "pre_ln", "sandwich_ln", "pre_ln_embed", "deepnorm"],
    "Names, or path/to/file.py:name for your own.",
)
_RATES = flags.DEFINE_list("learning_rates", ["6e-4", "2e-3", "6e-3"], "Peak learning rates.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "Seeds per placement and rate.", lower_bound=1)
_DEPTH = flags.DEFINE_integer("depth", 12, "Blocks.", lower_bound=1)
_WIDTH = flags.DEFINE_integer("width", 64, "Model width, a multiple of 8.", lower_bound=8)
_STEPS = flags.DEFINE_integer("steps", 200, "Optimizer steps of each run.", lower_bound=1)
_WARMUP = flags.DEFINE_integer("warmup", 50, "Steps of warm-up.", lower_bound=0)
_NO_WARMUP = flags.DEFINE_list(
    "no_warmup", ["post_ln"], "Placements that are also trained without warm-up."
)
_PROFILE = flags.DEFINE_bool("profile", True, "Measure untrained models first.")
_WORKERS = flags.DEFINE_integer("workers", 0, "Processes; 0 is one per core.", lower_bound=0)


def members(workdir: Path) -> list:
    """The grid, from the flags.

    Raises:
      ValueError: a flag has a value that makes no run.
    """
    from lnjax import placements
    from lnjax.sweeps import grids
    from lnjax.training.config import Config

    unknown = [name for name in _NO_WARMUP.value if name and name not in _PLACEMENTS.value]
    if unknown and flags.FLAGS["no_warmup"].present:
        raise ValueError(f"--no_warmup={','.join(unknown)}: not among --placements")
    variants = []
    for name in _PLACEMENTS.value:
        variants.append((placements.get(name).name, name, _WARMUP.value))
        if name in _NO_WARMUP.value and _WARMUP.value:
            variants.append((f"{placements.get(name).name}, no warm-up", name, 0))
    rates = command_line.numbers("learning_rates", _RATES.value)
    axes = (
        grids.choices("optimizer", "learning_rate", rates),
        grids.choices("training", "seed", range(_SEEDS.value)),
    )
    found = []
    for label, name, warmup in variants:
        base = {
            "model": {"placement": name, "depth": _DEPTH.value, "width": _WIDTH.value, "heads": 4}
            # On CPU, recomputing a narrow block is faster than keeping it.
            | {"remat": True},
            "data": {"sequence_length": 64, "batch_size": 16, "evaluation_batches": 16},
            "optimizer": {"warmup": warmup},
            "training": {
                "steps": _STEPS.value,
                "log_every": max(1, _STEPS.value // 40),
                "evaluate_every": max(1, _STEPS.value // 4),
                "checkpoint_every": max(1, _STEPS.value // 2),
            },
        }
        for overrides in grids.product(*axes):
            config = Config.from_dict(grids.merged(base, overrides))
            rate, seed = config.optimizer.learning_rate, config.training.seed
            directory = f"{label.replace(', ', '_').replace(' ', '-')}/lr{rate:g}_seed{seed}"
            found.append(grids.Member(label, config, workdir / "runs" / directory))
    return found


class Display:
    """Progress of the whole grid: steps done, and what each run came to."""

    def __init__(self, grid: list):
        self._total = sum(member.config.training.steps for member in grid)
        self._done = {member.workdir: 0 for member in grid}
        self._ended, self._count = 0, len(grid)
        self._bar = command_line.Progress(self._total, "training")

    def event(self, member, event: dict) -> None:
        """Take in an event of a member."""
        name = f"{member.label}, lr {member.config.optimizer.learning_rate:g}"
        if event["event"] == "step":
            self._done[member.workdir] = event["step"]
        if event["event"] == "done":
            result = event["result"]
            self._done[member.workdir] = member.config.training.steps
            if result["status"] != "interrupted":
                self._ended += 1
            loss = result["evaluation_loss"]
            outcome = f"{result['status']} at step {result['step']}"
            if result["status"] == "finished" and loss is not None:
                outcome = f"held-out loss {loss:.3f}"
            if not event.get("before"):
                self._bar.line(f"{name}: {outcome}")
        if event["event"] == "failed":
            self._bar.line(f"{name}: FAILED, {event['error']}")
        self._bar.update(sum(self._done.values()), f"{self._ended} of {self._count} runs done")

    def close(self) -> None:
        """End the display."""
        self._bar.close()


def records_of(grid: list) -> list:
    """The runs as the report reads them."""
    from lnjax.analysis.records import RunRecord
    from lnjax.analysis.runs import open as open_run

    found = []
    for member in grid:
        run = open_run(member.workdir)
        try:
            telemetry = run.telemetry
        except FileNotFoundError:
            telemetry = None
        found.append(
            RunRecord(
                label=member.label,
                placement=member.config.model.placed.name,
                learning_rate=member.config.optimizer.learning_rate,
                warmup=member.config.optimizer.warmup,
                seed=member.config.training.seed,
                result=run.result,
                telemetry=telemetry,
                path=str(member.workdir),
            )
        )
    return found


def show(found: list, references: dict[str, float]) -> None:
    """The terminal's table."""
    import math

    from rich.console import Console
    from rich.table import Table

    from lnjax.analysis.summary import learning_rate_table, summary_table

    summary, by_rate = summary_table(found), learning_rate_table(found)

    def text(value: float, form: str) -> str:
        return format(value, form) if math.isfinite(value) else "—"

    compared = "; ".join(f"{name}: {loss:.3f}" for name, loss in references.items())
    table = Table(
        title="Held-out loss (nats per byte), gradients and stream",
        caption=f"without context, {compared}",
    )
    heads = ["placement", "best loss", "at lr", *(f"lr {rate:g}" for rate in by_rate.columns)]
    heads += ["gradient last/first block, init → end", "stream growth, init → end", "ended"]
    for head in heads:
        table.add_column(head)
    for label, row in summary.iterrows():
        ended = ", ".join(
            f"{int(row[status])} {status}"
            for status in ("finished", "diverged", "interrupted")
            if row[status]
        )
        table.add_row(
            label,
            text(row.held_out_loss, ".3f"),
            text(row.best_learning_rate, "g"),
            *by_rate.loc[label],
            f"{text(row.gradient_ratio_start, '.2g')} → {text(row.gradient_ratio_end, '.2g')}",
            f"{text(row.stream_growth_start, '.2g')} → {text(row.stream_growth_end, '.2g')}",
            ended,
        )
    console = Console()
    Console(width=max(console.width, 120)).print(table)


def main(arguments: list[str]) -> None:
    """Profile, train, report."""
    if len(arguments) > 1:
        command_line.stop(f"unexpected argument {arguments[1]!r}: flags begin with --")
    environment.restart_with_huge_pages()
    from lnjax.analysis.baselines import unigram_loss
    from lnjax.analysis.report import write_report
    from lnjax.analysis.runs import open as open_run
    from lnjax.analysis.summary import summary_table
    from lnjax.data import open_dataset
    from lnjax.sweeps.launchers import WorkerError, run_local

    workdir = Path(_WORKDIR.value)
    try:
        grid = members(workdir)
    except ValueError as error:
        command_line.stop(error)
    profile = None
    if _PROFILE.value:
        profile, hidden = profiles.load_or_compute(
            workdir / "init_profile", _PLACEMENTS.value, [6, 24, 96], _WIDTH.value, 2
        )
        profiles.show(profiles.verdicts(profile, hidden))
    display = Display(grid)
    # What a scheduler sends; the runs under way are saved as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    try:
        run_local(grid, workers=_WORKERS.value, report=display.event)
    except (WorkerError, ValueError) as error:
        display.close()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        display.close()
        print("interrupted; the same command continues")
        sys.exit(130)
    display.close()
    found = records_of(grid)
    references = {"loss of byte frequencies": unigram_loss(open_dataset(grid[0].config.data))}
    report = write_report(
        workdir,
        found,
        title="Normalization placement: who trains, and what the layers see",
        profile=profile,
        references=references,
        provenance=command_line.provenance([open_run(member.workdir) for member in grid]),
    )
    show(found, references)
    summary_table(found).to_csv(workdir / "summary.csv")
    print(f"report  {report}   table {workdir / 'summary.csv'}")
    print(f'runs    {workdir / "runs"}   open one: lnjax.open("{grid[0].workdir}")')
    if any(record.status == "interrupted" for record in found):
        print("some runs were interrupted; the same command continues them")
        sys.exit(130)


if __name__ == "__main__":
    command_line.run(main)
