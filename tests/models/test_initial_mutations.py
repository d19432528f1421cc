"""Where each row of the catalogue starts, and every mutation of that caught by the same check."""

from copy import copy
from dataclasses import replace
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose
from small_models import initial

from lnjax import placements
from lnjax.models import ModelConfig
from lnjax.placements import Init, Scale, Slot, Sublayer
from lnjax.placements.algebra import MATRICES, Where

NAMES = placements.names()
SIZES = {"width": 64, "heads": 4, "mlp_width": 96, "activation": "swiglu"}


@pytest.fixture
def quick(monkeypatch, unchecked):
    """Leaves out the scan's second trace, half of the time of a run, and the checks of types."""
    monkeypatch.setattr(nn, "scan", partial(nn.scan, check_constancy_invariants=False))


def assert_starts(name, placement, depth):
    """Deviations are the paper's, gains 1 and biases 0, in what `placement` draws."""
    config = ModelConfig(placement=placement, depth=depth, vocab_size=7, **SIZES)
    with jax.disable_jit():
        params = jax.tree.map(np.asarray, initial(config)["params"])
    expected, seen = oracles.init_std(name, depth, **SIZES), []
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        where, (*_, part, matrix, kind) = jax.tree_util.keystr(path), [".", *(k.key for k in path)]
        if kind == "kernel":
            for layer in leaf:  # of 4096 draws or more: 7 % is over six standard errors
                assert_allclose(layer.std(), expected[f"{part}.{matrix}"], 0.07, err_msg=where)
                seen.append(f"{part}.{matrix}")
        elif kind != "table":
            assert_allclose(leaf, np.full(leaf.shape, float(kind == "gain")), err_msg=where)
    assert sorted(seen) == sorted(depth * list(expected))


STARTS = [(name, 1) for name in NAMES] + [("deepnorm", 2), ("mix_ln", 4)]


@pytest.mark.parametrize("name, depth", STARTS)
def test_every_row_starts_as_published(quick, name, depth):
    assert_starts(name, placements.get(name), depth)


