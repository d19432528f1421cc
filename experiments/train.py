"""Train one model and watch every layer.

Question: how does one placement train, and what do its layers see?
Source: the placement's paper, printed at the start; equations by `lnjax.placements`.
Command: python -m experiments.train --config=experiments/configs/base.py:pre_ln \
             --config.model.depth=24 --workdir=runs/pre_ln
Time: base.py takes 75 seconds on 2 CPU cores; a second call continues or shows the result.
Expect: the resolved configuration, the loss as it goes, and at the end the held-out loss and the
paths of the report and of the run, which lnjax.open(workdir) reads.

Exit code: 0 when the run finished or diverged (a result like any other), 2 when the command is
wrong, 130 or 143 when it was interrupted by a signal; the same command then continues it.
"""

import sys

from absl import flags
from ml_collections import ConfigDict

from experiments import command_line, environment

_CONFIG = command_line.config_flag("experiments/configs/base.py")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Start jax.distributed: one process per host, the same command on each. SLURM, MPI and cloud "
    "TPUs tell the processes of each other; elsewhere give the three flags that follow.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of the first process, with --distributed."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many there are, with --coordinator.")
_PROCESS = flags.DEFINE_integer("process", None, "Which this one is, from 0, with --coordinator.")


def main(arguments: list[str]) -> None:
    """Train, report, say where things are."""
    if len(arguments) > 1:
        command_line.stop(f"unexpected argument {arguments[1]!r}: flags begin with --")
    environment.restart_with_huge_pages()
    import jax

    if _DISTRIBUTED.value:
        _join(jax.distributed)
    from lnjax.data import open_dataset
    from lnjax.training.config import Config
    from lnjax.training.loop import resolve, train

    with command_line.told_in_a_sentence():
        config = Config.from_dict(_CONFIG.value.to_dict())
    try:
        dataset = open_dataset(config.data)
        config = resolve(config, dataset)
    except (ImportError, OSError, TypeError, ValueError) as error:
        command_line.stop(error)
    main_process = jax.process_index() == 0
    if main_process:
        print(ConfigDict(config.to_dict()))
        print("\n".join(["", config.model.placed.title, *config.model.placed.equations()]), "\n")
    progress = command_line.Progress(config.training.steps, config.model.placed.name)

    def report(metrics):
        held_out = metrics["evaluation_loss"]
        text = f"loss {metrics['loss']:.3f}"
        text += "" if held_out is None else f"  held-out {held_out:.3f}"
        left = config.training.steps - metrics["step"]
        tokens = left * config.data.batch_size * config.data.sequence_length
        minutes, seconds = divmod(int(tokens / max(metrics["tokens_per_second"], 1e-9)), 60)
        text += f"  {metrics['tokens_per_second']:,.0f} tokens/s  {minutes}:{seconds:02d} left"
        progress.update(metrics["step"], text)

    try:
        shown = report if main_process else lambda _: None
        result = train(config, _WORKDIR.value, report=shown, dataset=dataset)
    except ValueError as error:
        progress.close()
        command_line.stop(error)
    progress.close()
    if main_process:
        _conclude(result)
    if result["status"] == "interrupted":
        sys.exit({"SIGINT": 130, "SIGTERM": 143}.get(result["reason"], 1))


def _join(distributed) -> None:
    """Meet the other processes of a multi-host run."""
    given = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    if any(value is None for value in given) and any(value is not None for value in given):
        command_line.stop("--coordinator, --processes and --process go together")
    try:
        distributed.initialize(*given)
    except (RuntimeError, ValueError) as error:
        command_line.stop(f"--distributed: {error}")


def _conclude(result) -> None:
    from lnjax.analysis.records import RunRecord
    from lnjax.analysis.report import write_run_report
    from lnjax.analysis.runs import open as open_run

    run = open_run(_WORKDIR.value)
    reason = f" ({result['reason']})" if result["reason"] else ""
    print(f"{result['status']} at step {result['step']}{reason}")
    if result["evaluation_loss"] is not None:
        print(f"held-out loss {result['evaluation_loss']:.4f} nats")
    if result["status"] == "interrupted":
        print("the same command continues it")
        return
    record = RunRecord(
        label=result["placement"],
        placement=result["placement"],
        learning_rate=result["learning_rate"],
        warmup=result["warmup"],
        seed=result["seed"],
        result=result,
        telemetry=run.telemetry,
        path=str(run.path),
    )
    provenance = command_line.provenance([run])
    print(f"report  {write_run_report(run.path, record, provenance=provenance)}")
    print(f'run     lnjax.open("{run.path}")')


if __name__ == "__main__":
    command_line.run(main)
