"""The norm functions with backward passes of their own, and the module with their parameters.

Any placement runs with any of these: what normalizes is independent of where it sits.
Statistics are taken in at least float32, over the last axis; BatchNorm takes all axes but the last.

The backward passes (all but BatchNorm's, whose statistics cross devices) are written by hand,
because XLA on CPU fuses and recomputes chains of automatically differentiated norms until both
compile time and step time explode.
"""

import difflib
from dataclasses import dataclass
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


@dataclass(frozen=True)
class Norm:
    """A norm function as data.

    Attributes:
      kind: "layer" (mean and variance), "rms" (root mean square), "scale" (ScaleNorm, Nguyen &
        Salazar 2019: one scalar gain on the L2 direction), "batch" (statistics over the batch).
      eps: added to the variance or mean square; for ScaleNorm the smallest length divided by.
      gain: whether there is a learned gain.
      bias: whether there is a learned bias.
      plus_one: the stored weight w acts as 1 + w and starts at 0 (Gemma, Nemotron).
    """

    kind: Literal["layer", "rms", "scale", "batch"]
    eps: float
    gain: bool = True
    bias: bool = False
    plus_one: bool = False

    def __post_init__(self):
        if self.kind not in ("layer", "rms", "scale", "batch"):
            raise ValueError(f"unknown norm kind {self.kind!r}: use layer, rms, scale or batch")
        if not self.eps >= 0:
            raise ValueError(f"a norm's eps must not be negative, got {self.eps}")
        if self.plus_one and not self.gain:
            raise ValueError("plus_one describes how the gain is stored: it needs gain=True")
        if self.kind == "scale" and not (self.gain and not self.bias):
            raise ValueError("ScaleNorm is g*x/||x||: it has a gain and no bias")


NORMS: dict[str, Norm] = {
    "layernorm": Norm("layer", 1e-5, bias=True),
    "layernorm_no_bias": Norm("layer", 1e-5),
    "layernorm_no_affine": Norm("layer", 1e-5, gain=False),
    "layernorm_plus_one": Norm("layer", 1e-5, bias=True, plus_one=True),
    "rmsnorm": Norm("rms", 1e-6),
    "rmsnorm_plus_one": Norm("rms", 1e-6, plus_one=True),
    "rmsnorm_no_affine": Norm("rms", 1e-6, gain=False),
    "scalenorm": Norm("scale", 1e-5),
    "batchnorm": Norm("batch", 1e-5, bias=True),
}


def names() -> list[str]:
    """Names that `get` understands."""
    return list(NORMS)


