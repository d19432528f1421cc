"""Identities between placements that follow from their equations, and Gaussian theory at init."""

from dataclasses import replace

import jax
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose
from small_models import assert_same, initial, oracle, random_params, run, shapes, small, tokens

from lnjax import placements
from lnjax.models import ModelConfig
from lnjax.norms import Norm
from lnjax.placements import N, Placement, Scale, Slot, Sublayer

get = placements.get


def both(row, **fields):
    return Placement(**({"name": "mine", "final": N} | fields), attention=row, mlp=row)


def test_deepnorm_is_post_ln_with_branches_divided_by_alpha(x64):
    """N(alpha x + F) = N(x + F / alpha), with eps divided by alpha squared."""
    alpha, _ = oracles.deepnorm_constants(4)
    config = small("deepnorm", norm=Norm("layer", 1e-3, bias=True))
    divided = both(Sublayer(out=N, branch=1 / alpha), final=None)
    other = small(divided, norm=Norm("layer", 1e-3 / alpha**2, bias=True))
    params = random_params(config)
    assert_same(run(config, params, tokens()), run(other, params, tokens()))


def rows(placement, depth=4):
    """All that the model reads, but for the initialization."""
    return placement.embed, placement.rows(depth), placement.final


def test_placements_that_differ_by_one_norm():
    sandwich = get("sandwich_ln").attention
    assert rows(both(replace(sandwich, post=None))) == rows(get("pre_ln"))
    assert rows(both(replace(sandwich, pre=None))) == rows(get("res_post_norm"))
    assert rows(get("peri_ln").with_(embed=None)) == rows(get("sandwich_ln"))
    assert rows(get("pre_ln").with_(embed=N)) == rows(get("pre_ln_embed"))
    assert rows(placements.mix_ln(0.0)) == rows(get("pre_ln"))
    assert rows(placements.mix_ln(1.0)) == rows(get("post_ln").with_(final=N))


def test_peri_ln_without_its_embedding_norm_is_the_oracles_sandwich(x64):
    config = small(get("peri_ln").with_(embed=None))
    params = random_params(config)
    assert_same(run(config, params, tokens()), oracle("sandwich_ln", config, params, tokens()))


@pytest.mark.parametrize("name", ["post_ln", "deepnorm"])
def test_a_residual_tapped_after_the_norm_is_the_row_shifted_by_one_norm(x64, name):
    """a N1(x) + A(N1(x)), ... : each pre norm is the out norm of the sublayer before."""
    tapped = small(both(Sublayer(pre=N, tap="norm", skip=get(name).attention.skip)))
    params = random_params(tapped)
    ours = run(tapped, params, tokens())

    blocks = params["blocks_0"]
    before, within = (blocks[f"{s}_residual"]["pre_norm"] for s in ("attention", "mlp"))
    after = {k: np.concatenate([before[k][1:], params["final_norm"][k][None]]) for k in before}
    out = {"attention_residual": {"out_norm": within}, "mlp_residual": {"out_norm": after}}
    shifted = {"embedding": params["embedding"], "blocks_0": blocks | out}
    shifted["embed_norm"] = {k: v[0] for k, v in before.items()}
    theirs = oracle(name, tapped, shifted, tokens(), embed_norm=True)
    assert_allclose(ours["logits"], theirs["logits"], rtol=1e-10, atol=1e-10)


def centred(kernel):
    return kernel - kernel.mean(-1, keepdims=True)


def test_layer_norm_is_rms_norm_on_a_stream_of_mean_zero(x64):
    """Pre-LN with table rows, attention outputs and MLP outputs that have mean zero."""
    config = small("pre_ln")
    other = replace(config, norm=Norm("rms", 1e-5, bias=True))
    params = random_params(config)
    params["embedding"]["table"] = centred(params["embedding"]["table"])
    for part, matrix in (("attention", "output"), ("mlp", "out")):
        linear = params["blocks_0"][part][matrix]
        params["blocks_0"][part][matrix] = {k: centred(v) for k, v in linear.items()}
    assert_same(run(config, params, tokens()), run(other, params, tokens()))


