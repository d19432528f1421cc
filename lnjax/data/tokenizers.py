"""Tokenizers: single bytes, and byte-level BPE trained on the corpus itself."""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer, Shaped

from lnjax.data.config import BYTE_VOCABULARY

# Text is given to the BPE library in blocks that end with a line: it works on them in parallel.
BLOCK_CHARACTERS = 2**16
# What `errors="surrogateescape"` makes of bytes that are not UTF-8: U+DC80..U+DCFF.
INVALID_BYTES = re.compile("([\udc80-\udcff]+)")
ESCAPE = 0xDC00


@runtime_checkable
class Tokenizer(Protocol):
    """Bytes to token numbers 0..vocab_size-1 and back without loss."""

    vocab_size: int

    def encode(self, data: bytes) -> Shaped[np.ndarray, " tokens"]: ...

    def decode_bytes(self, tokens: Integer[np.ndarray, " tokens"]) -> bytes: ...

    def decode(self, tokens: Integer[np.ndarray, " tokens"]) -> str: ...


class ByteTokenizer:
    """Every byte is a token; a vocabulary above 256 is padding that never occurs."""

    def __init__(self, vocab_size: int = BYTE_VOCABULARY) -> None:
        if vocab_size < BYTE_VOCABULARY:
            raise ValueError(f"a byte tokenizer needs vocab_size >= 256, got {vocab_size}.")
        self.vocab_size = vocab_size

    def encode(self, data: bytes) -> Shaped[np.ndarray, " tokens"]:
        """uint8 tokens, one for each byte (a read-only view, no copy)."""
        return np.frombuffer(data, dtype=np.uint8)

    def decode_bytes(self, tokens: Integer[np.ndarray, " tokens"]) -> bytes:
        """Raises ValueError for a token that is not a byte."""
        tokens = _flat(tokens, BYTE_VOCABULARY)
        return tokens.astype(np.uint8).tobytes()

    def decode(self, tokens: Integer[np.ndarray, " tokens"]) -> str:
        """Bytes that are not UTF-8 (a window may cut a character) become U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")


class BPETokenizer:
    """Byte-level BPE (GPT-2's): merges of UTF-8 bytes inside words, no special tokens.

    All 256 bytes are in the vocabulary, so that every byte sequence can be encoded; bytes that are
    not UTF-8 become single-byte tokens.
    """

    def __init__(self, model: Any) -> None:
        """model: a `tokenizers.Tokenizer` with a byte-level vocabulary."""
        self._model = model
        self.vocab_size = int(model.get_vocab_size())

    @classmethod
    def train(cls, texts: Iterable[bytes], vocab_size: int) -> "BPETokenizer":
        """Learn merges from `texts` until there are `vocab_size` tokens (256 of them bytes).

        Pairs that occur once are never merged. Raises ValueError if the text has too few pairs.
        """
        library = bpe_library()
        model = library.Tokenizer(library.models.BPE())
        model.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        blocks = (block for text in texts for block in _valid_blocks(text))
        model.train_from_iterator(blocks, trainer)
        reached = model.get_vocab_size()
        if reached < vocab_size:
            raise ValueError(
                f"the training text is too small for a BPE vocabulary of {vocab_size}: it gives "
                f"{reached} tokens. Set data.vocab_size to at most {reached} or enlarge the corpus."
            )
        return cls(model)

    @classmethod
    def load(cls, path: Path) -> "BPETokenizer":
        """Raises ValueError for a damaged file."""
        library = bpe_library()
        try:
            return cls(library.Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception
            raise ValueError(
                f"the tokenizer {path} cannot be read ({error}): delete it, it is trained again."
            ) from error

    def to_json(self) -> str:
        return self._model.to_str()

    def encode(self, data: bytes) -> Shaped[np.ndarray, " tokens"]:
        """uint16 tokens, or uint32 where the vocabulary exceeds 65536."""
        tokens = [np.empty(0, dtype=self.dtype)]
        valid: list[str] = []

        def flush() -> None:
            for encoding in self._model.encode_batch_fast(valid, add_special_tokens=False):
                tokens.append(np.array(encoding.ids, dtype=self.dtype))
            valid.clear()

        for text, is_valid in _blocks(data):
            if is_valid:
                valid.append(text)
                continue
            flush()
            bytes_ = np.array([ord(character) - ESCAPE for character in text])
            tokens.append(self._byte_tokens[bytes_])
        flush()
        return np.concatenate(tokens)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)

    def decode_bytes(self, tokens: Integer[np.ndarray, " tokens"]) -> bytes:
        """Raises ValueError for a token outside the vocabulary."""
        return b"".join(self._token_bytes[token] for token in _flat(tokens, self.vocab_size))

    def decode(self, tokens: Integer[np.ndarray, " tokens"]) -> str:
        """Bytes that are not UTF-8 (a window may cut a character) become U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    @cached_property
    def _token_bytes(self) -> list[bytes]:
        """The bytes of every token."""
        values = {character: value for value, character in enumerate(byte_characters())}
        spelled = self._model.get_vocab()
        table = [b""] * self.vocab_size
        for text, token in spelled.items():
            table[token] = bytes(values[character] for character in text)
        return table

    @cached_property
    def _byte_tokens(self) -> np.ndarray:
        """The token of every single byte."""
        tokens = [self._model.token_to_id(character) for character in byte_characters()]
        return np.array(tokens, dtype=self.dtype)


def byte_characters() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary.

    Source: GPT-2's encoder (`bytes_to_unicode`): printable Latin-1 characters stand for
    themselves, the other bytes in increasing order for U+0100, U+0101, ...
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [value for value in range(256) if value not in printable]
    return [chr(b) if b in printable else chr(256 + others.index(b)) for b in range(256)]


def _blocks(data: bytes) -> Iterator[tuple[str, bool]]:
    """`data` as pieces of text: (valid UTF-8, True) and (escaped invalid bytes, False)."""
    text = data.decode("utf-8", errors="surrogateescape")
    start = 0
    while start < len(text):
        stop = start + BLOCK_CHARACTERS
        if stop < len(text):
            line_end = text.rfind("\n", start, stop)
            stop = line_end + 1 if line_end >= 0 else stop
        for index, piece in enumerate(INVALID_BYTES.split(text[start:stop])):
            if piece:
                yield piece, index % 2 == 0
        start = stop


def _valid_blocks(data: bytes) -> Iterator[str]:
    return (text for text, is_valid in _blocks(data) if is_valid)


def _flat(tokens: Integer[np.ndarray, " tokens"], limit: int) -> np.ndarray:
    """Tokens as a one-dimensional array of integers; ValueError outside 0..limit-1."""
    tokens = np.asarray(tokens)
    if tokens.ndim != 1:
        raise ValueError(f"decode takes one sequence of tokens, got shape {tokens.shape}.")
    wrong = (tokens < 0) | (tokens >= limit)
    if wrong.any():
        raise ValueError(
            f"token {int(tokens[wrong][0])} is not one of the {limit} tokens that have a text."
        )
    return tokens.astype(np.int64)


def bpe_library() -> Any:
    """The `tokenizers` library, imported only where BPE is used."""
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "data.tokenizer='bpe' needs the tokenizers library: install it with  "
            "pip install tokenizers   (or use data.tokenizer='bytes')"
        ) from error
    return tokenizers
