"""The benchmarks run at tiny sizes and write what they print."""

import json
import os
import subprocess
import sys

import pytest

from experiments import environment
from experiments.benchmarks import depth, measure, throughput, torch_baseline

TINY = ["--width=8", "--heads=2", "--time=8", "--batch=1"]


def test_steps_take_turns_and_the_order_turns_around():
    calls = []
    steps = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    samples = measure.interleave(steps, rounds=2, warmup=1)
    assert "".join(calls) == "baabba"
    assert [len(s.wall) for s in samples.values()] == [2, 2]


def test_a_step_that_returns_seconds_has_timed_itself():
    samples = measure.interleave({"a": lambda: (7.0, 5.0)}, rounds=2)["a"]
    assert (samples.wall, samples.cpu) == ([7.0, 7.0], [5.0, 5.0])


def test_paired_ratio_is_taken_round_by_round():
    assert measure.paired_ratio([2.0, 40.0, 3.0], [1.0, 10.0, 1.0]) == 3.0


def test_throughput_compares_telemetry_on_and_off(tmp_path):
    out = tmp_path / "deeper" / "throughput.json"
    forms = ["--forms", "scan+remat"]
    more = ["--dtype=bfloat16", "--vocab=300", "--peak-tflops=1", "--no-peak"]
    throughput.main([*TINY, "--depth=2", "--rounds=2", *more, *forms, f"--out={out}"])
    written = json.loads(out.read_text())
    assert {"date", "hardware", "commit", "versions"} <= set(written["provenance"])
    off, on = written["variants"]
    assert (off["telemetry"], on["telemetry"]) == (False, True)
    assert off["telemetry_ratio"] == 1.0 and on["telemetry_ratio"] > 0
    assert off["tokens_per_second"] == pytest.approx(8 / off["step_seconds"])
    assert on["temporary_bytes"] > 0
    # Tied table, four square and two fourfold matrices a block with their biases, norms.
    parameters = 300 * 8 + 2 * (4 * 8 * 8 + 4 * 8 + 2 * 4 * 8 * 8 + 5 * 8 + 4 * 8) + 2 * 8
    flops = (6 * parameters + 12 * 2 * 8 * 8) * 8
    assert on["mfu"] == pytest.approx(flops / on["step_seconds"] / 1e12)


def test_depth_measures_in_a_process_of_its_own(tmp_path):
    out = tmp_path / "depth.json"
    depth.main([*TINY, "--depths", "3", "--steps=1", f"--out={out}"])
    (record,) = json.loads(out.read_text())["depths"]
    assert record["depth"] == 3
    # The peak is that of a process that has loaded JAX, in bytes and not in KiB.
    assert 1e8 < record["peak_bytes"] < 1e11
    assert record["compile_seconds"] > 0


def test_peak_memory_is_not_inherited_from_the_process_that_asks():
    ballast = bytearray(1 << 30)
    ballast[::4096] = b"x" * len(ballast[::4096])
    sections = measure.configuration("scan", False, depth=1, width=8, heads=2, time=8, batch=1)
    assert measure.in_own_process(sections, steps=1)["peak_bytes"] < len(ballast)


def test_a_failing_process_tells_why():
    sections = measure.configuration("scan", False, depth=1, width=8, heads=3, time=8, batch=1)
    with pytest.raises(RuntimeError, match="not a multiple of model.heads"):
        measure.in_own_process(sections)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's tunable")
def test_huge_pages_keep_what_the_user_chose():
    assert environment.huge_pages({})["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    once = environment.huge_pages({"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"})
    assert once["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1"
    assert environment.huge_pages(once) == once
    chosen = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    assert environment.huge_pages(chosen) == chosen


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's tunable")
def test_restart_runs_the_same_command_once_more():
    program = (
        "import os, sys; from experiments import environment; print('start', flush=True); "
        "environment.restart_with_huge_pages(); print(os.environ['GLIBC_TUNABLES'], sys.argv[1:])"
    )
    env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", program, "--flag", "two words"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    expected = ["start", "start", "glibc.malloc.hugetlb=1 ['--flag', 'two words']"]
    assert done.stdout.splitlines() == expected


def test_torch_baseline_tells_how_to_get_torch(tmp_path, capsys):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(SystemExit) as stopped:
        torch_baseline.main([f"--torch-python={python}"])
    assert stopped.value.code == 2
    assert "pip install torch" in capsys.readouterr().err
