"""Watching the layers changes nothing: the parameters are bitwise those of a run without."""

from functools import cache

import jax
import pytest
from small_runs import assert_bitwise, assert_close, run_steps, small

from lnjax.training.parallel import JitRunner, PmapRunner

FORMS = {"scan": {}, "remat": {"remat": True}, "unrolled": {"unroll": 0}}
CASES = [
    ("scan", "jit", 1),
    ("scan", "jit", 3),
    ("remat", "jit", 3),
    ("unrolled", "jit", 1),
    ("scan", "pmap", 3),
]


@cache
def trained(form: str, parallel: str, log_every: int, telemetry: bool):
    """State after five steps, and the metrics."""
    config = small(
        optimizer={"eps": 1e-4},  # or Adam amplifies the rounding of gradients that are zero
        model=FORMS[form],
        training={"telemetry": telemetry, "log_every": log_every, "steps": 5},
    )
    kind = {"jit": JitRunner, "pmap": PmapRunner}[parallel]
    count = {"jit": 1, "pmap": 4}[parallel]
    return run_steps(kind(config, jax.devices()[:count]), config, 5)


@pytest.mark.parametrize(("form", "parallel", "log_every"), CASES)
def test_parameters_are_bitwise_equal_with_and_without_telemetry(form, parallel, log_every):
    watched, metrics = trained(form, parallel, log_every, True)
    alone, bare = trained(form, parallel, 1, False)
    assert_bitwise(watched, alone)
    for k, (a, b) in enumerate(zip(metrics, bare, strict=True)):
        telemetry = a["telemetry"]
        assert "telemetry" not in b
        assert a["loss"] == b["loss"] and a["gradient_norm"] == b["gradient_norm"]
        recorded = k % log_every == 0 or k == 4
        assert bool(telemetry["backward"]["l2"].all()) == recorded
        assert bool(telemetry["parameters"]["weight"]["l2"].any()) == recorded
        assert bool(telemetry["forward"]["output"]["moments"].any()) == recorded


def test_unrolled_layers_watched_now_and_then_agree_to_rounding():
    """Here XLA fuses the backward pass differently around the conditions: not the same bits."""
    watched, metrics = trained("unrolled", "jit", 3, True)
    alone, bare = trained("unrolled", "jit", 1, False)
    assert_close([m["loss"] for m in metrics], [m["loss"] for m in bare], rtol=1e-5)
    assert_close(watched.params, alone.params, rtol=1e-4, atol=1e-5)


def test_the_last_step_of_a_run_is_recorded():
    metrics = trained("scan", "jit", 3, True)[1]
    found = [bool(m["telemetry"]["backward"]["l2"].any()) for m in metrics]
    assert found == [True, False, False, True, True]
