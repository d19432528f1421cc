"""Watching changes nothing, also on many devices, with noise, in parts and in half precision."""

import jax
import pytest
from small_runs import assert_bitwise, run_steps, small

from lnjax.training.parallel import JitRunner, PmapRunner

CASES = {
    "a mesh of eight": (JitRunner, 8, {"model": {"placement": "post_ln"}, "training": {"fsdp": 2}}),
    "pmap and remat": (
        PmapRunner,
        2,
        {"model": {"placement": "deepnorm", "norm": "layernorm", "remat": True}},
    ),
    "micro-batches and dropout": (
        JitRunner,
        1,
        {"model": {"dropout": 0.1, "placement": "mix_ln"}, "training": {"accumulate": 2}},
    ),
    "float16": (JitRunner, 1, {"model": {"dtype": "float16"}, "training": {"loss_scale": 2.0**24}}),
}


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_bitwise_equal_with_and_without_telemetry(case):
    kind, devices, sections = CASES[case]
    states = []
    for telemetry in (True, False):
        training = {"telemetry": telemetry, "log_every": 3, "steps": 5}
        config = small(**sections | {"training": sections.get("training", {}) | training})
        state, metrics = run_steps(kind(config, jax.devices()[:devices]), config, 5)
        assert ("telemetry" in metrics[0]) == telemetry
        states.append(state)
    assert_bitwise(*states)