def scaled(params, part, factor):
    """Copy of the parameters with attention's or the MLP's last linear map times `factor`."""
    name = {"attention": "output", "mlp": "out"}[part]
    blocks = params["blocks_0"]
    linear = {
        k: v * factor.reshape(factor.shape[:1] + (1,) * (v.ndim - factor.ndim) + factor.shape[1:])
        for k, v in blocks[part][name].items()
    }
    return params | {"blocks_0": blocks | {part: blocks[part] | {name: linear}}}


def without_factors(params):
    """Copy of the parameters without the learned factors."""
    blocks = dict(params["blocks_0"])
    for part in ("attention_residual", "mlp_residual"):
        blocks[part] = {k: v for k, v in blocks[part].items() if k.endswith("norm")}
    return params | {"blocks_0": blocks}


def test_layer_norm_scaling_is_pre_ln_with_gains_divided_by_sqrt_block(x64):
    """c = 1 / sqrt(l) varies by block, and so is scanned."""
    factor = Scale(lambda w: w.block**-0.5, symbol="c", formula=r"1/\sqrt{\ell}")
    config = small(both(Sublayer(pre=N, input_scale=factor)))
    params = random_params(config)
    ours = run(config, params, tokens())
    by_block = 1 / np.sqrt(np.arange(1, 5))[:, None]
    blocks = dict(params["blocks_0"])
    for part in ("attention_residual", "mlp_residual"):
        blocks[part] = jax.tree.map(lambda leaf: leaf * by_block, blocks[part])
    assert_same(ours, oracle("pre_ln", config, params | {"blocks_0": blocks}, tokens()))


@pytest.mark.parametrize("learned", ["scalar", "vector"])
def test_a_learned_branch_factor_multiplies_the_last_linear_map(x64, learned):
    config = small(both(Sublayer(pre=N, branch=Scale(0.0, learned=learned))))
    params = random_params(config)
    ours = run(config, params, tokens())
    for part in ("attention", "mlp"):
        params = scaled(params, part, params["blocks_0"][f"{part}_residual"]["branch"])
    assert_same(ours, oracle("pre_ln", config, without_factors(params), tokens()))


def test_factors_that_depend_on_the_sublayer_count_attention_first(x64):
    factor = Scale(lambda w: 0.1 * w.sublayer + w.depth, symbol="b")
    config = small(both(Sublayer(pre=N, branch=factor)))
    params = random_params(config)
    ours = run(config, params, tokens())
    for part, first in (("attention", 1), ("mlp", 2)):
        params = scaled(params, part, 0.1 * np.arange(first, 9, 2) + 4)
    assert_same(ours, oracle("pre_ln", config, params, tokens()))


@pytest.mark.parametrize(
    "row, norm",
    [
        pytest.param(Sublayer(branch=Scale(0.0, learned="scalar")), "layernorm", id="scalar 0"),
        pytest.param(
            Sublayer(pre=N, branch=Scale(0.0, learned="vector")), "layernorm", id="vector 0"
        ),
        pytest.param(Sublayer(post=Slot(gain=0.0)), "layernorm", id="gain 0"),
        pytest.param(Sublayer(pre=N, post=Slot(gain=0.0)), "rmsnorm_plus_one", id="1+w = 0"),
    ],
)
def test_blocks_that_start_as_the_identity(x64, row, norm):
    config = small(both(row), norm=norm, depth=2)
    params = initial(config)["params"]
    ours = run(config, params, tokens())
    start = 4.0 * np.asarray(params["embedding"]["table"])[tokens()]
    assert_allclose([*ours["stream"], ours["output"]], [start] * 5, rtol=1e-12)
    grown = run(config, jax.tree.map(lambda p: p + 0.1, params), tokens())
    assert np.abs(grown["output"] - start).max() > 0.1


