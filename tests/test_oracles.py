"""The oracle's whole model: causality, identities between placements, Lemma 2."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracle_params import AFFINE, MAX_LENGTH, VOCABULARY, random_params
from oracles import (
    PLACEMENTS,
    apply_norm,
    mlp,
    transformer,
    unstack,
)

TOKENS = np.random.default_rng(1).integers(0, VOCABULARY, size=(2, MAX_LENGTH))


def run(placement, params, tokens=TOKENS, **options):
    """The oracle at the sizes of `random_params`."""
    return transformer(
        placement, params, tokens, **{"depth": 4, "heads": 4, "kv_heads": 2, **options}
    )


def copy(tree):
    return {k: copy(v) for k, v in tree.items()} if isinstance(tree, dict) else tree.copy()


def same_run(one, other, rtol=1e-10):
    assert_allclose(one["stream"], other["stream"], rtol=rtol, atol=1e-12)
    assert_allclose(one["logits"], other["logits"], rtol=rtol, atol=1e-12)


# ------------------------------------------------------------------------------ shape, causality


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_outputs_have_the_promised_shapes_and_the_head_reads_the_final_norm(placement):
    params = random_params(placement)
    out = run(placement, params)
    assert len(out["stream"]) == 8
    assert {x.shape for x in out["stream"]} == {out["output"].shape} == {(2, MAX_LENGTH, 8)}
    y = out["output"]
    if placement not in ("post_ln", "deepnorm", "no_norm"):  # the others end in a final norm
        y = apply_norm("layernorm", y, params["final_norm"], 1e-5)
    assert_allclose(out["logits"], y @ params["embedding"]["table"].T)
    assert out["logits"].dtype == np.float64


@pytest.mark.parametrize("positions", ["rope", "learned", "alibi", "none"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_later_tokens_leave_earlier_logits_alone(placement, positions):
    params = random_params(placement, learned=positions == "learned")
    changed = TOKENS.copy()
    changed[:, 4:] = (changed[:, 4:] + 1) % VOCABULARY
    options = {"positions": positions}
    before, after = (run(placement, params, t, **options)["logits"] for t in (TOKENS, changed))
    assert_allclose(before[:, :4], after[:, :4], rtol=1e-12)
    before, after = (
        run(placement, params, t, causal=False, **options)["logits"] for t in (TOKENS, changed)
    )
    assert np.abs(before[:, :4] - after[:, :4]).min() > 1e-9


@pytest.mark.parametrize("norm", AFFINE)
def test_every_norm_runs_and_only_batchnorm_leaks_the_future(norm):
    params = random_params("pre_ln", norm=norm)
    changed = TOKENS.copy()
    changed[:, -1] = (changed[:, -1] + 1) % VOCABULARY
    before, after = (run("pre_ln", params, t, norm=norm)["logits"] for t in (TOKENS, changed))
    leaks = np.abs(before[:, 0] - after[:, 0]).max() > 1e-9
    assert leaks == (norm == "batchnorm")


def test_padding_does_not_reach_the_real_tokens():
    params = random_params("pre_ln")
    mask = np.arange(MAX_LENGTH)[None, :] < np.array([4, 4])[:, None]
    padded = run("pre_ln", params, causal=False, key_mask=mask)["logits"][:, :4]
    assert_allclose(padded, run("pre_ln", params, TOKENS[:, :4], causal=False)["logits"])


# ------------------------------------------------------------- identities between the placements


def test_the_streams_of_a_branchless_network_show_each_placement():
    """With W_O = W_2 = 0 and no bias only the norms on the stream remain."""
    for placement in PLACEMENTS:
        params = random_params(placement)
        for name in [name for name in params if name.startswith("blocks_")]:
            for matrix in (params[name]["attention"]["output"], params[name]["mlp"]["out"]):
                matrix["kernel"][:] = 0.0
                matrix["bias"][:] = 0.0
            for side in ("attention_residual", "mlp_residual"):
                for norm in params[name][side].values():
                    norm["bias"][:] = 0.0
        stream = run(placement, params)["stream"]
        x = math.sqrt(8) * params["embedding"]["table"][TOKENS]
        if placement in ("pre_ln_embed", "peri_ln"):
            x = apply_norm("layernorm", x, params["embed_norm"], 1e-5)
        assert_allclose(stream[0], x)
        on_stream = {"post_ln": 8, "deepnorm": 8, "mix_ln": 2}.get(placement, 0)
        unchanged = [np.array_equal(a, b) for a, b in zip(stream, stream[1:], strict=False)]
        assert unchanged == [s >= on_stream for s in range(7)], placement


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_mlp_reads_the_stream_that_attention_left(placement):
    """Feed a block's middle stream y to the same block without attention: the same output."""
    options = {"norm": "layernorm_no_affine", "eps": 1e-12, "depth": 1, "embedding_scale": 1.0}
    params = random_params(placement, norm=options["norm"], depth=1)
    out = run(placement, params, **options)
    later = copy(params)
    later.pop("embed_norm", None)
    later["embedding"]["table"] = out["stream"][1].reshape(-1, 8)
    for leaf in later["blocks_0"]["attention"]["output"].values():
        leaf[:] = 0.0
    tokens = np.arange(2 * MAX_LENGTH).reshape(2, MAX_LENGTH)
    again = run(placement, later, tokens, embed_norm=False, **options)
    assert_allclose(again["output"], out["output"], rtol=1e-9, atol=1e-9)
    assert np.abs(out["stream"][1] - out["stream"][0]).max() > 0.1


