"""One run over two processes that meet through jax.distributed, as on two hosts."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from small_runs import assert_close, quick_compile  # noqa: F401

import lnjax
from lnjax.telemetry.statistics import Layout
from lnjax.training.checkpoints import Checkpoints, saved_steps
from lnjax.training.config import Config
from lnjax.training.loop import train
from lnjax.training.parallel import JitRunner

ROOT = Path(__file__).parents[2]
FIELDS = {
    "model": {"depth": 1, "width": 16, "heads": 2, "mlp_width": 24, "norm": "rmsnorm"}
    | {"bias": False, "dtype": "float64", "param_dtype": "float64"},
    "data": {"source": "markov", "vocab_size": 11, "sequence_length": 8, "batch_size": 8}
    | {"evaluation_batches": 1},
    "optimizer": {"learning_rate": 3e-3, "warmup": 2, "eps": 1e-4},
    # Saved so often that a signal finds the run under way.
    "training": {"steps": 16, "log_every": 2, "evaluate_every": 0, "checkpoint_every": 2},
}
# Watching takes longer to compile, and is the same program under jit.
WATCHED = {"jit": False, "pmap": True}
SECONDS = 80


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The run in one process."""
    path = tmp_path_factory.mktemp("one") / "run"
    with jax.enable_x64(True):
        train(Config.from_dict(FIELDS), path)
    return lnjax.open(path)


def start(workdir: Path, parallel: str) -> list[subprocess.Popen]:
    """The two processes of a run, of two devices each."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    fields = [f"--config.{s}.{k}={v}" for s, given in FIELDS.items() for k, v in given.items()]
    command = [sys.executable, "-m", "experiments.train", f"--workdir={workdir}", *fields]
    command += [f"--config.training.parallel={parallel}"]
    command += [f"--config.training.telemetry={WATCHED[parallel]}"]
    command += ["--distributed", "--processes=2", f"--coordinator=localhost:{port}"]
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_ENABLE_X64": "1"}
    env |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return [
        subprocess.Popen(
            [*command, f"--process={i}"],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]


def outcome(processes) -> tuple[list[int], str]:
    """Exit codes, and all that was printed; those that hang are ended."""
    printed = []
    for process in processes:
        try:
            printed.append(process.communicate(timeout=SECONDS)[0])
        except subprocess.TimeoutExpired:
            process.kill()
            printed.append(process.communicate()[0] + "\n(hung)")
    return [process.returncode for process in processes], "\n".join(printed)


def wait_for_a_state(workdir: Path, processes) -> None:
    """Wait until one is saved, while the processes run."""
    end = time.monotonic() + SECONDS
    while not saved_steps(workdir / "checkpoints" / "state"):
        if time.monotonic() > end or any(process.poll() is not None for process in processes):
            raise AssertionError(f"no state was saved:\n{outcome(processes)}")
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_two_hosts_train_as_one_process_does(tmp_path, one, parallel):
    """Stopped by a signal that one of them gets, and continued."""
    steps = FIELDS["training"]["steps"]
    processes = start(tmp_path / "two", parallel)
    wait_for_a_state(tmp_path / "two", processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, printed = outcome(processes)
    two = lnjax.open(tmp_path / "two")
    assert codes[0] == 128 + signal.SIGTERM and codes[1] in (0, codes[0]), printed
    assert (two.result["status"], two.result["reason"]) == ("interrupted", "SIGTERM")
    assert 2 <= two.result["step"] < steps

    codes, printed = outcome(start(tmp_path / "two", parallel))
    assert codes == [0, 0], printed
    two = lnjax.open(tmp_path / "two")
    assert (two.result["status"], two.result["step"]) == ("finished", steps)
    sittings = [sitting["devices"] for sitting in two.record["sittings"]]
    assert [(here["processes"], here["count"]) for here in sittings] == [(2, 4), (2, 4)]

    # Sums over devices are taken in another order.
    assert_close(two.state(), one.state(), 1e-10, 1e-12)
    assert two.telemetry.step.equals(one.telemetry.step)
    names = ("loss", "gradient_l2", "weight_l2", "activation_rms", "backward_l2", "cosine")
    for name in names if WATCHED[parallel] else ("loss", "gradient_norm"):
        assert_close(two.telemetry[name].values, one.telemetry[name].values, 1e-5, 1e-7)

    # What two processes saved, one can go on with, on other devices.
    runner = JitRunner(Config.from_dict(two.config), jax.devices()[:1])
    layout = Layout.of(runner.abstract.params)
    with Checkpoints(tmp_path / "two", 1, layout) as checkpoints:
        state, _ = checkpoints.restore(steps, runner.abstract)
    assert_close(state.params, two.state()["params"], 0.0)
