"""All that a placement computes, as plain data: to hash, to store and to compare."""

import dataclasses
from typing import Any

from lnjax import norms
from lnjax.placements.algebra import ONE, Placement, Scale, Where

_MATRICES = (("query", "key", "value", "output"), ("in", "gate", "out"))


def content(placement: Placement, depth: int, norm: str | norms.Norm) -> dict[str, dict[str, Any]]:
    """Every norm and every number of a placement at a depth; symbols and notes are left out.

    Args:
      placement, depth: what is described.
      norm: the norm function of the slots that name none.

    Returns:
      JSON-able fields in the sections "stack" (around the blocks), "attention 1-3", "mlp 1-3" and
      so on, for each segment of equal rows. A number that varies over the blocks is a list.
    """
    stack: dict[str, Any] = {"topology": placement.topology}
    outside = [Where(1, 1, depth)]  # where no number depends on the place
    for name in ("embed", "final"):
        stack |= _fields(name, getattr(placement, name), outside, norm)
    sections = {"stack": stack}
    gains = dict(placement.init.gains)
    for first, count, row in placement.segments(depth):
        last = first + count - 1
        for index, sublayer in enumerate(row):
            places = [Where(b, 2 * (b - 1) + index + 1, depth) for b in range(first, last + 1)]
            fields = {}
            for part in dataclasses.fields(sublayer):
                fields |= _fields(part.name, getattr(sublayer, part.name), places, norm)
            for matrix in _MATRICES[index]:
                fields[f"init.{matrix}"] = _numbers(gains.get(matrix, ONE), places)
            sections[f"{('attention', 'mlp')[index]} {first}-{last}"] = fields
    return sections


def _fields(name: str, value: Any, places: list[Where], norm: str | norms.Norm) -> dict[str, Any]:
    """A field and all that is in it, by dotted names; nothing for what is absent."""
    if isinstance(value, Scale):
        return {f"{name}.value": _numbers(value, places), f"{name}.learned": value.learned}
    if not dataclasses.is_dataclass(value):
        return {} if value is None else {name: value}
    fields = {}
    for part in dataclasses.fields(value):
        inner = getattr(value, part.name)
        if part.name == "norm":
            inner = norms.get(norm if inner is None else inner)
        fields |= _fields(f"{name}.{part.name}", inner, places, norm)
    return fields


def _numbers(scale: Scale, places: list[Where]) -> float | list[float]:
    # Twelve digits: the last ones of a power or a root differ between mathematics libraries.
    values = [float(f"{scale.at(place):.12g}") for place in places]
    return values[0] if len(set(values)) == 1 else values
