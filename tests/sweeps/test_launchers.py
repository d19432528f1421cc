"""A grid over local workers: every way that a member can end, and starting again after each."""

import os
import subprocess
import threading
import time
from pathlib import Path

import jax
import psutil
import pytest
from small_runs import assert_same_run, lasting, quick_compile, small  # noqa: F401

import lnjax
from lnjax import placements
from lnjax.placements import N, Placement, Scale, Sublayer
from lnjax.sweeps.grids import Member, choices, merged
from lnjax.sweeps.launchers import WorkerError, run_local
from lnjax.training import loop
from lnjax.training.parallel import JitRunner

# The workers have what this process has, but one device and no compilation in common.
ENVIRONMENT = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
LONG = {"steps": 600, "log_every": 500, "evaluate_every": 0, "checkpoint_every": 0}
DIVERGING = {"name": "sgd", "learning_rate": 1e6, "warmup": 0, "clip": 0.0}


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Every test ends with the processes and threads that it began with."""
    threads, children = set(threading.enumerate()), set(psutil.Process().children(recursive=True))
    yield
    assert set(threading.enumerate()) <= threads
    assert set(psutil.Process().children(recursive=True)) <= children


def worker_processes() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [p for p in children if "lnjax.sweeps.worker" in p.cmdline()]


def member(workdir: Path, **sections) -> Member:
    return Member(workdir.name, small(**sections), workdir)


class Events:
    """Collects events by member; `on` acts on the first event of a name."""

    def __init__(self, **on):
        self.by_member: dict[str, list[dict]] = {}
        self._on = on

    def __call__(self, member: Member, event: dict) -> None:
        self.by_member.setdefault(member.label, []).append(event)
        act = self._on.pop(event["event"], None)
        if act is not None:
            act()

    def names(self, label: str) -> list[str]:
        return [event["event"] for event in self.by_member[label]]


def launch(members, report=lambda *_: None, workers=1):
    return run_local(members, workers=workers, environment=ENVIRONMENT, report=report)


def stand_in(monkeypatch, folder: Path, script: str) -> None:
    """Let a script of this test be the worker."""
    path, popen = folder / "worker.py", subprocess.Popen
    path.write_text(script)
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **options: popen([command[0], path], **options)
    )


def alone(config, workdir: Path, monkeypatch) -> dict:
    """The run by `train` in this process, on one device, as workers have."""
    monkeypatch.setattr(loop, "runner", lambda c: JitRunner(c, jax.devices()[:1]))
    return loop.train(config, workdir)


def test_a_grid_is_trained_and_not_again(tmp_path, monkeypatch):
    axes = [*choices("training", "seed", (0, 1)), {"optimizer": DIVERGING}]
    model = {"model": {"placement": "no_norm"}}
    grid = [member(tmp_path / str(i), **merged(x, model)) for i, x in enumerate(axes)]
    cores = []

    def look():
        cores.extend(tuple(process.cpu_affinity()) for process in worker_processes())

    events = Events(step=look if hasattr(psutil.Process, "cpu_affinity") else list)
    results = launch(grid, events, workers=2)
    assert all(len(core) == 1 for core in cores)
    if cores:
        assert len(set(cores)) == min(len(cores), len(os.sched_getaffinity(0)))

    assert set(results) == {str(m.workdir) for m in grid}
    statuses = [results[str(m.workdir)]["status"] for m in grid]
    assert statuses == ["finished", "finished", "diverged"]
    for m in grid:
        assert results[str(m.workdir)] == lnjax.open(m.workdir).result
        names, seen = events.names(m.label), events.by_member[m.label]
        assert names[0] == "start" and names[-1] == "done"
        assert set(names[1:-1]) == {"step"}
        steps = [event["step"] for event in seen[1:-1]]
        assert steps == sorted(set(steps)) and steps[0] >= 1
        assert seen[-1]["result"] == results[str(m.workdir)]

    for m in grid[:2]:
        alone(m.config, tmp_path / "alone" / m.label, monkeypatch)
        assert_same_run(m.workdir, tmp_path / "alone" / m.label)

    def popen(*_, **__):
        raise AssertionError("a worker was started for runs that are done")

    monkeypatch.setattr(subprocess, "Popen", popen)
    again = Events()
    assert launch(grid, again) == results
    assert all(again.names(m.label) == ["done"] for m in grid)
    assert all(again.by_member[m.label][0]["before"] for m in grid)

    changed = Member("0", grid[0].config.with_(optimizer={"learning_rate": 0.5}), grid[0].workdir)
    with pytest.raises(ValueError, match=r"optimizer.learning_rate: 0.01 -> 0.5"):
        launch([changed])


def test_a_failure_names_its_member_and_the_others_finish(tmp_path):
    """The others have placements of one's own: a new one, and one with a name that is taken."""
    (tmp_path / "a_file").write_text("here no directory can be")
    loop.train(small(), tmp_path / "changed", stop_at=0)
    row = Sublayer(pre=N, post=N)
    own = Placement("own", attention=row, mlp=row, final=N)
    impostor = placements.get("post_ln").with_(name="pre_ln")
    short = {"steps": 1, "telemetry": False}
    grid = [
        member(tmp_path / "a_file" / "bad"),
        member(tmp_path / "changed", optimizer={"learning_rate": 0.5}),
        member(tmp_path / "own", model={"placement": own}, training=short),
        member(tmp_path / "impostor", model={"placement": impostor}, training=short),
    ]
    events = Events()
    with pytest.raises(WorkerError, match=r"2 of 4 runs failed.*a_file.bad: \w+Error") as raised:
        launch(grid, events)
    assert "run the same command again" in str(raised.value)
    assert events.names("bad") == events.names("changed") == ["start", "failed"]
    assert "optimizer.learning_rate: 0.01 -> 0.5" in events.by_member["changed"][-1]["error"]
    for m in grid[2:]:
        run = lnjax.open(m.workdir)
        assert run.result["status"] == "finished"
        assert run.record["hash"] == m.config.fingerprint()