@pytest.mark.parametrize("depth", [1, 2, 3, 12, 100, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_gains_are_the_papers_at_every_depth_and_block(name, depth):
    plain, scaled = (
        oracles.init_std(other, depth, width=8, heads=2, activation="swiglu")
        for other in ("pre_ln", name)
    )
    init = placements.get(name).init
    for key in scaled:
        for block in {1, (depth + 1) // 2, depth}:
            gain = init.gain(key.split(".")[1], Where(block, 2 * block, depth))
            assert_allclose(gain, scaled[key] / plain[key], rtol=1e-12, err_msg=key)


# ------------------------------------------------------------------------------- the mutations


def forced(placement, **changes):
    """The placement with fields replaced and its validation passed by."""
    mutant = copy(placement)
    for name, value in changes.items():
        object.__setattr__(mutant, name, value)
    return mutant


def gains(placement, **changes):
    pairs = dict(placement.init.gains)
    pairs |= {name.removesuffix("_"): scale for name, scale in changes.items()}
    return placement.with_(init=Init(pairs))


def formula(function):
    return Scale(function, symbol="b")


def starting_at_half(placement):
    """(label, mutant): each norm with its gain starting at one half."""
    half = Slot(gain=0.5)
    for edge in ("embed", "final"):
        if getattr(placement, edge) is not None:
            yield f"half-{edge}", forced(placement, **{edge: half})
    for part in ("attention", "mlp"):
        row = getattr(placement, part)
        for slot in ("pre", "post", "out"):
            if getattr(row, slot) is not None:
                mutant = forced(placement, **{part: replace(row, **{slot: half})})
                yield f"half-{part}-{slot}", mutant


def mutations():
    table = []
    for name in NAMES:
        right = placements.get(name)
        table += [(name, label, 1, mutant) for label, mutant in starting_at_half(right)]
        for matrix in MATRICES:
            there = matrix in dict(right.init.gains)
            mutant = gains(right, **{matrix: 1.0 if there else 0.8})
            table.append((name, f"{'leaves' if there else 'scales'}-{matrix}", 1, mutant))
    deepnorm = placements.get("deepnorm")
    beta = dict(deepnorm.init.gains)["out"]
    for label, depth, mutant in (
        ("beta-on-query", 1, gains(deepnorm, query=beta)),
        ("beta-on-key", 1, gains(deepnorm, key=beta)),
        ("nowhere", 1, deepnorm.with_(init=Init())),
        ("sign", 1, gains(deepnorm, out=formula(lambda w: (8 * w.depth) ** 0.25))),
        ("alpha", 1, gains(deepnorm, in_=formula(lambda w: (2 * w.depth) ** 0.25))),
        ("2-for-8", 1, gains(deepnorm, value=formula(lambda w: (2 * w.depth) ** -0.25))),
        ("half", 1, gains(deepnorm, gate=formula(lambda w: (8 * w.depth) ** -0.5))),
        ("depthless", 2, gains(deepnorm, output=formula(lambda w: 8**-0.25))),
        ("block", 2, gains(deepnorm, out=formula(lambda w: (8 * w.block) ** -0.25))),
    ):
        table.append(("deepnorm", label, depth, mutant))
    return [pytest.param(name, depth, m, id=f"{name}-{label}") for name, label, depth, m in table]


@pytest.mark.parametrize("name, depth, mutant", mutations())
def test_every_mutation_of_a_start_is_caught(quick, name, depth, mutant):
    with pytest.raises(AssertionError):
        assert_starts(name, mutant, depth)


def test_each_slots_own_gain_is_where_its_norm_starts(quick):
    """Numbers that are all different, and inner norms' that depend on the block."""
    by_block = Slot(gain=Scale(lambda w: 10 * w.sublayer + w.depth, symbol="g"))

    def row(first):
        slots = (Slot(gain=first + k) for k in range(3))
        return Sublayer(**dict(zip(("pre", "post", "out"), slots, strict=True)), inner=by_block)

    edges = {"embed": Slot(gain=7.0), "final": Slot(gain=8.0)}
    mine = placements.Placement("mine", attention=row(1.0), mlp=row(4.0), **edges)
    config = ModelConfig(placement=mine, norm="rmsnorm", depth=2, vocab_size=7, **SIZES)
    with jax.disable_jit():
        params = initial(config)["params"]
    block = params["blocks_0"]
    starts = {"embed": params["embed_norm"], "final": params["final_norm"]}
    for part in ("attention", "mlp"):
        starts |= {f"{part}-{k}": norm for k, norm in block[f"{part}_residual"].items()}
        starts |= {f"{part}-inner": block[part]["inner_norm"]}
    ours = {name: np.unique(norm["gain"]).tolist() for name, norm in starts.items()}
    assert ours == {
        "embed": [7.0],
        "final": [8.0],
        "attention-pre_norm": [1.0],
        "attention-post_norm": [2.0],
        "attention-out_norm": [3.0],
        "attention-inner": [12.0, 32.0],
        "mlp-pre_norm": [4.0],
        "mlp-post_norm": [5.0],
        "mlp-out_norm": [6.0],
        "mlp-inner": [22.0, 42.0],
    }


def test_deepnorm_starts_as_post_ln_times_beta(x64):
    """Same key, same draws: only the gain of the MLP's matrices, W_V and W_O is another."""
    sizes = {"depth": 2, "vocab_size": 7, "dtype": "float64", "param_dtype": "float64", **SIZES}
    deep, post = (
        initial(ModelConfig(placement=name, **sizes))["params"] for name in ("deepnorm", "post_ln")
    )
    beta = 16**-0.25
    for part, scaled in (
        ("attention", {"value", "output"}),
        ("mlp", {"in", "gate", "out"}),
    ):
        for matrix, linear in post["blocks_0"][part].items():
            factor = beta if matrix in scaled else 1.0
            drawn = deep["blocks_0"][part][matrix]["kernel"]
            assert_allclose(drawn, factor * linear["kernel"], rtol=1e-12, err_msg=matrix)
