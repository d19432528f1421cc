"""Opening runs in every state that they can be in, and what is read from them."""

import json
import math

import jax
import numpy as np
import pytest
from small_runs import assert_bitwise, quick_compile, small  # noqa: F401

import lnjax
from lnjax.training.loop import train
from lnjax.training.parallel import JitRunner

CONFIG = small(training={"steps": 8, "log_every": 3, "checkpoint_every": 2, "keep": 2})


@pytest.fixture(scope="module")
def seen():
    """What was seen of the run after each step, while it went on."""
    return {}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, seen):
    path = tmp_path_factory.mktemp("runs") / "finished"

    def look(progress):
        run = lnjax.open(path)
        try:
            steps = run.telemetry.step.values.tolist()
        except FileNotFoundError as error:
            steps = str(error)
        seen[progress["step"]] = (run.result, repr(run), steps)

    train(CONFIG, path, report=look)
    return path


@pytest.mark.usefixtures("finished")
def test_a_run_in_progress(finished, seen):
    assert {result for result, _, _ in seen.values()} == {None}
    assert {text for _, text, _ in seen.values()} == {
        f"Run({str(finished)!r}: pre_ln, depth 2, running)"
    }
    assert "no checkpoint was reached" in seen[1][2]
    assert seen[8][2] == [0, 3]  # what the checkpoint of step 6 has


def test_a_finished_run(finished):
    run = lnjax.open(str(finished))
    assert run.result["status"] == "finished" and run.result["step"] == 8
    assert repr(run) == f"Run({str(finished)!r}: pre_ln, depth 2, finished at step 8)"
    assert run.config == CONFIG.to_dict() == run.record["config"]
    assert lnjax.Config.from_dict(run.config) == CONFIG
    expected = {"hash", "equations", "data", "versions", "commit", "devices"}
    assert expected < set(run.record)
    assert run.path == finished


def test_a_directory_that_is_no_run(tmp_path, finished):
    for path in (
        tmp_path,
        tmp_path / "missing",
        finished / "checkpoints",
        finished / "config.json",
    ):
        with pytest.raises(FileNotFoundError, match="not a run.*Give the --workdir"):
            lnjax.open(path)


def test_an_interrupted_run_and_its_going_on(tmp_path, finished):
    path = tmp_path / "run"
    train(CONFIG, path, stop_at=3)
    run = lnjax.open(path)
    assert run.result["status"] == "interrupted"
    assert repr(run).endswith("interrupted at step 3)")
    assert run.telemetry.step.values.tolist() == [0]
    assert run.state()["step"] == 3
    statuses = []
    train(CONFIG, path, report=lambda _: statuses.append(run.result))
    assert statuses == [None] * 5  # steps 4 to 8: the run was going on
    assert run.result["status"] == "finished"
    again = lnjax.open(path)
    assert again.telemetry.equals(lnjax.open(finished).telemetry)
    assert_bitwise(again.state(), lnjax.open(finished).state())
    assert run.telemetry.sizes["step"] == 1  # what was read stays


def test_a_diverged_run(tmp_path):
    config = small(
        model={"placement": "no_norm"},
        optimizer={"name": "sgd", "learning_rate": 1e6, "warmup": 0, "clip": 0.0},
        training={"steps": 30, "log_every": 1},
    )
    train(config, tmp_path / "run")
    run = lnjax.open(tmp_path / "run")
    step = run.result["step"]
    assert run.result["status"] == "diverged" and step < 30
    assert repr(run).endswith(f"no_norm, depth 2, diverged at step {step})")
    assert run.telemetry.step.values.tolist() == list(range(step))
    assert math.isfinite(float(run.telemetry.loss[0]))
    assert not np.isfinite(run.telemetry.gradient_norm[-1])
    with pytest.raises(FileNotFoundError, match="no saved state; saved: none"):
        run.state()


def test_saved_states(finished):
    run = lnjax.open(finished)
    assert run.state()["step"] == 8 and run.state(6)["step"] == 6
    with pytest.raises(FileNotFoundError, match=r"no saved state of step 4; saved: \[6, 8\]"):
        run.state(4)
    shapes = JitRunner(CONFIG, jax.devices()[:1]).abstract
    saved = jax.tree.map(lambda x: (x.shape, x.dtype), run.state()["params"])
    assert saved == jax.tree.map(lambda x: (x.shape, x.dtype), shapes.params)


def test_the_dimensions_and_coordinates_of_the_telemetry(finished):
    data = lnjax.open(finished).telemetry
    assert dict(data.sizes) == {
        "step": 4,
        "layer": 2,
        "sublayer": 2,
        "site": 4,
        "group": 8,
        "edge": 2,
        "evaluation_step": 3,
    }
    assert data.step.values.tolist() == [0, 3, 6, 7]  # every third, and the last
    assert data.evaluation_step.values.tolist() == [3, 6, 8]
    assert data.layer.values.tolist() == [1, 2]
    assert data.sublayer.values.tolist() == ["attention", "mlp"]
    assert data.site.values.tolist() == ["stream", "body", "branch", "sum"]
    groups = ["pre_norm", "query", "key", "value", "output"]
    expected = [f"attention.{g}" for g in groups] + ["mlp.pre_norm", "mlp.in", "mlp.out"]
    assert data.group.values.tolist() == expected
    assert data.edge.values.tolist() == ["embedding", "final_norm"]
    assert data.group_size.sel(group="mlp.in").values.tolist() == [16 * 24] * 2


def test_the_telemetry_holds_what_was_measured(finished):
    run = lnjax.open(finished)
    data = run.telemetry
    assert data.gradient_l2.dims == ("step", "layer", "group")
    assert data.activation_rms.dims == ("step", "layer", "sublayer", "site")
    assert data.backward_l2.dims == data.cosine.dims == ("step", "layer", "sublayer")
    for name in data.data_vars:
        assert np.isfinite(data[name]).all(), name
    # Weights, update and gradient of a step are measured apart; their parts make up the whole.
    for quantity in ("gradient", "weight", "update"):
        inside = (data[f"{quantity}_l2"] ** 2).sum(("layer", "group"))
        whole = np.sqrt(inside + (data[f"edge_{quantity}_l2"] ** 2).sum("edge"))
        np.testing.assert_allclose(whole, data[f"{quantity}_norm"], rtol=1e-5)
    assert run.result["initial_loss"] == pytest.approx(float(data.loss[0]))
    assert run.result["final_loss"] == pytest.approx(float(data.loss[-1]))
    assert run.result["evaluation_loss"] == pytest.approx(float(data.evaluation_loss[-1]))


def test_telemetry_becomes_a_table_or_json(finished):
    data = lnjax.open(finished).telemetry
    frame = data.gradient_l2.to_dataframe()
    assert len(frame) == data.gradient_l2.size
    json.dumps(data.isel(step=0).to_dict())


def test_telemetry_is_read_once(finished, monkeypatch):
    from lnjax.training import checkpoints

    run = lnjax.open(finished)
    first = run.telemetry
    monkeypatch.setattr(checkpoints, "read_telemetry", lambda _: None)
    assert run.telemetry is first