def test_what_was_stopped_goes_on(tmp_path, monkeypatch):
    """Ctrl-C in the process that runs the grid, SIGKILL for its worker; then the rest."""
    grid = [
        member(tmp_path / "long", training=LONG),
        member(tmp_path / "short", optimizer=DIVERGING),
    ]
    long, short = (str(m.workdir) for m in grid)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(grid, Events(step=interrupt))
    first = lnjax.open(long).result
    assert first["status"] == "interrupted" and 0 < first["step"] < LONG["steps"]

    killed = Events(step=lambda: worker_processes()[0].kill())
    with pytest.raises(WorkerError, match=r"1 of 2 runs failed.*long: its worker died \(-9\)"):
        launch(grid, killed)
    assert killed.names("long")[-1] == "failed"
    assert killed.by_member["long"][1]["step"] == first["step"] + 1  # it went on
    assert lnjax.open(short).result["status"] == "diverged"  # another worker took its place

    assert launch(grid)[long]["status"] == "finished"
    alone(grid[0].config, tmp_path / "alone", monkeypatch)
    assert_same_run(long, tmp_path / "alone")


def test_a_worker_that_was_told_to_stop_is_replaced(monkeypatch, tmp_path):
    """With a worker in this process's place: what it tells is what a stopped one tells."""
    script = (
        "import json, pathlib, sys\n"
        "mark = pathlib.Path(sys.argv[0]).with_name('stopped')\n"
        "print(json.dumps({'event': 'ready'}), flush=True)\n"
        "for line in sys.stdin:\n"
        "    status = 'finished' if mark.exists() else 'interrupted'\n"
        "    print(json.dumps({'event': 'done', 'result': {'status': status}}), flush=True)\n"
        "    if not mark.exists():\n"
        "        sys.exit(mark.write_text(''))\n"
        "print('{\"event\": \"cut o', end='')\n"
    )
    stand_in(monkeypatch, tmp_path, script)
    grid = [member(tmp_path / str(i)) for i in range(3)]
    events = Events()
    results = launch(grid, events)
    statuses = [results[str(m.workdir)]["status"] for m in grid]
    assert statuses == ["interrupted", "finished", "finished"]
    assert [events.names(m.label) for m in grid] == [["start", "done"]] * 3


def test_without_anyone_listening_a_worker_saves_and_stops(tmp_path, monkeypatch):
    """What is left of a worker when the process that runs the grid is killed."""
    opened = []
    popen = subprocess.Popen

    class Deaf(popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            opened.append(self)

    monkeypatch.setattr(subprocess, "Popen", Deaf)

    def vanish():
        (process,) = opened
        os.dup2(os.open(os.devnull, os.O_RDONLY), process.stdout.fileno())
        time.sleep(1.5)  # it reports twice a second, to nobody
        process.stdin.close()
        assert process.wait(timeout=60) == 0
        raise KeyboardInterrupt

    grid = [member(tmp_path / "run", training=LONG | {"steps": 100_000})]
    with pytest.raises(KeyboardInterrupt):
        launch(grid, Events(step=vanish))
    result = lnjax.open(tmp_path / "run").result
    assert result["status"] == "interrupted" and result["step"] > 0
    assert lnjax.open(tmp_path / "run").state()["step"] == result["step"]


def test_workers_that_cannot_start_are_told(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, "raise SystemExit(7)")
    grid = [member(tmp_path / str(i)) for i in range(3)]
    with pytest.raises(WorkerError, match=r"3 of 3 runs failed.*0: no worker could start \(7\)"):
        launch(grid, workers=2)


def test_what_no_worker_can_take_is_refused_before_anything_runs(tmp_path):
    row = Sublayer(pre=N, skip=Scale(lambda w: 1 / w.depth, symbol="a", formula="1/L"))
    own = Placement("own", attention=row, mlp=row, final=N)
    with pytest.raises(ValueError, match=r"placement 'own'.*at the top of a module"):
        launch([member(tmp_path / "run", model={"placement": own})])
    twice = [member(tmp_path / "run"), member(tmp_path / "." / "run", training={"seed": 1})]
    with pytest.raises(ValueError, match="the same workdir"):
        launch(twice)
    assert not (tmp_path / "run").exists()
