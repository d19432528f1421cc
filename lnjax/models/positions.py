"""Where a token is: rotary embedding, ALiBi. (Learned positions are a table in the model.)"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def rope_tables(time: int, head_width: int, base: float = 10000.0) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of the rotation angles, each of shape (time, head_width / 2), float64.

    Source: Su et al. 2021 (RoFormer), eq. 15.
    """
    frequency = base ** (-np.arange(0, head_width, 2) / head_width)
    angle = np.arange(time)[:, None] * frequency[None, :]
    return np.cos(angle), np.sin(angle)


def rotate(
    x: Float[Array, "batch heads time head_width"], base: float = 10000.0
) -> Float[Array, "batch heads time head_width"]:
    """Rotate feature pairs (i, i + head_width/2) by the position's angle, in at least float32."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    cosine, sine = (
        jnp.asarray(t, dtype)[None, None] for t in rope_tables(x.shape[2], x.shape[3], base)
    )
    first, second = jnp.split(x.astype(dtype), 2, axis=-1)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def alibi_slopes(heads: int) -> np.ndarray:
    """One slope per head (Press et al. 2021, section 3 and the authors' rule for other counts)."""

    def power_of_two(n: int) -> list[float]:
        return [2.0 ** (-8.0 * (i + 1) / n) for i in range(n)]

    below = 2 ** math.floor(math.log2(heads))
    extra = power_of_two(2 * below)[0::2][: heads - below]
    return np.asarray(power_of_two(below) + extra)


def alibi_bias(
    slopes: Float[Array, " heads"], start: int, end: int, keys: int
) -> Float[Array, "heads queries keys"]:
    """-slope * |query - key| of the queries start..end-1, in the slopes' dtype.

    Made from counters where it is added, which the compiler fuses: as a constant, every program
    would hold heads * time^2 numbers.
    """
    distance = jnp.abs(jnp.arange(start, end)[:, None] - jnp.arange(keys)[None, :])
    return -slopes[:, None, None] * distance[None].astype(slopes.dtype)
