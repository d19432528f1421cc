"""Token shards, memory-mapped: nanoGPT's plain files and llm.c's files with a header.

Plain (nanoGPT, data/*/prepare.py): little-endian uint16 tokens, nothing else.
With header (llm.c, dev/data/data_common.py, write_datafile): 256 int32 (magic, version, number of
tokens, zeros), then the tokens: magic 20240520, version 1, uint16 for GPT-2; magic 20240801,
version 7, uint32 for Llama 3.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lnjax.data.streams import check_tokens

HEADER_INTEGERS = 256
HEADER_BYTES = 4 * HEADER_INTEGERS
PLAIN_DTYPE = np.dtype("<u2")
# magic: (version, dtype of the tokens)
FORMATS = {20240520: (1, np.dtype("<u2")), 20240801: (7, np.dtype("<u4"))}
OTHER_MAGICS = {20240522: "an llm.c file of multiple-choice examples, not of text"}

BLOCK_BYTES = 2**24
# Shards up to this size in total are hashed and checked completely when they are opened.
COMPLETE_READ_BYTES = 2**28
SAMPLED_BLOCK_BYTES = 2**16
SAMPLED_BLOCKS = 16


@dataclass(frozen=True)
class Shard:
    """One token file: where its tokens are and how they are stored."""

    path: Path
    dtype: np.dtype
    header_bytes: int
    tokens: int

    @property
    def bytes(self) -> int:
        return self.header_bytes + self.tokens * self.dtype.itemsize

    def open(self) -> np.memmap:
        """The tokens, memory-mapped, read-only."""
        return np.memmap(
            self.path, dtype=self.dtype, mode="r", offset=self.header_bytes, shape=(self.tokens,)
        )


def inspect_shard(path: Path) -> Shard:
    """Read a shard's header (or find that it has none) and compare it with the file's size.

    Raises ValueError for an empty or truncated file, an unknown magic number or version.
    """
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"shard {path} is empty: write it again, or leave it out of data.path.")
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    header = np.frombuffer(head[: len(head) // 4 * 4], dtype="<i4")
    magic = int(header[0]) if len(header) else 0
    if magic in FORMATS or magic in OTHER_MAGICS or _looks_like_header(header):
        return _inspect_with_header(path, size, header)
    if size % PLAIN_DTYPE.itemsize:
        raise ValueError(
            f"shard {path} has {size} bytes, an odd number, and no header of a known format: plain "
            "shards are uint16, two bytes a token. It is truncated or not a token file."
        )
    return Shard(path, PLAIN_DTYPE, 0, size // PLAIN_DTYPE.itemsize)


def _looks_like_header(header: np.ndarray) -> bool:
    """A header is zero after its first few integers; a thousand bytes of text tokens are not."""
    return len(header) == HEADER_INTEGERS and bool(header[:4].any()) and not header[4:].any()


def _inspect_with_header(path: Path, size: int, header: np.ndarray) -> Shard:
    magic = int(header[0])
    if magic not in FORMATS:
        known = ", ".join(str(number) for number in FORMATS)
        what = OTHER_MAGICS.get(magic, "of no known token format")
        raise ValueError(
            f"shard {path} has a header with magic number {magic}, {what} (known: {known}): write "
            "it again in a known format, or as plain uint16 without a header."
        )
    if len(header) < HEADER_INTEGERS:
        raise ValueError(
            f"shard {path} is truncated: {size} bytes, fewer than its header of {HEADER_BYTES}. "
            "Copy or write it again."
        )
    expected_version, dtype = FORMATS[magic]
    version, tokens = int(header[1]), int(header[2])
    if version != expected_version:
        raise ValueError(
            f"shard {path} has version {version}, but magic number {magic} goes with version "
            f"{expected_version}: write it again with a current version of its tool."
        )
    if tokens <= 0:
        raise ValueError(f"shard {path} announces {tokens} tokens in its header: write it again.")
    expected_size = HEADER_BYTES + tokens * dtype.itemsize
    if size != expected_size:
        state = "is truncated" if size < expected_size else "has bytes after its last token"
        raise ValueError(
            f"shard {path} {state}: its header announces {tokens} {dtype.name} tokens, that is "
            f"{expected_size} bytes, but it has {size}. Copy or write it again."
        )
    return Shard(path, dtype, HEADER_BYTES, tokens)


def write_shard(path: str | Path, tokens: np.ndarray, format: str = "gpt2") -> None:
    """Write tokens as a shard: format "plain", "gpt2" (header, uint16) or "llama3" (uint32).

    Raises ValueError for an unknown format, no tokens, or a token that does not fit.
    """
    magics = {"plain": None, "gpt2": 20240520, "llama3": 20240801}
    if format not in magics:
        raise ValueError(f"unknown shard format {format!r}. Known: {', '.join(magics)}.")
    tokens = np.asarray(tokens).reshape(-1)
    magic = magics[format]
    version, dtype = FORMATS[magic] if magic else (0, PLAIN_DTYPE)
    if len(tokens) == 0:
        raise ValueError("no tokens to write: a shard holds at least one.")
    if tokens.min() < 0 or tokens.max() > np.iinfo(dtype).max:
        raise ValueError(
            f"tokens {tokens.min()}..{tokens.max()} do not fit into {dtype.name}: "
            "use format='llama3' (uint32) for vocabularies above 65536."
        )
    with Path(path).open("wb") as file:
        if magic:
            header = np.zeros(HEADER_INTEGERS, dtype="<i4")
            header[:3] = magic, version, len(tokens)
            file.write(header.tobytes())
        file.write(tokens.astype(dtype).tobytes())


def _blocks(shard: Shard) -> Iterator[tuple[int, np.ndarray]]:
    """The shard's tokens in blocks with their first positions; one block is in memory at a time."""
    step = BLOCK_BYTES // shard.dtype.itemsize
    tokens = shard.open()
    for start in range(0, shard.tokens, step):
        yield start, tokens[start : start + step]


def largest_token(shards: Sequence[Shard]) -> int:
    """The largest token, from reading every shard once in blocks."""
    return max(int(block.max()) for shard in shards for _, block in _blocks(shard))


def check_shards(shards: Sequence[Shard], vocab_size: int) -> None:
    """Read every shard once in blocks; ValueError names the first token >= vocab_size."""
    for shard in shards:
        for start, block in _blocks(shard):
            check_tokens(block, vocab_size, f"shard {shard.path}", start)


def hash_shards(shards: Sequence[Shard], complete: bool) -> str:
    """SHA-256 of the files' contents in order, or (not complete) of their sizes and samples.

    The samples are 16 blocks of 64 KiB spread evenly from the first byte to the last.
    """
    digest = hashlib.sha256()
    for shard in shards:
        with shard.path.open("rb") as file:
            if complete:
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
                continue
            digest.update(shard.bytes.to_bytes(8, "little"))
            last = max(shard.bytes - SAMPLED_BLOCK_BYTES, 0)
            for index in range(SAMPLED_BLOCKS):
                file.seek(math.floor(last * index / (SAMPLED_BLOCKS - 1)))
                digest.update(file.read(SAMPLED_BLOCK_BYTES))
    return digest.hexdigest()
