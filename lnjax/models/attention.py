"""Multi-head attention: the body of the first sublayer."""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from lnjax import norms
from lnjax.models import positions
from lnjax.models.config import ModelConfig
from lnjax.models.mlp import Linear, inner_normalization
from lnjax.norms import Normalization
from lnjax.placements import InnerNorm, Sublayer

# A finite stand-in for minus infinity: a row whose keys are all masked stays finite.
MASKED = -1e30


def attend(
    query: Float[Array, "batch heads time head_width"],
    key: Float[Array, "batch heads time head_width"],
    value: Float[Array, "batch heads time head_width"],
    *,
    causal: bool,
    slopes: Float[Array, " heads"] | None = None,
    key_mask: Bool[Array, "batch time"] | None = None,
    chunks: int | None = None,
    dropout=None,
) -> Float[Array, "batch heads time head_width"]:
    """softmax(q k^T / sqrt(head_width) + ALiBi) v, scores and softmax in at least float32.

    Causal attention goes over the queries in `chunks` pieces, each with the keys up to its end, so
    that three eighths of the products (at 4 chunks) are never made. The division by the softmax's
    sum comes after the product with v, on an array `time / head_width` times smaller.

    Args:
      slopes: ALiBi's, in at least float32 (a half precision rounds distances above 256 or 2048).
      chunks: None is up to 4 pieces of at least 64 queries: below that a piece saves less than
        its own operations cost, and each adds to the compile time.
      dropout: applied to the attention weights, or None.
    """
    time, wide = query.shape[2], jnp.promote_types(query.dtype, jnp.float32)
    if chunks is None:
        chunks = min(4, max(1, time // 64))
    if not causal or time % chunks or time < 4 * chunks:
        chunks = 1
    step = time // chunks
    query = query * jnp.asarray(1.0 / math.sqrt(query.shape[-1]), query.dtype)
    pieces = []
    for start in range(0, time, step):
        end = start + step
        seen = end if causal else time
        scores = jnp.einsum(
            "bhqc,bhkc->bhqk",
            query[:, :, start:end],
            key[:, :, :seen],
            preferred_element_type=wide,
        )
        if slopes is not None:
            scores = scores + positions.alibi_bias(slopes, start, end, seen)[None].astype(wide)
        if causal:
            visible = jnp.arange(seen)[None, :] <= jnp.arange(start, end)[:, None]
            scores = jnp.where(visible[None, None], scores, MASKED)
        if key_mask is not None:
            scores = jnp.where(key_mask[:, None, None, :seen], scores, MASKED)
        weights = jnp.exp(scores - lax.stop_gradient(jnp.max(scores, -1, keepdims=True)))
        total = jnp.sum(weights, -1, keepdims=True)
        if dropout is not None:
            weights = dropout(weights)
        mixed = jnp.einsum(
            "bhqk,bhkc->bhqc",
            weights.astype(value.dtype),
            value[:, :, :seen],
            preferred_element_type=wide,
        )
        pieces.append((mixed / total).astype(query.dtype))
    return pieces[0] if chunks == 1 else jnp.concatenate(pieces, axis=2)


def _library_attention(query, key, value, *, form, causal, slopes, key_mask):
    """jax.nn's attention ("xla", or "cudnn": the fused kernel of NVIDIA GPUs)."""
    if form == "cudnn" and jax.default_backend() != "gpu":
        raise ValueError(
            f"model.attention_form='cudnn' needs an NVIDIA GPU, and JAX runs on "
            f"{jax.default_backend()} here: set model.attention_form='chunked'"
        )
    swap = [jnp.swapaxes(t, 1, 2) for t in (query, key, value)]
    mask = None if key_mask is None else key_mask[:, None, None, :]
    bias, time = None, query.shape[2]
    if slopes is not None:
        bias = positions.alibi_bias(slopes, 0, time, time)[None]  # added to float32 scores
    out = jax.nn.dot_product_attention(
        *swap,
        bias=bias,
        mask=mask,
        is_causal=causal,
        implementation=form,
    )
    return jnp.swapaxes(out, 1, 2)


class Attention(nn.Module):
    """Self-attention with the row's inner norms on q, k, v and on the output projection's input.

    Attributes:
      config: sizes, positions, dtypes.
      row: whose `qk`, `v` and `inner` norms apply.
      constants: initial gains at this place.
      train: dropout on, BatchNorm on batch statistics.
    """

    config: ModelConfig
    row: Sublayer
    constants: Mapping[str, float | Array]
    train: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time width"], key_mask: Bool[Array, "batch time"] | None = None
    ) -> Float[Array, "batch time width"]:
        config, row = self.config, self.row
        wide = config.heads * config.head_width
        narrow = config.kv * config.head_width

        def linear(name, features):
            gain = self.constants.get(f"init_{name}", 1.0)
            return Linear(features, name, config, gain, name=name)

        query = self._heads("q", linear("query", wide)(x), config.heads, row.qk)
        key = self._heads("k", linear("key", narrow)(x), config.kv, row.qk)
        value = self._heads("v", linear("value", narrow)(x), config.kv, row.v, rope=False)
        if config.kv != config.heads:
            key, value = (jnp.repeat(t, config.heads // config.kv, axis=1) for t in (key, value))
        slopes = None
        if config.positions == "alibi":
            dtype = jnp.promote_types(x.dtype, jnp.float32)
            slopes = jnp.asarray(positions.alibi_slopes(config.heads), dtype)
        # Parameters do not depend on the form, so that a model starts without a GPU.
        if config.attention_form == "chunked" or self.is_initializing():
            dropout = None
            if config.dropout and self.train:
                dropout = nn.Dropout(config.dropout, deterministic=False, name="weights_dropout")
            mixed = attend(
                query,
                key,
                value,
                causal=config.causal,
                slopes=slopes,
                key_mask=key_mask,
                dropout=dropout,
            )
        else:
            mixed = _library_attention(
                query,
                key,
                value,
                form=config.attention_form,
                causal=config.causal,
                slopes=slopes,
                key_mask=key_mask,
            )
        mixed = jnp.swapaxes(mixed, 1, 2).reshape(*x.shape[:2], wide)
        if row.inner is not None:
            mixed = inner_normalization(
                row.inner, config, self.constants, self.train, self.axis_name
            )(mixed)
        y = linear("output", config.width)(mixed)
        return nn.Dropout(config.dropout, deterministic=not self.train)(y)

    def _heads(self, name: str, x: Array, heads: int, norm: InnerNorm | None, rope: bool = True):
        """Split into heads (batch, heads, time, head_width), normalize and rotate in order."""

        def split(t):
            return jnp.swapaxes(t.reshape(*t.shape[:2], heads, -1), 1, 2)

        def join(t):
            return jnp.swapaxes(t, 1, 2).reshape(*t.shape[:1], t.shape[2], -1)

        rope = rope and self.config.positions == "rope"
        if norm is None:
            return positions.rotate(split(x)) if rope else split(x)
        apply = Normalization(
            norm=norms.get(norm.norm if norm.norm is not None else self.config.norm),
            train=self.train,
            axis_name=self.axis_name,
            param_dtype=jnp.dtype(self.config.param_dtype),
            name=f"{name}_norm",
        )
        full = norm.scope == "full"
        if rope and norm.order == "after_rope":
            turned = positions.rotate(split(x))
            return split(apply(join(turned))) if full else apply(turned)
        normed = split(apply(x)) if full else apply(split(x))
        return positions.rotate(normed) if rope else normed
