"""Synthetic tasks: their optimal loss is what is claimed."""

import numpy as np
import pytest

from lnjax.data import CopyTask, open_dataset
from lnjax.data.synthetic import entropy_rate, stationary_distribution


@pytest.mark.parametrize("sequence_length", [1, 2, 7, 8, 127])
def test_copy_repeats_and_weights_only_what_can_be_predicted(sequence_length):
    dataset = open_dataset({"source": "copy", "sequence_length": sequence_length})
    batch = dataset.batch(0, 0)
    tokens, weights = batch["tokens"], batch["weights"]
    assert weights.shape == (16, sequence_length) and weights.dtype == np.float32
    half = (sequence_length + 2) // 2
    np.testing.assert_array_equal(tokens[:, half:], tokens[:, : sequence_length + 1 - half])
    targets = tokens[:, 1:]
    predicted = np.roll(tokens, half, axis=1)[:, 1:]  # the token one period before the target
    counted = weights == 1
    assert set(np.unique(weights)) <= {0.0, 1.0}
    np.testing.assert_array_equal(targets[counted], predicted[counted])
    # Every target in the second half counts, none in the first.
    assert counted.sum() == 16 * (sequence_length + 1 - half) > 0
    assert not counted[:, : half - 1].any()
    assert dataset.entropy == dataset.optimal_loss(batch) == 0.0


def test_copy_alphabet_is_used_uniformly():
    tokens = CopyTask(4).sample(np.random.default_rng(0), 4000, 2)[:, 0]
    assert abs(np.bincount(tokens, minlength=4) - 1000).max() < 150


def test_copy_has_the_default_alphabet_and_a_chosen_one():
    assert open_dataset({"source": "copy"}).vocab_size == 64
    dataset = open_dataset({"source": "copy", "vocab_size": 3})
    assert set(np.unique(dataset.batch(0, 0)["tokens"])) == {0, 1, 2}


def test_entropy_rate_of_a_chain_solved_by_hand():
    """P = [[1-a, a], [b, 1-b]] has pi = (b, a) / (a + b)."""
    a, b = 0.2, 0.5
    transition = np.array([[1 - a, a], [b, 1 - b]])
    pi = stationary_distribution(transition)
    np.testing.assert_allclose(pi, [b / (a + b), a / (a + b)], rtol=1e-12)

    def binary(p):
        return -p * np.log(p) - (1 - p) * np.log(1 - p)

    expected = (b * binary(a) + a * binary(b)) / (a + b)
    assert entropy_rate(transition, pi) == pytest.approx(expected, rel=1e-12)
    uniform = np.full((8, 8), 1 / 8)
    assert entropy_rate(uniform, stationary_distribution(uniform)) == pytest.approx(np.log(8))
    cycle = np.roll(np.eye(3), 1, axis=1)
    assert entropy_rate(cycle, np.full(3, 1 / 3)) == 0.0


@pytest.mark.parametrize("vocab_size", [2, 64])
def test_markov_chain_is_stationary_and_follows_its_matrix(vocab_size):
    dataset = open_dataset(
        {"source": "markov", "vocab_size": vocab_size, "sequence_length": 40, "batch_size": 5000}
    )
    task = dataset.task
    np.testing.assert_allclose(task.transition.sum(axis=1), 1, rtol=1e-12)
    power = np.linalg.matrix_power(task.transition, 4096)
    np.testing.assert_allclose(power[0], task.stationary, atol=1e-10)

    tokens = dataset.batch(0, 0)["tokens"]
    for time in (0, 1, 40):  # stationary from the first token on
        found = np.bincount(tokens[:, time], minlength=vocab_size) / 5000
        np.testing.assert_allclose(found, task.stationary, atol=0.04)
    counts = np.zeros((vocab_size, vocab_size))
    np.add.at(counts, (tokens[:, :-1], tokens[:, 1:]), 1)
    visits = counts.sum(axis=1, keepdims=True)
    error = np.sqrt(task.transition * (1 - task.transition) / visits)
    assert (abs(counts / visits - task.transition) < 6 * error + 3 / visits).all()


def test_markov_optimal_loss_has_the_entropy_as_its_expectation():
    dataset = open_dataset({"source": "markov", "batch_size": 2000, "sequence_length": 100})
    batch = dataset.batch(5, 0)
    tokens = batch["tokens"]
    probabilities = dataset.task.transition[tokens[:, :-1], tokens[:, 1:]]
    losses = -np.log(probabilities).mean(axis=1)
    assert dataset.optimal_loss(batch) == pytest.approx(losses.mean(), rel=1e-12)
    error = losses.std() / np.sqrt(len(losses))
    assert abs(losses.mean() - dataset.entropy) < 5 * error
    assert error < 0.01 < dataset.entropy < np.log(64)
    assert "weights" not in batch


def test_markov_task_is_the_same_for_every_run_and_differs_between_alphabets():
    one, same, other = (
        open_dataset({"source": "markov", "vocab_size": size}) for size in (8, 8, 9)
    )
    np.testing.assert_array_equal(one.task.transition, same.task.transition)
    assert one.fingerprint == same.fingerprint
    assert one.fingerprint["sha256"] != other.fingerprint["sha256"]
    assert one.fingerprint["entropy"] == one.entropy


@pytest.mark.parametrize("source", ["copy", "markov"])
def test_evaluation_shares_no_batch_with_training(source):
    dataset = open_dataset({"source": source, "evaluation_batches": 20})
    held_out = {dataset.evaluation_batch(k)["tokens"].tobytes() for k in range(20)}
    trained = {dataset.batch(seed, k)["tokens"].tobytes() for seed in range(5) for k in range(20)}
    assert len(held_out) == 20 and not held_out & trained
