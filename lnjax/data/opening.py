"""`open_dataset`: from a DataConfig to a Dataset."""

import hashlib

import numpy as np

from lnjax.data.batches import TASK, generator
from lnjax.data.config import (
    DEFAULT_ALPHABET,
    LARGEST_VOCABULARY,
    SYNTHETIC_SOURCES,
    DataConfig,
    Fields,
)
from lnjax.data.corpora import Corpus, matching_files, read_python_stdlib, read_text
from lnjax.data.dataset import CorpusDataset, Dataset, SyntheticDataset
from lnjax.data.huggingface import read_huggingface
from lnjax.data.shards import (
    COMPLETE_READ_BYTES,
    check_shards,
    hash_shards,
    inspect_shard,
    largest_token,
)
from lnjax.data.splits import split_positions, split_text
from lnjax.data.streams import TokenStream
from lnjax.data.synthetic import CopyTask, MarkovTask
from lnjax.data.token_cache import tokenize_with_bpe
from lnjax.data.tokenizers import ByteTokenizer


def open_dataset(config: DataConfig | Fields) -> Dataset:
    """The dataset that `config` (a DataConfig, or its fields as a dict or ConfigDict) describes.

    Raises ValueError, TypeError, FileNotFoundError or ImportError; the message names the field
    and the remedy.
    """
    if not isinstance(config, DataConfig):
        config = DataConfig.from_dict(config)
    if config.source in SYNTHETIC_SOURCES:
        return _open_synthetic(config)
    if config.source == "shards":
        return _open_shards(config)
    return _open_text(config, _read_corpus(config))


def _read_corpus(config: DataConfig) -> Corpus:
    if config.source == "python_stdlib":
        return read_python_stdlib()
    if config.source == "text":
        return read_text(config.path)
    return read_huggingface(config.path, config.split, config.text_field, config.cache_dir)


def _open_text(config: DataConfig, corpus: Corpus) -> CorpusDataset:
    split = split_text(corpus.data, config.held_out)
    if config.tokenizer == "bpe":
        tokenizer, tokens, split = tokenize_with_bpe(
            corpus, split, config.vocab_size, config.cache_dir
        )
    else:
        tokenizer = ByteTokenizer(config.vocab_size or 256)
        tokens = tokenizer.encode(corpus.data)
    fingerprint = {
        "source": config.source,
        "sha256": corpus.sha256,
        "bytes": len(corpus.data),
        "files": corpus.files,
        **corpus.details,
        "tokenizer": config.tokenizer,
    }
    if config.tokenizer == "bpe":
        fingerprint["tokenizer_sha256"] = hashlib.sha256(tokenizer.to_json().encode()).hexdigest()
    stream = TokenStream([tokens], [config.source])
    return CorpusDataset(config, stream, split, tokenizer.vocab_size, fingerprint, tokenizer)


def _open_shards(config: DataConfig) -> CorpusDataset:
    """Shards up to 256 MiB in total are hashed and checked completely now; larger ones are hashed
    by samples, and their tokens are checked as batches are read."""
    shards = [inspect_shard(path) for path in matching_files(config.path)]
    size = sum(shard.bytes for shard in shards)
    complete = size <= COMPLETE_READ_BYTES
    vocab_size = config.vocab_size or largest_token(shards) + 1
    if vocab_size > LARGEST_VOCABULARY:
        raise ValueError(
            f"the shards {config.path!r} hold the token {vocab_size - 1}, which does not fit into "
            "int32: they are damaged, or not token files."
        )
    checked = config.vocab_size == 0
    if complete and not checked:
        check_shards(shards, vocab_size)
        checked = True
    stream = TokenStream(
        [shard.open() for shard in shards],
        [f"shard {shard.path}" for shard in shards],
        vocab_size=None if checked else vocab_size,
    )
    fingerprint = {
        "source": "shards",
        "sha256": hash_shards(shards, complete),
        "sha256_of": "contents" if complete else "sizes and samples",
        "bytes": size,
        "files": len(shards),
    }
    split = split_positions(len(stream), config.held_out)
    return CorpusDataset(config, stream, split, vocab_size, fingerprint)


def _open_synthetic(config: DataConfig) -> SyntheticDataset:
    vocab_size = config.vocab_size or DEFAULT_ALPHABET
    if config.source == "copy":
        # The task has no data of its own; its name and alphabet identify it.
        sha256 = hashlib.sha256(f"copy {vocab_size}".encode()).hexdigest()
        return SyntheticDataset(config, CopyTask(vocab_size), sha256)
    task = MarkovTask(vocab_size, generator(vocab_size, 0, TASK))
    little_endian = task.transition.astype(np.dtype("<f8"))
    return SyntheticDataset(config, task, hashlib.sha256(little_endian.tobytes()).hexdigest())
