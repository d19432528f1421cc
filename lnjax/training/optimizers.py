"""Optax optimizers and schedules; runs that differ in learning rate share a program.

The optimizer gives a direction; the step multiplies it by the peak learning rate, which is data,
and by the schedule, which is a function of the step.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from lnjax.training.config import OptimizerConfig


def decayed(params: PyTree) -> PyTree:
    """True for matrices and tables, the parameters that weight decay acts on."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: str(path[-1].key) in ("kernel", "table"), params
    )


def direction(config: OptimizerConfig) -> optax.GradientTransformation:
    """The update before it is multiplied by minus the learning rate."""
    parts = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    if config.name == "sgd":
        parts.append(optax.trace(decay=config.momentum))
    else:
        parts.append(optax.scale_by_adam(config.b1, config.b2, config.eps))
    if config.name == "adamw" and config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=decayed))
    return optax.chain(*parts)


def schedule(config: OptimizerConfig, steps: int) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
    """Learning rate over its peak, at step 0, 1, ..., steps - 1.

    Warm-up step k has (k + 1) / warmup. Inverse square root is sqrt(warmup / (k + 1)) afterwards
    (Vaswani et al. 2017, eq. 3, over its peak).
    """
    warmup = min(config.warmup, steps)
    left = max(steps - warmup - 1, 1)  # the last step is steps - 1
    if config.schedule == "inverse_sqrt":
        start = max(warmup, 1)

        def after(k):
            return jnp.sqrt(start / (k + warmup + 1.0))
    elif config.schedule == "cosine":
        after = optax.cosine_decay_schedule(1.0, left, config.end_fraction)
    elif config.schedule == "linear":
        after = optax.linear_schedule(1.0, config.end_fraction, left)
    else:
        after = optax.constant_schedule(1.0)
    if not warmup:
        return after
    ramp = optax.linear_schedule(1.0 / warmup, 1.0 + 1.0 / warmup, warmup)
    return optax.join_schedules([ramp, after], [warmup])
