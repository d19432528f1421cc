"""Next-token and masked language modelling batches, and the cross-entropy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import small

from lnjax.data import open_dataset
from lnjax.training import objectives
from lnjax.training.loop import Session

VOCABULARY = 50


def masked(seed: int = 0, rate: float = 0.15, shape=(400, 65)):
    """Tokens, and the masked batch made of them."""
    tokens = np.random.default_rng(9).integers(0, VOCABULARY, shape).astype(np.int32)
    rng = np.random.default_rng(seed)
    return tokens, objectives.masked({"tokens": tokens}, rng, VOCABULARY, rate)


def test_next_token_shifts_by_one():
    tokens = np.arange(10, dtype=np.int32).reshape(2, 5)
    batch = objectives.next_token({"tokens": tokens})
    assert batch["inputs"].tolist() == [[0, 1, 2, 3], [5, 6, 7, 8]]
    assert batch["targets"].tolist() == [[1, 2, 3, 4], [6, 7, 8, 9]]
    assert batch["weights"].dtype == np.float32 and (batch["weights"] == 1).all()


def test_next_token_keeps_the_weights_of_the_data():
    weights = np.array([[0.0, 1.0, 1.0]])
    batch = objectives.next_token({"tokens": np.zeros((1, 4), np.int32), "weights": weights})
    assert batch["weights"].dtype == np.float32 and batch["weights"].tolist() == weights.tolist()


def test_masking_has_the_shares_of_bert():
    tokens, batch = masked()
    tokens = tokens[:, :-1]
    chosen = batch["weights"] == 1
    assert set(np.unique(batch["weights"])) == {0.0, 1.0}
    assert abs(chosen.mean() - 0.15) < 0.01
    inputs = batch["inputs"]
    assert (inputs[~chosen] == tokens[~chosen]).all()
    assert abs((inputs[chosen] == VOCABULARY).mean() - 0.8) < 0.03
    # A random token is the old one once in VOCABULARY times.
    changed = (inputs[chosen] != VOCABULARY) & (inputs[chosen] != tokens[chosen])
    assert abs(changed.mean() - 0.1 * (1 - 1 / VOCABULARY)) < 0.02
    assert abs((inputs[chosen] == tokens[chosen]).mean() - 0.1 * (1 + 1 / VOCABULARY)) < 0.02
    assert len(np.unique(inputs[chosen][changed])) > 0.9 * VOCABULARY
    np.testing.assert_array_equal(batch["targets"], tokens)
    assert batch["inputs"].dtype == np.int32


def test_every_sequence_has_something_to_predict():
    for seed in range(20):
        _, batch = masked(seed, rate=0.001, shape=(8, 9))
        assert (batch["weights"].sum(1) >= 1).all()


def test_the_same_numbers_give_the_same_batch():
    first, again, other = masked(3)[1], masked(3)[1], masked(4)[1]
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert (first["weights"] != other["weights"]).any()


def session(config):
    """A session that can only make batches."""
    made = object.__new__(Session)
    made.config, made.dataset = config, open_dataset(config.data)
    return made


def test_masked_batches_are_a_pure_function_of_seed_and_step():
    config = small(model={"causal": False})
    assert config.model.vocab_size == 12  # and the mask token
    ahead, behind = session(config), session(config)
    batches = [ahead.batch(k) for k in range(3)]
    for k in (2, 0, 1):  # in another order
        for name, values in behind.batch(k).items():
            np.testing.assert_array_equal(values, batches[k][name])
    assert (batches[0]["weights"] != batches[1]["weights"]).any()
    seeded = session(config.with_(training={"seed": 1})).batch(0)
    assert (seeded["weights"] != batches[0]["weights"]).any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_token_losses_are_cross_entropies(dtype):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(10 * rng.standard_normal((2, 3, 5)), dtype).astype(jnp.float32)
    targets = jnp.asarray(rng.integers(0, 5, (2, 3)), jnp.int32)
    probability = np.exp(np.asarray(jax.nn.log_softmax(logits), np.float64))
    picked = [[probability[i, j, targets[i, j]] for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(
        objectives.token_losses(logits, targets), -np.log(picked), rtol=1e-5, atol=1e-6
    )