def variances(placement):
    """Per-element variance of the stream entering sublayers 1..16, and leaving the last; sums.

    Sequence length 1, so that attention is its value and output maps (g = 1), and a ReLU MLP of
    width d: with Xavier matrices, attention keeps the variance of a normed input and the MLP
    halves it.
    """
    sizes = {"depth": 8, "width": 256, "heads": 4, "mlp_width": 256, "vocab_size": 64}
    config = ModelConfig(placement=placement, activation="relu", **sizes)
    ids = np.arange(64, dtype=np.int32)[:, None]
    draws = []
    for seed in range(2):
        params = initial(config, seed)["params"]
        ours = run(config, params, ids)
        sums = np.stack([site["sum"] for site in ours["sites"]], 1).reshape(16, 64, 256)
        stream = [*ours["stream"], ours["output"]]
        draws.append(([np.var(x) for x in stream], [np.var(x) for x in sums]))
    return [np.mean(d, 0) for d in zip(*draws, strict=True)]


BLOCKS = np.arange(9)
HARMONIC = np.concatenate([[0], np.cumsum(1 / np.arange(1, 9))])
LNS = Scale(lambda w: w.block**-0.5, symbol="c")
SHRUNK = Slot(gain=Scale(lambda w: w.depth**-0.5, symbol="g"))


@pytest.mark.parametrize(
    "placement, expected",
    [
        pytest.param(get("pre_ln"), 1 + 1.5 * BLOCKS, id="pre_ln"),
        pytest.param(get("sandwich_ln"), 1 + 2.0 * BLOCKS, id="sandwich_ln"),
        pytest.param(get("res_post_norm"), 1 + 2.0 * BLOCKS, id="res_post_norm"),
        pytest.param(get("pre_ln_embed"), 1 + 1.5 * BLOCKS, id="pre_ln_embed"),
        pytest.param(get("peri_ln"), 1 + 2.0 * BLOCKS, id="peri_ln"),
        pytest.param(get("mix_ln"), 1 + 1.5 * np.maximum(0, BLOCKS - 2), id="mix_ln"),
        pytest.param(both(Sublayer(pre=N, input_scale=LNS)), 1 + 1.5 * HARMONIC, id="lns"),
        pytest.param(both(Sublayer(pre=N, post=SHRUNK)), 1 + 2 * BLOCKS / 8, id="depth-scaled"),
    ],
)
def test_the_streams_variance_at_init(placement, expected):
    stream, _ = variances(placement)
    assert_allclose(stream[::2], expected, rtol=0.1)


def test_without_norms_the_variance_triples_in_each_block():
    """Attention doubles it, the MLP adds a half; the blocks' errors multiply."""
    stream, _ = variances(get("no_norm"))
    assert_allclose((stream[2::2] / stream[0]) ** (1 / BLOCKS[1:]), np.full(8, 3.0), rtol=0.05)


@pytest.mark.parametrize("name", ["post_ln", "deepnorm"])
def test_a_normed_stream_keeps_variance_one(name):
    """Its sums have variance alpha^2 + beta^4 after attention, alpha^2 + beta^4 / 2 after the MLP.

    Both matrices of a branch are scaled by beta; for Post-LN alpha = beta = 1.
    """
    alpha, beta = oracles.deepnorm_constants(8) if name == "deepnorm" else (1.0, 1.0)
    stream, sums = variances(get(name))
    assert_allclose(stream, np.ones(17), rtol=0.03)
    assert_allclose(sums[0::2], np.full(8, alpha**2 + beta**4), rtol=0.1)
    assert_allclose(sums[1::2], np.full(8, alpha**2 + beta**4 / 2), rtol=0.1)


def test_a_slot_with_its_own_norm_overrides_the_models(x64):
    own = both(Sublayer(pre=Slot("rmsnorm")), final=Slot("rmsnorm"))
    config = small(own, norm="layernorm")
    params = random_params(config)
    assert set(shapes(config)["params"]["final_norm"]) == {"gain"}
    theirs = oracle("pre_ln", config, params, tokens(), norm="rmsnorm", eps=1e-6)
    assert_same(run(config, params, tokens()), theirs)
