"""A corpus's BPE tokenizer and tokens, computed once and kept on disk.

cache_dir/bpe-<key>/tokenizer.json   trained on the training part only
                   /lengths.json     number of tokens of every span
                   /tokens.npy       the tokens of all spans, read memory-mapped

The key is a hash of the corpus, the spans, the vocabulary size and the version of the tokenizers
library. Every file is written under a temporary name and then renamed, so that neither a crash
nor several processes at once can leave a partial file; a key's files always have equal contents.
"""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lnjax.data.corpora import Corpus
from lnjax.data.splits import Split
from lnjax.data.tokenizers import BPETokenizer, bpe_library

FORMAT = 1  # raise when the way of training or encoding changes


def tokenize_with_bpe(
    corpus: Corpus, split: Split, vocab_size: int, cache_dir: str
) -> tuple[BPETokenizer, np.ndarray, Split]:
    """The tokenizer, the tokens of all spans, and the split in token positions.

    The spans are tokenised one by one (no token reaches across the border to the held-out part)
    and follow each other in `tokens` in the order of the corpus.
    Raises ValueError for a corpus too small for `vocab_size` or for damaged files in the cache.
    """
    spans = sorted(split.training + split.held_out)
    folder = cache_folder(corpus, split, vocab_size, cache_dir)

    path = folder / "tokenizer.json"
    if path.exists():
        tokenizer = BPETokenizer.load(path)
    else:
        tokenizer = BPETokenizer.train(
            (corpus.data[start:stop] for start, stop in split.training), vocab_size
        )
        _write(path, lambda file: file.write(tokenizer.to_json().encode()))

    path = folder / "tokens.npy"
    if not path.exists():
        encoded = [tokenizer.encode(corpus.data[start:stop]) for start, stop in spans]
        lengths = json.dumps([len(tokens) for tokens in encoded])
        _write(folder / "lengths.json", lambda file: file.write(lengths.encode()))
        _write(path, lambda file: np.save(file, np.concatenate(encoded)))
    tokens, lengths = _read_tokens(folder, len(spans))

    ends = np.cumsum(lengths).tolist()
    places = {
        span: (end - length, end) for span, length, end in zip(spans, lengths, ends, strict=True)
    }
    return (
        tokenizer,
        tokens,
        Split(
            tuple(places[span] for span in split.training),
            tuple(places[span] for span in split.held_out),
        ),
    )


def cache_folder(corpus: Corpus, split: Split, vocab_size: int, cache_dir: str) -> Path:
    """Where this corpus's tokenizer is kept; `cache_dir` "" is ~/.cache/lnjax."""
    identity = {
        "format": FORMAT,
        "corpus": corpus.sha256,
        "training": split.training,
        "held_out": split.held_out,
        "vocab_size": vocab_size,
        "tokenizers": bpe_library().__version__,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    root = Path(cache_dir).expanduser() if cache_dir else Path.home() / ".cache" / "lnjax"
    return root / f"bpe-{key[:20]}"


def _read_tokens(folder: Path, spans: int) -> tuple[np.ndarray, list[int]]:
    try:
        lengths = json.loads((folder / "lengths.json").read_text())
        tokens = np.load(folder / "tokens.npy", mmap_mode="r")
        if len(lengths) != spans or sum(lengths) != len(tokens):
            raise ValueError("the number of tokens does not match lengths.json")
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"the cached tokens in {folder} are damaged ({error}): delete the folder, it is made "
            "again."
        ) from error
    return tokens, lengths


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under a temporary name beside its place, then rename it."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            write(file)
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            f"cannot write the tokenizer cache {path.parent} ({error}): set data.cache_dir to a "
            "folder that can be written."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
