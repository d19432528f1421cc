"""The statistics of half precision are those of the loss itself, whatever it was multiplied by."""

import jax
import numpy as np
import pytest
from small_runs import quick_compile, run_steps, small  # noqa: F401

from lnjax.training.parallel import JitRunner


def telemetry(dtype: str, **training):
    """Metrics of the first step; telemetry comes by the names of its leaves."""
    config = small(model={"dtype": dtype}, training=training)
    _, (metrics,) = run_steps(JitRunner(config, jax.devices()[:1]), config, 1)
    leaves = jax.tree_util.tree_leaves_with_path(metrics.pop("telemetry"))
    return metrics, {jax.tree_util.keystr(path): x for path, x in leaves}


@pytest.mark.parametrize(
    ("dtype", "training"),
    [("bfloat16", {}), ("float16", {"loss_scale": 2.0**10}), ("float16", {"loss_scale": 1.0})],
)
def test_statistics_agree_with_float32(dtype, training):
    wide, expected = telemetry("float32")
    half, found = telemetry(dtype, **training)
    tolerance = {"bfloat16": 0.1, "float16": 0.02}[dtype]
    assert set(found) == set(expected)
    for name, x in expected.items():
        if "update" in name or "moments" in name:
            continue  # Adam's first update is the gradient's sign; a mean is nearly zero
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], x, tolerance, 1e-3 * np.nanmax(x), err_msg=name)
    for name in ("loss", "gradient_norm", "weight_norm"):
        np.testing.assert_allclose(half[name], wide[name], rtol=tolerance)


def test_a_step_that_overflows_says_so_in_its_statistics():
    metrics, found = telemetry("float16", loss_scale=2.0**24)
    assert not metrics["finite"] and np.isfinite(metrics["loss"])
    gradients = [x for name, x in found.items() if "gradient" in name]
    assert not all(np.isfinite(x).all() for x in gradients)
    assert all(np.isfinite(x).all() for name, x in found.items() if "weight" in name)
