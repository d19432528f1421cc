"""The oracle's norms, attention and MLP against published numbers and known consequences."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracle_layers import gelu_erf, gelu_tanh, silu
from oracle_params import MAX_LENGTH, random_params
from oracle_params import MLP_WIDTH as F
from oracle_params import WIDTH as D
from oracles import (
    alibi_slopes,
    apply_norm,
    attention,
    attention_weights,
    batch_norm,
    l2_normalise,
    layer_norm,
    mlp,
    rms_norm,
    rope,
    scale_norm,
    softmax,
    unstack,
)

RNG = np.random.default_rng(2)
X = RNG.normal(1.0, 2.0, size=(2, MAX_LENGTH, D))

# ------------------------------------------------------------------------------ norms, positions


def test_norms_have_the_statistics_they_promise():
    y = layer_norm(X, eps=0.0)
    assert_allclose(y.mean(-1), 0.0, atol=1e-12)
    assert_allclose(y.var(-1), 1.0, rtol=1e-12)
    assert_allclose((rms_norm(X, eps=0.0) ** 2).mean(-1), 1.0, rtol=1e-12)
    assert_allclose(np.linalg.norm(scale_norm(X, 3.0), axis=-1), 3.0, rtol=1e-12)
    assert_allclose(np.linalg.norm(l2_normalise(X), axis=-1), 1.0, rtol=1e-12)
    y = batch_norm(X, 1.0, 0.0, eps=0.0)
    assert_allclose(y.mean((0, 1)), 0.0, atol=1e-12)
    assert_allclose(y.var((0, 1)), 1.0, rtol=1e-12)


def test_norms_by_hand():
    x = np.array([[1.0, 2.0, 3.0, 4.0]])  # mean 2.5, variance 1.25, mean square 7.5
    assert_allclose(layer_norm(x, 2.0, 1.0, 0.75), 1 + 2 * (x - 2.5) / math.sqrt(2.0), rtol=1e-14)
    assert_allclose(rms_norm(x, 2.0, 1.5), 2 * x / 3.0, rtol=1e-14)
    assert_allclose(scale_norm(x, 2.0, 60.0), 2 * x / 60.0, rtol=1e-14)  # ||x|| = 5.5 < eps
    assert_allclose(batch_norm(x, 2.0, 1.0, 1.0, mean=x[0], var=3 * x[0]), 1.0)
    with pytest.raises(ValueError, match="both mean and var"):
        batch_norm(x, 1.0, 0.0, mean=0.0)


@pytest.mark.parametrize("base", ["layernorm", "rmsnorm"])
def test_plus_one_and_no_affine_forms(base):
    p = {"gain": RNG.normal(size=D), "bias": RNG.normal(size=D)}
    shifted = {**p, "gain": p["gain"] - 1.0}
    expected = apply_norm(base, X, p, 1e-5)
    assert_allclose(apply_norm(f"{base}_plus_one", X, shifted, 1e-5), expected, rtol=1e-12)
    plain = apply_norm(base, X, {"gain": np.ones(D), "bias": np.zeros(D)}, 1e-5)
    assert_allclose(apply_norm(f"{base}_no_affine", X, {}, 1e-5), plain, rtol=1e-14)


def test_rope_rotates_and_depends_only_on_the_distance():
    assert_allclose(rope(np.array([[[1.0, 0.0]]]), [1])[0, 0], [math.cos(1), math.sin(1)])
    # Half-split layout: of width 4, element 1 pairs with element 3, at the angle t / 100.
    turned = rope(np.array([[[0.0, 1.0, 0.0, 0.0]]]), [5])[0, 0]
    assert_allclose(turned, [0.0, math.cos(0.05), 0.0, math.sin(0.05)])
    q, k = RNG.normal(size=(2, 1, 1, 16))
    assert_allclose(np.linalg.norm(rope(q, [7])), np.linalg.norm(q), rtol=1e-12)
    products = [(rope(q, [i]) * rope(k, [i - 3])).sum() for i in (3, 4, 50)]
    assert_allclose(products, products[0], rtol=1e-10)
    assert abs(products[0] - (q * k).sum()) > 1e-3


def test_alibi_slopes_are_the_published_ones():
    assert_allclose(
        alibi_slopes(8), [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    )
    sixteen = [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]  # every other slope of 16 heads
    assert_allclose(alibi_slopes(12), alibi_slopes(8) + sixteen)
    assert_allclose(alibi_slopes(16)[:3], [0.70710678, 0.5, 0.35355339])


# ------------------------------------------------------------------------------- attention, MLP


def test_softmax_and_attention_rows_sum_to_one():
    scores = np.array([[1000.0, 1000.0], [0.0, math.log(3.0)], [-np.inf, -np.inf]])
    assert_allclose(softmax(scores), [[0.5, 0.5], [0.25, 0.75], [0.0, 0.0]])
    q, k = RNG.normal(size=(2, 2, MAX_LENGTH, 4))
    for causal in (True, False):
        weights = attention_weights(q, k, causal=causal, slope=0.25)
        assert_allclose(weights.sum(-1), 1.0, rtol=1e-12)
        assert (np.triu(weights[0], 1).max() == 0.0) == causal


def test_scores_are_divided_by_the_root_of_the_head_width():
    q = np.array([[[0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]]])
    k = np.array([[[0.0, 0.0, 0.0, 0.0], [math.log(3.0), 0.0, 0.0, 0.0]]])
    weights = attention_weights(q, k, causal=True)  # q.k / sqrt(4) = ln 3
    assert_allclose(weights[0], [[1.0, 0.0], [0.25, 0.75]])


def test_alibi_biases_equal_scores_by_distance():
    q = k = np.zeros((1, 3, 4))
    e = math.exp(-0.5)
    row = attention_weights(q, k, causal=True, slope=0.5)[0, 2]
    assert_allclose(row, np.array([e * e, e, 1.0]) / (1 + e + e * e))
    row = attention_weights(q, k, causal=False, slope=0.5)[0, 1]
    assert_allclose(row, np.array([e, 1.0, e]) / (1 + 2 * e))


def attention_params(kv=4):
    return next(unstack(random_params("pre_ln", kv_heads=kv)))["attention"]


def test_attention_without_scores_is_the_running_mean_of_the_values():
    p = attention_params()
    for name in ("query", "key"):
        p[name] = {"kernel": np.zeros((D, D))}
    value = X @ p["value"]["kernel"] + p["value"]["bias"]
    mean = np.cumsum(value, 1) / np.arange(1, MAX_LENGTH + 1)[None, :, None]
    expected = mean @ p["output"]["kernel"] + p["output"]["bias"]
    assert_allclose(attention(X, p, heads=4, kv_heads=4), expected, rtol=1e-10)


def test_grouped_queries_equal_repeated_keys_and_values():
    p = attention_params(kv=2)
    wide = dict(p)
    for name in ("key", "value"):
        kernel = p[name]["kernel"].reshape(D, 2, 2).repeat(2, axis=1).reshape(D, D)
        wide[name] = {"kernel": kernel, "bias": p[name]["bias"].reshape(2, 2).repeat(2, 0).ravel()}
    narrow = attention(X, p, heads=4, kv_heads=2)
    assert_allclose(narrow, attention(X, wide, heads=4, kv_heads=4), rtol=1e-12)


@pytest.mark.parametrize("positions", ["rope", "alibi", "none"])
def test_a_key_mask_hides_padding(positions):
    p = attention_params()
    mask = np.arange(MAX_LENGTH)[None, :] < np.array([4, 4])[:, None]
    options = {"heads": 4, "kv_heads": 4, "positions": positions, "causal": False}
    padded = attention(X, p, key_mask=mask, **options)[:, :4]
    assert_allclose(padded, attention(X[:, :4], p, **options), rtol=1e-12)


def test_query_and_key_norms():
    p = attention_params()
    options = {"heads": 4, "kv_heads": 4}
    gain = np.array([2.0, 0.5])
    plain = {name: lambda x: rms_norm(x) for name in ("q_norm", "k_norm")}
    gained = {name: lambda x: rms_norm(x, gain) for name in ("q_norm", "k_norm")}
    before = attention(X, p, order="before_rope", **plain, **options)
    # A rotation keeps the mean square of a head, so only a gain tells the two orders apart.
    assert_allclose(before, attention(X, p, order="after_rope", **plain, **options), rtol=1e-10)
    with_gain = [
        attention(X, p, order=o, **gained, **options) for o in ("before_rope", "after_rope")
    ]
    assert np.abs(with_gain[0] - with_gain[1]).max() > 1e-3
    assert np.abs(before - attention(X, p, scope="full", **plain, **options)).max() > 1e-3
    bare = {name: {"kernel": p[name]["kernel"]} for name in p}
    scaled = {**bare, "query": {"kernel": 9 * bare["query"]["kernel"]}}
    same = [
        attention(X, q, q_norm=lambda x: rms_norm(x, eps=0.0), **options) for q in (bare, scaled)
    ]
    assert_allclose(same[0], same[1], rtol=1e-10)


def test_inner_norms_make_the_branch_independent_of_the_values_scale():
    p = {name: {"kernel": leaf["kernel"]} for name, leaf in attention_params().items()}
    scaled = {**p, "value": {"kernel": 9 * p["value"]["kernel"]}}
    options = {"heads": 4, "kv_heads": 4, "inner_norm": lambda x: rms_norm(x, eps=0.0)}
    assert_allclose(attention(X, p, **options), attention(X, scaled, **options), rtol=1e-10)
    m = {
        name: {"kernel": RNG.normal(size=shape)}
        for name, shape in [("in", (D, F)), ("out", (F, D))]
    }
    scaled = {**m, "in": {"kernel": 9 * m["in"]["kernel"]}}
    norm = options["inner_norm"]
    assert_allclose(mlp(X, m, "relu2", norm), mlp(X, scaled, "relu2", norm), rtol=1e-10)


def test_activations_by_hand():
    one = np.array([1.0])
    assert_allclose(gelu_erf(one), 0.8413447460685429)
    assert_allclose(gelu_tanh(one), 0.8411919906082768)
    assert_allclose(silu(one), 0.7310585786300049)
    x = np.array([[[1.0, 2.0]]])
    p = {"in": {"kernel": np.eye(2), "bias": [-3.0, 1.0]}, "out": {"kernel": np.eye(2)}}
    p["gate"] = {"kernel": np.array([[1.0, 0.0], [0.0, 0.5]])}
    expected = {
        "relu": [0.0, 3.0],
        "relu2": [0.0, 9.0],
        "swiglu": [-2 * 0.7310585786300049, 3 * 0.7310585786300049],
        "geglu": [-2 * 0.8411919906082768, 3 * 0.8411919906082768],
        "gelu_erf": [-2 * 0.02275013194817921, 3 * 0.9986501019683699],
    }
    for name, values in expected.items():
        assert_allclose(mlp(x, p, name)[0, 0], values, rtol=1e-12, err_msg=name)


def test_importing_the_oracle_does_not_import_jax():
    code = "import sys, oracles; sys.exit('jax' in sys.modules)"
    folder = Path(__file__).parent
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
