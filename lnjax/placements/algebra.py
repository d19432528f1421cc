"""The equation of a residual sublayer as data, and its validation.

    x' = N_out( a*R + b*N_post( F( c*N_pre(x) ) ) )          R = x, or N_pre(x)

F is attention or the MLP. An absent norm is the identity. `Sublayer` is one row of this equation,
`Placement` the rows of a whole Transformer with what surrounds the stack. `equations.py` prints
these rows and `connection.py` runs them, so that documentation and mathematics cannot part.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from lnjax import norms

MATRICES = ("query", "key", "value", "output", "in", "gate", "out")


@dataclass(frozen=True)
class Where:
    """A sublayer's place: `block` 1..depth, `sublayer` 1..2*depth (attention first), `depth` L."""

    block: int
    sublayer: int
    depth: int


@dataclass(frozen=True)
class Scale:
    """A factor in the equation: a constant, a function of the place, or a learned parameter.

    Attributes:
      value: the constant (or the initial value), or a function of `Where` that gives it.
      learned: "no", "scalar" (one number per sublayer) or "vector" (one per feature).
      symbol: LaTeX name, used in the rendered equation.
      formula: LaTeX of the value, shown below the equation.
    """

    value: float | Callable[[Where], float] = 1.0
    learned: Literal["no", "scalar", "vector"] = "no"
    symbol: str = ""
    formula: str = ""

    def __post_init__(self):
        if self.learned not in ("no", "scalar", "vector"):
            raise ValueError(
                f"Scale.learned is {self.learned!r}: use 'no', 'scalar' (one per sublayer) "
                "or 'vector' (one per feature)"
            )
        if callable(self.value) and not self.symbol:
            raise ValueError(
                "a scale that depends on depth needs a symbol and a formula to be printed: "
                r"Scale(fn, symbol=r'\alpha', formula='(2L)^{1/4}')"
            )

    def at(self, where: Where) -> float:
        """The value, or initial value, at a place."""
        return float(self.value(where) if callable(self.value) else self.value)

    @property
    def is_one(self) -> bool:
        """True where the factor can be left out of the equation."""
        return self.learned == "no" and not callable(self.value) and self.value == 1.0


ONE = Scale()


def as_scale(value: "Scale | float | Callable[[Where], float]") -> Scale:
    """A plain number as a `Scale`."""
    return value if isinstance(value, Scale) else Scale(value)


@dataclass(frozen=True)
class Slot:
    """A norm at one place of the equation.

    Attributes:
      norm: a name or `Norm` for this slot alone; None is the norm function the model is set to.
      gain: initial gain (for example 0 in Swin-v2, c/sqrt(L) in depth-scaled sandwiches).
    """

    norm: str | norms.Norm | None = None
    gain: Scale | float = ONE

    def __post_init__(self):
        object.__setattr__(self, "gain", as_scale(self.gain))
        if self.norm is not None:
            norms.get(self.norm)
        if self.gain.learned != "no":
            raise ValueError("a norm's gain is always learned: give only its initial value")


N = Slot()


@dataclass(frozen=True)
class InnerNorm:
    """A norm inside F: on queries and keys, on values.

    Attributes:
      norm: a name or `Norm`; None is the norm function the model is set to.
      scope: "head" normalizes each head (parameters shared by the heads), "full" all heads jointly.
      order: "before_rope" or "after_rope" (only of meaning for queries and keys).
    """

    norm: str | norms.Norm | None = None
    scope: Literal["head", "full"] = "head"
    order: Literal["before_rope", "after_rope"] = "before_rope"

    def __post_init__(self):
        if self.norm is not None:
            norms.get(self.norm)
        if self.scope not in ("head", "full"):
            raise ValueError(f"InnerNorm.scope is {self.scope!r}: use 'head' or 'full'")
        if self.order not in ("before_rope", "after_rope"):
            raise ValueError(
                f"InnerNorm.order is {self.order!r}: use 'before_rope' or 'after_rope'"
            )


