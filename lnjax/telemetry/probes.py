"""Statistics taken inside the forward and backward pass, at O(layers) memory.

`Observer` is what a `Transformer` is given to be watched. Its functions are plain and work on any
JAX code: `probe` is an identity whose extra argument receives the statistics of dL/dx as its
gradient, `moments` summarizes an activation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

SITES = ("stream", "body", "branch", "sum")
"""x entering a sublayer; F's output; what is added to the residual; the input of N_out."""


@jax.custom_vjp
def probe(
    x: Float[Array, "..."], slot: Float[Array, "2"], record: Bool[Array, ""] | None = None
) -> Float[Array, "..."]:
    """The identity. The gradient with respect to `slot` is [sum of squares, max |.|] of dL/dx.

    Args:
      x: any activation.
      slot: two zeros, float32.
      record: the statistics are zero where this is false; None is always true.
    """
    return x


def _probe_forward(x, slot, record):
    return x, record


def _probe_backward(record, g):
    wide = g.astype(jnp.float32)
    statistics = jnp.stack([jnp.sum(wide * wide), jnp.max(jnp.abs(wide))])
    return g, _kept(record, statistics), None


probe.defvjp(_probe_forward, _probe_backward)


def when(record: Array | None, measure, *operands) -> Any:
    """measure(*operands), or zeros of the same shapes where `record` is false."""
    if record is None:
        return measure(*operands)
    shapes = jax.eval_shape(measure, *operands)
    return lax.cond(
        record,
        measure,
        lambda *_: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes),
        *operands,
    )


def _kept(record: Array | None, statistics: Any) -> Any:
    """The statistics, or zeros where `record` is false; they are computed all the same.

    A condition inside the passes changes how XLA fuses, and so rounds, what is around it.
    """
    if record is None:
        return statistics
    return jax.tree.map(lambda x: jnp.where(record, x, jnp.zeros_like(x)), statistics)


def moments(x: Float[Array, "..."]) -> Float[Array, "3"]:
    """[mean square, mean, max |x|] in float32."""
    wide = x.astype(jnp.float32)
    return jnp.stack([jnp.mean(wide * wide), jnp.mean(wide), jnp.max(jnp.abs(wide))])


def cosine(x: Float[Array, "*batch width"], y: Float[Array, "*batch width"]) -> Float[Array, ""]:
    """Cosine similarity of x and y over the last axis, averaged over positions, in float32."""
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    lengths = jnp.sum(x * x, -1) * jnp.sum(y * y, -1)
    return jnp.mean(jnp.sum(x * y, -1) * lax.rsqrt(jnp.maximum(lengths, 1e-30)))


@dataclass(frozen=True)
class Observer:
    """Watches every sublayer's stream, forwards and backwards, without changing the mathematics."""

    def probe(self, x: Array, slot: Float[Array, "2"], record: Array | None) -> Array:
        """The stream's identity that reports dL/dx; see `probe`."""
        return probe(x, slot, record)

    def measure(
        self, sites: Mapping[str, Array], y: Array | None, record: Array | None
    ) -> dict[str, Array]:
        """Moments of each site (sites, 3), in the order of `sites`; and the cosine of in and out.

        Args:
          sites: activations by name; "stream" is the one compared with `y`.
          y: the stream that leaves the sublayer; None leaves the cosine out.
          record: whether this step is recorded; None is always.
        """

        # The statistics are an end of the computation: no gradient flows through them.
        values, x, y = lax.stop_gradient((tuple(sites.values()), sites.get("stream"), y))
        measured = {"moments": jnp.stack([moments(value) for value in values])}
        if y is not None:
            measured["cosine"] = cosine(x, y)
        return _kept(record, measured)
