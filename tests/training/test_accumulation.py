"""Micro-batches on many devices: each device computes its share of every part, and no more."""

import re
from collections import Counter

import jax
import pytest
from small_runs import assert_close, batches, quick_compile, run_steps, small  # noqa: F401

from lnjax.training.parallel import JitRunner, PmapRunner

PARTS, DEVICES = 8, 8
DOUBLE = {"dtype": "float64", "param_dtype": "float64"}
BATCH = {"batch_size": 2 * PARTS * DEVICES}


@pytest.mark.parametrize("telemetry", [False, True])
def test_devices_share_every_micro_batch(telemetry):
    config = small(data=BATCH, training={"accumulate": PARTS, "telemetry": telemetry})
    runner = JitRunner(config)
    state = runner.initialize(0, 1.0)
    program = runner.step.lower(state, runner.place(batches(config, 1)[0])).compile().as_text()
    operations = Counter(re.findall(r" (all-[a-z]+|collective-permute)(?:-start)?\(", program))
    assert operations["all-reduce"] > 0
    assert set(operations) == {"all-reduce"}
    # Two sequences of a part are on a device: products of scores, and of the logits.
    scores = re.findall(r"f32\[(\d+),2,8,8\]\S* dot\(", program)
    logits = re.findall(r"f32\[(\d+),11\]\S* dot\(", program)
    assert set(scores) == {"2"} and set(logits) == {"16"}


@pytest.mark.usefixtures("x64")
def test_micro_batches_on_many_devices_equal_one_step_of_one_device():
    sections = {"model": DOUBLE, "optimizer": {"eps": 1e-4}, "data": BATCH}
    whole = small(**sections, training={"telemetry": False})
    parts = whole.with_(training={"accumulate": PARTS})
    given = batches(whole, 2)
    for k, batch in enumerate(given):
        batch["weights"][k::3] = 0.25  # the parts weigh differently
    expected, metrics = run_steps(JitRunner(whole, jax.devices()[:1]), whole, 2, given)
    for runner in (JitRunner(parts), JitRunner(parts, jax.devices()[:1]), PmapRunner(parts)):
        found, others = run_steps(runner, parts, 2, given)
        assert_close(found.params, expected.params, 1e-10, 1e-12)
        assert_close(others, metrics, 1e-10)
