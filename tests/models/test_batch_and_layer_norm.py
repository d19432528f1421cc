"""What sets LayerNorm apart from BatchNorm in a language model, and BatchNorm's statistics."""

import jax
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose
from small_models import initial, random_params, random_variables, run, small, tokens

PER_TOKEN = ["layernorm", "rmsnorm"]


@pytest.mark.parametrize("norm", PER_TOKEN)
def test_a_sequence_is_the_same_alone_and_in_any_batch(x64, norm):
    config = small("peri_ln", norm=norm)
    params = random_params(config)
    batch = tokens(5)
    together = run(config, params, batch)["logits"]
    alone = run(config, params, batch[2:3])["logits"]
    assert_allclose(alone[0], together[2], rtol=1e-12, atol=1e-13)
    company = np.concatenate([tokens(4, seed=7), batch[2:3]])
    assert_allclose(run(config, params, company)["logits"][4], alone[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("norm", PER_TOKEN)
def test_padding_is_not_seen(x64, norm):
    config = small("post_ln", norm=norm, causal=False)
    params = random_params(config)
    short, long = tokens(2, 5), tokens(2, 8)
    long[:, :5] = short
    mask = np.arange(8)[None, :] < np.array([5, 5])[:, None]
    padded = run(config, params, long, mask)["logits"][:, :5]
    assert_allclose(run(config, params, short)["logits"], padded, rtol=1e-12, atol=1e-13)
    unmasked = run(config, params, long)["logits"][:, :5]
    assert np.abs(unmasked - padded).max() > 1e-3


@pytest.mark.parametrize("norm", PER_TOKEN)
def test_a_longer_continuation_is_not_seen(x64, norm):
    config = small("mix_ln", norm=norm)
    params = random_params(config)
    long = tokens(2, 16)
    whole, start = (run(config, params, t)["logits"] for t in (long, long[:, :6]))
    assert_allclose(whole[:, :6], start, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("norm", PER_TOKEN)
def test_training_and_evaluation_are_the_same(x64, norm):
    config = small(norm=norm)
    params = random_params(config)
    train, evaluation = (run(config, params, tokens(), train=t) for t in (True, False))
    assert_allclose(train["logits"], evaluation["logits"], rtol=1e-12)
    assert train["statistics"] is None


def batchnorm(placement="pre_ln", **changes):
    config = small(placement, norm="batchnorm", **changes)
    variables = random_variables(config)
    return config, variables["params"], variables["batch_stats"]


def test_batchnorm_depends_on_the_batch_and_on_the_mode(x64):
    config, params, statistics = batchnorm()
    batch = tokens(4)
    together = run(config, params, batch, train=True)["logits"]
    others = run(config, params, np.concatenate([batch[:1], tokens(3, seed=7)]), train=True)
    assert np.abs(together[0] - others["logits"][0]).max() > 1e-2
    evaluated = run(config, params, batch, statistics=statistics)["logits"]
    assert np.abs(together - evaluated).max() > 1e-2
    alone = run(config, params, batch[:1], statistics=statistics)["logits"]
    assert_allclose(alone[0], evaluated[0], rtol=1e-12, atol=1e-13)


def test_batchnorm_in_training_leaks_the_future_and_in_evaluation_does_not(x64):
    config, params, statistics = batchnorm()
    batch = tokens()
    changed = batch.copy()
    changed[:, -1] = (changed[:, -1] + 1) % 11
    before, after = (run(config, params, t, train=True)["logits"] for t in (batch, changed))
    assert np.abs(before[:, 0] - after[:, 0]).max() > 1e-6
    before, after = (
        run(config, params, t, statistics=statistics)["logits"] for t in (batch, changed)
    )
    assert_allclose(before[:, :-1], after[:, :-1], rtol=1e-12, atol=1e-13)


def test_batchnorm_in_training_depends_on_length_and_padding_and_in_evaluation_does_not(x64):
    config, params, statistics = batchnorm(causal=False, depth=2)
    short, long = tokens(2, 5), tokens(2, 8)
    long[:, :5] = short
    other = long.copy()
    other[:, 5:] = (other[:, 5:] + 1) % 11
    mask = np.arange(8)[None, :] < np.array([5, 5])[:, None]

    def logits(batch, mask=None, **mode):
        with jax.disable_jit():
            return run(config, params, batch, mask, **mode)["logits"][:, :5]

    whole = logits(short, train=True)
    padded, filled = (logits(t, mask, train=True) for t in (long, other))
    assert np.abs(padded - whole).max() > 1e-2  # the length
    assert np.abs(padded - filled).max() > 1e-2  # what the padding holds
    whole, padded = (logits(t, m, statistics=statistics) for t, m in ((short, None), (long, mask)))
    assert_allclose(padded, whole, rtol=1e-12, atol=1e-13)


def test_running_statistics_move_a_tenth_of_the_way(x64):
    """Block 1's first norm reads the embedding, whose mean and variance are known."""
    config, params, statistics = batchnorm()
    batch = tokens(3)
    ours = run(config, params, batch, train=True, statistics=statistics)
    for part, measured in zip(("attention", "mlp"), ours["sites"], strict=True):
        new, old = (
            s["blocks_0"][f"{part}_residual"]["pre_norm"] for s in (ours["statistics"], statistics)
        )
        flat = measured["stream"].reshape(4, -1, 16)
        assert_allclose(new["mean"], 0.9 * old["mean"] + 0.1 * flat.mean(1), rtol=1e-10)
        expected = 0.9 * old["variance"] + 0.1 * flat.var(1)
        assert_allclose(new["variance"], expected, rtol=1e-10)
    final, output = ours["statistics"]["final_norm"], ours["output"].reshape(-1, 16)
    expected = 0.9 * statistics["final_norm"]["mean"] + 0.1 * output.mean(0)
    assert_allclose(final["mean"], expected, rtol=1e-10)


def test_evaluation_uses_the_running_statistics(x64):
    """The final norm, whose input is observed."""
    config, params, statistics = batchnorm()
    ours = run(config, params, tokens(), statistics=statistics)
    running, p = statistics["final_norm"], params["final_norm"]
    normed = oracles.batch_norm(
        ours["output"], p["gain"], p["bias"], mean=running["mean"], var=running["variance"]
    )
    expected = normed @ params["embedding"]["table"].T
    assert_allclose(ours["logits"], expected, rtol=1e-10, atol=1e-10)
    assert ours["statistics"] is None


def test_running_statistics_start_at_0_and_1_and_initialization_leaves_them():
    config = small(norm="batchnorm", dtype="float32", param_dtype="float32")
    statistics = initial(config)["batch_stats"]
    for path, leaf in jax.tree_util.tree_flatten_with_path(statistics)[0]:
        assert_allclose(leaf, np.full(leaf.shape, 1.0 if path[-1].key == "variance" else 0.0))


def test_statistics_are_float32_in_half_precision():
    config = small(norm="batchnorm", dtype="bfloat16", param_dtype="float32")
    ours = run(config, random_params(config), tokens(), train=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(ours["statistics"])} == {np.dtype("float32")}
