"""Base initializations of the weight matrices; a placement's own gains multiply them.

| name | standard deviation | distribution | source |
|---|---|---|---|
| xavier_normal | sqrt(2 / (fan_in + fan_out)) | normal | Glorot & Bengio 2010 |
| xavier_uniform | the same | uniform | Glorot & Bengio 2010 |
| lecun_normal | 1 / sqrt(fan_in) | normal | LeCun et al. 1998 |
| gpt2 | 0.02; attention output and MLP out 0.02 / sqrt(2L) | normal | Radford et al. 2019 |
| fairseq | xavier; query, key, value divided by sqrt(2) | uniform | fairseq's MultiheadAttention |
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array


def standard_deviation(init: str, matrix: str, fan_in: int, fan_out: int, depth: int) -> float:
    """Standard deviation of a matrix before the placement's gain.

    Args:
      init: name of the base initialization.
      matrix: query, key, value, output, in, gate or out.
      fan_in, fan_out: its two sizes.
      depth: number of blocks L.
    """
    if init in ("xavier_normal", "xavier_uniform"):
        return math.sqrt(2.0 / (fan_in + fan_out))
    if init == "lecun_normal":
        return 1.0 / math.sqrt(fan_in)
    if init == "gpt2":
        return 0.02 / math.sqrt(2 * depth) if matrix in ("output", "out") else 0.02
    if init == "fairseq":
        gain = 1 / math.sqrt(2) if matrix in ("query", "key", "value") else 1.0
        return gain * math.sqrt(2.0 / (fan_in + fan_out))
    raise ValueError(f"unknown init {init!r}")


def kernel(
    key: Array,
    shape: tuple[int, int],
    dtype: jnp.dtype,
    *,
    init: str,
    matrix: str,
    depth: int,
    gain: float | Array = 1.0,
) -> Array:
    """Draw a (fan_in, fan_out) kernel; `gain` may be traced (a scanned layer's own)."""
    deviation = standard_deviation(init, matrix, *shape, depth) * jnp.asarray(gain, dtype)
    if init in ("xavier_uniform", "fairseq"):
        bound = math.sqrt(3.0) * deviation
        return jax.random.uniform(key, shape, dtype, -1.0, 1.0) * bound
    return jax.random.normal(key, shape, dtype) * deviation
