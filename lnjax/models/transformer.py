"""The Transformer: embedding, blocks run by scan in segments of equal rows, head."""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from lnjax import norms
from lnjax.models.attention import Attention
from lnjax.models.config import ModelConfig
from lnjax.models.mlp import MLP
from lnjax.norms import Normalization
from lnjax.placements import Slot
from lnjax.placements.algebra import Row
from lnjax.placements.connection import Residual, constants


class Block(nn.Module):
    """Attention and MLP sublayers, each run by its row.

    Attributes:
      config, row: sizes, and the two rows of the block.
      fixed: the factors that do not vary over the segment, ((name, value), ...) per sublayer.
      observer, train, axis_name: see `Transformer`.
    """

    config: ModelConfig
    row: Row
    fixed: tuple[tuple[tuple[str, float], ...], ...]
    observer: Any = None
    train: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, scanned, key_mask, record):
        """Run the block on the stream `x`; shaped as the body of a scan.

        Args:
          scanned: {"varying": [attention, mlp] factors of this layer, "slots": (2, 2) or None}.

        Returns:
          (stream, [attention, mlp] measurements).
        """
        measured = []
        for index, (name, body_type) in enumerate((("attention", Attention), ("mlp", MLP))):
            here = dict(self.fixed[index]) | scanned["varying"][index]
            shared = {"train": self.train, "axis_name": self.axis_name}
            body = body_type(self.config, self.row[index], here, **shared, name=name)
            if body_type is Attention:
                body = partial(body, key_mask=key_mask)
            slots = scanned["slots"]
            x, sublayer = Residual(
                self.row[index],
                here,
                norms.get(self.config.norm),
                self.observer,
                **shared,
                param_dtype=jnp.dtype(self.config.param_dtype),
                name=f"{name}_residual",
            )(x, body, None if slots is None else slots[index], record)
            measured.append(sublayer)
        return x, measured


class Transformer(nn.Module):
    """A Transformer language model with its norms where `config.placement` puts them.

    Attributes:
      config: see `ModelConfig`.
      observer: object that measures the stream (lnjax.telemetry.probes.Observer), or None.
      train: dropout on, BatchNorm on batch statistics.
      axis_name: mapped axis over which BatchNorm averages its statistics, or None.
    """

    config: ModelConfig
    observer: Any = None
    train: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "batch time"],
        *,
        key_mask: Bool[Array, "batch time"] | None = None,
        slots: Float[Array, "sites 2"] | None = None,
        record: Array | None = None,
    ) -> tuple[Float[Array, "batch time vocab"], Any]:
        """Logits, in at least float32.

        Args:
          tokens: token ids; time at most config.max_length with learned positions.
          key_mask: true where a token is real, false where it is padding.
          slots: zeros (2 * depth + 1, 2) whose gradient becomes the statistics of dL/dx before
            each sublayer and after the last (with an observer).
          record: scalar bool, whether this step is recorded; None is always.

        Returns:
          (logits, measurements): measurements is None without an observer, else
          {"sublayers": [attention, mlp] pytrees with a leading layer axis, "output": ...}.
        """
        config = self.config
        if not config.vocab_size or not config.max_length:
            raise ValueError("model.vocab_size and model.max_length must be set to build a model")
        if config.positions == "learned" and tokens.shape[1] > config.max_length:
            raise ValueError(
                f"{tokens.shape[1]} positions, but the learned table has {config.max_length}: "
                "raise model.max_length"
            )
        if self.observer is not None and slots is None:
            slots = jnp.zeros((2 * config.depth + 1, 2), jnp.float32)
        table, x = self._embed(tokens)
        x, sublayers = self._blocks(x, key_mask, slots, record)
        measured = None
        if self.observer is not None:
            x = self.observer.probe(x, slots[-1], record)
            measured = {
                "sublayers": sublayers,
                "output": self.observer.measure({"output": x}, None, record),
            }
        x = self._normalize("final", config.placed.final, x)
        return self._head(x, table), measured

    def _embed(self, tokens: Array) -> tuple[Array, Array]:
        config, dtype = self.config, jnp.dtype(self.config.param_dtype)
        deviation = config.embedding_std or 1 / math.sqrt(config.width)
        normal = nn.initializers.normal(deviation)
        table = _Table((config.vocab_size, config.width), normal, dtype, name="embedding")()
        x = jnp.take(table, tokens, axis=0)
        if config.embedding_scale == "sqrt_width":
            x = x * math.sqrt(config.width)
        if config.positions == "learned":
            positions = _Table((config.max_length, config.width), normal, dtype, name="positions")()
            x = x + positions[None, : tokens.shape[1]]
        x = self._normalize("embed", config.placed.embed, x.astype(config.compute_dtype))
        return table, nn.Dropout(config.dropout, deterministic=not self.train)(x)

    def _blocks(self, x, key_mask, slots, record):
        config = self.config
        measured = []
        for index, (first, count, row) in enumerate(config.placed.segments(config.depth)):
            fixed, varying = [], []
            for values in constants(config.placed, row, first, count, config.depth):
                fixed.append(tuple((k, v) for k, v in values.items() if isinstance(v, float)))
                varying.append(
                    {
                        k: jnp.asarray(v, config.param_dtype)
                        for k, v in values.items()
                        if isinstance(v, np.ndarray)
                    }
                )
            part = None
            if slots is not None:
                part = slots[2 * (first - 1) : 2 * (first - 1 + count)].reshape(count, 2, 2)
            block = Block
            if config.remat:
                # A loop keeps XLA from merging the recomputation with the forward pass; where
                # blocks stand outside one, a barrier must (and slows down what is in one).
                block = nn.remat(Block, prevent_cse=config.unroll != 1 or count == 1)
            x, segment = nn.scan(
                block,
                variable_axes={"params": 0, "batch_stats": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, nn.broadcast, nn.broadcast),
                length=count,
                unroll=config.unroll or count,
            )(
                config,
                row,
                tuple(fixed),
                self.observer,
                self.train,
                self.axis_name,
                name=f"blocks_{index}",
            )(x, {"varying": varying, "slots": part}, key_mask, record)
            measured.append(segment)
        return x, _concatenate(measured)

    def _normalize(self, name: str, slot: Slot | None, x: Array) -> Array:
        if slot is None:
            return x
        return Normalization(
            norm=norms.get(slot.norm if slot.norm is not None else self.config.norm),
            gain_init=slot.gain.value,
            train=self.train,
            axis_name=self.axis_name,
            param_dtype=jnp.dtype(self.config.param_dtype),
            name=f"{name}_norm",
        )(x)

    def _head(self, x: Array, table: Array) -> Array:
        config = self.config
        if config.tied:
            kernel = table.T
        else:
            deviation = config.embedding_std or 1 / math.sqrt(config.width)
            kernel = _Table(
                (config.width, config.vocab_size),
                nn.initializers.normal(deviation),
                jnp.dtype(config.param_dtype),
                parameter="kernel",
                name="head",
            )()
        flat = x.reshape(-1, config.width) @ kernel.astype(x.dtype)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        return flat.reshape(*x.shape[:-1], config.vocab_size).astype(wide)


class _Table(nn.Module):
    """One parameter under its own module name, so that the tree reads embedding/table."""

    shape: tuple[int, int]
    draw: Any
    dtype: jnp.dtype
    parameter: str = "table"

    @nn.compact
    def __call__(self) -> Array:
        return self.param(self.parameter, self.draw, self.shape, self.dtype)


def _concatenate(segments: list) -> Any:
    """Join the segments' measurements along their layer axis."""

    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *segments)
