"""Where workers run: one per core of a CPU, one per GPU, one for all the chips of a TPU host."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass, field

_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "libtpu")


@dataclass(frozen=True)
class Place:
    """Room for one worker.

    Attributes:
      core: what it is pinned to, None for no pinning.
      environment: variables that show it its device and no other.
    """

    core: int | None = None
    environment: dict[str, str] = field(default_factory=dict)


def places() -> list[Place]:
    """The places of this machine, for the JAX that is installed and JAX_PLATFORMS."""
    backend, count = _backend()
    if backend == "cpu":
        return [Place(core) for core in _cores()]
    if backend == "gpu":
        # Every process would take most of the memory of all the GPUs that it sees.
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = [name for name in seen.split(",") if name] or [str(i) for i in range(count)]
        return [Place(environment={"CUDA_VISIBLE_DEVICES": name}) for name in names[:count]]
    return [Place()]


def _cores() -> list[int | None]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return [None] * (os.cpu_count() or 1)


def _backend() -> tuple[str, int]:
    """JAX's backend and its local devices, found out without taking hold of an accelerator."""
    if os.environ.get("JAX_PLATFORMS", "") == "cpu" or not any(
        importlib.util.find_spec(name) for name in _PLUGINS
    ):
        return "cpu", 1
    ask = "import jax; print(jax.default_backend(), jax.local_device_count())"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"JAX finds no device to run on:\n{done.stderr.strip()}")
    backend, count = done.stdout.split()[-2:]
    return backend, int(count)
