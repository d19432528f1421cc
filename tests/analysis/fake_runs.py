"""Synthetic runs that follow the telemetry schema, shaped like the effects in the literature."""

import numpy as np
import xarray as xr

from lnjax.analysis.records import RunRecord

GROUPS = (
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.output",
    "mlp.in",
    "mlp.out",
    "attention.pre_norm",
    "attention.out_norm",
    "mlp.pre_norm",
    "mlp.out_norm",
)
SITES = ("stream", "body", "branch", "sum")
SUBLAYERS = ("attention", "mlp")
START = 5.55  # about ln 256


def _growth(placement: str) -> float:
    """Power of the stream's growth with depth: 0 for placements that normalize the stream."""
    return {"pre_ln": 0.5, "sandwich": 0.5, "peri_ln": 0.5}.get(placement, 0.0)


def fake_telemetry(
    placement: str = "pre_ln",
    depth: int = 8,
    steps: int = 200,
    rate: float = 1e-3,
    seed: int = 0,
    diverge_at: int | None = None,
    evaluation: bool = True,
    floor: float = 1.6,
) -> xr.Dataset:
    """Telemetry of a run; after `diverge_at` nothing is recorded, there the numbers are NaN."""
    rng = np.random.default_rng([seed, depth, steps])
    last = steps if diverge_at is None else diverge_at
    step = np.unique(np.append(np.arange(0, last + 1, max(1, steps // 150)), last))
    count, time = len(step), step / steps
    layer = np.arange(1, depth + 1)

    loss = floor + (START - floor) * np.exp(-6 * time * min(1.0, (rate / 1e-3) ** 0.4))
    loss = loss * (1 + 0.02 * rng.standard_normal(count))
    # Post-LN: gradients shrink by sqrt(2/3) per layer towards the embedding; Pre-LN: flat
    down = 0.0 if _growth(placement) else 0.2
    profile = np.exp(-down * (depth - layer))[None, :] * np.ones((count, 1))
    gradient = profile * (0.6 * np.exp(-2.5 * time)[:, None] + 0.05)
    gradient = gradient * np.exp(0.15 * rng.standard_normal((count, depth)))
    if diverge_at is not None:
        blow = np.exp(np.clip((step - diverge_at) / max(1, 0.05 * steps), -8, 0) + 0)
        loss = loss + 30 * blow**3
        gradient = gradient * (1 + 400 * blow[:, None] ** 2)
        loss[-1], gradient[-1] = np.nan, np.inf
    weights = np.linspace(0.7, 1.3, len(GROUPS))
    per_group = gradient[:, :, None] * weights
    absent = "out_norm" if _growth(placement) else "pre_norm"
    per_group[:, :, [absent in group for group in GROUPS]] = np.nan

    blocks = (layer[:, None] - 1 + np.array([0.0, 0.5])).reshape(-1)
    grown = (1 + 2 * blocks[None, :] * (1 + 3 * time[:, None])) ** _growth(placement)
    stream = grown.reshape(count, depth, 2)
    activation = stream[..., None] * np.array([1.0, 0.6, 0.6, 1.2])
    output = (1 + 2 * depth * (1 + 3 * time)) ** _growth(placement)
    backward = np.repeat(gradient[:, :, None], 2, axis=2) * np.array([0.9, 1.0])

    ones = np.ones((count, depth, len(GROUPS)))
    sub = ("step", "layer", "sublayer")
    variables = {
        "loss": ("step", loss),
        "learning_rate": ("step", np.full(count, rate)),
        "gradient_norm": ("step", np.sqrt(np.nansum(per_group**2, axis=(1, 2)))),
        "gradient_l2": (("step", "layer", "group"), per_group),
        "weight_l2": (("step", "layer", "group"), ones * 8),
        "update_l2": (("step", "layer", "group"), ones * rate),
        "activation_rms": ((*sub, "site"), activation),
        "cosine": (sub, np.full((count, depth, 2), 0.9)),
        "backward_l2": (sub, backward),
        "output_rms": ("step", output),
        "output_backward_l2": ("step", gradient[:, -1] * 1.1),
    }
    coords = {
        "step": step,
        "layer": layer,
        "group": list(GROUPS),
        "sublayer": list(SUBLAYERS),
        "site": list(SITES),
    }
    if evaluation:
        when = step[:: max(1, count // 10)]
        variables["evaluation_loss"] = ("evaluation_step", np.interp(when, step, loss) + 0.04)
        coords["evaluation_step"] = when
    data = xr.Dataset(variables, coords)
    return data.map(lambda x: x.astype("float32"))


def fake_run(
    label: str = "pre_ln",
    placement: str = "",
    rate: float = 1e-3,
    seed: int = 0,
    warmup: int = 20,
    steps: int = 200,
    depth: int = 8,
    diverge_at: int | None = None,
    evaluation: bool = True,
    floor: float = 1.6,
    status: str = "",
) -> RunRecord:
    """A run with telemetry and the result.json that belongs to it."""
    placement = placement or label
    data = fake_telemetry(placement, depth, steps, rate, seed, diverge_at, evaluation, floor)
    losses = data["loss"].values[np.isfinite(data["loss"].values)]
    held_out = float(losses[-1]) + 0.04 if evaluation and diverge_at is None else None
    result = {
        "status": status or ("finished" if diverge_at is None else "diverged"),
        "reason": "" if diverge_at is None else "loss is not finite",
        "step": steps if diverge_at is None else diverge_at,
        "initial_loss": float(losses[0]) if losses.size else None,
        "final_loss": float(losses[-1]) if losses.size and diverge_at is None else None,
        "evaluation_loss": held_out,
        "best_evaluation_loss": held_out,
        "wall_seconds": 61.5,
        "tokens_per_second": 21500.0,
        "placement": placement,
    }
    path = f"runs/{label}-{rate:g}-{seed}"
    return RunRecord(label, placement, rate, warmup, seed, result, data, path)


def fake_ablation(
    steps: int = 200, depth: int = 8, seeds: int = 2, rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
) -> list[RunRecord]:
    """Pre-LN, Post-LN with and without warm-up, and Sandwich over learning rates and seeds."""
    floors = {"pre_ln": 1.62, "sandwich": 1.58, "post_ln": 1.7, "post_ln, no warm-up": 2.3}
    runs = []
    for label, floor in floors.items():
        placement = label.split(",")[0]
        for index, rate in enumerate(rates):
            for seed in range(seeds):
                hot = placement == "post_ln" and index + ("," in label) >= len(rates) - 1
                lost = hot and not (index == len(rates) - 2 and seed == 0)
                runs.append(
                    fake_run(
                        label,
                        placement,
                        rate,
                        seed,
                        warmup=0 if "," in label else steps // 10,
                        steps=steps,
                        depth=depth,
                        diverge_at=steps // (3 + 2 * index + seed) if lost else None,
                        floor=floor + 0.15 * abs(np.log10(rate / 1e-3)) + 0.01 * seed,
                    )
                )
    return runs


def fake_profile(
    placements: tuple[str, ...] = ("pre_ln", "post_ln", "deepnorm"),
    depths: tuple[int, ...] = (6, 8, 12, 24, 48),
) -> xr.Dataset:
    """Untrained models: the last MLP's gradient is L^-1/2 for Pre-LN and flat for the others."""
    deepest = max(depths)
    layer = np.arange(1, deepest + 1)
    shape = (len(placements), len(depths), deepest)
    gradient = np.full((*shape, len(GROUPS)), np.nan)
    stream, backward = np.full((*shape, 2), np.nan), np.full((*shape, 2), np.nan)
    output = np.full(shape[:2], np.nan)
    for p, placement in enumerate(placements):
        grows = _growth(placement) > 0
        for d, depth in enumerate(depths):
            inside = layer <= depth
            size = 1.6 * (depth / 6) ** (-0.5 if grows else 0.0) * (1 - 0.3 * (p == 2))
            decay = 0.0 if grows else (0.2 if placement == "post_ln" else 0.01)
            line = size * np.exp(-decay * (depth - layer))
            gradient[p, d] = np.where(inside, line, np.nan)[:, None]
            blocks = layer[:, None] - 1 + np.array([0.0, 0.5])
            rms = (1 + 2 * blocks) ** _growth(placement)
            output[p, d] = (1 + 2 * depth) ** _growth(placement)
            stream[p, d] = np.where(inside[:, None], rms, np.nan)
            backward[p, d] = np.where(inside[:, None], line[:, None] / rms, np.nan)
    dims = ("placement", "depth", "layer")
    return xr.Dataset(
        {
            "gradient_l2": ((*dims, "group"), gradient),
            "stream_rms": ((*dims, "sublayer"), stream),
            "backward_l2": ((*dims, "sublayer"), backward),
            "output_rms": (dims[:2], output),
        },
        {
            "placement": list(placements),
            "depth": list(depths),
            "layer": layer,
            "group": list(GROUPS),
            "sublayer": list(SUBLAYERS),
        },
    )


def empty_telemetry() -> xr.Dataset:
    """The history of a run that died before its first record."""
    data = fake_telemetry(steps=2)
    return data.isel(step=slice(0, 0), evaluation_step=slice(0, 0))
