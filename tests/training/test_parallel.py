"""Many devices compute what one computes: parameters, metrics and every statistic."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from small_runs import assert_close, quick_compile, run_steps, small  # noqa: F401

from lnjax.data import open_dataset
from lnjax.training import objectives
from lnjax.training.parallel import JitRunner, PmapRunner, make_mesh, partition

STEPS = 3
DOUBLE = {"dtype": "float64", "param_dtype": "float64"}


def masked_batches(config):
    """Masked batches; the number of predicted tokens differs from part to part of each."""
    dataset = open_dataset(config.data)
    found = []
    for k in range(STEPS):
        rng = np.random.default_rng((1, k))
        found.append(objectives.masked(dataset.batch(0, k), rng, 11, rate=0.3))
    assert len({float(row.sum()) for row in found[0]["weights"]}) > 1
    return found


def assert_same(found, expected, rtol):
    """Equal states and metrics; statistics are float32, whatever the computation is in."""
    assert_close(found[0].params, expected[0].params, rtol, atol=1e-12)
    assert_close(found[0].optimizer, expected[0].optimizer, rtol, atol=1e-12)
    assert_close(found[0].model_state, expected[0].model_state, rtol, atol=1e-12)
    for a, b in zip(found[1], expected[1], strict=True):
        a, b = dict(a), dict(b)
        telemetry, wanted = a.pop("telemetry", None), b.pop("telemetry", None)
        assert_close(a, b, rtol)
        if wanted is None:
            continue
        assert_close(telemetry, wanted, rtol=1e-5, atol=1e-7)
        leaves = [np.abs(leaf[~np.isnan(leaf)]).max() for leaf in jax.tree.leaves(wanted)]
        assert min(leaves) > 1e-6  # there is something to compare, also at the tolerance


@pytest.mark.usefixtures("x64")
def test_meshes_and_pmap_equal_one_device():
    config = small(model=DOUBLE, optimizer={"eps": 1e-4})
    one = run_steps(JitRunner(config, jax.devices()[:1]), config, STEPS)
    assert one[0].params["embedding"]["table"].dtype == np.float64
    assert_same(run_steps(JitRunner(config), config, STEPS), one, 1e-10)
    split = config.with_(training={"fsdp": 2, "tensor": 2})
    assert_same(run_steps(JitRunner(split), config, STEPS), one, 1e-10)
    assert_same(run_steps(PmapRunner(config), config, STEPS), one, 1e-10)


@pytest.mark.usefixtures("x64")
def test_weights_that_differ_per_device_and_micro_batch():
    config = small(model=DOUBLE | {"causal": False}, optimizer={"eps": 1e-4})
    given = masked_batches(config)
    one = JitRunner(config, jax.devices()[:1])
    expected = run_steps(one, config, STEPS, given)
    parts = config.with_(training={"accumulate": 2})
    many = PmapRunner(parts, jax.devices()[:4])
    assert_same(run_steps(many, parts, STEPS, given), expected, 1e-10)
    sums = []
    for runner in (one, many):
        state = runner.initialize(0, 1.0)
        sums.append(jax.device_get(runner.evaluate(state, runner.place(given[0]))))
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-10)
    assert sums[0][1] == given[0]["weights"].sum()


@pytest.mark.usefixtures("x64")
def test_batchnorm_takes_its_statistics_over_all_devices():
    config = small(
        model=DOUBLE | {"norm": "batchnorm"},
        optimizer={"eps": 1e-4},
        training={"telemetry": False},
    )
    one = run_steps(JitRunner(config, jax.devices()[:1]), config, STEPS)
    many = run_steps(PmapRunner(config), config, STEPS)
    assert jax.tree.leaves(one[0].model_state)
    assert_same(many, one, 1e-9)


def test_the_mesh_splits_parameters_moments_and_batches():
    config = small(training={"fsdp": 2, "tensor": 2}, model={"width": 32, "bias": True})
    runner = JitRunner(config)
    state = runner.initialize(0, 1.0)
    expected = {
        ("attention", "query"): (2, 16, 16),
        ("attention", "output"): (2, 16, 16),
        ("mlp", "in"): (2, 16, 12),
        ("mlp", "out"): (2, 12, 16),
    }
    moments = state.optimizer[1].mu
    for (part, module), shape in expected.items():
        for tree in (state.params, moments):
            kernel = tree["blocks_0"][part][module]["kernel"]
            assert kernel.sharding.shard_shape(kernel.shape) == shape
            assert not kernel.sharding.is_fully_replicated
            assert kernel.addressable_shards[0].data.shape == shape
    bias = state.params["blocks_0"]["mlp"]["in"]["bias"]
    assert bias.sharding.shard_shape(bias.shape) == (2, 12)
    table = state.params["embedding"]["table"]
    assert table.sharding.shard_shape(table.shape) == (11, 16)
    assert state.params["final_norm"]["gain"].sharding.is_fully_replicated
    tokens = runner.place({"inputs": np.zeros((8, 8), np.int32)})["inputs"]
    assert tokens.sharding.shard_shape(tokens.shape) == (2, 8)


def test_partition_leaves_whole_what_the_mesh_does_not_divide():
    mesh = make_mesh(fsdp=2, tensor=4)
    assert partition(("params", "blocks_0", "mlp", "in", "kernel"), (3, 6, 8), mesh) == (
        PartitionSpec(None, "fsdp", "tensor")
    )
    assert partition(("blocks_0", "mlp", "in", "kernel"), (4, 5, 6), mesh) == (
        PartitionSpec(None, None, "fsdp")
    )
    assert partition(("embedding", "table"), (7, 5), mesh) == PartitionSpec(None, None)
    assert partition(("blocks_0", "mlp_residual", "pre_norm", "gain"), (4, 8), mesh) == (
        PartitionSpec()
    )


def test_errors_say_what_to_change():
    with pytest.raises(ValueError, match="make it a multiple of 8"):
        JitRunner(small(data={"batch_size": 12}))
    with pytest.raises(ValueError, match="make it a multiple of 8"):
        PmapRunner(small(data={"batch_size": 12}))
    with pytest.raises(ValueError, match="into 4 micro-batches over 8 devices"):
        JitRunner(small(training={"accumulate": 4}))
    with pytest.raises(ValueError, match="fsdp=3 times tensor=1 does not divide 8 devices"):
        make_mesh(fsdp=3)
