"""Configuration of the data: one frozen dataclass, validated when it is built."""

import difflib
from collections.abc import Iterable
from dataclasses import Field, dataclass, fields
from numbers import Integral, Real
from typing import Any, Protocol, runtime_checkable

SOURCES = ("python_stdlib", "text", "shards", "huggingface", "copy", "markov")
SYNTHETIC_SOURCES = ("copy", "markov")
SOURCES_WITH_PATH = ("text", "shards", "huggingface")
TOKENIZERS = ("bytes", "bpe")

BYTE_VOCABULARY = 256
DEFAULT_ALPHABET = 64  # copy and markov, when vocab_size is 0
LARGEST_VOCABULARY = 2**31 - 1  # batches hold int32 tokens
LARGEST_MARKOV_ALPHABET = 4096  # its transition matrix is dense: 4096**2 float64 are 128 MiB


def unknown_name(what: str, name: object, known: Iterable[str]) -> str:
    """The message for a name that is not known: the known ones and the nearest of them."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}.{hint} Known: {', '.join(known)}."


@runtime_checkable
class Fields(Protocol):
    """Fields by name: a dict, or a ConfigDict, which is no `Mapping`."""

    def keys(self) -> Iterable[str]: ...

    def __getitem__(self, name: str) -> Any: ...


def _checked(field: Field, value: Any) -> str | int | float:
    """`value` as the field's type (NumPy's numbers become Python's), TypeError for another type."""
    accepted = {str: str, int: Integral, float: Real}[field.type]
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise TypeError(
            f"data.{field.name} must be {field.type.__name__}, "
            f"got {value!r} ({type(value).__name__})."
        )
    return field.type(value)


@dataclass(frozen=True)
class DataConfig:
    """What to train on and in what shape. Every field is validated; see `open_dataset`.

    source: where the tokens come from.
        python_stdlib  the source code of this machine's Python standard library (about 12 MB)
        text           text files, `path` is a glob (`**` is recursive)
        shards         token files (nanoGPT's plain uint16, llm.c's with header), `path` is a glob
        huggingface    `path` is a dataset name, "name:configuration", or a local directory
        copy, markov   synthetic tasks of known optimal loss
    tokenizer: bytes, or bpe (byte-level BPE trained on the training part of the corpus).
    vocab_size: 0 takes it from the tokenizer (bytes: 256), the alphabet's default (copy, markov:
        64) or the largest token (shards: read once). bpe needs it: the size to train.
    sequence_length: T; a batch holds int32 tokens of shape [batch_size, T + 1].
    held_out: fraction of the corpus kept for evaluation (synthetic tasks need none).
    evaluation_batches: number of fixed held-out batches; 0 for no evaluation.
    cache_dir: where BPE tokenizers and their tokens are kept; "" is ~/.cache/lnjax.
    split, text_field: of a Hugging Face dataset.

    Raises TypeError for a value of the wrong type, ValueError for any other mistake.
    """

    source: str = "python_stdlib"
    path: str = ""
    tokenizer: str = "bytes"
    vocab_size: int = 0
    sequence_length: int = 128
    batch_size: int = 16
    held_out: float = 0.05
    evaluation_batches: int = 8
    cache_dir: str = ""
    split: str = "train"
    text_field: str = "text"

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
        if self.source not in SOURCES:
            raise ValueError(unknown_name("data.source", self.source, SOURCES))
        if self.tokenizer not in TOKENIZERS:
            raise ValueError(unknown_name("data.tokenizer", self.tokenizer, TOKENIZERS))
        self._check_path()
        self._check_numbers()
        self._check_vocabulary()

    @classmethod
    def from_dict(cls, values: Fields) -> "DataConfig":
        """Build from a dict or ConfigDict; an unknown key raises ValueError."""
        known = {field.name: field for field in fields(cls)}
        checked = {}
        for name in values.keys():
            if name not in known:
                raise ValueError(unknown_name("field of data", name, known))
            checked[name] = _checked(known[name], values[name])
        return cls(**checked)

    def _check_path(self) -> None:
        if self.source in SOURCES_WITH_PATH and not self.path:
            meaning = {
                "text": "a glob of text files, such as 'corpus/**/*.txt'",
                "shards": "a glob of token files, such as 'tokens/*.bin'",
                "huggingface": "a dataset name or a local directory",
            }[self.source]
            raise ValueError(f"data.source={self.source!r} needs data.path: {meaning}.")
        if self.source not in SOURCES_WITH_PATH and self.path:
            raise ValueError(
                f"data.path={self.path!r} is not used by data.source={self.source!r}: "
                f"remove it, or set data.source to one of {', '.join(SOURCES_WITH_PATH)}."
            )
        if self.source == "huggingface":
            for name in ("split", "text_field"):
                if not getattr(self, name):
                    raise ValueError(f"data.{name} is empty: name the dataset's {name}.")

    def _check_numbers(self) -> None:
        for name, least in (("sequence_length", 1), ("batch_size", 1), ("evaluation_batches", 0)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"data.{name} must be at least {least}, got {getattr(self, name)}."
                )
        if not 0 <= self.held_out < 1:  # also refuses nan
            raise ValueError(
                f"data.held_out is a fraction of the corpus, in [0, 1), got {self.held_out}."
            )
        synthetic = self.source in SYNTHETIC_SOURCES
        if self.held_out == 0 and self.evaluation_batches > 0 and not synthetic:
            raise ValueError(
                f"data.held_out=0 leaves nothing for the {self.evaluation_batches} evaluation "
                "batches: raise held_out (say 0.05), or set data.evaluation_batches=0."
            )

    def _check_vocabulary(self) -> None:
        size = self.vocab_size
        if not 0 <= size <= LARGEST_VOCABULARY:
            raise ValueError(f"data.vocab_size must be in 0..{LARGEST_VOCABULARY}, got {size}.")
        if self.source in SYNTHETIC_SOURCES + ("shards",):
            if self.tokenizer != "bytes":
                raise ValueError(
                    f"data.tokenizer={self.tokenizer!r} does not apply to data.source="
                    f"{self.source!r}, which already consists of tokens: leave it out."
                )
            if self.source in SYNTHETIC_SOURCES and size == 1:
                raise ValueError(
                    f"data.vocab_size=1 makes the {self.source} task trivial: use >= 2."
                )
            if self.source == "markov" and size > LARGEST_MARKOV_ALPHABET:
                raise ValueError(
                    f"data.vocab_size={size} is too large for data.source='markov', whose "
                    f"transition matrix is dense: use at most {LARGEST_MARKOV_ALPHABET}."
                )
        elif self.tokenizer == "bpe" and size <= BYTE_VOCABULARY:
            raise ValueError(
                "data.tokenizer='bpe' needs data.vocab_size above 256, the single bytes "
                f"(say 4096), got {size}."
            )
        elif self.tokenizer == "bytes" and 0 < size < BYTE_VOCABULARY:
            raise ValueError(
                f"data.vocab_size={size} is smaller than the 256 bytes of data.tokenizer='bytes': "
                "use 0 (256), or more to pad the vocabulary."
            )
