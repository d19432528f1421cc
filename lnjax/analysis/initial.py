"""Gradients and streams of untrained models: one forward and backward pass, no training."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lnjax.models import ModelConfig, Transformer
from lnjax.telemetry import Layout, Observer, group_statistics
from lnjax.telemetry.history import SUBLAYERS
from lnjax.training.objectives import next_token, token_losses


def _quick(layers: int) -> dict[str, Any] | None:
    """Options for a program that runs only a few times, so that compiling it is most of the time.

    On CPU, LLVM's optimizations and XLA's own code for fusions take most of that.
    """
    if jax.default_backend() != "cpu":
        return None
    level = 0 if layers < 192 else 1
    return {
        "xla_backend_optimization_level": level,
        "xla_llvm_disable_expensive_passes": True,
        "xla_cpu_parallel_codegen_split_count": 1,
        "xla_cpu_use_fusion_emitters": False,
    }


def measure(
    config: ModelConfig, batches: Sequence[dict[str, np.ndarray]], uniform: bool = False
) -> list[dict[str, Any]]:
    """Per-layer gradient norms, stream and backward stream of a model at initialization.

    Args:
      config: the model; vocab_size and max_length set.
      batches: {"tokens": (batch, time + 1)}, one per initialization; seed i draws the i-th.
      uniform: set W_Q and W_K to zero, so that attention is uniform (Xiong et al. 2020).

    Returns:
      For each initialization: loss; groups; gradient_l2 (layer, group); stream_rms and sum_rms
      (layer, sublayer), of what enters the sublayer and of the sum before its out norm;
      output_rms; backward_l2 (layer, sublayer).
    """
    model = Transformer(config, observer=Observer())
    first = jnp.asarray(next_token(batches[0])["inputs"][:1, :8])
    slots = jnp.zeros((2 * config.depth + 1, 2), jnp.float32)

    def loss(params, slots, prepared):
        logits, measured = model.apply({"params": params}, prepared["inputs"], slots=slots)
        return jnp.mean(token_losses(logits, prepared["targets"])), measured

    def initial(seed):
        return Transformer(config).init(jax.random.key(seed), first)["params"]

    def run(seed, prepared):
        params = initial(seed)
        if uniform:
            params = jax.tree_util.tree_map_with_path(_without_query_and_key, params)
        differentiate = jax.value_and_grad(loss, (0, 1), has_aux=True)
        (value, measured), grads = differentiate(params, slots, prepared)
        norms = group_statistics(grads[0])["l2"]
        by_group = dict(zip(Layout.of(params).groups, norms.T, strict=True))
        return value, measured, by_group, jnp.sqrt(grads[1][:, 0])

    prepared = [next_token(batch) for batch in batches]
    lowered = jax.jit(run).lower(np.int32(0), prepared[0])
    try:
        program = lowered.compile(compiler_options=_quick(config.depth * len(batches)))
    except jax.errors.JaxRuntimeError:  # this version of XLA lacks one of the options
        program = lowered.compile()
    return [_summary(jax.device_get(program(np.int32(seed), x))) for seed, x in enumerate(prepared)]


def _summary(found: tuple) -> dict[str, Any]:
    value, measured, gradient, backward = found
    moments = np.stack([part["moments"] for part in measured["sublayers"]], 1)
    return {
        "loss": float(value),
        "groups": list(gradient),
        "gradient_l2": np.stack(list(gradient.values()), 1),
        "stream_rms": np.sqrt(moments[:, :, 0, 0]),
        "sum_rms": np.sqrt(moments[:, :, 3, 0]),
        "output_rms": float(np.sqrt(measured["output"]["moments"][0, 0])),
        "backward_l2": backward[:-1].reshape(-1, 2),
    }


def _without_query_and_key(path, leaf):
    names = {str(getattr(key, "key", "")) for key in path}
    return jnp.zeros_like(leaf) if names & {"query", "key"} else leaf


def profile(measurements: Sequence[tuple[str, int, dict[str, Any]]]):
    """Measurements of many models as an `xarray.Dataset`, NaN beyond a model's depth.

    Args:
      measurements: (placement, depth, what `measure` returned); several of the same placement
        and depth (seeds) are averaged.

    Returns:
      gradient_l2 (placement, depth, layer, group), stream_rms and backward_l2
      (placement, depth, layer, sublayer), output_rms (placement, depth).
    """
    import xarray as xr

    names = list(dict.fromkeys(name for name, _, _ in measurements))
    depths = sorted({depth for _, depth, _ in measurements})
    groups = list(dict.fromkeys(g for _, _, found in measurements for g in found["groups"]))
    shape = (len(names), len(depths), max(depths))
    sums = {
        "gradient_l2": np.zeros((*shape, len(groups))),
        "stream_rms": np.zeros((*shape, 2)),
        "backward_l2": np.zeros((*shape, 2)),
        "output_rms": np.zeros(shape[:2]),
    }
    for array in sums.values():
        array.fill(np.nan)
    counts = np.zeros(shape[:2])
    for name, depth, found in measurements:
        at = (names.index(name), depths.index(depth))
        counts[at] += 1
        columns = [groups.index(group) for group in found["groups"]]
        gradient = np.full((depth, len(groups)), np.nan)
        gradient[:, columns] = found["gradient_l2"]
        for field, value in (("gradient_l2", gradient), *((f, found[f]) for f in list(sums)[1:3])):
            so_far = sums[field][at][:depth]
            sums[field][at][:depth] = value if counts[at] == 1 else so_far + value
        first = counts[at] == 1
        sums["output_rms"][at] = found["output_rms"] + (0 if first else sums["output_rms"][at])
    for array in sums.values():
        array /= counts.reshape(counts.shape + (1,) * (array.ndim - 2))
    return xr.Dataset(
        {
            "gradient_l2": (("placement", "depth", "layer", "group"), sums["gradient_l2"]),
            "stream_rms": (("placement", "depth", "layer", "sublayer"), sums["stream_rms"]),
            "backward_l2": (("placement", "depth", "layer", "sublayer"), sums["backward_l2"]),
            "output_rms": (("placement", "depth"), sums["output_rms"]),
        },
        {
            "placement": names,
            "depth": depths,
            "layer": np.arange(1, max(depths) + 1),
            "group": groups,
            "sublayer": list(SUBLAYERS),
        },
    )
