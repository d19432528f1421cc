"""What is predicted: the next token (causal) or masked tokens (BERT)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Batch = dict[str, np.ndarray]


def next_token(batch: Mapping[str, np.ndarray]) -> Batch:
    """Inputs, targets and weights for causal language modelling.

    Args:
      batch: "tokens" (batch, time + 1), and optionally "weights" (batch, time).
    """
    tokens = batch["tokens"]
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    weights = batch.get("weights")
    if weights is None:
        weights = np.ones(targets.shape, np.float32)
    return {"inputs": inputs, "targets": targets, "weights": weights.astype(np.float32)}


def masked(
    batch: Mapping[str, np.ndarray], rng: np.random.Generator, vocab_size: int, rate: float
) -> Batch:
    """Inputs, targets and weights for masked language modelling (Devlin et al. 2018, section 3.1).

    A share `rate` of the positions is predicted; of these 80 % are replaced by the mask token,
    10 % by a random token, 10 % are left. Every sequence has at least one.

    Args:
      rng: decides positions and random tokens.
      vocab_size: tokens of the data; the mask token has this id.
    """
    tokens = batch["tokens"][:, :-1]
    draw = rng.random(tokens.shape)
    # The position with the smallest draw is always chosen, so that no sequence is empty.
    chosen = (draw < rate) | (draw == draw.min(1, keepdims=True))
    kind = rng.random(tokens.shape)
    random_tokens = rng.integers(0, vocab_size, tokens.shape)
    replaced = np.where(kind < 0.8, vocab_size, np.where(kind < 0.9, random_tokens, tokens))
    inputs = np.where(chosen, replaced, tokens).astype(np.int32)
    return {"inputs": inputs, "targets": tokens, "weights": chosen.astype(np.float32)}


def token_losses(
    logits: Float[Array, "batch time vocab"], targets: Int[Array, "batch time"]
) -> Float[Array, "batch time"]:
    """Cross-entropy of each target in nats."""
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked
