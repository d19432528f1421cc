"""Every row of the catalogue, mutated in one place: the oracle then disagrees with the model."""

import math
from copy import copy
from dataclasses import replace
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from small_models import oracle, random_params, small, tokens

from lnjax import placements
from lnjax.models import Transformer
from lnjax.placements import InnerNorm, N, Placement, Scale, Slot, Sublayer

NAMES = placements.names()
PARTS = ("attention", "mlp")
SIZES = {"width": 8, "heads": 2, "mlp_width": 12}


def depth_of(name):
    """Mix-LN needs four blocks to have one of Post-LN; the others repeat one row."""
    return 4 if name == "mix_ln" else 1


# ------------------------------------------------------------------------------- the mutations


def forced(placement, **changes):
    """The placement with fields replaced and its validation passed by."""
    mutant = copy(placement)
    for name, value in changes.items():
        object.__setattr__(mutant, name, value)
    return mutant


def in_rows(placement, i, row, fields, block=None):
    """The placement with fields of sublayer `i` replaced where it is `row`, or in one block."""

    def per_block(b, depth):
        rows = list(placement.rows(depth)[b - 1])
        if rows[i] == row and block in (None, b):
            rows[i] = replace(row, **fields)
        return tuple(rows)

    return forced(placement, per_block=per_block)


def times(scale, factor):
    return Scale(lambda where: factor * scale.at(where), symbol="s")


def missing_and_added(row: Sublayer):
    """(label, changed fields), for either sublayer."""
    for slot in ("pre", "post", "out"):
        there = getattr(row, slot) is not None
        yield f"{'drop' if there else 'add'}-{slot}", {slot: None if there else N}


def misplaced(row: Sublayer):
    """(label, changed fields), for one sublayer after the other."""
    there = [slot for slot in ("pre", "post", "out") if getattr(row, slot) is not None]
    for slot in there:
        for other in ("pre", "post", "out"):
            if other not in there:
                yield f"{slot}-to-{other}", {slot: None, other: N}
        yield f"rms-{slot}", {slot: Slot("rmsnorm")}
    for scale in ("skip", "branch", "input_scale"):
        yield f"{scale}*1.1", {scale: times(getattr(row, scale), 1.1)}
    if row.pre is not None:
        yield "tap-norm", {"tap": "norm"}
    yield "add-inner", {"inner": N}


def row_mutations(row: Sublayer, place: int):
    """(sublayer 0 or 1, label, changed fields) of all that can be wrong in a row that both have.

    `place` is the placement's in the catalogue: what is wrong in the attention row of one is
    wrong in the MLP row of the next.
    """
    for i in range(2):
        for label, fields in missing_and_added(row):
            yield i, label, fields
    for k, (label, fields) in enumerate(misplaced(row)):
        yield (k + place) % 2, label, fields
    yield 0, *(("add-qk", {"qk": InnerNorm()}) if place % 2 else ("add-v", {"v": InnerNorm()}))


def one_block_mutations(placement, depth):
    """A norm too few or too many in the attention of block 1 alone, in the last MLP alone."""
    for i, block in enumerate((1, depth)):
        row = placement.rows(depth)[block - 1][i]
        label, fields = next(missing_and_added(row))
        yield f"block-{block}-{PARTS[i]}-{label}", in_rows(placement, i, row, fields, block)


def edge_mutations(placement):
    for edge in ("embed", "final"):
        if getattr(placement, edge) is None:
            yield f"add-{edge}", forced(placement, **{edge: N})
        else:
            yield f"drop-{edge}", forced(placement, **{edge: None})
            yield f"rms-{edge}", forced(placement, **{edge: Slot("rmsnorm")})


def deepnorm_mutations():
    """(label, mutant): wrong constants, and the constant forgotten in one sublayer."""
    right = placements.get("deepnorm")
    for label, alpha in (
        ("exponent", lambda w: (2 * w.depth) ** 0.5),
        ("sign", lambda w: (2 * w.depth) ** -0.25),
        ("beta", lambda w: (8 * w.depth) ** 0.25),
        ("depthless", lambda w: 2**0.25),
        ("sublayers", lambda w: (4 * w.depth) ** 0.25),
        ("block", lambda w: (2 * w.block) ** 0.25),
    ):
        row = Sublayer(out=N, skip=Scale(alpha, symbol="a"))
        yield f"alpha-{label}", right.with_(attention=row, mlp=row)
    for part in PARTS:
        yield f"{part}-alpha-one", right.with_(**{part: Sublayer(out=N)})
    row = replace(right.attention, skip=1.0, branch=right.attention.skip)
    yield "alpha-on-branch", right.with_(attention=row, mlp=row)


