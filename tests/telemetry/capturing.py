"""An observer that keeps whole tensors, to compare the statistics with."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from lnjax.models import Transformer
from lnjax.training.objectives import token_losses


@dataclass(frozen=True, eq=False)
class Capturing:
    """Adds `perturbations[i]` to the i-th stream and returns every site whole.

    The number i travels in the slot, which the blocks hand to their sublayers.
    """

    perturbations: Any

    def probe(self, x, slot, record):
        return x + self.perturbations[slot[0].astype(jnp.int32)]

    def measure(self, sites, y, record):
        return dict(sites) | ({} if y is None else {"leaving": y})


def mean_loss(model, params, batch, slots, record=None):
    """Mean loss over the weights, and the observer's measurements."""
    batch = jax.tree.map(jnp.asarray, batch)
    logits, measured = model.apply({"params": params}, batch["inputs"], slots=slots, record=record)
    losses = token_losses(logits, batch["targets"]) * batch["weights"]
    return jnp.sum(losses) / jnp.sum(batch["weights"]), measured


def capture(config, params, batch):
    """dL/dx of every stream (2 * depth + 1, batch, time, width), and all the sites' tensors."""
    sites = 2 * config.depth + 1
    numbers = jnp.stack([jnp.arange(sites, dtype=jnp.float32), jnp.zeros(sites)], 1)

    def loss(perturbations):
        model = Transformer(config, observer=Capturing(perturbations), train=True)
        return mean_loss(model, params, batch, numbers)

    shape = (sites, *batch["inputs"].shape, config.width)
    zeros = jnp.zeros(shape, config.compute_dtype)
    return jax.device_get(jax.jit(jax.grad(loss, has_aux=True))(zeros))
