"""What the benchmarks share: a compiled training step, interleaved timing, memory, tables.

Run as a module this is the worker that measures one variant in a process of its own, because a
process's peak memory cannot be taken back: it reads a JSON configuration from standard input and
prints a JSON line.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from experiments import environment

FORMS = {"scan": {}, "scan+remat": {"remat": True}, "unrolled": {"unroll": 0}}
"""How the blocks are run, as fields of the model's configuration."""


def parser(doc: str) -> argparse.ArgumentParser:
    """A parser whose --help is the script's docstring."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def configuration(
    form: str,
    telemetry: bool,
    *,
    depth: int,
    width: int,
    heads: int,
    time: int,
    batch: int,
    **model: Any,
) -> dict[str, Any]:
    """A Pre-LN model on bytes, every layer recorded at every step when `telemetry`.

    Further arguments are fields of the model's configuration.
    """
    sizes = {"depth": depth, "width": width, "heads": heads, "max_length": time}
    return {
        "model": {"placement": "pre_ln", "vocab_size": 256} | sizes | FORMS[form] | model,
        "data": {"sequence_length": time, "batch_size": batch},
        "training": {"telemetry": telemetry, "log_every": 1},
    }


class Step:
    """One configuration's training step, compiled for one device; a call takes a step and waits.

    Attributes:
      compile_seconds: tracing, lowering and compiling the step.
      temporary_bytes: XLA's temporary buffer (activations, gradients).
      parameters: how many the model has.
    """

    def __init__(self, sections: Mapping[str, Any]):
        import jax
        import numpy as np

        from lnjax.training.config import Config
        from lnjax.training.parallel import JitRunner

        config = Config.from_dict(sections)
        runner = JitRunner(config, jax.devices()[:1])
        self._state = runner.initialize(0, config.optimizer.learning_rate)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(runner.abstract.params))
        shape = (config.data.batch_size, config.data.sequence_length + 1)
        tokens = np.random.default_rng(0).integers(0, config.model.vocab_size, shape, np.int32)
        weights = np.ones((shape[0], shape[1] - 1), np.float32)
        batch = {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "weights": weights}
        self._batch = runner.place(batch)
        jax.block_until_ready(self._state)
        started = time.perf_counter()
        self._compiled = runner.step.lower(self._state, self._batch).compile()
        self.compile_seconds = time.perf_counter() - started
        self.temporary_bytes = self._compiled.memory_analysis().temp_size_in_bytes
        self._wait = jax.block_until_ready

    def __call__(self) -> None:
        self._state, metrics = self._compiled(self._state, self._batch)
        self._wait((self._state, metrics))


@dataclass
class Samples:
    """Seconds of each timed call of one step.

    Attributes:
      wall: by the clock.
      cpu: of all threads of the process; what other programs on the machine disturb less.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def interleave(
    steps: Mapping[Any, Callable[[], Any]], rounds: int, warmup: int = 2
) -> dict[Any, Samples]:
    """Times of each step, one call of each in turn, so that all share the weather.

    A step that returns (wall, cpu) seconds has timed itself. The order turns around every round:
    what runs after a large step finds the caches and the clock frequency that it left.
    """
    samples = {name: Samples() for name in steps}
    for k in range(rounds + warmup):
        for name in list(steps) if k % 2 else list(steps)[::-1]:
            wall, cpu = time.perf_counter(), time.process_time()
            own = steps[name]()
            if own is None:
                own = time.perf_counter() - wall, time.process_time() - cpu
            if k >= warmup:
                samples[name].wall.append(own[0])
                samples[name].cpu.append(own[1])
    return samples


def paired_ratio(first: list[float], second: list[float]) -> float:
    """Median over the rounds of first / second."""
    return median(a / b for a, b in zip(first, second, strict=True))


def in_own_process(sections: Mapping[str, Any], steps: int = 2) -> dict[str, float]:
    """Compile seconds, seconds per step, temporary and peak bytes, in a process of its own.

    Raises:
      RuntimeError: the process failed; the message holds the end of what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmarks.measure"],
        input=json.dumps({"sections": sections, "steps": steps}),
        env=environment.huge_pages(),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"the measured process failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def warn_if_busy() -> float:
    """Load of the machine before anything is measured; says so if other programs are running."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        print(
            f"warning: the machine is busy (load {load:.1f}). Times are too long, and unevenly so: "
            "PyTorch's threads wait for each other actively and lose far more than XLA's do. "
            "Believe no ratio from this run; repeat it on a quiet machine.",
            file=sys.stderr,
        )
    return load


def show(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table; numbers are formatted by the caller."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(str, row))
    # Piped output has no width of its own; 80 columns would cut the numbers.
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(table)


def write(path: str, content: Mapping[str, Any]) -> None:
    """Write the results with date, hardware, commit and versions; nothing if `path` is empty."""
    if not path:
        return
    from pathlib import Path

    from experiments.command_line import provenance
    from lnjax.training.records import write_json

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(path), {"provenance": provenance(), **content})
    print(f"written: {path}")


def _peak_bytes() -> int:
    try:
        with open("/proc/self/status") as file:
            # Not ru_maxrss: on Linux a process inherits that from the one that started it.
            return next(int(x.split()[1]) * 1024 for x in file if x.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _worker() -> None:
    request = json.loads(sys.stdin.read())
    step = Step(request["sections"])
    samples = interleave({"step": step}, request["steps"], warmup=1)["step"]
    result = {
        "compile_seconds": step.compile_seconds,
        "step_seconds": median(samples.wall),
        "temporary_bytes": step.temporary_bytes,
        "peak_bytes": _peak_bytes(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    _worker()
