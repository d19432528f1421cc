"""What counts as training time."""

import math
import time

import pytest
from small_runs import quick_compile, small  # noqa: F401

from lnjax.training import loop, speed
from lnjax.training.loop import Session, train
from lnjax.training.speed import Speed


def test_the_first_step_and_pauses_do_not_count(monkeypatch):
    now = iter([10.0, 12.0, 15.0, 115.0, 116.0])
    monkeypatch.setattr(speed.time, "monotonic", lambda: next(now))
    measured = Speed()
    measured.finished_step()  # at 10, compiled
    assert math.isnan(measured.steps_per_second)
    measured.finished_step()  # at 12
    with measured.paused():  # from 15 to 115
        pass
    measured.finished_step()  # at 116
    assert (measured.steps, measured.seconds) == (2, 6.0)
    assert measured.steps_per_second == 2 / 6


def test_earlier_sittings_count(monkeypatch):
    now = iter([100.0, 103.0])
    monkeypatch.setattr(speed.time, "monotonic", lambda: next(now))
    measured = Speed(2, 5.0)
    assert measured.steps_per_second == 0.4
    measured.finished_step()
    measured.finished_step()
    assert (measured.steps, measured.seconds) == (3, 8.0)


def test_a_run_leaves_out_compiling_evaluations_and_checkpoints(tmp_path, monkeypatch):
    config = small(training={"evaluate_every": 2, "checkpoint_every": 2, "telemetry": False})
    tokens = config.data.batch_size * config.data.sequence_length
    evaluate = Session.evaluate

    def slow(*arguments):
        time.sleep(0.5)
        return evaluate(*arguments)

    monkeypatch.setattr(Session, "evaluate", slow)
    reports = []
    result = train(config, tmp_path / "run", report=reports.append)
    timed = 5 * tokens / result["tokens_per_second"]
    assert timed < result["wall_seconds"] - 1.4  # three evaluations
    assert [r["step"] for r in reports] == [1, 2, 3, 4, 5, 6]
    assert all(r["tokens_per_second"] > 0 for r in reports)
    assert reports[-1]["tokens_per_second"] == pytest.approx(result["tokens_per_second"])


def test_a_run_of_one_step_has_no_speed(tmp_path):
    config = small(data={"evaluation_batches": 0}, training={"telemetry": False})
    assert train(config, tmp_path / "run", stop_at=1)["tokens_per_second"] is None
    result = train(config, tmp_path / "run", stop_at=3)  # one step of these two is the first
    saved = loop.records.read_result(tmp_path / "run")
    assert result["tokens_per_second"] == saved["tokens_per_second"] > 0
