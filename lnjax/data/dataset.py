"""Datasets: what `open_dataset` gives, for corpora and for synthetic tasks."""

import operator
from abc import ABC, abstractmethod
from typing import SupportsIndex

import numpy as np
from jaxtyping import Integer

from lnjax.data.batches import EVALUATION, TRAINING, generator, random_windows, spaced_windows
from lnjax.data.config import DataConfig
from lnjax.data.splits import Split, Windows
from lnjax.data.streams import TokenStream
from lnjax.data.synthetic import Task
from lnjax.data.tokenizers import Tokenizer

Batch = dict[str, np.ndarray]


class Dataset(ABC):
    """Batches of tokens as pure functions of their number.

    A batch is {"tokens": int32 [B, T + 1]}, inputs tokens[:, :-1], targets tokens[:, 1:]; where
    some targets do not count it also has "weights": float32 [B, T], and its loss is the mean of
    the targets' losses weighted with them.

    config: the DataConfig; vocab_size: tokens are in 0..vocab_size-1.
    fingerprint: JSON-able, equal for equal data: source, sha256, tokens, vocab_size, ...
    entropy: the exact expected optimal loss in nats per counted target, None where unknown.
    tokenizer: encodes and decodes text, None where the tokens have no text.
    """

    config: DataConfig
    vocab_size: int
    fingerprint: dict
    entropy: float | None = None
    tokenizer: Tokenizer | None = None

    @abstractmethod
    def batch(self, seed: SupportsIndex, k: SupportsIndex) -> Batch:
        """Training batch `k` of `seed`; the same arguments give the same batch, in any order."""

    @abstractmethod
    def evaluation_batch(self, k: SupportsIndex) -> Batch:
        """Held-out batch `k`, 0 <= k < config.evaluation_batches; the same for every seed."""

    def optimal_loss(self, batch: Batch) -> float | None:
        """What the true distribution itself loses on this very batch, None where unknown.

        Its expectation is `entropy`; the model's loss minus it has less scatter than the model's
        loss minus `entropy`.
        """
        return None

    def decode(self, tokens: Integer[np.ndarray, " tokens"]) -> str:
        """The text of one sequence of tokens. Raises ValueError where tokens have no text."""
        if self.tokenizer is None:
            raise ValueError(
                f"the tokens of data.source={self.config.source!r} have no text: the dataset "
                "knows no tokenizer for them."
            )
        return self.tokenizer.decode(tokens)

    def _check_evaluation_number(self, k: SupportsIndex) -> int:
        k, batches = operator.index(k), self.config.evaluation_batches
        if not 0 <= k < batches:
            raise ValueError(
                f"there is no evaluation batch {k}: data.evaluation_batches={batches}, "
                "numbered from 0."
            )
        return k

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value!r}" for name, value in self.fingerprint.items())
        return f"{type(self).__name__}({facts})"


class CorpusDataset(Dataset):
    """Windows of a token stream: random ones to train on, fixed held-out ones to evaluate.

    Raises ValueError if no window of sequence_length + 1 tokens fits into the training part or,
    with evaluation_batches > 0, into the held-out part.
    """

    def __init__(
        self,
        config: DataConfig,
        stream: TokenStream,
        split: Split,
        vocab_size: int,
        fingerprint: dict,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.config = config
        self.stream = stream
        self.split = split
        self.vocab_size = vocab_size
        self.tokenizer = tokenizer
        length = config.sequence_length + 1
        self._training = Windows(split.training, length)
        self._held_out = Windows(split.held_out, length)
        self._check_windows()
        self.fingerprint = fingerprint | {
            "tokens": len(stream),
            "training_tokens": _positions(split.training),
            "held_out_tokens": _positions(split.held_out),
            "held_out_chunks": len(split.held_out),
            "vocab_size": vocab_size,
        }

    def _check_windows(self) -> None:
        needs = (
            f"data.sequence_length={self.config.sequence_length} needs "
            f"{self.config.sequence_length + 1} tokens in one piece"
        )
        if self._training.count == 0:
            raise ValueError(
                f"{needs}, but the longest piece of the training part has "
                f"{self._training.longest_span} of the corpus's {len(self.stream)} tokens: shorten "
                "the sequences, enlarge the corpus, or lower data.held_out."
            )
        if self._held_out.count == 0 and self.config.evaluation_batches > 0:
            raise ValueError(
                f"{needs}, but the longest piece of the held-out part has "
                f"{self._held_out.longest_span} of the corpus's {len(self.stream)} tokens: raise "
                f"data.held_out (now {self.config.held_out}), shorten the sequences, enlarge the "
                "corpus, or set data.evaluation_batches=0."
            )

    def batch(self, seed: SupportsIndex, k: SupportsIndex) -> Batch:
        size = self.config.batch_size
        return {"tokens": random_windows(self.stream, self._training, seed, k, size)}

    def evaluation_batch(self, k: SupportsIndex) -> Batch:
        k = self._check_evaluation_number(k)
        size, batches = self.config.batch_size, self.config.evaluation_batches
        return {"tokens": spaced_windows(self.stream, self._held_out, k, batches, size)}


class SyntheticDataset(Dataset):
    """Batches drawn from a task of known optimal loss; nothing is stored.

    Training and evaluation take their random numbers from different streams, so that no training
    seed reproduces the evaluation batches.
    """

    def __init__(self, config: DataConfig, task: Task, sha256: str) -> None:
        self.config = config
        self.task = task
        self.vocab_size = task.vocab_size
        self.entropy = task.entropy
        self.fingerprint = {
            "source": config.source,
            "sha256": sha256,
            "bytes": 0,
            "tokens": 0,
            "vocab_size": task.vocab_size,
            "entropy": task.entropy,
        }

    def batch(self, seed: SupportsIndex, k: SupportsIndex) -> Batch:
        return self._sample(generator(seed, k, TRAINING))

    def evaluation_batch(self, k: SupportsIndex) -> Batch:
        return self._sample(generator(0, self._check_evaluation_number(k), EVALUATION))

    def optimal_loss(self, batch: Batch) -> float:
        return self.task.optimal_loss(batch["tokens"])

    def _sample(self, random: np.random.Generator) -> Batch:
        rows, length = self.config.batch_size, self.config.sequence_length + 1
        batch = {"tokens": self.task.sample(random, rows, length)}
        weights = self.task.weights(rows, length)
        return batch if weights is None else batch | {"weights": weights}


def _positions(spans: tuple[tuple[int, int], ...]) -> int:
    return sum(stop - start for start, stop in spans)
