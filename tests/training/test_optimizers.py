"""Schedules against their formulas, and the optimizer against optax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_runs import assert_close, quick_compile, small  # noqa: F401

from lnjax.training import optimizers
from lnjax.training.config import OptimizerConfig
from lnjax.training.step import initialize

STEPS, WARMUP, END = 20, 4, 0.25


def rates(schedule: str, warmup: int = WARMUP, steps: int = STEPS) -> np.ndarray:
    """The schedule's value at every step."""
    config = OptimizerConfig(schedule=schedule, warmup=warmup, end_fraction=END)
    rate = optimizers.schedule(config, steps)
    return np.array([rate(jnp.asarray(k)) for k in range(steps)])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "inverse_sqrt"])
def test_warmup_is_linear_from_its_first_step(schedule):
    np.testing.assert_allclose(rates(schedule)[:WARMUP], np.arange(1, 5) / 4, rtol=1e-6)


def test_after_the_warmup():
    k = np.arange(WARMUP, STEPS)
    part = (k - WARMUP) / (STEPS - 1 - WARMUP)
    expected = {
        "constant": np.ones(len(k)),
        "linear": 1 + (END - 1) * part,
        "cosine": END + (1 - END) * (1 + np.cos(np.pi * part)) / 2,
        "inverse_sqrt": np.sqrt(WARMUP / (k + 1)),
    }
    for schedule, values in expected.items():
        np.testing.assert_allclose(rates(schedule)[WARMUP:], values, rtol=1e-5, err_msg=schedule)


@pytest.mark.parametrize("warmup", [0, WARMUP])
def test_the_last_step_has_the_end_fraction(warmup):
    for schedule in ("cosine", "linear"):
        np.testing.assert_allclose(rates(schedule, warmup)[-1], END, rtol=1e-5)


def test_without_warmup_the_first_step_has_the_peak():
    for schedule in ("constant", "cosine", "linear", "inverse_sqrt"):
        np.testing.assert_allclose(rates(schedule, warmup=0)[0], 1.0, rtol=1e-6)
    k = np.arange(STEPS)
    np.testing.assert_allclose(rates("inverse_sqrt", 0), 1 / np.sqrt(k + 1), rtol=1e-6)


def test_a_warmup_longer_than_the_run_ends_with_it():
    np.testing.assert_allclose(rates("cosine", warmup=100, steps=5), np.arange(1, 6) / 5, 1e-6)
    assert rates("linear", warmup=0, steps=1) == [1.0]


def test_schedules_are_traceable():
    rate = optimizers.schedule(OptimizerConfig(warmup=WARMUP, end_fraction=END), STEPS)
    traced = jax.jit(jax.vmap(rate))(jnp.arange(STEPS))
    np.testing.assert_allclose(traced, rates("cosine"), rtol=1e-5)


def parameters():
    """Parameters of a model with every kind of leaf, and a gradient."""
    model = {"placement": "peri_ln", "positions": "learned", "tied": False}
    config = small(model=model | {"norm": "layernorm", "bias": True})
    params = jax.jit(lambda: initialize(config, jnp.uint32(0), jnp.float32(1)).params)()
    rng = np.random.default_rng(0)
    draw = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), params)
    return params, draw


def test_weight_decay_is_on_matrices_and_tables_only():
    params, _ = parameters()
    flat = jax.tree_util.tree_leaves_with_path(optimizers.decayed(params))
    chosen = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in flat}
    matrices = {"query", "key", "value", "output", "in", "out"}
    for name, decays in chosen.items():
        parts = name.split("/")
        outside = parts[0] in ("embedding", "positions", "head")
        assert decays == (outside or (parts[-2] in matrices and parts[-1] == "kernel")), name
    assert any(chosen.values()) and not all(chosen.values())


def test_weight_decay_moves_only_what_it_is_on():
    params, _ = parameters()
    tx = optimizers.direction(OptimizerConfig(weight_decay=0.5))
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(tx.update)(zero, tx.init(params), params)
    decays = optimizers.decayed(params)
    assert_close(updates, jax.tree.map(lambda p, d: 0.5 * p * d, params, decays), rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_five_steps_equal_optax(name):
    params, draw = parameters()
    config = OptimizerConfig(name=name, warmup=2, weight_decay=0.3, clip=2.0, learning_rate=0.1)
    rate = optimizers.schedule(config, 5)
    own = optimizers.direction(config)

    def learning_rate(k):
        return config.learning_rate * rate(k)

    theirs = {
        "adamw": optax.adamw(
            learning_rate, 0.9, 0.95, 1e-8, weight_decay=0.3, mask=optimizers.decayed
        ),
        "adam": optax.adam(learning_rate, 0.9, 0.95, 1e-8),
        "sgd": optax.sgd(learning_rate, 0.9),
    }[name]
    theirs = optax.chain(optax.clip_by_global_norm(2.0), theirs)

    @jax.jit
    def step(k, ours, other):
        (a, a_state), (b, b_state) = ours, other
        gradient = jax.tree.map(lambda g: g * (0.01 + k), draw)  # some clipped, some not
        u, a_state = own.update(gradient, a_state, a)
        u = jax.tree.map(lambda x: -config.learning_rate * rate(k) * x, u)
        v, b_state = theirs.update(gradient, b_state, b)
        return (optax.apply_updates(a, u), a_state), (optax.apply_updates(b, v), b_state)

    ours, other = (params, own.init(params)), (params, theirs.init(params))
    for k in range(5):
        ours, other = step(jnp.asarray(k), ours, other)
    assert_close(ours[0], other[0], rtol=1e-5, atol=1e-6)
    moved = jax.tree.map(lambda x, y: jnp.abs(x - y).max(), ours[0], params)
    assert min(jax.tree.leaves(moved)) > 1e-4
