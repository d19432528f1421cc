"""The probes' statistics equal those of whole tensors, and watching changes nothing."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capturing import capture, mean_loss
from small_runs import batches, quick_compile, small  # noqa: F401

from lnjax.models import Transformer
from lnjax.telemetry import Observer, cosine, moments, probe
from lnjax.training.step import initialize

MODES = {"scan": {}, "unrolled": {"unroll": 0}, "remat": {"remat": True}}
PLACEMENTS = ("pre_ln", "post_ln", "mix_ln")
CASES = [("pre_ln", "scan"), ("post_ln", "remat"), *(("mix_ln", mode) for mode in MODES)]


@cache
def problem(placement: str):
    """Configuration, parameters far from their symmetric start, batch, and the true tensors."""
    config = small(model={"placement": placement, "depth": 4}, data={"source": "copy"})
    params = initialize(config, jnp.uint32(1), jnp.float32(1.0)).params
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    leaves = [x + jnp.asarray(0.1 * rng.standard_normal(x.shape), x.dtype) for x in leaves]
    params, batch = jax.tree.unflatten(tree, leaves), batches(config, 1)[0]
    return config, params, batch, capture(config.model, params, batch)


@cache
def observed(placement: str, mode: str):
    """Slots' gradient and measurements, by the real observer: recorded, and not recorded."""
    config, params, batch, _ = problem(placement)
    model = Transformer(config.with_(model=MODES[mode]).model, observer=Observer(), train=True)
    slots = jnp.zeros((2 * config.model.depth + 1, 2), jnp.float32)

    @jax.jit
    def run(slots, record):
        return jax.grad(lambda s: mean_loss(model, params, batch, s, record), has_aux=True)(slots)

    return [jax.device_get(run(slots, jnp.asarray(record))) for record in (True, False)]


@pytest.mark.parametrize(("placement", "mode"), CASES)
def test_slot_gradients_are_the_statistics_of_the_true_backward_stream(placement, mode):
    gradient = problem(placement)[3][0]
    slots = observed(placement, mode)[0][0]
    flat = gradient.reshape(len(gradient), -1).astype(np.float64)
    np.testing.assert_allclose(slots[:, 0], (flat**2).sum(1), rtol=2e-5)
    np.testing.assert_allclose(slots[:, 1], np.abs(flat).max(1), rtol=2e-5)
    assert len(np.unique(slots[:, 0])) == 9  # every site has its own


@pytest.mark.parametrize(("placement", "mode"), CASES)
def test_measurements_are_the_statistics_of_the_captured_tensors(placement, mode):
    config, _, _, (_, tensors) = problem(placement)
    measured = observed(placement, mode)[0][1]
    for sublayer, whole in zip(measured["sublayers"], tensors["sublayers"], strict=True):
        for column, site in enumerate(("stream", "body", "branch", "sum")):
            x = whole[site].reshape(config.model.depth, -1).astype(np.float64)
            expected = np.stack([(x**2).mean(1), x.mean(1), np.abs(x).max(1)], 1)
            np.testing.assert_allclose(sublayer["moments"][:, column], expected, 2e-5, 1e-6)
        x, y = whole["stream"].astype(np.float64), whole["leaving"].astype(np.float64)
        lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
        expected = ((x * y).sum(-1) / lengths).mean((1, 2))
        np.testing.assert_allclose(sublayer["cosine"], expected, rtol=1e-5)
    output = tensors["output"]["output"].astype(np.float64)
    expected = [(output**2).mean(), output.mean(), np.abs(output).max()]
    np.testing.assert_allclose(measured["output"]["moments"][0], expected, 2e-5, 1e-6)


def test_the_streams_are_chained():
    """What leaves a sublayer is what enters the next: the sites are where they say."""
    for placement in PLACEMENTS:
        tensors = problem(placement)[3][1]
        attention, mlp = tensors["sublayers"]
        np.testing.assert_array_equal(attention["leaving"], mlp["stream"])
        np.testing.assert_array_equal(mlp["leaving"][:-1], attention["stream"][1:])
        np.testing.assert_array_equal(mlp["leaving"][-1], tensors["output"]["output"])
        for part in (attention, mlp):
            np.testing.assert_allclose(part["stream"] + part["branch"], part["sum"], atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_steps_that_are_not_recorded_give_zeros(mode):
    recorded, not_recorded = observed("mix_ln", mode)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(recorded))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(not_recorded))


def test_probe_on_plain_code():
    x, w = jnp.array([[1.0, -2.0], [3.0, 0.5]]), jnp.array([[2.0], [-1.0]])

    def loss(x, slot, w):
        return jnp.sum((probe(x, slot) @ w) ** 2)

    gradient, slot, _ = jax.grad(loss, (0, 1, 2))(x, jnp.zeros(2), w)
    expected = 2 * (np.asarray(x) @ np.asarray(w)) * np.asarray(w).T
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)
    np.testing.assert_allclose(slot, [(expected**2).sum(), np.abs(expected).max()], rtol=1e-6)
    assert slot.dtype == jnp.float32


def test_a_probe_does_not_change_the_gradient():
    x = jax.random.normal(jax.random.key(0), (3, 5))
    for record in (None, jnp.asarray(True), jnp.asarray(False)):
        watched = jax.grad(lambda x, r=record: jnp.sum(jnp.sin(probe(x, jnp.zeros(2), r))))(x)
        np.testing.assert_array_equal(watched, jnp.cos(x))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_statistics_of_half_precision_are_taken_in_float32(dtype):
    x = (300.0 + jnp.arange(512.0)).astype(dtype)  # squares overflow float16
    wide = np.asarray(x, np.float64)
    expected = [(wide**2).mean(), wide.mean(), wide.max()]
    measured = moments(x)
    assert measured.dtype == jnp.float32
    np.testing.assert_allclose(measured, expected, rtol=1e-5)
    slot = jax.grad(lambda slot: jnp.sum((probe(x, slot) * x).astype(jnp.float32)))(jnp.zeros(2))
    np.testing.assert_allclose(slot, [(wide**2).sum(), wide.max()], rtol=1e-5)
    np.testing.assert_allclose(cosine(x, -x), -1.0, rtol=1e-6)


def test_cosine_of_known_vectors_and_of_zero():
    x = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    y = jnp.array([[1.0, 1.0], [-2.0, -2.0]])
    np.testing.assert_allclose(cosine(x, y), (np.sqrt(0.5) - 1) / 2, rtol=1e-6)
    assert cosine(jnp.zeros((2, 3)), jnp.ones((2, 3))) == 0
