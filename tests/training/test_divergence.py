"""Runs that diverge: when it is noticed, what is kept, what is written."""

import json
import math

import numpy as np
import pytest
from small_runs import quick_compile, small  # noqa: F401

import lnjax
from lnjax.training import loop
from lnjax.training.loop import Divergence, train
from lnjax.training.signals import StopSignal


def fed(losses, half=False, **fields) -> tuple[Divergence, int | None]:
    """A `Divergence` that took in the losses (None overflows), and after how many it decided."""
    divergence = Divergence(**({"margin": 2.0, "patience": 3} | fields), half=half)
    for steps, loss in enumerate(losses, 1):
        finite = loss is not None and math.isfinite(loss)
        if divergence.update(steps, 5.0 if loss is None else loss, finite):
            return divergence, steps
    return divergence, None


def test_far_above_the_first_loss_for_long():
    divergence, steps = fed([5.0, 7.5, 7.5, 7.5, 7.5])
    assert steps == 4
    assert divergence.reason == (
        "loss 7.50 at step 4, more than 2 nats above the first (5.00) for 3 steps"
    )


def test_what_is_no_divergence():
    assert fed([5.0, 9.0, 9.0, 6.0, 9.0, 9.0, 6.9, 9.0])[1] is None  # it recovers in time
    assert fed([5.0] + [7.0] * 20)[1] is None  # the margin itself is not above it
    assert fed([9.0] + [9.5] * 20)[1] is None
    assert fed([5.0, 9.0, 9.0], patience=2)[1] == 3


@pytest.mark.parametrize(("loss", "what"), [(math.nan, "loss"), (math.inf, "loss"), (None, "grad")])
def test_what_is_not_finite_ends_the_run_at_once(loss, what):
    divergence, steps = fed([5.0, loss])
    assert steps == 2
    assert divergence.reason.startswith(what) and "not finite at step 2" in divergence.reason


def test_float16_is_given_time_to_lower_its_scale():
    assert fed([5.0] + [None] * 25 + [5.0] + [None] * 25, half=True)[1] is None
    assert fed([5.0] + [None] * 26, half=True)[1] == 27
    assert fed([None] * 3 + [5.0] + [8.0] * 3, half=True)[1] == 7  # the first one that is finite


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    """A run without norms whose learning rate is far too large."""
    path = tmp_path_factory.mktemp("diverged") / "run"
    config = small(
        model={"placement": "no_norm"},
        optimizer={"name": "sgd", "learning_rate": 1e6, "warmup": 0, "clip": 0.0},
        training={"steps": 40, "checkpoint_every": 1},
    )
    return config, path, train(config, path)


def test_a_diverged_run_says_so(diverged):
    _, path, result = diverged
    assert result["status"] == "diverged" and 1 < result["step"] < 40
    assert result["reason"].endswith(f"not finite at step {result['step']}")
    assert math.isfinite(result["initial_loss"])

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    text = (path / "result.json").read_text()
    assert json.loads(text, parse_constant=refuse) == result
    if result["reason"].startswith("loss"):
        assert result["final_loss"] is None
    assert result["evaluation_loss"] is None or math.isfinite(result["evaluation_loss"])


def test_the_history_reaches_to_the_divergence(diverged):
    _, path, result = diverged
    telemetry = lnjax.open(path).telemetry
    assert telemetry.step.values.tolist() == list(range(result["step"]))
    last = telemetry.isel(step=-1)
    assert not (np.isfinite(last.loss) and np.isfinite(last.gradient_norm))
    assert np.isfinite(telemetry.loss[:-1]).all()


def test_a_divergence_between_logged_steps_is_in_the_history(diverged, tmp_path):
    config, path, result = diverged
    sparse = config.with_(training={"log_every": result["step"] + 5})
    assert train(sparse, tmp_path / "run")["step"] == result["step"]
    telemetry, whole = (lnjax.open(p).telemetry for p in (tmp_path / "run", path))
    last = result["step"] - 1
    assert telemetry.step.values.tolist() == [0, last]
    found, expected = (data.sel(step=last) for data in (telemetry, whole))
    for name in ("loss", "gradient_norm", "weight_norm"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
    # What was not computed is not there; zeros would be numbers.
    for name in ("gradient_l2", "weight_l2", "activation_rms", "cosine", "output_backward_l2"):
        assert np.isnan(found[name]).all() and np.isfinite(telemetry[name].sel(step=0)).any()
    assert (expected.weight_l2 > 0).any()


def test_the_last_good_state_is_kept(diverged):
    _, path, result = diverged
    state = lnjax.open(path).state()
    assert state["step"] == result["step"] - 1
    assert all(np.isfinite(x).all() for x in state["params"]["blocks_0"]["mlp"]["in"].values())


def test_a_diverged_run_is_not_run_again(diverged, monkeypatch):
    config, path, result = diverged

    def runner(_):
        raise AssertionError("a diverged run was run again")

    monkeypatch.setattr(loop, "runner", runner)
    assert train(config, path) == result
    assert "diverged" in repr(lnjax.open(path))


def test_signals_are_noted_and_the_handlers_given_back():
    import signal

    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested and stop.name == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # impatient: at once
    assert signal.getsignal(signal.SIGTERM) is before
