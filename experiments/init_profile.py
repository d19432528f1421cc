"""Gradients of untrained models: which layers receive how much, and how it grows with depth.

Question: at initialization, how do the gradient of each weight group, the stream and the gradient
of the stream depend on layer and depth, for every placement?
Source: Xiong et al. 2020, arXiv:2002.04745: Theorem 1 (gradient of the last feed-forward matrix:
independent of depth in Post-LN, ~ L^-1/2 in Pre-LN), Lemma 2 (hidden norms).
Command: python -m experiments.init_profile --workdir=runs/init_profile
Time: about a minute on 2 CPU cores, most of it compilation; seconds when called again.
Expect: a table of fitted exponents and of Lemma 2's numbers beside the theory's, profile.nc (read
it with xarray.open_dataset), and profile.json.
"""

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from absl import flags

from experiments import command_line, environment

_WORKDIR = flags.DEFINE_string("workdir", "runs/init_profile", "Where the profile is written.")
_PLACEMENTS = flags.DEFINE_list("placements", None, "Names; all of the catalogue by default.")
_DEPTHS = flags.DEFINE_list("depths", ["6", "12", "24", "48", "96"], "Numbers of blocks.")
_WIDTH = flags.DEFINE_integer("width", 64, "Model width.", lower_bound=4)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Initializations to average over.", lower_bound=1)


def one(task: tuple[str, int, int, int]) -> list[tuple[str, int, dict]]:
    """Measure one placement at one depth, for all seeds (in a worker process)."""
    from lnjax.analysis.initial import measure
    from lnjax.data import DataConfig, open_dataset
    from lnjax.models import ModelConfig

    name, depth, width, seeds = task
    dataset = open_dataset(DataConfig(sequence_length=64, batch_size=4))
    config = ModelConfig(
        placement=name, depth=depth, width=width, heads=4, vocab_size=dataset.vocab_size
    )
    found = measure(config, [dataset.batch(seed, 0) for seed in range(seeds)])
    return [(name, depth, each) for each in found]


def lemma(task: tuple[str, int]) -> dict:
    """Hidden norms in the setting of Lemma 2 (sequence length 1: the upper line)."""
    import numpy as np

    from lnjax.analysis.initial import measure
    from lnjax.models import ModelConfig

    name, seeds = task
    config = ModelConfig(
        placement=name,
        depth=12,
        width=256,
        heads=1,
        mlp_width=256,
        activation="relu",
        bias=False,
        positions="none",
    )
    rng = np.random.default_rng(0)
    batches = [{"tokens": rng.integers(0, 256, (16, 2)).astype(np.int32)} for _ in range(seeds)]
    found = measure(config, batches, uniform=True)
    stream = np.mean([each["stream_rms"][:, 0] ** 2 for each in found], 0)
    output = np.mean([each["output_rms"] ** 2 for each in found])
    sums = np.mean([each["sum_rms"][:, 1] ** 2 for each in found], 0)
    return {"name": name, "stream": [*map(float, stream), float(output)], "sum": sums.tolist()}


def compute(names: list[str], depths: list[int], width: int, seeds: int, report=lambda _: None):
    """The profile of all placements and depths, and Lemma 2's numbers, on all cores."""
    from lnjax.analysis.initial import profile

    tasks = [
        (name, depth, width, seeds) for depth in sorted(depths, reverse=True) for name in names
    ]
    lemmas = [(name, 20) for name in ("post_ln", "pre_ln")]
    found = []
    with ProcessPoolExecutor(command_line.usable_cores(), mp_context=get_context("spawn")) as pool:
        hidden = [pool.submit(lemma, task) for task in lemmas]
        for count, part in enumerate(pool.map(one, tasks), start=1):
            found += part
            report(f"{count} of {len(tasks)} models")
        hidden = [each.result() for each in hidden]
    order = {name: i for i, name in enumerate(names)}
    found.sort(key=lambda each: (order[each[0]], each[1]))
    return profile(found), hidden


