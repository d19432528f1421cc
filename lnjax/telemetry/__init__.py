"""Watching every layer: probes in the passes, statistics of trees, and their history."""

from lnjax.telemetry.probes import Observer, cosine, moments, probe
from lnjax.telemetry.statistics import Layout, group_statistics, parameter_statistics

__all__ = [
    "Layout",
    "Observer",
    "cosine",
    "group_statistics",
    "moments",
    "parameter_statistics",
    "probe",
]
