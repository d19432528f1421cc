"""A worker process: trains the runs that it is handed, one after the other.

    python -m lnjax.sweeps.worker [core] < jobs

Jobs are JSON lines {"config": ..., "workdir": ...} on standard input, the configuration pickled in
base64; events are JSON lines on standard output. When the input ends, or a signal comes, the
current run saves and stops. A core is what the process is pinned to.
"""

import base64
import json
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from typing import Any

REPORT_SECONDS = 0.5


def main() -> None:
    """Serve jobs until standard input ends."""
    # The protocol keeps standard output to itself: what libraries print goes to standard error.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(**event: Any) -> None:
        try:
            print(json.dumps(event), file=out)
        except BrokenPipeError:
            # Nobody listens any more: that must not keep the run from being saved.
            os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())

    jobs: queue.Queue = queue.Queue()
    threading.Thread(target=_receive, args=(jobs,), daemon=True).start()
    from absl import logging

    from lnjax.training.loop import train

    logging.set_verbosity(logging.ERROR)
    tell(event="ready")
    while (job := jobs.get()) is not None:
        last = [0.0]

        def report(metrics: dict[str, Any], last=last) -> None:
            if time.monotonic() - last[0] > REPORT_SECONDS:
                last[0] = time.monotonic()
                tell(event="step", step=metrics["step"], loss=metrics["loss"])

        try:
            config = pickle.loads(base64.b64decode(job["config"]))
            result = train(config, job["workdir"], report=report)
            tell(event="done", result=result)
            if result["status"] == "interrupted":
                break
        except Exception as error:
            traceback.print_exc()
            tell(event="failed", error=f"{type(error).__name__}: {error}")


def _receive(jobs: queue.Queue) -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    jobs.put(None)
    # Nobody listens any more: let the loop save and stop.
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started this to pass on
    if len(sys.argv) > 1:  # while there is one thread, and before XLA counts the cores
        os.sched_setaffinity(0, {int(sys.argv[1])})
    main()
