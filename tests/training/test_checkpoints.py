"""What a run's directory keeps, and reading it back."""

import jax
import numpy as np
import pytest
from small_runs import assert_bitwise, quick_compile, small  # noqa: F401

import lnjax
from lnjax.telemetry.statistics import Layout
from lnjax.training.checkpoints import Checkpoints, read_state, saved_steps
from lnjax.training.loop import train
from lnjax.training.parallel import JitRunner, PmapRunner


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Six steps with a checkpoint every two, of which one is kept."""
    path = tmp_path_factory.mktemp("checkpoints") / "run"
    config = small(training={"checkpoint_every": 2, "keep": 1})
    train(config, path)
    return config, path


def test_one_state_is_kept_and_all_of_the_history(run):
    _, path = run
    assert saved_steps(path / "checkpoints" / "state") == [6]
    assert saved_steps(path / "checkpoints" / "telemetry") == [2, 4, 6]
    telemetry = lnjax.open(path).telemetry
    assert telemetry.step.values.tolist() == list(range(6))
    assert np.isfinite(telemetry.gradient_l2).all()


def test_a_state_is_read_as_numpy(run):
    config, path = run
    state = lnjax.open(path).state()
    assert {"step", "params", "model_state", "optimizer", "learning_rate", "seed"} <= set(state)
    assert state["step"] == 6 and state["learning_rate"] == np.float32(1e-2)
    shapes = JitRunner(config).abstract.params
    for leaf, shape in zip(jax.tree.leaves(state["params"]), jax.tree.leaves(shapes), strict=True):
        assert isinstance(leaf, np.ndarray)
        assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype)
    assert_bitwise(lnjax.open(path).state(6), state)
    # The history's last weights are those before the last update.
    last = lnjax.open(path).telemetry.isel(step=-1)
    change = last.weight_norm + last.update_norm
    norm = np.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in jax.tree.leaves(state["params"])))
    assert abs(norm - last.weight_norm) < last.update_norm < change


def test_a_state_that_was_not_kept(run, tmp_path):
    _, path = run
    with pytest.raises(FileNotFoundError, match=r"no saved state of step 4; saved: \[6\]"):
        lnjax.open(path).state(4)
    with pytest.raises(FileNotFoundError, match="no saved state; saved: none"):
        read_state(tmp_path)


def test_a_directory_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a run: it has no config.json"):
        lnjax.open(tmp_path)


def test_a_run_that_has_no_checkpoint_yet(run, tmp_path):
    _, path = run
    (tmp_path / "config.json").write_bytes((path / "config.json").read_bytes())
    opened = lnjax.open(tmp_path)
    assert opened.result is None and "running" in repr(opened)
    with pytest.raises(FileNotFoundError, match="no telemetry yet"):
        _ = opened.telemetry


def test_the_record_of_a_run(run):
    config, path = run
    opened = lnjax.open(path)
    assert opened.config == config.to_dict()
    assert opened.record["hash"] == config.fingerprint()
    assert {"jax", "numpy"} <= set(opened.record["versions"])
    assert opened.record["data"]["source"] == "markov"
    assert opened.result["status"] == "finished" and "finished at step 6" in repr(opened)
    assert opened.result["best_evaluation_loss"] <= opened.result["initial_loss"] + 1


def test_a_run_without_evaluation_or_telemetry(tmp_path):
    config = small(data={"evaluation_batches": 0}, training={"telemetry": False, "steps": 3})
    result = train(config, tmp_path / "run")
    assert result["status"] == "finished" and result["evaluation_loss"] is None
    telemetry = lnjax.open(tmp_path / "run").telemetry
    assert "gradient_l2" not in telemetry and telemetry.loss.dims == ("step",)
    assert telemetry.sizes["step"] == 3 and telemetry.sizes["evaluation_step"] == 0


def test_the_saved_form_is_the_same_for_every_runner():
    config = small()
    shapes = []
    for runner in (JitRunner(config), PmapRunner(config), PmapRunner(config, jax.devices()[:2])):
        saved = runner.gathered(runner.initialize(0, 1e-2))
        shapes.append(jax.tree.map(lambda x: (x.shape, str(x.dtype)), saved))
    assert shapes[0] == shapes[1] == shapes[2]


def test_a_state_is_restored_on_the_devices_that_go_on_with_it(run):
    """Not on those that saved it, which may be of another kind."""
    config, path = run
    runner = PmapRunner(config, jax.devices()[2:4])
    with Checkpoints(path, 1, Layout.of(runner.abstract.params)) as checkpoints:
        state, _ = checkpoints.restore(6, runner.abstract)
    assert {d for leaf in jax.tree.leaves(state) for d in leaf.devices()} == {jax.devices()[2]}
    spread = runner.scattered(state)
    assert spread.step.devices() == set(jax.devices()[2:4])
    assert_bitwise(jax.device_get(runner.gathered(spread)), jax.device_get(state))
