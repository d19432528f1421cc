"""Synthetic tasks whose optimal loss is known exactly: copying, and a Markov chain.

The optimal loss is that of a model that knows the task (the copy distance, the transition matrix)
and sees the tokens before the target; the mean is over the targets that count.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, Int32

MARKOV_CONCENTRATION = 0.1
MARKOV_UNIFORM_PART = 0.05


@runtime_checkable
class Task(Protocol):
    """A distribution over sequences.

    entropy: expected optimal loss in nats per counted target.
    """

    vocab_size: int
    entropy: float

    def sample(
        self, generator: np.random.Generator, batch: int, length: int
    ) -> Int32[np.ndarray, "batch length"]: ...

    def weights(self, batch: int, length: int) -> Float32[np.ndarray, "batch time"] | None: ...

    def optimal_loss(self, tokens: Int32[np.ndarray, "batch length"]) -> float: ...


class CopyTask:
    """A random first half, then its repetition: copying needs attention over the whole length.

    Of a sequence of S = T + 1 tokens the first h = ceil(S / 2) are independent and uniform, and
    token i >= h equals token i - h. Targets inside the first half (tokens 1..h-1) cannot be
    predicted and get weight 0; the others are certain, so that the optimal loss is exactly 0.
    """

    entropy = 0.0

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def sample(
        self, generator: np.random.Generator, batch: int, length: int
    ) -> Int32[np.ndarray, "batch length"]:
        half = (length + 1) // 2
        first = generator.integers(self.vocab_size, size=(batch, half), dtype=np.int32)
        return np.concatenate((first, first[:, : length - half]), axis=1)

    def weights(self, batch: int, length: int) -> Float32[np.ndarray, "batch time"]:
        """1 where the target (token 1..length-1) is in the repeated half, 0 elsewhere."""
        half = (length + 1) // 2
        row = (np.arange(1, length) >= half).astype(np.float32)
        return np.tile(row, (batch, 1))

    def optimal_loss(self, tokens: Int32[np.ndarray, "batch length"]) -> float:
        return 0.0


class MarkovTask:
    """A first-order chain with a fixed random transition matrix, started in its stationary state.

    Row i of the transition matrix is 0.95 Dirichlet(0.1, ..., 0.1) + 0.05 uniform, drawn once for
    a given alphabet size, the same for every seed of training. The uniform part makes the chain
    ergodic, so the stationary distribution pi is unique.

    The first token is drawn from pi and is an input only, never a target: its entropy H(pi) does
    not enter the loss. Every target's optimal loss has the expectation
    entropy = - sum_i pi_i sum_j P_ij ln P_ij, because every input is distributed as pi. So the
    expected mean loss minus `entropy` is the exact excess loss, at any sequence length; on a finite
    batch the optimal loss scatters around it, and `optimal_loss` gives it for that very batch.
    """

    def __init__(self, vocab_size: int, generator: np.random.Generator) -> None:
        self.vocab_size = vocab_size
        rows = generator.dirichlet(np.full(vocab_size, MARKOV_CONCENTRATION), size=vocab_size)
        uniform = MARKOV_UNIFORM_PART / vocab_size
        transition = (1 - MARKOV_UNIFORM_PART) * rows + uniform
        self.transition = transition / transition.sum(axis=1, keepdims=True)
        self.stationary = stationary_distribution(self.transition)
        self.entropy = entropy_rate(self.transition, self.stationary)
        # Row i of the cumulative table is shifted by i: one sorted array serves all rows.
        cumulative = np.cumsum(self.transition, axis=1)
        cumulative[:, -1] = 1.0
        self._table = (cumulative + np.arange(vocab_size)[:, None]).reshape(-1)

    def sample(
        self, generator: np.random.Generator, batch: int, length: int
    ) -> Int32[np.ndarray, "batch length"]:
        uniform = generator.random((length, batch))
        tokens = np.empty((length, batch), dtype=np.int64)
        start = np.cumsum(self.stationary)
        tokens[0] = np.searchsorted(start, uniform[0], side="right").clip(max=self.vocab_size - 1)
        for time in range(1, length):
            state = tokens[time - 1]
            place = np.searchsorted(self._table, state + uniform[time], side="right")
            # state + u may round up to state + 1, the beginning of the next row.
            tokens[time] = (place - state * self.vocab_size).clip(max=self.vocab_size - 1)
        return tokens.T.astype(np.int32)

    def weights(self, batch: int, length: int) -> None:
        """All targets count."""
        return None

    def optimal_loss(self, tokens: Int32[np.ndarray, "batch length"]) -> float:
        """Mean of -ln P(target | input), what the transition matrix itself reaches on `tokens`."""
        return float(-np.log(self.transition[tokens[:, :-1], tokens[:, 1:]]).mean())


def stationary_distribution(
    transition: Float64[np.ndarray, "states states"],
) -> Float64[np.ndarray, " states"]:
    """The distribution pi with pi P = pi, of an ergodic chain (exact linear solve)."""
    states = len(transition)
    equations = transition.T - np.eye(states)
    equations[-1] = 1.0  # one equation is redundant; the probabilities sum to one instead
    right = np.zeros(states)
    right[-1] = 1.0
    solution = np.linalg.solve(equations, right).clip(min=0.0)
    return solution / solution.sum()


def entropy_rate(
    transition: Float64[np.ndarray, "states states"], stationary: Float64[np.ndarray, " states"]
) -> float:
    """Entropy rate in nats per token of a stationary first-order chain."""
    safe = np.where(transition > 0, transition, 1.0)  # 0 ln 0 = 0
    return float(-(stationary @ (transition * np.log(safe)).sum(axis=1)))