def mix_ln_mutations():
    """(label, depth, mutant): where Post-LN ends, and which comes first."""
    right = placements.get("mix_ln")
    post, pre = right.rows(4)[0], right.rows(4)[-1]
    yield "boundary-0-of-4", 4, placements.mix_ln(0.0)
    yield "boundary-2-of-4", 4, placements.mix_ln(0.5)
    for label, count, depth in (
        ("ceil", lambda n: math.ceil(0.25 * n), 5),
        ("round", lambda n: math.floor(0.25 * n + 0.5), 6),
    ):

        def per_block(block, depth, count=count):
            return post if block <= count(depth) else pre

        yield f"boundary-{label}", depth, forced(right, per_block=per_block)
    reverse = forced(right, per_block=lambda block, depth: pre if block <= depth // 4 else post)
    yield "pre-ln-first", 4, reverse


def mutations():
    """(name of the row, depth, mutant), with a label."""
    table = []
    for place, name in enumerate(NAMES):
        right, depth = placements.get(name), depth_of(name)
        for row, same in dict.fromkeys(right.rows(depth)):  # Mix-LN has two
            assert row == same
            early = "early-" if name == "mix_ln" and row.out else ""
            for i, label, fields in row_mutations(row, place):
                mutant = in_rows(right, i, row, fields)
                table.append((name, f"{early}{PARTS[i]}-{label}", depth, mutant))
        table += [(name, label, depth, mutant) for label, mutant in edge_mutations(right)]
        deep = max(depth, 2)
        table += [(name, label, deep, mutant) for label, mutant in one_block_mutations(right, deep)]
    table += [("deepnorm", label, 2, mutant) for label, mutant in deepnorm_mutations()]
    table += [("mix_ln", label, depth, mutant) for label, depth, mutant in mix_ln_mutations()]
    return [pytest.param(name, depth, m, id=f"{name}-{label}") for name, label, depth, m in table]


# ------------------------------------------------------------------------------ the comparison

EVERYWHERE = Placement(
    name="everywhere",
    attention=Sublayer(pre=N, post=N, out=N, inner=N, qk=InnerNorm(), v=InnerNorm()),
    mlp=Sublayer(pre=N, post=N, out=N, inner=N),
    embed=N,
    final=N,
)


@pytest.fixture
def quick(monkeypatch, x64, unchecked):
    """Leaves out the scan's second trace, half of the time of a run, and the checks of types."""
    monkeypatch.setattr(nn, "scan", partial(nn.scan, check_constancy_invariants=False))


@cache
def every_parameter(depth):
    """Parameters of all norms that a row may have; those at one place of it have equal values."""
    return random_params(small(EVERYWHERE, depth=depth, **SIZES), alike=True)


def logits(placement, depth):
    """The model's. It leaves the parameters of norms that its row lacks unused."""
    config = small(placement, depth=depth, **SIZES)
    params = dict(every_parameter(depth))
    blocks = params.pop("blocks_0")
    for i, (first, count, _) in enumerate(placement.segments(depth)):
        own = slice(first - 1, first - 1 + count)
        params[f"blocks_{i}"] = jax.tree.map(lambda leaf, own=own: leaf[own], blocks)
    # Operation by operation: faster than compiling a program per mutant.
    with jax.disable_jit():
        arrays = jax.tree.map(jnp.asarray, params)
        return Transformer(config).apply({"params": arrays}, jnp.asarray(tokens(2, 5)))[0]


@cache
def expected(name, depth):
    """The oracle's, of the row as published."""
    config = small(name, depth=depth, **SIZES)
    return oracle(name, config, random_params(config, alike=True), tokens(2, 5))["logits"]


@pytest.mark.parametrize("name, depth, mutant", mutations())
def test_every_mutation_of_a_row_is_caught(quick, name, depth, mutant):
    assert np.abs(logits(mutant, depth) - expected(name, depth)).max() > 1e-6


@pytest.mark.parametrize("name, depth", {(p.values[0], p.values[1]): None for p in mutations()})
def test_without_a_mutation_the_same_comparison_agrees(quick, name, depth):
    ours = logits(placements.get(name), depth)
    assert_allclose(ours, expected(name, depth), rtol=1e-10, atol=1e-10)
