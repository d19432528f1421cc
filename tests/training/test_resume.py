"""A run in several sittings is the run in one: state, history and result."""

import json
import shutil

import numpy as np
import pytest
from small_runs import assert_same_run, lasting, quick_compile, small  # noqa: F401

import lnjax
from lnjax.data import open_dataset
from lnjax.training import loop
from lnjax.training.config import Config
from lnjax.training.loop import train


def config_of(parallel: str) -> Config:
    """Eight steps; evaluations, checkpoints and the ends of sittings fall on different steps."""
    training = {
        "parallel": parallel,
        "steps": 8,
        "log_every": 1,
        "evaluate_every": 3,
        "checkpoint_every": 2,
        "keep": 2,
    }
    return small(training=training)


@pytest.fixture(scope="module", params=["jit", "pmap"])
def whole(request, tmp_path_factory):
    """A configuration, and the directory of its uninterrupted run."""
    path = tmp_path_factory.mktemp(request.param) / "whole"
    result = train(config_of(request.param), path)
    assert (result["status"], result["step"]) == ("finished", 8)
    return config_of(request.param), path


class Crash(Exception):
    """What ends a sitting without warning."""


@pytest.mark.parametrize("stops", [(4,), (1, 3, 6)])
def test_stopping_and_going_on(whole, tmp_path, stops):
    config, path = whole
    for stop in stops:
        result = train(config, tmp_path / "run", stop_at=stop)
        assert (result["status"], result["step"]) == ("interrupted", stop)
        assert result["evaluation_loss"] is None or stop >= 3
        assert str(stop) in result["reason"]
    assert train(config, tmp_path / "run")["status"] == "finished"
    assert_same_run(tmp_path / "run", path)
    telemetry = lnjax.open(path).telemetry
    assert telemetry.step.values.tolist() == list(range(8))
    assert telemetry.evaluation_step.values.tolist() == [3, 6, 8]


@pytest.mark.parametrize("crash", [1, 5, 7])
def test_a_crash_costs_only_what_came_after_the_checkpoint(whole, tmp_path, crash):
    config, path = whole

    def report(progress):
        if progress["step"] == crash:
            raise Crash

    with pytest.raises(Crash):
        train(config, tmp_path / "run", report=report)
    assert lnjax.open(tmp_path / "run").result is None
    train(config, tmp_path / "run")
    assert_same_run(tmp_path / "run", path)


def test_a_crash_while_reading_data(whole, tmp_path, monkeypatch):
    config, path = whole
    dataset = open_dataset(config.data)
    batch = type(dataset).batch

    def broken(self, seed, k):
        if k == 5:
            raise Crash
        return batch(self, seed, k)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(type(dataset), "batch", broken)
        train(config, tmp_path / "run")
    train(config, tmp_path / "run")
    assert_same_run(tmp_path / "run", path)


def test_history_without_its_state_is_computed_again(whole, tmp_path):
    """A crash between the writing of the history and that of the state."""
    config, path = whole
    run = tmp_path / "run"
    train(config, run, stop_at=6)
    shutil.rmtree(run / "checkpoints" / "state" / "6")
    block = run / "checkpoints" / "telemetry" / "6"
    assert block.is_dir()
    train(config, run)
    assert_same_run(run, path)


def test_a_crash_before_the_result_was_written(whole, tmp_path):
    config, path = whole
    run = tmp_path / "run"
    shutil.copytree(path, run)
    (run / "result.json").unlink()
    train(config, run)
    assert_same_run(run, path)


def test_a_finished_run_is_returned_without_computing(whole, monkeypatch):
    config, path = whole

    def runner(_):
        raise AssertionError("a finished run was run")

    monkeypatch.setattr(loop, "runner", runner)
    result = train(config, path)
    assert result == json.loads((path / "result.json").read_text())


def test_another_configuration_is_refused(whole):
    config, path = whole
    for fields, message in (
        ({"optimizer": {"learning_rate": 0.5}}, r"optimizer.learning_rate: 0.01 -> 0.5"),
        ({"training": {"seed": 3}}, r"training.seed: 0 -> 3"),
        ({"model": {"placement": "post_ln"}}, r"model.placement: 'pre_ln' -> 'post_ln'"),
    ):
        with pytest.raises(ValueError, match=message):
            train(config.with_(**fields), path)


def test_a_placement_of_the_same_name_with_another_equation_is_refused(whole):
    config, path = whole
    impostor = lnjax.placements.get("post_ln").with_(name="pre_ln")
    with pytest.raises(ValueError, match=r"(?s)equations before:\s+x ← E.*now:\s+x ← E"):
        train(config.with_(model={"placement": impostor}), path)


def test_a_changed_corpus_is_refused(tmp_path, monkeypatch):
    text = tmp_path / "corpus.txt"
    text.write_text("the old text\n" * 200)
    data = {"source": "text", "path": str(text), "vocab_size": 0, "sequence_length": 8}
    config = small(data=data, training={"steps": 1})

    def stop(_):
        raise Crash

    loop.records.write_config(tmp_path / "run", config, open_dataset(config.data).fingerprint)
    text.write_text("the new text\n" * 200)
    monkeypatch.setattr(loop, "runner", stop)
    with pytest.raises(ValueError, match="data.sha256: '.*' -> '.*'"):
        train(config, tmp_path / "run")
    text.write_text("the old text\n" * 200)
    with pytest.raises(Crash):  # the old corpus is accepted
        train(config, tmp_path / "run")


def test_the_number_of_devices_is_not_part_of_a_run(whole, tmp_path):
    """What pmap saved, jit continues, and the other way around."""
    config, path = whole
    other = {"jit": "pmap", "pmap": "jit"}[config.training.parallel]
    train(config, tmp_path / "run", stop_at=4)
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    changed = config.with_(training={"parallel": other})
    record |= {"config": changed.to_dict(), "hash": changed.fingerprint()}
    (tmp_path / "run" / "config.json").write_text(json.dumps(record))
    result = train(changed, tmp_path / "run")
    expected = lasting(lnjax.open(path).result)
    assert result["status"] == "finished"
    np.testing.assert_allclose(result["final_loss"], expected["final_loss"], rtol=1e-4)
    a, b = lnjax.open(tmp_path / "run").telemetry, lnjax.open(path).telemetry
    np.testing.assert_allclose(a.weight_l2, b.weight_l2, rtol=1e-4)
    assert a.step.equals(b.step) and a.evaluation_step.equals(b.evaluation_step)
