"""The step against hand-written gradients and optax; half precision and its loss scale."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_runs import assert_bitwise, assert_close, batches, quick_compile, run_steps, small  # noqa: F401

from lnjax.models import Transformer
from lnjax.training import optimizers
from lnjax.training.parallel import JitRunner
from lnjax.training.state import LossScale

DOUBLE = {"dtype": "float64", "param_dtype": "float64"}
DESCENT = {
    "name": "sgd",
    "momentum": 0.0,
    "clip": 0.0,
    "warmup": 0,
    "schedule": "constant",
    "learning_rate": 1.0,
}


def one_device(config) -> JitRunner:
    """The step on one device."""
    return JitRunner(config, jax.devices()[:1])


def mean_nll(config, batch):
    """Mean negative log-likelihood over the weights, from the definition."""

    def loss(params):
        logits, _ = Transformer(config.model, train=True).apply(
            {"params": params}, jnp.asarray(batch["inputs"])
        )
        chosen = jax.nn.one_hot(jnp.asarray(batch["targets"]), logits.shape[-1])
        losses = -jnp.sum(chosen * jax.nn.log_softmax(logits), -1)
        weights = jnp.asarray(batch["weights"], logits.dtype)
        return jnp.sum(losses * weights) / jnp.sum(weights)

    return loss


@pytest.mark.usefixtures("x64")
def test_the_gradient_is_that_of_the_weighted_mean_however_the_batch_is_divided():
    config = small(model=DOUBLE | {"placement": "sandwich_ln"}, optimizer=DESCENT)
    batch = batches(config, 1)[0]
    weights = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    batch["weights"] = np.where(weights < 0.3, np.float32(0), weights)
    runner = one_device(config)
    before = jax.device_get(runner.initialize(0, 1.0).params)
    loss, gradient = jax.jit(jax.value_and_grad(mean_nll(config, batch)))(before)

    state, (metrics,) = run_steps(runner, config, 1, [batch])
    assert_close(jax.tree.map(np.subtract, before, state.params), gradient, 1e-9, 1e-13)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-12)
    norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(jax.device_get(gradient))))
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-10)

    # A target without weight does not count.
    other = batch | {"targets": np.where(batch["weights"] == 0, 3, batch["targets"])}
    assert (other["targets"] != batch["targets"]).any()
    assert_bitwise(run_steps(runner, config, 1, [other])[0], state)

    parts = config.with_(training={"accumulate": 4})
    divided, (found,) = run_steps(one_device(parts), parts, 1, [batch])
    assert_close(divided.params, state.params, 1e-10, 1e-13)
    telemetry, wanted = found.pop("telemetry"), metrics.pop("telemetry")
    assert_close(found, metrics, 1e-10)
    assert_close(telemetry, wanted, 1e-5, 1e-8)


@pytest.mark.usefixtures("x64")
def test_five_steps_of_adamw_equal_optax():
    fields = {"warmup": 2, "weight_decay": 0.3, "clip": 0.5, "learning_rate": 0.0625}
    config = small(
        model=DOUBLE, optimizer=fields, data={"source": "copy"}, training={"telemetry": False}
    )
    assert batches(config, 1)[0]["weights"].mean() == 0.5  # the copy task's first half
    rate = optimizers.schedule(config.optimizer, config.training.steps)
    tx = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.adamw(lambda k: 0.0625 * rate(k), 0.9, 0.95, 1e-8, weight_decay=0.3,
                    mask=optimizers.decayed),
    )  # fmt: skip

    @jax.jit
    def step(params, state, batch):
        updates, state = tx.update(jax.grad(mean_nll(config, batch))(params), state, params)
        return optax.apply_updates(params, updates), state

    runner = one_device(config)
    params = jax.device_get(runner.initialize(0, 1.0).params)
    state = tx.init(params)
    for batch in batches(config, 5):
        params, state = step(params, state, batch)
    found, metrics = run_steps(runner, config, 5)
    # Rates are float32, and Adam divides rounding errors by themselves where a gradient is zero.
    assert_close(found.params, params, 1e-5, 1e-6)
    assert all(m["gradient_norm"] > 0.5 for m in metrics[:2])
    rates = [0.0625 * float(rate(k)) for k in range(5)]
    np.testing.assert_allclose([m["learning_rate"] for m in metrics], rates, rtol=1e-6)


def test_float16_overflows_skip_the_step_and_the_scale_recovers():
    patience = 3
    config = small(
        model={"dtype": "float16"},
        training={"loss_scale": 2.0**24, "loss_scale_patience": patience, "telemetry": False},
    )
    runner, batch = one_device(config), batches(config, 1)[0]
    state = runner.initialize(0, 1e-3)
    scale, good, overflows, seen = 2.0**24, 0, 0, []
    for k in range(16):
        before = jax.device_get(state)
        state, metrics = runner.step(state, runner.place(batch))
        after, finite = jax.device_get(state), bool(metrics["finite"])
        seen.append(finite)
        assert metrics["loss_scale"] == scale and after.step == k + 1
        if finite:
            good += 1
            changed = [(a != b).any() for a, b in zip(*map(_leaves, (before, after)), strict=True)]
            assert all(changed)
            if good == patience:
                scale, good = 2 * scale, 0
        else:
            assert_bitwise(after.params, before.params)
            assert_bitwise(after.optimizer, before.optimizer)
            scale, good, overflows = scale / 2, 0, overflows + 1
        assert (after.loss_scale.scale, after.loss_scale.good) == (scale, good)
        assert after.loss_scale.overflows == metrics["overflows"] == overflows
    assert not seen[0] and any(seen)
    assert False in seen[seen.index(True) :]  # it doubled until it overflowed again


def _leaves(state):
    return jax.tree.leaves(state.params)


def test_the_loss_scale_has_bounds():
    def after(scale, finite):
        return float(LossScale.start(scale).after(jnp.asarray(finite), patience=1).scale)

    assert after(1.0, False) == 1.0
    assert after(2.0**24, True) == 2.0**24
    assert after(8.0, True) == 16.0 and after(8.0, False) == 4.0


def test_bfloat16_learns_to_copy():
    config = small(
        model={"dtype": "bfloat16"},
        data={"source": "copy", "vocab_size": 4, "batch_size": 32},
        optimizer={"learning_rate": 1e-2, "warmup": 10},
        training={"steps": 150, "telemetry": False},
    )
    state, metrics = run_steps(one_device(config), config, 150)
    losses = [float(m["loss"]) for m in metrics]
    assert abs(losses[0] - np.log(4)) < 1.0 and np.mean(losses[-10:]) < 0.5 * losses[0]
    assert {leaf.dtype for leaf in _leaves(state)} == {np.dtype("float32")}
    assert state.loss_scale is None and state.step == 150
