"""lnjax beside PyTorch: the same model, the same machine, one run.

Question: is the step as fast as PyTorch's, eager and compiled, and what does watching cost there?
Source: the baseline is what most studies of norm placement use: scaled_dot_product_attention,
torch.optim.AdamW, and a loop of `.norm().item()` over the parameters for telemetry.
Command: python -m experiments.benchmarks.torch_baseline --torch-python=torchenv/bin/python \
             --out=experiments/results/torch.json
Time: 4 minutes on 2 CPU cores.
Expect: nearly the same speed as torch.compile on CPU in float32 (0.91 to 0.96 times were measured);
it hangs on the matrix products of the two, and so on the processor.

PyTorch is no dependency of lnjax. --torch-python names an interpreter that has it: make one with
`python -m venv torchenv && torchenv/bin/pip install torch numpy`. Every variant of PyTorch is a
process that waits between its steps; one step of each is timed in turn. lnjax records more than
the loop does: also activations and the gradient of the stream at every sublayer.

Run it on a quiet machine only. With as many threads as cores and other programs running, PyTorch
has been seen ten times slower than with one thread, and any ratio to it is meaningless then;
`OMP_NUM_THREADS=1 taskset -c 0 python -m ...` gives both sides one core and is less fragile.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from experiments import environment
from experiments.benchmarks import measure
from experiments.command_line import stop

TORCH = [("eager", False), ("eager", True), ("compile", False), ("compile", True)]


class TorchProcess:
    """One variant of PyTorch; a call takes a step and returns the (wall, CPU) seconds it took."""

    def __init__(self, python: str, request: dict[str, Any]):
        script = Path(__file__).with_name("torch_model.py")
        self._process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._say(json.dumps(request))

    def wait(self) -> str:
        """Wait until it is ready; returns torch's version.

        Raises:
          RuntimeError: the process ended instead, after saying why on standard error.
        """
        return self._hear().split()[1]

    def __call__(self) -> tuple[float, float]:
        self._say("step")
        wall, cpu = map(float, self._hear().split())
        return wall, cpu

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _say(self, line: str) -> None:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the PyTorch process ended: see its message above")
        return line


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = measure.parser(__doc__)
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter with torch")
    for name, value in (("depth", 6), ("width", 256), ("heads", 8), ("time", 256), ("batch", 16)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rounds", type=int, default=11, help="timed steps of each variant")
    parser.add_argument("--forms", nargs="+", default=["scan+remat", "unrolled"])
    parser.add_argument("--out", default="", help="file for the results (JSON)")
    return parser.parse_args(argv)


def check(python: str) -> None:
    """Stop with the remedy if the interpreter has no torch."""
    try:
        found = subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 0
    except OSError as error:
        stop(f"--torch-python={python} cannot be run: {error.strerror}")
    if not found:
        stop(
            f"{python} has no torch. PyTorch is no dependency of lnjax; install it beside:\n"
            "  python -m venv torchenv && torchenv/bin/pip install torch numpy\n"
            "and add --torch-python=torchenv/bin/python"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    options = arguments(argv)
    load = measure.warn_if_busy()
    check(options.torch_python)
    names = ("depth", "width", "heads", "time", "batch")
    sizes = {name: getattr(options, name) for name in names}
    steps: dict[tuple[str, bool], Any] = {}
    try:
        for form, telemetry in TORCH:
            request = {"form": form, "telemetry": telemetry, **sizes}
            process = TorchProcess(options.torch_python, request)
            steps[f"torch {form}", telemetry] = process
            version = process.wait()
        for form in options.forms:
            for telemetry in (False, True):
                sections = measure.configuration(form, telemetry, **sizes)
                steps[f"lnjax {form}", telemetry] = measure.Step(sections)
        samples = measure.interleave(steps, options.rounds)
    finally:
        for step in steps.values():
            if isinstance(step, TorchProcess):
                step.close()
    baseline = samples["torch compile", False]
    records = [
        {
            "variant": name,
            "telemetry": telemetry,
            "step_seconds": median(own.wall),
            "fastest_step_seconds": min(own.wall),
            "cpu_seconds": median(own.cpu),
            "tokens_per_second": options.time * options.batch / median(own.wall),
            "telemetry_ratio": measure.paired_ratio(own.wall, samples[name, False].wall),
            "telemetry_cpu_ratio": measure.paired_ratio(own.cpu, samples[name, False].cpu),
            "speed_over_torch_compile": measure.paired_ratio(baseline.wall, own.wall),
            "speed_over_torch_compile_cpu": measure.paired_ratio(baseline.cpu, own.cpu),
        }
        for (name, telemetry), own in samples.items()
    ]
    rows = [
        [
            r["variant"],
            "every step" if r["telemetry"] else "off",
            f"{1e3 * r['step_seconds']:.1f}",
            f"{1e3 * r['fastest_step_seconds']:.1f}",
            f"{r['tokens_per_second']:.0f}",
            f"{r['telemetry_ratio']:.3f}" if r["telemetry"] else "",
            f"{r['telemetry_cpu_ratio']:.3f}" if r["telemetry"] else "",
            f"{r['speed_over_torch_compile']:.2f}",
            f"{r['speed_over_torch_compile_cpu']:.2f}",
        ]
        for r in records
    ]
    columns = ["variant", "telemetry", "ms/step", "fastest", "tokens/s", "with/without", "(CPU)"]
    title = f"Pre-LN, L={options.depth} d={options.width} T={options.time} B={options.batch}"
    measure.show(f"{title}, torch {version}", [*columns, "speed / torch.compile", "(CPU)"], rows)
    measure.write(
        options.out, {"options": vars(options), "load": load, "torch": version, "variants": records}
    )


if __name__ == "__main__":
    environment.restart_with_huge_pages()
    main()
