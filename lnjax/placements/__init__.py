"""Where the norm sits: the equation as data, the published rows, and the module that runs a row."""

from lnjax.placements.algebra import Init, InnerNorm, N, Placement, Scale, Slot, Sublayer, Where
from lnjax.placements.catalogue import CATALOGUE, get, mix_ln, names

__all__ = [
    "CATALOGUE",
    "Init",
    "InnerNorm",
    "N",
    "Placement",
    "Scale",
    "Slot",
    "Sublayer",
    "Where",
    "get",
    "mix_ln",
    "names",
]