def verdicts(data, hidden: list[dict]) -> list[dict]:
    """Theory beside measurement, as rows of a table."""
    from lnjax.analysis import theory
    from lnjax.analysis.summary import last_block_gradient, power_law

    expected = theory.last_gradient_exponents()
    rows = []
    for name in data["placement"].values:
        slope = power_law(*last_block_gradient(data, name))
        row = {
            "quantity": f"{name}: last MLP-out gradient ~ L^p",
            "measured": f"{slope:+.2f}",
            "theory": "",
            "verdict": "",
        }
        if name in expected:
            close = abs(slope - expected[name]) <= 0.1
            row["theory"] = f"{expected[name]:+.2f} ± 0.10"
            row["verdict"] = "reproduced" if close else "not reproduced"
        rows.append(row)
    by_name = {each["name"]: each for each in hidden}
    post = by_name["post_ln"]["sum"]
    worst = max(post, key=lambda v: abs(v - theory.post_ln_input_of_mlp_norm()))
    rows.append(
        {
            "quantity": "post_ln: |x|²/d before the MLP's norm, the layer furthest off",
            "measured": f"{worst:.3f}",
            "theory": "1.5 ± 5 %",
            "verdict": "reproduced" if abs(worst / 1.5 - 1) <= 0.05 else "not reproduced",
        }
    )
    stream = by_name["pre_ln"]["stream"]
    layers = list(range(len(stream)))
    low, high = theory.pre_ln_stream_bounds(layers)
    inside = all(a * 0.95 <= x <= b * 1.05 for a, x, b in zip(low, stream, high, strict=True))
    rows.append(
        {
            "quantity": f"pre_ln: |x|²/d after {layers[-1]} blocks, sequence length 1",
            "measured": f"{stream[-1]:.2f}",
            "theory": f"between {low[-1]:g} and {high[-1]:g} (upper line)",
            "verdict": "reproduced" if inside else "not reproduced",
        }
    )
    return rows


def show(rows: list[dict]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Before training: theory (Xiong et al. 2020) and measurement")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


def load_or_compute(workdir: Path, names, depths, width, seeds, report=print):
    """The profile of these settings: from disk if it is there, else computed and saved."""
    import xarray as xr

    from lnjax.training import records

    settings = {"placements": names, "depths": depths, "width": width, "seeds": seeds}
    saved = workdir / "profile.json"
    if saved.is_file():
        content = json.loads(saved.read_text())
        if content["settings"] == settings and (workdir / "profile.nc").is_file():
            with xr.open_dataset(workdir / "profile.nc", engine="scipy") as data:
                return data.load(), content["lemma_2"]
    data, hidden = compute(names, depths, width, seeds, report)
    workdir.mkdir(parents=True, exist_ok=True)
    data.to_netcdf(workdir / "profile.nc", engine="scipy")
    rows = verdicts(data, hidden)
    records.write_json(saved, {"settings": settings, "lemma_2": hidden, "verdicts": rows})
    return data, hidden


def main(arguments: list[str]) -> None:
    """Measure, print, save."""
    if len(arguments) > 1:
        command_line.stop(f"unexpected argument {arguments[1]!r}: flags begin with --")
    environment.restart_with_huge_pages()
    from lnjax import placements

    try:
        names = _PLACEMENTS.value or placements.names()
        for name in names:
            placements.get(name)
        depths = [int(x) for x in command_line.numbers("depths", _DEPTHS.value)]
    except ValueError as error:
        command_line.stop(error)
    workdir = Path(_WORKDIR.value)
    data, hidden = load_or_compute(workdir, names, depths, _WIDTH.value, _SEEDS.value)
    show(verdicts(data, hidden))
    print(f"profile  {workdir / 'profile.nc'}")


if __name__ == "__main__":
    command_line.run(main)
