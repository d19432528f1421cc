"""Runs in several sittings, where the randomness, the precision or the devices make it harder."""

import signal
from functools import cache

import jax
import numpy as np
import pytest
from small_runs import assert_same_run, lasting, quick_compile, small  # noqa: F401

import lnjax
from lnjax.training import loop, records
from lnjax.training.checkpoints import Checkpoints, saved_steps
from lnjax.training.loop import train
from lnjax.training.parallel import JitRunner

# Logged steps are 0, 3, 6, 7; checkpoints come after 2, 4, 6, 8; evaluations after 3, 6, 8.
SPARSE = {"steps": 8, "log_every": 3, "checkpoint_every": 2, "evaluate_every": 3}
VARIANTS = {
    "dropout": {
        "model": {"dropout": 0.2},
        "data": {"batch_size": 16},
        "training": SPARSE | {"accumulate": 2},
    },
    "float16": {
        "model": {"dtype": "float16"},
        "training": SPARSE | {"loss_scale": 2.0**24, "loss_scale_patience": 2},
    },
    "batchnorm": {
        "model": {"norm": "batchnorm", "causal": False},
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "training": SPARSE | {"parallel": "pmap", "telemetry": False},
    },
}


@cache
def config_of(variant: str):
    return small(**VARIANTS[variant])


@pytest.fixture(scope="module", params=VARIANTS)
def whole(request, tmp_path_factory):
    """A configuration, and the directory of its uninterrupted run."""
    path = tmp_path_factory.mktemp(request.param) / "whole"
    assert train(config_of(request.param), path)["status"] == "finished"
    return config_of(request.param), path


class Crash(Exception):
    """What ends a sitting without warning."""


def test_sittings_that_end_between_logged_steps(whole, tmp_path):
    config, path = whole
    for stop in (1, 4, 5, 7):
        assert train(config, tmp_path / "run", stop_at=stop)["status"] == "interrupted"
    train(config, tmp_path / "run")
    assert_same_run(tmp_path / "run", path)
    assert lnjax.open(path).telemetry.step.values.tolist() == [0, 3, 6, 7]


def test_a_crash_between_checkpoints(whole, tmp_path):
    config, path = whole

    def report(progress):
        if progress["step"] == 6:
            raise Crash

    with pytest.raises(Crash):
        train(config, tmp_path / "run", report=report)
    assert saved_steps(tmp_path / "run" / "checkpoints" / "state") == [4]
    train(config, tmp_path / "run")
    assert_same_run(tmp_path / "run", path)


def test_float16_overflows_are_in_the_history(tmp_path):
    config = config_of("float16")
    train(config, tmp_path / "run")
    data = lnjax.open(tmp_path / "run").telemetry
    assert data.loss_scale[0] == 2.0**24 and data.overflows[0] == 1
    assert data.overflows[-1] > 1 and data.loss_scale[-1] < 2.0**24


@pytest.fixture
def interrupted(tmp_path):
    """A run of the first variant that was stopped after four steps."""
    train(config_of("dropout"), tmp_path / "run", stop_at=4)
    return tmp_path / "run"


def test_half_written_checkpoints_are_passed_over(interrupted):
    for kind in ("state", "telemetry"):
        folder = interrupted / "checkpoints" / kind / "6.orbax-checkpoint-tmp-1700000000"
        folder.mkdir()
        (folder / "rubbish").write_text("cut off")
    run = lnjax.open(interrupted)
    assert run.state()["step"] == 4 and run.telemetry.step.values.tolist() == [0, 3]
    assert train(config_of("dropout"), interrupted)["status"] == "finished"
    assert saved_steps(interrupted / "checkpoints" / "state") == [8]


def test_a_result_is_written_after_its_state(tmp_path, monkeypatch):
    seen = []
    write = records.write_result

    def spy(workdir, config, **fields):
        seen.append((fields["step"], saved_steps(workdir / "checkpoints" / "state")))
        return write(workdir, config, **fields)

    monkeypatch.setattr(records, "write_result", spy)
    train(config_of("dropout"), tmp_path / "run", stop_at=3)
    train(config_of("dropout"), tmp_path / "run")
    assert seen == [(3, [3]), (8, [8])]


def test_a_signal_while_checkpoints_are_closed_does_not_cut_them_off(tmp_path, monkeypatch):
    leave, caught = Checkpoints.__exit__, []

    def interrupted(self, *error):
        signal.raise_signal(signal.SIGTERM)
        leave(self, *error)

    monkeypatch.setattr(Checkpoints, "__exit__", interrupted)
    before = signal.signal(signal.SIGTERM, lambda *_: caught.append(True))
    try:
        train(config_of("dropout"), tmp_path / "run", stop_at=1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not caught


def test_another_number_of_devices_goes_on_with_the_state(interrupted, tmp_path, monkeypatch):
    config = config_of("dropout")
    train(config, tmp_path / "whole")
    monkeypatch.setattr(loop, "runner", lambda c: JitRunner(c, jax.devices()[:2]))
    result = train(config, interrupted)
    expected = lnjax.open(tmp_path / "whole").result
    np.testing.assert_allclose(result["final_loss"], expected["final_loss"], rtol=1e-4)
    a, b = (lnjax.open(p).telemetry for p in (interrupted, tmp_path / "whole"))
    np.testing.assert_allclose(a.update_l2, b.update_l2, rtol=1e-3)


def test_a_loss_that_blows_up_ends_the_run_also_in_sittings(tmp_path):
    config = small(
        optimizer={"name": "sgd", "learning_rate": 300.0, "warmup": 0, "momentum": 0.0},
        training={"steps": 40, "diverged_margin": 0.5, "diverged_patience": 4},
    )
    whole = train(config, tmp_path / "whole")
    assert whole["status"] == "diverged" and 4 < whole["step"] < 40
    assert "for 4 steps" in whole["reason"] and "above the first" in whole["reason"]
    assert whole["final_loss"] > whole["initial_loss"] + 0.5
    losses = lnjax.open(tmp_path / "whole").telemetry.loss.values
    assert len(losses) == whole["step"]
    assert (losses[-4:] > losses[0] + 0.5).all() and losses[-5] <= losses[0] + 0.5
    train(config, tmp_path / "run", stop_at=whole["step"] - 2)  # half way through the patience
    assert lasting(train(config, tmp_path / "run")) == lasting(whole)
    xs = (lnjax.open(tmp_path / name).telemetry for name in ("run", "whole"))
    assert next(xs).identical(next(xs))


def test_a_warning_that_passes_leaves_no_trace():
    """The steps above the margin are counted in a row, over the end of a sitting."""
    divergence = loop.Divergence(1.0, 3, False, first=5.0, above=2)
    assert not divergence.update(9, 5.5, True) and divergence.above == 0
    divergence = loop.Divergence(1.0, 3, False, first=5.0, above=2)
    assert divergence.update(9, 6.5, True)
