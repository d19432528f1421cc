"""What every test may rely on: eight simulated CPU devices, strict ranks, and no network."""

import os

# Environment variables besides `jax.config`, so that the scripts that tests start inherit them.
os.environ.setdefault(
    "JAX_PLATFORMS", "cpu"
)  # the oracles' tolerances are those of float32 on a CPU
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import jaxtyping
import pytest
from hypothesis import settings

jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# A first call compiles, which takes longer than any deadline is worth. CI draws the same examples
# on every run, so that its verdict depends on the commit alone.
settings.register_profile("lnjax", deadline=None, max_examples=25, derandomize="CI" in os.environ)
settings.load_profile("lnjax")


def pytest_configure(config: pytest.Config) -> None:
    """Keeps compiled programs in `.pytest_cache`, for the other workers and for the next run."""
    if not hasattr(config, "cache"):  # pytest -p no:cacheprovider
        return
    options = {
        "jax_compilation_cache_dir": str(config.cache.mkdir("jax")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in options.items():
        jax.config.update(name, value)
        os.environ.setdefault(name.upper(), str(value))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests marked `gpu` where JAX runs on something else."""
    if item.get_closest_marker("gpu") and jax.default_backend() != "gpu":
        pytest.skip("needs a GPU: make test EXTRAS=gpu JAX_PLATFORMS=cuda,cpu")


@pytest.fixture
def x64():
    """Lets one test compute in float64; everything else runs in JAX's default, float32."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def unchecked():
    """Switches the type checker off, for tests of what the package itself says of a wrong value."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
