"""Compile time and memory of the training step as the model gets deeper.

Question: can a model of 1000 layers be trained, watched at every layer, on a small machine?
Source: Wang et al. 2022 (DeepNet) train 1000 layers; that a scan compiles in time independent of
the depth, and stores one stream per layer when rematerialized, is this package's own claim.
Command: python -m experiments.benchmarks.depth --out=experiments/results/depth.json
Time: 50 seconds on 2 CPU cores.
Expect: the same compile time at every depth (a few seconds), seconds per step in proportion to the
depth, and temporary memory that grows by one stream and one set of gradients per layer.
"""

import argparse
from collections.abc import Sequence

from experiments import environment
from experiments.benchmarks import measure


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = measure.parser(__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=[6, 24, 100, 1000])
    for name, value in (("width", 32), ("heads", 4), ("time", 64), ("batch", 8)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--form", default="scan+remat", choices=list(measure.FORMS))
    parser.add_argument("--no-telemetry", action="store_true")
    parser.add_argument("--steps", type=int, default=3, help="timed steps at each depth")
    parser.add_argument("--out", default="", help="file for the results (JSON)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each depth in a process of its own, print, write."""
    options = arguments(argv)
    load = measure.warn_if_busy()
    sizes = {name: getattr(options, name) for name in ("width", "heads", "time", "batch")}
    records = []
    for depth in options.depths:
        telemetry = not options.no_telemetry
        sections = measure.configuration(options.form, telemetry, depth=depth, **sizes)
        records.append({"depth": depth} | measure.in_own_process(sections, options.steps))
        print(f"depth {depth}: done", flush=True)
    rows = [
        [
            r["depth"],
            f"{r['compile_seconds']:.1f}",
            f"{1e3 * r['step_seconds']:.0f}",
            f"{options.time * options.batch / r['step_seconds']:.0f}",
            f"{r['temporary_bytes'] / 1e6:.0f}",
            f"{r['peak_bytes'] / 1e6:.0f}",
        ]
        for r in records
    ]
    columns = ["layers", "compile s", "ms/step", "tokens/s", "temporary MB", "peak MB"]
    title = f"Pre-LN, {options.form}, d={options.width} T={options.time} B={options.batch}"
    measure.show(title, columns, rows)
    measure.write(options.out, {"options": vars(options), "load": load, "depths": records})


if __name__ == "__main__":
    environment.restart_with_huge_pages()
    main()
