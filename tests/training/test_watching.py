"""Watching the layers changes nothing: the parameters are bitwise those of a run without."""

from functools import cache

import jax
import pytest
from small_runs import assert_bitwise, run_steps, small

from lnjax.training.parallel import JitRunner, PmapRunner

FORMS = {"scan": {}, "remat": {"remat": True}, "unrolled": {"unroll": 0}}
CASES = [
    ("scan", "jit", 1),
    ("scan", "jit", 3),
    ("remat", "jit", 3),
    ("unrolled", "jit", 3),
    ("scan", "pmap", 3),
]


@cache
def trained(form: str, parallel: str, log_every: int, telemetry: bool):
    """State after five steps, and the metrics."""
    config = small(
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


def test_the_last_step_of_a_run_is_recorded():
    metrics = trained("scan", "jit", 3, True)[1]
    found = [bool(m["telemetry"]["backward"]["l2"].any()) for m in metrics]
    assert found == [True, False, False, True, True]
