"""A logical token stream over one or several arrays, which may be memory-mapped files."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from jaxtyping import Int32


class TokenStream:
    """Arrays of unsigned tokens read as if they were concatenated; nothing is copied in advance.

    parts: one-dimensional integer arrays; names: what to call each part in an error.
    vocab_size: tokens at or above it are refused when they are read; None does not check
        (for parts that cannot hold such a token, or have been checked).
    """

    def __init__(
        self, parts: Sequence[np.ndarray], names: Sequence[str], vocab_size: int | None = None
    ) -> None:
        self.parts = tuple(parts)
        self.names = tuple(names)
        self.vocab_size = vocab_size
        self._offsets = [0, *accumulate(len(part) for part in self.parts)]

    def __len__(self) -> int:
        return self._offsets[-1]

    def read(self, start: int, length: int) -> Int32[np.ndarray, " length"]:
        """Tokens start..start+length-1.

        Raises IndexError outside the stream, ValueError for a token outside the vocabulary.
        """
        if start < 0 or start + length > len(self):
            raise IndexError(f"tokens {start}..{start + length - 1} of a stream of {len(self)}.")
        tokens = np.empty(length, dtype=np.int32)
        filled = 0
        index = bisect_right(self._offsets, start) - 1
        while filled < length:
            inside = start + filled - self._offsets[index]
            piece = self.parts[index][inside : inside + length - filled]
            if self.vocab_size is not None:
                check_tokens(piece, self.vocab_size, self.names[index], inside)
            tokens[filled : filled + len(piece)] = piece
            filled += len(piece)
            index += 1
        return tokens


def check_tokens(tokens: np.ndarray, vocab_size: int, name: str, offset: int = 0) -> None:
    """Raise ValueError if one of `tokens`, which begin at position `offset`, is >= vocab_size."""
    if len(tokens) == 0 or int(tokens.max()) < vocab_size:
        return
    position = int(np.argmax(tokens >= vocab_size))
    raise ValueError(
        f"token {int(tokens[position])} at position {offset + position} of {name} is outside the "
        f"vocabulary of {vocab_size}: raise data.vocab_size above the largest token, set it to 0 "
        "to take it from the shards, or tokenise the shard again if it is damaged."
    )
