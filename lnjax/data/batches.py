"""Batches as pure functions of (seed, k): no state, no epochs, nothing to restore on a resume.

The random numbers of batch k come from the counter-based generator Philox (Salmon et al., 2011,
"Parallel random numbers: as easy as 1, 2, 3"): the seed and the stream are its key, k is the
upper half of its counter. Batches of different seeds, streams or k therefore share no numbers,
and batch 1000000 costs as much as batch 0.
"""

import operator
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int32

from lnjax.data.splits import Windows
from lnjax.data.streams import TokenStream

TRAINING, EVALUATION, TASK = 1, 2, 3  # streams; TASK makes the Markov chain's transition matrix


def generator(seed: SupportsIndex, k: SupportsIndex, stream: int) -> np.random.Generator:
    """The random generator of batch `k`. Raises ValueError unless 0 <= seed, k < 2**64."""
    seed, k = operator.index(seed), operator.index(k)
    for name, value in (("seed", seed), ("batch number k", k)):
        if not 0 <= value < 2**64:
            raise ValueError(f"the {name} must be in 0..2**64-1, got {value}.")
    key = np.array([seed, stream], dtype=np.uint64)
    counter = np.array([0, 0, k, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def random_windows(
    stream: TokenStream, windows: Windows, seed: SupportsIndex, k: SupportsIndex, batch: int
) -> Int32[np.ndarray, "batch length"]:
    """Batch `k`: windows drawn uniformly, with replacement, from all that fit into the spans."""
    numbers = generator(seed, k, TRAINING).integers(windows.count, size=batch)
    return _read(stream, windows, numbers)


def spaced_windows(
    stream: TokenStream, windows: Windows, k: int, batches: int, batch: int
) -> Int32[np.ndarray, "batch length"]:
    """Evaluation batch `k` of `batches`: evenly spaced windows, the same for every seed.

    All `batches * batch` windows are spaced evenly over the held-out part, and batch k takes every
    `batches`-th of them, so that each batch reaches over the whole held-out part. Windows overlap
    only where the held-out part is smaller than all batches together.
    """
    numbers = k + batches * np.arange(batch, dtype=np.int64)
    total = batches * batch
    # Multiples of count/total, in integers; Python's own do not overflow.
    places = [int(number) * windows.count // total for number in numbers]
    return _read(stream, windows, np.array(places, dtype=np.int64))


def _read(
    stream: TokenStream, windows: Windows, numbers: np.ndarray
) -> Int32[np.ndarray, "batch length"]:
    starts = windows.starts(numbers)
    return np.stack([stream.read(int(start), windows.length) for start in starts])
