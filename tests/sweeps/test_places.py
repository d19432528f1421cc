"""Workers share out what the machine has."""

import pytest

from lnjax.sweeps import places as module
from lnjax.sweeps.places import Place, places


@pytest.fixture
def backend(monkeypatch):
    def pretend(name: str, count: int) -> None:
        monkeypatch.setattr(module, "_backend", lambda: (name, count))

    return pretend


def test_a_worker_per_core(backend, monkeypatch):
    backend("cpu", 1)
    monkeypatch.setattr(module, "_cores", lambda: [2, 5])
    assert places() == [Place(2), Place(5)]


@pytest.mark.parametrize(("seen", "names"), [("", ["0", "1"]), ("3,GPU-7", ["3", "GPU-7"])])
def test_a_worker_per_gpu_sees_that_one_alone(backend, monkeypatch, seen, names):
    backend("gpu", 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert places() == [Place(environment={"CUDA_VISIBLE_DEVICES": name}) for name in names]


def test_one_worker_for_a_tpu_host(backend):
    backend("tpu", 8)
    assert places() == [Place()]


def test_without_an_accelerators_plugin_no_process_is_asked(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(module.subprocess, "run", None)
    assert module._backend() == ("cpu", 1)


def test_jax_is_asked_in_another_process(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert module._backend()[0] in ("cpu", "gpu", "tpu")
    monkeypatch.setenv("JAX_PLATFORMS", "no_such_platform")
    with pytest.raises(RuntimeError, match="no device"):
        module._backend()
