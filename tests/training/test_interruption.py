"""SIGTERM and SIGINT end a run after the current step; it goes on as if nothing had been."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import assert_same_run, quick_compile, small  # noqa: F401

from lnjax.training.loop import train

SCRIPT = """
import sys, time
import jax
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)
from test_interruption import CONFIG
from lnjax.training.loop import train

def report(progress):
    print(progress["step"], flush=True)
    time.sleep(0.1)

print(train(CONFIG, sys.argv[1], report=report)["status"])
"""
CONFIG = small(training={"steps": 40, "evaluate_every": 7, "checkpoint_every": 5, "log_every": 2})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of an uninterrupted run."""
    path = tmp_path_factory.mktemp("whole") / "run"
    assert train(CONFIG, path)["status"] == "finished"
    return path


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_interrupts_and_the_run_goes_on(whole, tmp_path, name):
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), str(here.parent.parent)]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        for line in process.stdout:
            if line.strip() == "3":
                process.send_signal(getattr(signal, name))
                break
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert out.strip().endswith("interrupted")
    result = train(CONFIG, tmp_path / "run", stop_at=0)  # nothing is computed
    assert 4 <= result["step"] < 40
    train(CONFIG, tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)
