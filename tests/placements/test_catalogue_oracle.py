"""Every published placement against the NumPy oracle: logits, streams, gradients, and mutants."""

from copy import copy
from dataclasses import replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose
from small_models import (
    QUICK,
    VOCABULARY,
    assert_same,
    map_rows,
    oracle,
    random_params,
    run,
    small,
    tokens,
)

from lnjax import placements
from lnjax.models import Transformer
from lnjax.placements import InnerNorm, N, Scale, Sublayer

NAMES = placements.names()
KINDS = (
    "layernorm",
    "rmsnorm",
    "scalenorm",
    "layernorm_no_affine",
    "layernorm_plus_one",
    "rmsnorm_plus_one",
)
# Each placement and norm meets one of these; together they cover every option of the model.
OPTIONS = (
    {"time": 16},  # long enough for attention in chunks
    {"positions": "learned", "kv_heads": 2, "activation": "gelu_erf", "tied": False},
    {"positions": "alibi", "kv_heads": 1, "activation": "relu", "bias": False},
    {"positions": "none", "activation": "relu2", "causal": False, "mask": True},
    {"positions": "rope", "activation": "swiglu", "kv_heads": 2, "embedding_scale": "one"},
    {"positions": "alibi", "activation": "geglu", "causal": False, "mask": True, "heads": 3},
    {"kv_heads": 2, "scope": "head", "order": "before_rope", "qk": True, "v": True},
    {"kv_heads": 1, "scope": "head", "order": "after_rope", "qk": True, "mlp_inner": True},
    {"kv_heads": 2, "scope": "full", "qk": True, "inner": True, "positions": "alibi", "time": 16},
    {"scope": "full", "order": "after_rope", "qk": True, "v": True, "causal": False, "mask": True},
    {"inner": True, "mlp_inner": True, "activation": "swiglu", "tied": False, "bias": False},
)


def case(name, norm, options):
    """(config, oracle options, tokens, key mask) of one combination."""
    options = dict(options)
    time = options.pop("time", 8)
    scope, order = options.pop("scope", "head"), options.pop("order", "before_rope")
    added = {key: options.pop(key, False) for key in ("qk", "v", "inner", "mlp_inner", "mask")}
    inside = InnerNorm(scope=scope, order=order)

    def change(row, index):
        if index == 1:
            return replace(row, inner=N if added["mlp_inner"] else None)
        return replace(
            row,
            qk=inside if added["qk"] else None,
            v=inside if added["v"] else None,
            inner=N if added["inner"] else None,
        )

    if options.get("heads") == 3:
        options["width"] = 12
    config = small(map_rows(placements.get(name), change), norm=norm, **options)
    inner = {
        "qk_norm": norm if added["qk"] else None,
        "v_norm": norm if added["v"] else None,
        "attention_inner_norm": norm if added["inner"] else None,
        "mlp_inner_norm": norm if added["mlp_inner"] else None,
        "scope": scope,
        "order": order,
    }
    mask = np.arange(time)[None, :] < np.array([time, 5])[:, None] if added["mask"] else None
    return config, inner, tokens(2, time), mask


CASES = [
    pytest.param(name, norm, OPTIONS[i % len(OPTIONS)], id=f"{name}-{norm}-{i % len(OPTIONS)}")
    for i, (name, norm) in enumerate(product(NAMES, KINDS))
]


@pytest.mark.parametrize("name, norm, options", CASES)
def test_logits_and_streams_are_the_papers(x64, name, norm, options):
    config, inner, batch, mask = case(name, norm, options)
    params = random_params(config)
    # Two norms are compiled and scanned; operation by operation, the others take half the time.
    with jax.disable_jit(norm not in ("layernorm", "scalenorm")):
        ours = run(config, params, batch, mask)
    assert_same(ours, oracle(name, config, params, batch, mask, **inner))


@pytest.mark.parametrize("name", ["post_ln", "peri_ln", "mix_ln", "deepnorm"])
def test_batchnorm_in_training_is_the_papers(x64, name):
    config = small(name, norm="batchnorm")
    params = random_params(config)
    ours = run(config, params, tokens(4), train=True)
    assert_same(ours, oracle(name, config, params, tokens(4)))


@pytest.mark.parametrize("i", range(len(OPTIONS)))
def test_every_option_meets_several_placements(i):
    assert len({p.values[0] for p in CASES if p.values[2] is OPTIONS[i]}) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_the_loss_is_the_oracles_slope(x64, name):
    config = small(name, positions="learned", tied=False, depth=4 if name == "mix_ln" else 2)
    params, batch = random_params(config), tokens(2, 9)
    inputs, targets = batch[:, :-1], batch[:, 1:]

    def mean_loss(params):
        logits, _ = Transformer(config).apply({"params": params}, jnp.asarray(inputs))
        chosen = (jax.nn.one_hot(targets, VOCABULARY) * jax.nn.log_softmax(logits)).sum(-1)
        return -chosen.mean()

    gradient = jax.jit(jax.grad(mean_loss), compiler_options=QUICK)

    def loss():
        return oracles.cross_entropy(oracle(name, config, params, inputs)["logits"], targets)

    slopes, step, rng = gradient(params), 1e-5, np.random.default_rng(3)
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        slope = slopes
        for key in path:
            slope = slope[key.key]
        for _ in range(2):
            at = tuple(rng.integers(0, n) for n in leaf.shape)
            kept, around = leaf[at], []
            for sign in (1, -1):
                leaf[at] = kept + sign * step
                around.append(loss())
            leaf[at] = kept
            measured = (around[0] - around[1]) / (2 * step)
            where = f"{jax.tree_util.keystr(path)}{at}"
            assert_allclose(slope[at], measured, rtol=1e-6, atol=1e-8, err_msg=where)


