"""Runs the members of a grid on this machine: one pinned single-core worker per core, or one per
accelerator.

On CPU this is faster than one program with many threads, and faster than many runs in one program.
Finished members are not touched again, interrupted ones continue.
"""

import base64
import json
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lnjax import placements
from lnjax.sweeps.grids import Member
from lnjax.sweeps.places import Place, places
from lnjax.training import records

Event = dict[str, Any]


@dataclass
class _Worker:
    """A worker process and what it is doing."""

    process: subprocess.Popen
    listener: threading.Thread
    place: Place
    ready: bool = False
    job: Member | None = None
    program: Any = None


class WorkerError(RuntimeError):
    """A run failed, or its worker died. The other members are not affected."""


def run_local(
    members: Sequence[Member],
    *,
    workers: int = 0,
    environment: Mapping[str, str] | None = None,
    report: Callable[[Member, Event], None] = lambda *_: None,
) -> dict[str, dict[str, Any]]:
    """Train all members.

    Args:
      members: the grid.
      workers: processes; 0 is one per core that this process may use, or per accelerator.
      environment: of the workers; None is this process's.
      report: called with a member and an event: {"event": "start" | "step" | "done" | "failed"}.

    Returns:
      Result by workdir, of the members that have one.

    Raises:
      ValueError: two members share a directory; a finished one was trained with another
        configuration or placement; or a placement cannot be sent to another process.
      WorkerError: runs failed; the message has the first error. All others were carried on with.
      KeyboardInterrupt: asked to stop; the runs under way were saved.
    """
    _check_distinct(members)
    results: dict[str, dict[str, Any]] = {}
    waiting: list[Member] = []
    for member in members:
        done = records.read_result(member.workdir)
        if done is not None and done["status"] in ("finished", "diverged"):
            records.check_config(member.workdir, member.config)
            results[str(member.workdir)] = done
            report(member, {"event": "done", "result": done, "before": True})
        else:
            _packed(member)
            waiting.append(member)
    if not waiting:
        return results
    room = places()
    count = min(workers or len(room), len(waiting))
    events: queue.Queue = queue.Queue()
    pool: list[_Worker] = []
    failures: list[str] = []

    def fail(member: Member, error: str) -> None:
        failures.append(f"{member.workdir}: {error}")
        report(member, {"event": "failed", "error": error})

    try:
        for i in range(count):
            pool.append(_start(i, room[i % len(room)], environment, events))
        active, code = count, 0
        while active:
            index, event = events.get()
            worker, kind = pool[index], event["event"]
            if kind == "step":
                report(worker.job, event)
            elif kind == "exit":
                active, code = active - 1, event["code"]
                if worker.job is not None:
                    fail(worker.job, f"its worker died ({code})")
                if waiting and worker.ready:
                    pool.append(_start(len(pool), worker.place, environment, events))
                    active += 1
            else:
                job, worker.job, worker.ready = worker.job, None, True
                if kind == "done":
                    results[str(job.workdir)] = event["result"]
                    report(job, event)
                elif kind == "failed":
                    fail(job, event["error"])
                if kind != "done" or event["result"]["status"] != "interrupted":
                    _next_job(worker, waiting, report)  # who was interrupted leaves
        for member in waiting:
            fail(member, f"no worker could start ({code})")
    finally:
        # Closing its input tells a worker to save and stop.
        for worker in pool:
            _close(worker)
        for worker in pool:
            worker.process.wait()
            worker.listener.join()
    if failures:
        raise WorkerError(
            f"{len(failures)} of {len(members)} runs failed; run the same command again to retry "
            f"them. The first: {failures[0]}"
        )
    return results


def _check_distinct(members: Sequence[Member]) -> None:
    seen = set()
    for member in members:
        path = os.path.abspath(member.workdir)
        if path in seen:
            raise ValueError(f"two members of the grid have the same workdir: {member.workdir}")
        seen.add(path)


def _packed(member: Member) -> str:
    """The configuration as text for another process, with the catalogue's placements by name."""
    config, placed = member.config, member.config.model.placed
    given = not isinstance(config.model.placement, str)
    if given and placed.name in placements.names() and placements.get(placed.name) == placed:
        config = config.with_(model={"placement": placed.name})
    try:
        return base64.b64encode(pickle.dumps(config)).decode()
    except Exception as error:
        raise ValueError(
            f"{member.workdir}: a worker cannot take the placement {placed.name!r} ({error}): "
            "define its functions with def, at the top of a module"
        ) from error


def _next_job(worker: _Worker, waiting: list[Member], report) -> None:
    """Hand out a run, one that shares the compiled programs of the worker's last if there is."""
    if not waiting:
        _close(worker)
        return
    same = [m for m in waiting if m.program == worker.program]
    if same:
        job = same[0]
    else:
        # The program with the most runs left: the last ones to be handed out should be short.
        counts = {m.program: 0 for m in waiting}
        for m in waiting:
            counts[m.program] += 1
        job = max(waiting, key=lambda m: counts[m.program])
    waiting.remove(job)
    worker.job, worker.program = job, job.program
    line = {"config": _packed(job), "workdir": str(job.workdir)}
    report(job, {"event": "start"})
    try:
        worker.process.stdin.write(json.dumps(line) + "\n")
        worker.process.stdin.flush()
    except BrokenPipeError:
        pass  # its exit event follows


def _start(index: int, place: Place, environment, events: queue.Queue) -> _Worker:
    core = [] if place.core is None else [str(place.core)]
    process = subprocess.Popen(
        [sys.executable, "-m", "lnjax.sweeps.worker", *core],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ if environment is None else environment) | place.environment,
    )

    def listen() -> None:
        with process.stdout:
            for line in process.stdout:
                if line.endswith("\n"):  # not cut off by the worker's death
                    events.put((index, json.loads(line)))
        events.put((index, {"event": "exit", "code": process.wait()}))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    return _Worker(process, listener, place)


def _close(worker: _Worker) -> None:
    try:
        worker.process.stdin.close()
    except BrokenPipeError:
        pass
