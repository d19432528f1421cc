"""A worker process: trains the runs that it is handed, one after the other.

    python -m lnjax.sweeps.worker < jobs

Jobs are JSON lines {"config": ..., "workdir": ...} on standard input, events JSON lines on
standard output. When the input ends, or a signal comes, the current run saves and stops.
"""

import json
import os
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
        print(json.dumps(event), file=out)

    jobs: queue.Queue = queue.Queue()
    threading.Thread(target=_receive, args=(jobs,), daemon=True).start()
    from absl import logging

    from lnjax.training.config import Config
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
            result = train(Config.from_dict(job["config"]), job["workdir"], report=report)
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
    main()