@dataclass(frozen=True)
class Sublayer:
    """One row of the equation.

    Attributes:
      pre, post, out: the norms N_pre, N_post, N_out, or None.
      tap: what the residual carries: "stream" (x) or "norm" (the output of N_pre).
      skip, branch, input_scale: the factors a, b, c.
      inner: norm on the input of F's output projection ("sub-LN").
      qk: norm on queries and keys; v: norm on values (attention only).
    """

    pre: Slot | None = None
    post: Slot | None = None
    out: Slot | None = None
    tap: Literal["stream", "norm"] = "stream"
    skip: Scale | float = ONE
    branch: Scale | float = ONE
    input_scale: Scale | float = ONE
    inner: Slot | None = None
    qk: InnerNorm | None = None
    v: InnerNorm | None = None

    def __post_init__(self):
        for name in ("skip", "branch", "input_scale"):
            object.__setattr__(self, name, as_scale(getattr(self, name)))
        if self.tap not in ("stream", "norm"):
            raise ValueError(f"Sublayer.tap is {self.tap!r}: use 'stream' or 'norm'")
        if self.tap == "norm" and self.pre is None:
            raise ValueError(
                "tap='norm' carries the residual from N_pre, but pre is None: "
                "set pre=N, or tap='stream'"
            )
        if self.branch.learned == "no" and self.branch.value == 0:
            raise ValueError(
                "branch=0 that is not learned removes the sublayer: use a learned scale, "
                "Scale(0.0, learned='scalar')"
            )

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The norms of the residual equation that are present."""
        return tuple(slot for slot in (self.pre, self.post, self.out) if slot is not None)


@dataclass(frozen=True)
class Init:
    """Gains on the base initialization: matrix name (see MATRICES) -> Scale."""

    gains: Mapping[str, Scale | float] | tuple[tuple[str, Scale | float], ...] = ()

    def __post_init__(self):
        pairs = self.gains.items() if isinstance(self.gains, Mapping) else self.gains
        pairs = tuple((name, as_scale(scale)) for name, scale in pairs)
        for name, _ in pairs:
            if name not in MATRICES:
                raise ValueError(
                    f"init gain for unknown matrix {name!r}: use {', '.join(MATRICES)}"
                )
        object.__setattr__(self, "gains", pairs)

    def gain(self, matrix: str, where: Where) -> float:
        """Factor on the initial standard deviation of a matrix at a place."""
        return dict(self.gains).get(matrix, ONE).at(where)


Row = tuple[Sublayer, Sublayer]


@dataclass(frozen=True)
class Placement:
    """Where the norms of a whole Transformer sit.

    Attributes:
      name: the name it is found by.
      attention, mlp: the rows of the two sublayers of a block.
      embed: norm after the embedding; final: norm between the last block and the head.
      init: depth-dependent gains on the initialization.
      topology: how sublayers are wired; "sequential" is attention, then MLP.
      per_block: function (block 1..L, depth L) -> (attention, mlp) rows that replace the default
        ones in that block, or None to keep them.
      title, paper, equation_source, notes: what it is called, where it is defined, where it
        differs from released code.

    Raises:
      ValueError: the parts contradict each other; the message names the remedy.
    """

    name: str
    attention: Sublayer
    mlp: Sublayer
    embed: Slot | None = None
    final: Slot | None = None
    init: Init = field(default_factory=Init)
    topology: Literal["sequential"] = "sequential"
    per_block: Callable[[int, int], Row | None] | None = None
    title: str = ""
    paper: str = ""
    equation_source: str = ""
    notes: str = ""

    def __post_init__(self):
        if self.topology != "sequential":
            raise ValueError(
                f"unknown topology {self.topology!r}: 'sequential' is the one there is"
            )
        for name in ("embed", "final"):
            slot = getattr(self, name)
            if slot is not None and callable(slot.gain.value):
                raise ValueError(
                    f"placement {self.name!r}: the {name} norm stands outside the blocks, so its "
                    "initial gain cannot depend on the block: give a number"
                )
        for depth in (1, 2, 12):
            self._check(self.rows(depth))

    def _check(self, rows: tuple[Row, ...]) -> None:
        sublayers = [sublayer for row in rows for sublayer in row]
        if not all(isinstance(sublayer, Sublayer) for sublayer in sublayers):
            raise ValueError(f"placement {self.name!r}: a row is (attention, mlp), two Sublayers")
        for _, mlp in rows:
            if mlp.qk is not None or mlp.v is not None:
                raise ValueError(
                    f"placement {self.name!r}: qk and v norms are attention's, but the mlp row "
                    "sets them: move them to the attention row"
                )
        normalized = any(sublayer.slots for sublayer in sublayers) or self.embed is not None
        if normalized and sublayers[-1].out is None and self.final is None:
            raise ValueError(
                f"placement {self.name!r}: its last sublayer leaves the stream un-normalized "
                "(no out norm) and there is no final norm, so the head would read a stream that "
                "grows with depth: set final=N, or give the last sublayer out=N"
            )

    def rows(self, depth: int) -> tuple[Row, ...]:
        """The (attention, mlp) rows of blocks 1..depth."""
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        rows = []
        for block in range(1, depth + 1):
            override = self.per_block(block, depth) if self.per_block else None
            rows.append((self.attention, self.mlp) if override is None else tuple(override))
        return tuple(rows)

    def segments(self, depth: int) -> tuple[tuple[int, int, Row], ...]:
        """Maximal runs of equal rows: (first block 1.., number of blocks, row)."""
        segments: list[tuple[int, int, Row]] = []
        for block, row in enumerate(self.rows(depth), start=1):
            if segments and segments[-1][2] == row:
                first, count, _ = segments[-1]
                segments[-1] = (first, count + 1, row)
            else:
                segments.append((block, 1, row))
        return tuple(segments)

    def with_(self, **changes) -> "Placement":
        """A copy with some fields replaced, validated again."""
        return replace(self, **changes)

    def equations(self, depth: int = 12) -> list[str]:
        """The equations as plain text, one per line, from the rows the model runs."""
        from lnjax.placements import equations

        return equations.text(self, depth)

    def latex(self, depth: int = 12) -> str:
        """The equations as a LaTeX `aligned` block, from the rows the model runs.

        Args:
          depth: the depth at which `per_block` rows are printed.
        """
        from lnjax.placements import equations

        return equations.latex(self, depth)

    def _repr_latex_(self) -> str:
        return f"$${self.latex()}$$"
