r"""Speed and memory of the training step, with and without telemetry, looped and unrolled.

Question: what does it cost to record every layer at every step, and which form is the fastest?
Source: the recommendation of one program by scan, compiled in time independent of depth, and of
statistics inside the backward pass; both are this package's own claims, measured here.
Command: python -m experiments.benchmarks.throughput --out=experiments/results/throughput.json
Time: 6 minutes on 2 CPU cores (--rounds=7 --no-peak --forms scan+remat unrolled: 100 seconds).
    On a GPU, at the size of GPT-2 (124M parameters; --peak-tflops is the device's, for the MFU):
         python -m experiments.benchmarks.throughput --depth=12 --width=768 --heads=12 \
             --time=1024 --batch=16 --vocab=50304 --dtype=bfloat16 --attention=cudnn \
             --forms scan unrolled --peak-tflops=989 --no-peak
Expect: recording costs a few percent at most (a difference below 3 % is noise on a shared
machine); scan+remat uses a fraction of scan's memory at no loss of speed on CPU; unrolled is the
fastest for wide models and compiles for longest.

Variants take turns within one process, so that ratios survive a noisy machine; a ratio is the
median over the rounds, of wall time and of CPU time, which a busy machine disturbs less. Peak
memory comes from a further process per variant. MFU is model FLOP utilisation as PaLM counts it
(Chowdhery et al. 2022, arXiv:2204.02311, appendix B): 6N + 12·L·d·T operations per token, N
parameters of which a tied embedding counts as the head it is.
"""

import argparse
from collections.abc import Sequence
from statistics import median
from typing import Any

from experiments import environment
from experiments.benchmarks import measure


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = measure.parser(__doc__)
    for name, value in (("depth", 6), ("width", 256), ("heads", 8), ("time", 256), ("batch", 16)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each variant")
    parser.add_argument(
        "--forms", nargs="+", default=list(measure.FORMS), choices=list(measure.FORMS)
    )
    parser.add_argument("--vocab", type=int, default=256)
    parser.add_argument("--dtype", default="float32", help="of the computation")
    parser.add_argument("--attention", default="chunked", help="chunked, xla or cudnn")
    parser.add_argument("--peak-tflops", type=float, help="of the device, for the MFU")
    parser.add_argument("--no-peak", action="store_true", help="do not measure peak memory")
    parser.add_argument("--out", default="", help="file for the results (JSON)")
    return parser.parse_args(argv)


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One record per form and telemetry, in the order of the table."""
    names = ("depth", "width", "heads", "time", "batch")
    sizes = {name: getattr(options, name) for name in names}
    variants = [(form, telemetry) for form in options.forms for telemetry in (False, True)]
    model = {
        "vocab_size": options.vocab,
        "dtype": options.dtype,
        "attention_form": options.attention,
    }
    sections = {v: measure.configuration(*v, **sizes, **model) for v in variants}
    steps = {variant: measure.Step(sections[variant]) for variant in variants}
    samples = measure.interleave(steps, options.rounds)
    records = []
    for form, telemetry in variants:
        variant = (form, telemetry)
        own, plain = samples[variant], samples[form, False]
        step = median(own.wall)
        record = {
            "form": form,
            "telemetry": telemetry,
            "step_seconds": step,
            "fastest_step_seconds": min(own.wall),
            "cpu_seconds": median(own.cpu),
            "tokens_per_second": options.time * options.batch / step,
            "mfu": utilisation(options, steps[variant].parameters, step),
            "compile_seconds": steps[variant].compile_seconds,
            "temporary_bytes": steps[variant].temporary_bytes,
            "telemetry_ratio": measure.paired_ratio(own.wall, plain.wall),
            "telemetry_cpu_ratio": measure.paired_ratio(own.cpu, plain.cpu),
            "first_form_ratio": measure.paired_ratio(
                own.wall, samples[options.forms[0], telemetry].wall
            ),
        }
        records.append(record)
    del steps  # their memory would count against the processes that measure memory
    if not options.no_peak:
        for record, variant in zip(records, variants, strict=True):
            record["peak_bytes"] = measure.in_own_process(sections[variant])["peak_bytes"]
    return records


def utilisation(options: argparse.Namespace, parameters: int, step: float) -> float | None:
    """Share of the device's peak that the model's own operations use; None without a peak."""
    if options.peak_tflops is None:
        return None
    per_token = 6 * parameters + 12 * options.depth * options.width * options.time
    return per_token * options.time * options.batch / step / (options.peak_tflops * 1e12)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    options = arguments(argv)
    load = measure.warn_if_busy()
    records = compare(options)
    columns = ["form", "telemetry", "ms/step", "tokens/s", "with/without", "(CPU)"]
    rows = [
        [
            r["form"],
            "every step" if r["telemetry"] else "off",
            f"{1e3 * r['step_seconds']:.1f}",
            f"{r['tokens_per_second']:.0f}",
            f"{r['telemetry_ratio']:.3f}" if r["telemetry"] else "",
            f"{r['telemetry_cpu_ratio']:.3f}" if r["telemetry"] else "",
            f"{r['first_form_ratio']:.2f}",
            f"{r['compile_seconds']:.1f}",
            f"{r['temporary_bytes'] / 1e6:.0f}",
            f"{r['peak_bytes'] / 1e6:.0f}" if "peak_bytes" in r else "",
            f"{100 * r['mfu']:.1f}" if r["mfu"] is not None else "",
        ]
        for r in records
    ]
    columns += ["to first form", "compile s", "temporary MB", "peak MB", "MFU %"]
    sizes = f"L={options.depth} d={options.width} T={options.time} B={options.batch}"
    measure.show(f"Pre-LN training step, {sizes}", columns, rows)
    measure.write(options.out, {"options": vars(options), "load": load, "variants": records})


if __name__ == "__main__":
    environment.restart_with_huge_pages()
    main()
