"""The training and the held-out part of a corpus, and the windows that fit into each.

The held-out part is up to 16 contiguous chunks spread evenly over the corpus (the end of each of
16 equal stripes), because one tail would be alike in subject: the standard library ends with
`xml` and `zipfile`. A chunk is 16384 positions or more wherever the corpus is large enough;
a small corpus has fewer chunks, at the least one, its tail. The split depends on the corpus and
`held_out` only, never on the sequence length or the seed, so that runs with different batches are
evaluated on the same text. Windows lie inside one span, so that no training window holds a
held-out position.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int64

LARGEST_CHUNK_COUNT = 16
SMALLEST_CHUNK = 16384

Span = tuple[int, int]  # positions start <= p < stop


@dataclass(frozen=True)
class Split:
    """Spans of the training and of the held-out part; together they tile the corpus once."""

    training: tuple[Span, ...]
    held_out: tuple[Span, ...]


def split_positions(size: int, held_out: float) -> Split:
    """Split the positions 0..size-1, keeping about the fraction `held_out` for evaluation."""
    wanted = round(size * held_out)
    chunks = min(max(wanted // SMALLEST_CHUNK, 1), LARGEST_CHUNK_COUNT)
    training, evaluation = [], []
    for index in range(chunks):
        start, stop = index * size // chunks, (index + 1) * size // chunks
        cut = stop - round((stop - start) * held_out)
        training.append((start, cut))
        evaluation.append((cut, stop))
    return Split(_without_empty(training), _without_empty(evaluation))


def split_text(data: bytes, held_out: float) -> Split:
    """`split_positions` with every cut moved to the next boundary of a UTF-8 character."""

    def move(position: int) -> int:
        if position == 0:  # the corpus begins here, even with half a character
            return 0
        stop = min(position + 3, len(data))  # a character has at most 3 continuation bytes
        while position < stop and data[position] & 0xC0 == 0x80:
            position += 1
        return position

    split = split_positions(len(data), held_out)
    return Split(
        _without_empty([(move(a), move(b)) for a, b in split.training]),
        _without_empty([(move(a), move(b)) for a, b in split.held_out]),
    )


def _without_empty(spans: list[Span]) -> tuple[Span, ...]:
    return tuple((start, stop) for start, stop in spans if start < stop)


@dataclass(frozen=True)
class Windows:
    """All windows of `length` consecutive positions that lie inside one of `spans`, numbered."""

    spans: tuple[Span, ...]
    length: int

    @cached_property
    def _ends(self) -> Int64[np.ndarray, " spans"]:
        """Number of windows in the first 1, 2, ... spans."""
        counts = [max(stop - start - self.length + 1, 0) for start, stop in self.spans]
        return np.cumsum(counts, dtype=np.int64)

    @property
    def count(self) -> int:
        return int(self._ends[-1]) if self.spans else 0

    @property
    def longest_span(self) -> int:
        return max((stop - start for start, stop in self.spans), default=0)

    def starts(self, numbers: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, " rows"]:
        """Positions where the windows with these numbers (0..count-1) begin."""
        index = np.searchsorted(self._ends, numbers, side="right")
        before = np.concatenate(([0], self._ends[:-1]))
        first = np.array([start for start, _ in self.spans], dtype=np.int64)
        return first[index] + numbers - before[index]
