"""Batches are pure functions of (seed, k); training and held-out tokens never meet."""

import numpy as np
import pytest

from lnjax.data import DataConfig, open_dataset
from lnjax.data.batches import generator
from lnjax.data.shards import write_shard

SOURCES = ("shards", "copy", "markov")


@pytest.fixture
def shards(tmp_path):
    """60000 tokens in three shards, each token being its own position."""
    positions = np.arange(60_000)
    for index, part in enumerate(np.split(positions, [25_000, 25_010])):
        write_shard(tmp_path / f"{index}.bin", part)
    return str(tmp_path / "*.bin")


def config_of(source, shards, **fields):
    path = {"path": shards} if source == "shards" else {}
    return DataConfig(source=source, **path, **{"sequence_length": 33, "batch_size": 5, **fields})


@pytest.mark.parametrize("source", SOURCES)
def test_a_batch_is_a_pure_function_of_seed_and_number(source, shards):
    config = config_of(source, shards)
    one, other = open_dataset(config), open_dataset(config)
    forward = [one.batch(3, k)["tokens"] for k in range(6)]
    np.random.seed(1)  # global state must not matter
    backward = [other.batch(3, k)["tokens"] for k in reversed(range(6))][::-1]
    np.testing.assert_array_equal(forward, backward)
    np.testing.assert_array_equal(one.batch(np.int64(3), np.int32(5))["tokens"], forward[5])


@pytest.mark.parametrize("source", SOURCES)
def test_batches_differ_between_numbers_seeds_and_splits(source, shards):
    dataset = open_dataset(config_of(source, shards))
    batches = [dataset.batch(seed, k)["tokens"] for seed in (0, 1, 2**63) for k in (0, 1, 2**40)]
    batches += [dataset.evaluation_batch(k)["tokens"] for k in range(8)]
    assert len({batch.tobytes() for batch in batches}) == len(batches)


@pytest.mark.parametrize("source", SOURCES)
def test_shape_and_type(source, shards):
    dataset = open_dataset(config_of(source, shards))
    for batch in (dataset.batch(0, 0), dataset.evaluation_batch(0)):
        assert batch["tokens"].shape == (5, 34)
        assert batch["tokens"].dtype == np.int32
        assert batch["tokens"].min() >= 0
        assert batch["tokens"].max() < dataset.vocab_size


def test_held_out_tokens_are_never_trained_on(shards):
    """Tokens are positions, so that a token seen in both parts is an overlap by one position."""
    dataset = open_dataset(config_of("shards", shards, batch_size=256, sequence_length=7))
    trained = np.unique([dataset.batch(0, k)["tokens"] for k in range(300)])
    held_out = np.unique([dataset.evaluation_batch(k)["tokens"] for k in range(8)])
    declared = {p for start, stop in dataset.split.held_out for p in range(start, stop)}
    assert set(held_out.tolist()) <= declared
    assert not set(trained.tolist()) & declared
    # The check above has teeth only if training reaches the borders and evaluation the ends.
    start, stop = dataset.split.held_out[0]
    assert trained.min() == 0 and start - 1 in trained
    assert held_out.min() == start and held_out.max() > stop - 20


def test_windows_are_uniform_and_contiguous(shards):
    dataset = open_dataset(config_of("shards", shards, batch_size=500))
    tokens = np.concatenate([dataset.batch(7, k)["tokens"] for k in range(20)])
    assert (np.diff(tokens, axis=1) == 1).all()
    counts, _ = np.histogram(tokens[:, 0], bins=10, range=(0, dataset.split.training[0][1] - 33))
    assert abs(counts - 1000).max() < 5 * 30  # five standard deviations of a binomial


def test_evaluation_is_fixed_evenly_spaced_and_each_batch_spans_the_held_out_part(shards):
    dataset = open_dataset(
        config_of("shards", shards, held_out=0.2, batch_size=4, evaluation_batches=3)
    )
    batches = np.stack([dataset.evaluation_batch(k)["tokens"] for k in range(3)])
    starts = batches[:, :, 0]
    spacing = np.diff(np.sort(starts.reshape(-1)))
    assert spacing.max() - spacing.min() <= 1 and spacing.min() > 34  # no overlap either
    (first, last) = dataset.split.held_out[0]
    assert (np.ptp(starts, axis=1) > 0.6 * (last - first)).all()


def test_changing_sequence_length_or_batch_size_keeps_the_split(shards):
    one = open_dataset(config_of("shards", shards))
    other = open_dataset(config_of("shards", shards, sequence_length=100, batch_size=2))
    assert one.split == other.split
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize("source", SOURCES)
def test_numbers_out_of_range(source, shards):
    dataset = open_dataset(config_of(source, shards, evaluation_batches=2))
    for k in (-1, 2):
        with pytest.raises(ValueError, match="data.evaluation_batches=2"):
            dataset.evaluation_batch(k)
    with pytest.raises(ValueError, match="seed must be in"):
        dataset.batch(-1, 0)
    with pytest.raises(ValueError, match="k must be in"):
        dataset.batch(0, -1)
    with pytest.raises(TypeError):
        generator(0.5, 0, 1)


def test_sequences_that_do_not_fit(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x" * 1000)
    fields = {"source": "text", "path": str(tmp_path / "a.txt")}
    with pytest.raises(ValueError, match=r"needs 952 tokens.*training part has 950"):
        open_dataset({**fields, "sequence_length": 951})
    with pytest.raises(ValueError, match=r"held-out part has 50 .*raise data.held_out"):
        open_dataset({**fields, "sequence_length": 50})
    assert open_dataset({**fields, "sequence_length": 49}).batch(0, 0)["tokens"].shape == (16, 50)
    everything = open_dataset(
        {**fields, "sequence_length": 999, "held_out": 0, "evaluation_batches": 0}
    )
    assert everything.batch(0, 0)["tokens"].shape == (16, 1000)
    with pytest.raises(ValueError, match="evaluation_batches=0"):
        everything.evaluation_batch(0)
