"""Losses of models that look at no context."""

import numpy as np
import pytest

from lnjax.analysis.baselines import unigram_loss
from lnjax.data import DataConfig, Dataset, open_dataset


def test_unigram_loss_of_bytes_is_that_of_their_frequencies(tmp_path):
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(["a", "b", "c"], 40_000, p=[0.5, 0.3, 0.2]))
    (tmp_path / "text.txt").write_text(text)
    config = DataConfig(
        source="text", path=str(tmp_path / "*.txt"), sequence_length=32, evaluation_batches=8
    )
    entropy = -sum(p * np.log(p) for p in (0.5, 0.3, 0.2))
    assert unigram_loss(open_dataset(config)) == pytest.approx(entropy, abs=0.02)


class HalfCounts(Dataset):
    """Token 0 is as frequent as token 1, but only one in four of its targets counts."""

    config = DataConfig(evaluation_batches=3)
    vocab_size = 2

    def batch(self, seed, k):
        weights = np.array([[1, 0, 0, 0, 1, 1, 1, 1]], np.float32)
        return {"tokens": np.array([[0, 0, 0, 0, 0, 1, 1, 1, 1]]), "weights": weights}

    def evaluation_batch(self, k):
        return self.batch(0, k)


def test_only_weighted_targets_count():
    entropy = -(0.2 * np.log(0.2) + 0.8 * np.log(0.8))
    assert unigram_loss(HalfCounts()) == pytest.approx(entropy, abs=1e-4)


def test_without_held_out_batches_there_is_nothing_to_compare():
    dataset = open_dataset(DataConfig(source="copy", sequence_length=9, evaluation_batches=0))
    with pytest.raises(ValueError, match="evaluation_batches=0"):
        unigram_loss(dataset)