def get(norm: "str | Norm") -> Norm:
    """Return the norm function called `norm` (a `Norm` is returned unchanged).

    Raises:
      ValueError: the name is unknown; the message lists the known ones.
    """
    if isinstance(norm, Norm):
        return norm
    if norm not in NORMS:
        close = difflib.get_close_matches(norm, NORMS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown norm {norm!r}.{hint} Known norms: {', '.join(NORMS)}")
    return NORMS[norm]


def _wide(x: Array) -> Array:
    """`x` in the dtype that statistics are taken in: float32, or float64 under x64."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def along_last(v: Float[Array, " width"], x: Array) -> Array:
    """A per-feature vector, shaped to multiply the last axis of `x` without rank promotion."""
    return v.reshape((1,) * (x.ndim - 1) + v.shape)


def _affine(x_hat: Array, gain: Array | None, bias: Array | None) -> Array:
    y = x_hat if gain is None else x_hat * along_last(gain.astype(x_hat.dtype), x_hat)
    return y if bias is None else y + along_last(bias.astype(x_hat.dtype), x_hat)


def _affine_gradients(g: Array, x_hat: Array, gain: Array | None, bias: Array | None):
    """Cotangents of x_hat, gain and bias for y = gain * x_hat + bias."""
    axes = tuple(range(g.ndim - 1))
    d_gain = None if gain is None else jnp.sum(g * x_hat, axes).astype(gain.dtype)
    d_bias = None if bias is None else jnp.sum(g, axes).astype(bias.dtype)
    d_hat = g if gain is None else g * along_last(gain.astype(g.dtype), g)
    return d_hat, d_gain, d_bias


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(
    x: Float[Array, "*batch width"],
    gain: Float[Array, " width"] | None,
    bias: Float[Array, " width"] | None,
    eps: float,
) -> Float[Array, "*batch width"]:
    """(x - mean) / sqrt(variance + eps) * gain + bias (Ba, Kiros & Hinton 2016, eq. 4)."""
    return _layer_norm_forward(x, gain, bias, eps)[0]


def _layer_norm_forward(x, gain, bias, eps):
    wide = _wide(x)
    mean = jnp.mean(wide, -1, keepdims=True)
    centred = wide - mean
    inverse = lax.rsqrt(jnp.mean(centred * centred, -1, keepdims=True) + eps)
    y = _affine(centred * inverse, gain, bias).astype(x.dtype)
    return y, (x, mean, inverse, gain, bias)


def _layer_norm_backward(eps, saved, g):
    x, mean, inverse, gain, bias = saved
    x_hat = (_wide(x) - mean) * inverse
    d_hat, d_gain, d_bias = _affine_gradients(_wide(g), x_hat, gain, bias)
    along = jnp.mean(d_hat * x_hat, -1, keepdims=True)
    dx = inverse * (d_hat - jnp.mean(d_hat, -1, keepdims=True) - x_hat * along)
    return dx.astype(x.dtype), d_gain, d_bias


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def rms_norm(
    x: Float[Array, "*batch width"],
    gain: Float[Array, " width"] | None,
    bias: Float[Array, " width"] | None,
    eps: float,
) -> Float[Array, "*batch width"]:
    """x / sqrt(mean(x^2) + eps) * gain (+ bias) (Zhang & Sennrich 2019, eq. 4)."""
    return _rms_norm_forward(x, gain, bias, eps)[0]


def _rms_norm_forward(x, gain, bias, eps):
    wide = _wide(x)
    inverse = lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + eps)
    return _affine(wide * inverse, gain, bias).astype(x.dtype), (x, inverse, gain, bias)


def _rms_norm_backward(eps, saved, g):
    x, inverse, gain, bias = saved
    x_hat = _wide(x) * inverse
    d_hat, d_gain, d_bias = _affine_gradients(_wide(g), x_hat, gain, bias)
    dx = inverse * (d_hat - x_hat * jnp.mean(d_hat * x_hat, -1, keepdims=True))
    return dx.astype(x.dtype), d_gain, d_bias


rms_norm.defvjp(_rms_norm_forward, _rms_norm_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def scale_norm(
    x: Float[Array, "*batch width"], gain: Float[Array, ""], eps: float
) -> Float[Array, "*batch width"]:
    """gain * x / max(||x||, eps), one scalar gain (Nguyen & Salazar 2019, eq. 5)."""
    return _scale_norm_forward(x, gain, eps)[0]


def _scale_norm_forward(x, gain, eps):
    wide = _wide(x)
    length = jnp.sqrt(jnp.sum(wide * wide, -1, keepdims=True))
    unit = wide / jnp.maximum(length, eps)
    return (gain.astype(unit.dtype) * unit).astype(x.dtype), (x, length, gain)


def _scale_norm_backward(eps, saved, g):
    x, length, gain = saved
    g = _wide(g)
    clamped = jnp.maximum(length, eps)
    unit = _wide(x) / clamped
    along = jnp.sum(g * unit, -1, keepdims=True)
    # Below eps the divisor is a constant, so only the direct term remains.
    dx = gain.astype(g.dtype) / clamped * (g - jnp.where(length > eps, unit * along, 0.0))
    return dx.astype(x.dtype), jnp.sum(along).astype(gain.dtype)


scale_norm.defvjp(_scale_norm_forward, _scale_norm_backward)


class Normalization(nn.Module):
    """A norm function with its parameters `gain` and `bias`.

    Attributes:
      norm: the function.
      gain_init: initial effective gain; a scalar array may be traced (a scanned layer's own value).
        ScaleNorm starts at gain_init * sqrt(width), so that it has the scale of the other norms.
      train: BatchNorm normalizes with the batch's statistics and updates its running ones when
        true, with the running ones when false. Other norms compute the same in both.
      axis_name: mapped axis over which BatchNorm's statistics are averaged (pmap).
      param_dtype: dtype of the parameters.

    BatchNorm's running statistics are in the collection "batch_stats", averaged with momentum 0.9.
    """

    norm: Norm
    gain_init: float | Array = 1.0
    train: bool = False
    axis_name: str | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        norm, width = self.norm, x.shape[-1]
        if norm.kind == "scale":
            # g = sqrt(d) makes ScaleNorm start as RMSNorm (Nguyen & Salazar 2019, section 3.2).
            start = jnp.sqrt(jnp.asarray(width, self.param_dtype))
            return scale_norm(x, self._parameter("gain", (), start * self.gain_init), norm.eps)
        gain = bias = None
        if norm.gain:
            start = self.gain_init - 1.0 if norm.plus_one else self.gain_init
            gain = self._parameter("gain", (width,), start)
            gain = 1.0 + gain if norm.plus_one else gain
        if norm.bias:
            bias = self._parameter("bias", (width,), 0.0)
        if norm.kind == "batch":
            return self._batch_norm(x, gain, bias)
        return {"layer": layer_norm, "rms": rms_norm}[norm.kind](x, gain, bias, norm.eps)

    def _parameter(self, name: str, shape: tuple[int, ...], value: float | Array) -> Array:
        value = jnp.asarray(value, self.param_dtype)
        return self.param(name, lambda _: jnp.broadcast_to(value, shape))

    def _batch_norm(self, x: Array, gain: Array | None, bias: Array | None) -> Array:
        """Ioffe & Szegedy 2015, algorithms 1 and 2, over every axis but the last."""
        wide, width, momentum = _wide(x), x.shape[-1], 0.9
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (width,), wide.dtype)
        running_variance = self.variable("batch_stats", "variance", jnp.ones, (width,), wide.dtype)
        mean, variance = running_mean.value, running_variance.value
        if self.train:
            axes = tuple(range(x.ndim - 1))
            mean = self._across_devices(jnp.mean(wide, axes))
            centred = wide - along_last(mean, wide)
            variance = self._across_devices(jnp.mean(centred * centred, axes))
            if not self.is_initializing():
                for running, batch in ((running_mean, mean), (running_variance, variance)):
                    running.value = momentum * running.value + (1 - momentum) * batch
        inverse = lax.rsqrt(variance + self.norm.eps)
        x_hat = (wide - along_last(mean, wide)) * along_last(inverse, wide)
        return _affine(x_hat, gain, bias).astype(x.dtype)

    def _across_devices(self, statistic: Array) -> Array:
        return statistic if self.axis_name is None else lax.pmean(statistic, self.axis_name)