def test_deepnorm_is_post_ln_with_branches_divided_by_alpha():
    """N(alpha x + F; eps) = N(x + F / alpha; eps / alpha^2): W_O, W_2, their biases / alpha."""
    params = random_params("deepnorm")
    alpha = 8.0**0.25  # (2 * 4)^(1/4)
    scaled = copy(params)
    for leaf in ("kernel", "bias"):
        scaled["blocks_0"]["attention"]["output"][leaf] /= alpha
        scaled["blocks_0"]["mlp"]["out"][leaf] /= alpha
    same_run(run("deepnorm", params), run("post_ln", scaled, eps=1e-5 / alpha**2))


def test_peri_ln_without_embedding_norm_is_sandwich_ln():
    params = random_params("sandwich_ln")
    same_run(run("sandwich_ln", params), run("peri_ln", params, embed_norm=False))


def test_embedding_norm_is_pre_ln_on_a_normalised_table():
    params = random_params("pre_ln_embed")
    table = params["embedding"]["table"]
    normed = {name: leaf for name, leaf in params.items() if name != "embed_norm"}
    scaled = math.sqrt(8) * table
    normed["embedding"] = {"table": apply_norm("layernorm", scaled, params["embed_norm"], 1e-5)}
    normed["head"] = {"kernel": table.T}  # the head stays tied to the table as stored
    same_run(run("pre_ln_embed", params), run("pre_ln", normed, embedding_scale=1.0))


def test_mix_ln_is_post_ln_then_pre_ln():
    params = random_params("mix_ln", depth=4)
    mixed = run("mix_ln", params)
    post = {"embedding": params["embedding"], "blocks_0": params["blocks_0"]}
    first = run("post_ln", post, depth=1)
    assert_allclose(mixed["stream"][:2], first["stream"])
    assert_allclose(mixed["stream"][2], first["output"])
    pre = random_params("mix_ln", depth=3)  # floor(3 / 4) = 0 Post-LN blocks
    same_run(run("mix_ln", pre, depth=3), run("pre_ln", pre, depth=3))


def test_post_norms_bound_each_branch():
    """Identity affine, LayerNorm: every step of a branch-norm stream has mean square one."""
    for placement in ("sandwich_ln", "res_post_norm", "peri_ln"):
        params = random_params(placement, norm="layernorm_no_affine")
        stream = np.array(run(placement, params, norm="layernorm_no_affine", eps=1e-12)["stream"])
        assert_allclose((np.diff(stream, axis=0) ** 2).mean(-1), 1.0, rtol=1e-6)
    steps = np.array(run("pre_ln", random_params("pre_ln"))["stream"])
    assert np.abs((np.diff(steps, axis=0) ** 2).mean(-1) - 1.0).max() > 0.1


def test_tied_and_untied_heads_positions_and_scale():
    params = random_params("pre_ln", learned=True)
    untied = {**params, "head": {"kernel": params["embedding"]["table"].T}}
    same_run(run("pre_ln", params, positions="learned"), run("pre_ln", untied, positions="learned"))
    stream = run("pre_ln", params, positions="learned", embedding_scale=3.0)["stream"]
    expected = 3.0 * params["embedding"]["table"][TOKENS] + params["positions"]["table"]
    assert_allclose(stream[0], expected)


