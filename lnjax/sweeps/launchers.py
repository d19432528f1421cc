"""Runs the members of a grid on this machine: one pinned single-core worker per core.

On CPU this is faster than one program with many threads, and faster than many runs in one program.
Finished members are not touched again, interrupted ones continue.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lnjax.sweeps.grids import Member
from lnjax.training import records

Event = dict[str, Any]


@dataclass
class _Worker:
    """A worker process and what it is doing."""

    process: subprocess.Popen
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
      workers: processes; 0 is one per core that this process may use.
      environment: of the workers; None is this process's.
      report: called with a member and an event: {"event": "start" | "step" | "done" | "failed"}.

    Returns:
      Result by workdir, of the members that have one.

    Raises:
      WorkerError: runs failed; the message has the first error. All others were carried on with.
      KeyboardInterrupt: asked to stop; the runs under way were saved.
    """
    results: dict[str, dict[str, Any]] = {}
    waiting: list[Member] = []
    for member in members:
        done = records.read_result(member.workdir)
        if done is not None and done["status"] in ("finished", "diverged"):
            records.check_config(member.workdir, member.config)
            results[str(member.workdir)] = done
            report(member, {"event": "done", "result": done, "before": True})
        else:
            waiting.append(member)
    if not waiting:
        return results
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]
    if cores == [None]:
        cores = [None] * (os.cpu_count() or 1)
    count = min(workers or len(cores), len(waiting))
    events: queue.Queue = queue.Queue()
    pool = [_start(i, cores[i % len(cores)], environment, events) for i in range(count)]
    failures: list[str] = []
    try:
        active = count
        while active:
            index, event = events.get()
            worker = pool[index]
            if event["event"] == "step":
                report(worker.job, event)
                continue
            if event["event"] in ("done", "failed"):
                report(worker.job, event)
                if event["event"] == "done":
                    results[str(worker.job.workdir)] = event["result"]
                else:
                    failures.append(f"{worker.job.workdir}: {event['error']}")
                worker.job = None
            if event["event"] == "exit":
                active -= 1
                if worker.job is not None:
                    failures.append(f"{worker.job.workdir}: its worker died ({event['code']})")
                continue
            _next_job(worker, waiting, report)
    finally:
        # Closing its input tells a worker to save and stop.
        for worker in pool:
            _close(worker)
        for worker in pool:
            worker.process.wait()
    if failures:
        raise WorkerError(
            f"{len(failures)} of {len(members)} runs failed; run the same command again to retry "
            f"them. The first: {failures[0]}"
        )
    return results


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
    line = {"config": job.config.to_dict(), "workdir": str(job.workdir)}
    report(job, {"event": "start"})
    try:
        worker.process.stdin.write(json.dumps(line) + "\n")
        worker.process.stdin.flush()
    except BrokenPipeError:
        pass  # its exit event follows


def _start(index: int, core: int | None, environment, events: queue.Queue) -> _Worker:
    def pin() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})

    process = subprocess.Popen(
        [sys.executable, "-m", "lnjax.sweeps.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=None if environment is None else dict(environment),
        preexec_fn=pin,
    )

    def listen() -> None:
        for line in process.stdout:
            events.put((index, json.loads(line)))
        events.put((index, {"event": "exit", "code": process.wait()}))

    threading.Thread(target=listen, daemon=True).start()
    return _Worker(process)


def _close(worker: _Worker) -> None:
    try:
        worker.process.stdin.close()
    except BrokenPipeError:
        pass
