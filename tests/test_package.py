"""The face of the package."""

import subprocess
import sys

import pytest

import lnjax


def test_every_public_name_resolves():
    for name in lnjax.__all__:
        assert getattr(lnjax, name) is not None


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match="ModelConfig"):
        lnjax.Transfomer  # noqa: B018


def test_import_loads_nothing_heavy():
    code = "import sys, lnjax; print([m for m in {names} if m in sys.modules])"
    heavy = ["jax", "flax", "orbax", "pandas", "xarray", "matplotlib", "tokenizers"]
    done = subprocess.run(
        [sys.executable, "-c", code.format(names=heavy)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