def test_optional_norms_change_the_logits_and_stray_parameters_are_refused():
    params = random_params("pre_ln")
    plain = run("pre_ln", params)["logits"]
    for option in ("qk_norm", "v_norm", "attention_inner_norm", "mlp_inner_norm"):
        normed = run("pre_ln", params, **{option: "rmsnorm_no_affine"})["logits"]
        assert np.abs(normed - plain).max() > 1e-3, option
    params["blocks_0"]["attention"]["q_norm"] = {"gain": np.full((4, 2), 2.0)}
    params["blocks_0"]["attention"]["k_norm"] = {"gain": np.full((4, 2), 0.5)}
    doubled = run("pre_ln", params, qk_norm="rmsnorm")["logits"]  # 2 * 0.5 = 1 in every score
    del params["blocks_0"]["attention"]["k_norm"], params["blocks_0"]["attention"]["q_norm"]
    assert_allclose(doubled, run("pre_ln", params, qk_norm="rmsnorm_no_affine")["logits"])
    with pytest.raises(ValueError, match="would ignore.*pre_norm"):
        run("post_ln", {name: leaf for name, leaf in params.items() if name != "final_norm"})
    with pytest.raises(ValueError, match="would ignore.*gate"):
        run("pre_ln", random_params("pre_ln", gated=True))
    with pytest.raises(ValueError, match="depth says 5"):
        run("pre_ln", params, depth=5)


def test_unstack_counts_segments_in_number_order():
    params = random_params("no_norm", depth=1)
    segment = params.pop("blocks_0")
    for i in (10, 2, 0):
        params[f"blocks_{i}"] = copy(segment)
        params[f"blocks_{i}"]["mlp"]["out"]["bias"][:] = i
    assert [block["mlp"]["out"]["bias"][0] for block in unstack(params)] == [0, 2, 10]


# ---------------------------------------------------------------------------------------- theory


def xiong_params(depth, width, rng):
    """The theory setting of Xiong et al. 2020: W_Q = W_K = 0, other matrices N(0, 1/d), W_O = 1."""

    def draw():
        return rng.normal(size=(depth, width, width)) / math.sqrt(width)

    zero = {"kernel": np.zeros((depth, width, width))}
    identity = {"kernel": np.tile(np.eye(width), (depth, 1, 1))}
    return {
        "embedding": {"table": rng.normal(size=(32, width))},
        "blocks_0": {
            "attention": {
                "query": zero,
                "key": zero,
                "value": {"kernel": draw()},
                "output": identity,
            },
            "mlp": {"in": {"kernel": draw()}, "out": {"kernel": draw()}},
        },
    }


def xiong_run(placement, params, tokens, depth, causal=True):
    options = {"heads": 1, "norm": "layernorm_no_affine", "activation": "relu", "causal": causal}
    options |= {"positions": "none", "embedding_scale": 1.0, "embed_norm": False}
    return transformer(placement, params, tokens, depth=depth, **options)


@pytest.mark.parametrize("placement", ["pre_ln", "post_ln", "sandwich_ln", "res_post_norm"])
def test_lemma_2_of_xiong_at_length_one(placement):
    """E||x_l||^2 / d after l blocks, one token: Pre-LN 1 + 3l/2, Sandwich 1 + 2l, Post-LN 1."""
    depth, width, rng = 8, 256, np.random.default_rng(0)
    variances, before_norm = [], []
    for _ in range(4):
        params = xiong_params(depth, width, rng)
        out = xiong_run(placement, params, np.arange(32)[:, None], depth)
        states = [*out["stream"], out["output"]]
        variances.append([(x**2).mean() for x in states[::2]])
        if placement == "post_ln":  # the input of the MLP's norm
            for y, block in zip(out["stream"][1::2], unstack(params), strict=True):
                before_norm.append(((y + mlp(y, block["mlp"], "relu")) ** 2).mean())
    growth = {"pre_ln": 1.5, "post_ln": 0.0}.get(placement, 2.0)
    assert_allclose(np.mean(variances, 0), 1.0 + growth * np.arange(depth + 1), rtol=0.04)
    if placement == "post_ln":
        assert_allclose(np.mean(before_norm), 1.5, rtol=0.02)


def test_lemma_2_of_xiong_for_many_independent_tokens():
    """Uniform attention averages 64 independent tokens away: Pre-LN starts on 1 + l/2."""
    params = xiong_params(1, 256, np.random.default_rng(0))
    params["embedding"]["table"] = np.random.default_rng(1).normal(size=(64, 256))
    out = xiong_run("pre_ln", params, np.arange(64)[None, :], 1, causal=False)["output"]
    assert_allclose((out**2).mean(), 1.5, rtol=0.03)
