"""Configurations and batches so small that a test trains in seconds."""

import jax
import numpy as np
import pytest

from lnjax.data import open_dataset
from lnjax.training import objectives
from lnjax.training.config import Config
from lnjax.training.loop import resolve


@pytest.fixture(autouse=True, scope="module")
def quick_compile():
    """Compile without LLVM's optimizations; for the modules that import this."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def small(**sections) -> Config:
    """A resolved configuration: depth 2, width 16, 8 Markov sequences of 8 tokens, 6 steps.

    Compiling is what takes time, so there are few parameters: RMSNorm, no biases.
    """
    values = {
        "model": {
            "depth": 2,
            "width": 16,
            "heads": 2,
            "mlp_width": 24,
            "norm": "rmsnorm",
            "bias": False,
        },
        "data": {
            "source": "markov",
            "vocab_size": 11,
            "sequence_length": 8,
            "batch_size": 8,
            "evaluation_batches": 2,
        },
        "optimizer": {"learning_rate": 1e-2, "warmup": 2},
        "training": {"steps": 6, "log_every": 1, "evaluate_every": 3, "checkpoint_every": 0},
    }
    for name, fields in sections.items():
        values[name] = values[name] | fields
    config = Config.from_dict(values)
    return resolve(config, open_dataset(config.data))


def batches(config: Config, count: int) -> list[dict[str, np.ndarray]]:
    """The first batches that a run of this configuration sees, if it is causal."""
    dataset = open_dataset(config.data)
    return [objectives.next_token(dataset.batch(config.training.seed, k)) for k in range(count)]


def run_steps(runner, config: Config, count: int, given: list | None = None):
    """The saved form of the state after `count` steps, and the metrics of each, as NumPy."""
    state = runner.initialize(config.training.seed, config.optimizer.learning_rate)
    history = []
    for batch in given or batches(config, count):
        state, metrics = runner.step(state, runner.place(batch))
        history.append(jax.device_get(metrics))
    return jax.device_get(runner.gathered(state)), history


def assert_bitwise(a, b) -> None:
    """Two trees have the same structure and the same bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        where = jax.tree_util.keystr(path)
        assert np.asarray(x).dtype == np.asarray(y).dtype, where
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=where)


def assert_close(a, b, rtol: float, atol: float = 0.0) -> None:
    """Two trees have the same structure and nearly the same numbers (NaN where NaN)."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        np.testing.assert_allclose(
            np.asarray(x), np.asarray(y), rtol, atol, err_msg=jax.tree_util.keystr(path)
        )


def lasting(result: dict) -> dict:
    """What of a run's result does not depend on how fast the machine was, and when."""
    passing = ("wall_seconds", "tokens_per_second", "date")
    return {k: v for k, v in result.items() if k not in passing}


def assert_same_run(path, other) -> None:
    """Two run directories hold the same result, newest state and history, to the bit."""
    import xarray as xr

    import lnjax

    a, b = lnjax.open(path), lnjax.open(other)
    assert lasting(a.result) == lasting(b.result)
    assert_bitwise(a.state(), b.state())
    xr.testing.assert_identical(a.telemetry, b.telemetry)
