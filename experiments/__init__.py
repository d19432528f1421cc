"""Experiments and benchmarks on top of lnjax; each module states its question and its command."""
