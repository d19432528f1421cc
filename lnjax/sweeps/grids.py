"""Grids of runs as plain data."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnjax.training.config import Config

Overrides = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Member:
    """One run of a grid.

    Attributes:
      label: what it is called in tables; members that share it differ in learning rate and seed.
      config: its configuration.
      workdir: its directory.
    """

    label: str
    config: Config
    workdir: Path

    @property
    def program(self) -> Config:
        """Equal for members that share their compiled programs."""
        return self.config.program


def merged(*overrides: Mapping[str, Mapping[str, Any]]) -> Overrides:
    """Overrides put together, section by section; the later ones win."""
    result: Overrides = {}
    for part in overrides:
        for section, fields in part.items():
            result.setdefault(section, {}).update(fields)
    return result


def product(*axes: Iterable[Mapping[str, Mapping[str, Any]]]) -> list[Overrides]:
    """Every combination of one element of each axis.

    product([{"optimizer": {"learning_rate": x}} for x in (1e-3, 3e-3)],
            [{"training": {"seed": s}} for s in range(3)]) has six elements.
    """
    return [merged(*combination) for combination in itertools.product(*axes)]


def choices(section: str, field: str, values: Sequence[Any]) -> list[Overrides]:
    """One axis of a grid: a field and its values."""
    return [{section: {field: value}} for value in values]
