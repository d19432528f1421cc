"""The Flax module that runs a `Sublayer` row around a body F."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lnjax import norms
from lnjax.norms import Normalization, along_last
from lnjax.placements.algebra import Placement, Row, Slot, Sublayer, Where

Constants = Mapping[str, float | Array]
"""The factors and initial gains of one sublayer at one place, by name."""


def constants(
    placement: Placement, row: Row, first: int, count: int, depth: int
) -> list[dict[str, Any]]:
    """Factors of a segment's blocks first..first+count-1, as [attention, mlp] dicts name -> value.

    A value that is the same in all blocks is a Python float, so that 1.0 costs nothing; one that
    varies is a float array of shape (count,), to be scanned along with the parameters.
    """
    result = []
    for index, sublayer in enumerate(row):
        columns: dict[str, list[float]] = {}
        for block in range(first, first + count):
            where = Where(block, 2 * (block - 1) + index + 1, depth)
            for name, scale in _scales(sublayer, placement).items():
                columns.setdefault(name, []).append(scale.at(where))
        result.append(
            {
                name: values[0] if len(set(values)) == 1 else np.asarray(values)
                for name, values in columns.items()
            }
        )
    return result


def _scales(row: Sublayer, placement: Placement) -> dict:
    scales = {"skip": row.skip, "branch": row.branch, "input_scale": row.input_scale}
    for name in ("pre", "post", "out", "inner"):
        slot: Slot | None = getattr(row, name)
        if slot is not None:
            scales[f"{name}_gain"] = slot.gain
    return scales | {f"init_{matrix}": scale for matrix, scale in placement.init.gains}


class Residual(nn.Module):
    """x' = N_out( a*R + b*N_post( F( c*N_pre(x) ) ) ), with R = x or N_pre(x).

    Attributes:
      row: the equation's row.
      constants: its factors at this place (see `constants`).
      norm: the norm function of slots that name none.
      observer: measures the stream (see lnjax.telemetry.probes), or None.
      train, axis_name, param_dtype: handed to the norms.
    """

    row: Sublayer
    constants: Constants
    norm: norms.Norm
    observer: Any = None
    train: bool = False
    axis_name: str | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch time width"],
        body: Callable[[Array], Array],
        slot: Float[Array, "2"] | None = None,
        record: Array | None = None,
    ) -> tuple[Float[Array, "batch time width"], Any]:
        """Run the row.

        Args:
          x: the stream.
          body: F.
          slot: receives the statistics of dL/dx as its gradient (needs an observer).
          record: scalar bool, whether this step is recorded; None is always.

        Returns:
          The new stream, and what the observer measured (None without one).
        """
        row = self.row
        if self.observer is not None:
            x = self.observer.probe(x, slot, record)
        normed = self._normalize("pre", x)
        inner = body(self._scaled("input_scale", normed))
        branch = self._scaled("branch", self._normalize("post", inner))
        residual = self._scaled("skip", normed if row.tap == "norm" else x)
        total = residual + branch
        y = self._normalize("out", total)
        measured = None
        if self.observer is not None:
            sites = {"stream": x, "body": inner, "branch": branch, "sum": total}
            measured = self.observer.measure(sites, y, record)
        return y, measured

    def _normalize(self, name: str, x: Array) -> Array:
        slot: Slot | None = getattr(self.row, name)
        if slot is None:
            return x
        return Normalization(
            norm=self.norm if slot.norm is None else norms.get(slot.norm),
            gain_init=self.constants[f"{name}_gain"],
            train=self.train,
            axis_name=self.axis_name,
            param_dtype=self.param_dtype,
            name=f"{name}_norm",
        )(x)

    def _scaled(self, name: str, x: Array) -> Array:
        scale, value = getattr(self.row, name), self.constants[name]
        if scale.learned == "no":
            if isinstance(value, float):
                return x if value == 1.0 else x * value
            return x * value.astype(x.dtype)
        shape = () if scale.learned == "scalar" else x.shape[-1:]
        factor = self.param(
            name, lambda _: jnp.broadcast_to(jnp.asarray(value, self.param_dtype), shape)
        ).astype(x.dtype)
        return x * (factor if scale.learned == "scalar" else along_last(factor, x))
