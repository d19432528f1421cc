"""The linear map, and the MLP body."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lnjax import norms
from lnjax.models import initializers
from lnjax.models.config import ModelConfig
from lnjax.norms import Normalization, along_last
from lnjax.placements import Slot, Sublayer


class Linear(nn.Module):
    """x @ kernel + bias as one 2-D product (on CPU a good deal faster than a 3-D one).

    Attributes:
      features: output width.
      matrix: its name in the initialization rules (query, ..., out).
      config: dtypes, base init, biases.
      gain: factor on the initial deviation.
    """

    features: int
    matrix: str
    config: ModelConfig
    gain: float | Array = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "batch time width"]) -> Float[Array, "batch time features"]:
        config, dtype = self.config, jnp.dtype(self.config.param_dtype)

        def draw(key):
            shape = (x.shape[-1], self.features)
            return initializers.kernel(
                key,
                shape,
                dtype,
                init=config.init,
                matrix=self.matrix,
                depth=config.depth,
                gain=self.gain,
            )

        kernel = self.param("kernel", draw).astype(config.compute_dtype)
        y = x.reshape(-1, x.shape[-1]) @ kernel
        if config.bias:
            bias = self.param("bias", lambda _: jnp.zeros((self.features,), dtype))
            y = y + along_last(bias.astype(y.dtype), y)
        return y.reshape(*x.shape[:-1], self.features)


def inner_normalization(
    slot: Slot,
    config: ModelConfig,
    constants: Mapping[str, float | Array],
    train: bool,
    axis_name: str | None,
) -> Normalization:
    """The norm on the input of an output projection ("sub-LN"), for use inside a body."""
    return Normalization(
        norm=norms.get(slot.norm if slot.norm is not None else config.norm),
        gain_init=constants["inner_gain"],
        train=train,
        axis_name=axis_name,
        param_dtype=jnp.dtype(config.param_dtype),
        name="inner_norm",
    )


def activate(name: str, x: Array, gate: Array | None) -> Array:
    """The hidden activation; for gated ones act(gate) * x (Shazeer 2020)."""
    if name == "swiglu":
        return jax.nn.silu(gate) * x
    if name == "geglu":
        return jax.nn.gelu(gate, approximate=True) * x
    if name == "gelu":
        return jax.nn.gelu(x, approximate=True)
    if name == "gelu_erf":
        return jax.nn.gelu(x, approximate=False)
    if name == "relu":
        return jax.nn.relu(x)
    if name == "relu2":
        return jnp.square(jax.nn.relu(x))
    raise ValueError(f"unknown activation {name!r}")


class MLP(nn.Module):
    """W_out N_inner( act( W_in x ) ), with dropout on its output."""

    config: ModelConfig
    row: Sublayer
    constants: Mapping[str, float | Array]
    train: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch time width"]) -> Float[Array, "batch time width"]:
        config = self.config

        def linear(name, features):
            gain = self.constants.get(f"init_{name}", 1.0)
            return Linear(features, name, config, gain, name=name)

        gate = linear("gate", config.hidden)(x) if config.gated else None
        hidden = activate(config.activation, linear("in", config.hidden)(x), gate)
        if self.row.inner is not None:
            hidden = inner_normalization(
                self.row.inner, config, self.constants, self.train, self.axis_name
            )(hidden)
        y = linear("out", config.width)(hidden)
        return nn.Dropout(config.dropout, deterministic=not self.train)(y)