# ------------------------------------------------------- the comparison above is able to fail


def forced(placement, **changes):
    """The placement with fields replaced and its validation passed by."""
    mutant = copy(placement)
    for name, value in changes.items():
        object.__setattr__(mutant, name, value)
    return mutant


def times(scale, factor):
    return Scale(lambda where: factor * scale.at(where), symbol="s")


def row_mutations(row: Sublayer):
    """(label, changed fields) of everything that can be wrong in one row."""
    for slot in ("pre", "post", "out"):
        there = getattr(row, slot) is not None
        yield f"{'drop' if there else 'add'}-{slot}", {slot: None if there else N}
    for scale in ("skip", "branch"):
        yield f"{scale}*1.1", {scale: times(getattr(row, scale), 1.1)}
    if row.pre is not None:
        yield "tap-norm", {"tap": "norm"}


def mutations():
    for place, name in enumerate(NAMES):
        placement = placements.get(name)
        for k, (label, fields) in enumerate(row_mutations(placement.attention)):
            # One label after the other in attention or MLP; in the next placement the other way.
            part = ("attention", "mlp")[(k + place) % 2]
            mutant = forced(placement, **{part: replace(getattr(placement, part), **fields)})
            yield pytest.param(name, mutant, id=f"{name}-{part}-{label}")
        if name == "mix_ln":  # its Post-LN rows
            for k, (label, fields) in enumerate(row_mutations(placement.rows(4)[0][0])):

                def change(r, i, index=k % 2, fields=fields):
                    return replace(r, **fields) if i == index and r.out is not None else r

                yield pytest.param(name, map_rows(placement, change), id=f"{name}-early-{label}")
        for edge in ("embed", "final"):
            there = getattr(placement, edge) is not None
            mutant = forced(placement, **{edge: None if there else N})
            yield pytest.param(name, mutant, id=f"{name}-{'drop' if there else 'add'}-{edge}")
    for fraction in (0.0, 0.5):  # one block fewer, one more, of four
        yield pytest.param("mix_ln", placements.mix_ln(fraction), id=f"mix_ln-{fraction}")
    for label, alpha in (
        ("exponent", lambda w: (2 * w.depth) ** 0.5),
        ("sign", lambda w: (2 * w.depth) ** -0.25),
        ("beta", lambda w: (8 * w.depth) ** 0.25),
        ("depthless", lambda w: 2**0.25),
        ("sublayers", lambda w: (4 * w.depth) ** 0.25),
    ):
        row = Sublayer(out=N, skip=Scale(alpha, symbol="a"))
        mutant = placements.get("deepnorm").with_(attention=row, mlp=row)
        yield pytest.param("deepnorm", mutant, id=f"deepnorm-alpha-{label}")


EVERYWHERE = placements.Placement(
    name="everywhere",
    attention=Sublayer(pre=N, post=N, out=N),
    mlp=Sublayer(pre=N, post=N, out=N),
    embed=N,
    final=N,
)


def for_any_row(config):
    """Parameters that fit all rows: a model leaves those of norms that it lacks unused."""
    params = dict(random_params(small(EVERYWHERE, depth=config.depth), alike=True))
    blocks = params.pop("blocks_0")
    for i, (first, count, _) in enumerate(config.placed.segments(config.depth)):
        own = slice(first - 1, first - 1 + count)
        params[f"blocks_{i}"] = jax.tree.map(lambda leaf, own=own: leaf[own], blocks)
    return jax.tree.map(jnp.asarray, params)


@pytest.mark.parametrize("name, mutant", list(mutations()))
def test_every_mutation_of_a_row_is_caught(x64, unchecked, name, mutant):
    depth = {"mix_ln": 4, "deepnorm": 2}.get(name, 1)
    config, wrong = small(name, depth=depth), small(mutant, depth=depth)
    batch = tokens(2, 4)
    right = oracle(name, config, random_params(config, alike=True), batch)["logits"]
    # Operation by operation: faster than compiling a program per mutant.
    with jax.disable_jit():
        logits, _ = Transformer(wrong).apply({"params": for_any_row(wrong)}, jnp.asarray(batch))
    assert np.abs(logits - right).max() > 1e-6


@pytest.mark.parametrize("name", ["mix_ln", "deepnorm"])
def test_without_a_mutation_the_same_comparison_agrees(x64, name):
    config = small(name)
    params = random_params(config, alike=True)
    with jax.disable_jit():
        logits, _ = Transformer(config).apply(
            {"params": for_any_row(config)}, jnp.asarray(tokens(2, 4))
        )
    assert_allclose(logits, oracle(name, config, params, tokens(2, 4))["logits"], atol=1e-10)
