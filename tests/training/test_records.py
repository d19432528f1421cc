"""Where and when a run was trained."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from small_runs import quick_compile, small  # noqa: F401

import lnjax
from lnjax.training import records


def git(directory, *arguments):
    settings = ["-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run(["git", *settings, *arguments], cwd=directory, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Someone's git repository; gives a function that puts the package into a folder of it."""
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "theirs")

    def install(folder):
        monkeypatch.setattr(records, "__file__", str(tmp_path / folder / "lnjax/training/x.py"))
        Path(records.__file__).parent.mkdir(parents=True)

    return install


def test_the_commit_of_the_own_checkout(project):
    project(".")
    assert len(records.commit()) >= 7


def test_another_projects_commit_is_not_ours(project):
    project("venv/lib/site-packages")
    assert records.commit() == ""


def test_no_repository_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(records, "__file__", str(tmp_path / "lnjax/training/records.py"))
    assert records.commit() == ""  # the folder is missing, too
    (tmp_path / "lnjax").mkdir()
    assert records.commit() == ""


def test_every_sitting_is_kept(tmp_path, monkeypatch):
    config = small()
    for commit, version in (("aaa", "1"), ("bbb", "2"), ("ccc", "3")):
        monkeypatch.setattr(records, "commit", lambda commit=commit: commit)
        monkeypatch.setattr(records, "versions", lambda version=version: {"jax": version})
        records.write_config(tmp_path, config, {"source": "markov"})
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["commit"] == "aaa" and record["versions"] == {"jax": "1"}
    sittings = record["sittings"]
    assert [s["commit"] for s in sittings] == ["aaa", "bbb", "ccc"]
    assert [s["versions"]["jax"] for s in sittings] == ["1", "2", "3"]
    assert all(s["devices"] == record["devices"] for s in sittings)
    assert all(recent(s["date"]) for s in sittings)


def recent(date: str) -> bool:
    """An ISO date in UTC, of the last minutes."""
    assert date.endswith("+00:00")
    return abs(datetime.now(UTC) - datetime.fromisoformat(date)) < timedelta(minutes=10)


def test_a_result_says_when_it_ended(tmp_path):
    records.write_result(tmp_path, small(), evaluations=[], status="finished", step=6)
    assert recent(records.read_result(tmp_path)["date"])


def test_a_run_in_two_sittings_names_both(tmp_path):
    config = small(training={"telemetry": False})
    lnjax.train(config, tmp_path / "run", stop_at=2)
    lnjax.train(config, tmp_path / "run", stop_at=3)
    assert len(lnjax.open(tmp_path / "run").record["sittings"]) == 2
