"""The held-out loss: which batches, which model, and when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import quick_compile, small  # noqa: F401

import lnjax
from lnjax.data import open_dataset
from lnjax.models import Transformer
from lnjax.training import objectives
from lnjax.training.loop import train


def held_out(config) -> list[dict]:
    """The held-out batches as the loop prepares them."""
    dataset, found = open_dataset(config.data), []
    for k in range(config.data.evaluation_batches):
        batch = dataset.evaluation_batch(k)
        if config.model.causal:
            found.append(objectives.next_token(batch))
        else:
            rng = np.random.default_rng((0, k, 1))
            rate = config.training.mask_rate
            found.append(objectives.masked(batch, rng, dataset.vocab_size, rate))
    return found


@pytest.mark.parametrize(
    "model",
    [{"dropout": 0.5}, {"norm": "batchnorm", "causal": False}],
    ids=["dropout", "batchnorm"],
)
def test_it_is_the_mean_over_the_held_out_tokens_of_the_model_as_it_is_used(model, tmp_path):
    """Without dropout, and with BatchNorm's running statistics."""
    config = small(model=model, training={"steps": 4, "telemetry": False})
    result = train(config, tmp_path / "run")
    state = lnjax.open(tmp_path / "run").state()
    saved = {"params": state["params"], **(state["model_state"] or {})}
    variables = jax.tree.map(jnp.asarray, saved)

    @jax.jit
    def sums(batch):
        logits, _ = Transformer(config.model).apply(variables, batch["inputs"])
        chosen = jax.nn.one_hot(batch["targets"], logits.shape[-1])
        losses = -jnp.sum(chosen * jax.nn.log_softmax(logits), -1)
        return jnp.sum(losses * batch["weights"]), jnp.sum(batch["weights"])

    batches = held_out(config)
    total, weight = np.sum([jax.device_get(sums(batch)) for batch in batches], axis=0)
    np.testing.assert_allclose(result["evaluation_loss"], total / weight, rtol=1e-5)
    assert weight == sum(batch["weights"].sum() for batch in batches) > 16


def test_it_is_taken_every_n_steps_and_at_the_end_and_changes_nothing(tmp_path):
    often = small(training={"steps": 5, "evaluate_every": 2})
    once = often.with_(training={"evaluate_every": 0})
    results = [train(c, tmp_path / str(i)) for i, c in enumerate((often, once))]
    a, b = (lnjax.open(tmp_path / str(i)).telemetry for i in range(2))
    assert a.evaluation_step.values.tolist() == [2, 4, 5]
    assert b.evaluation_step.values.tolist() == [5]
    assert a.loss.equals(b.loss) and a.evaluation_loss[-1] == b.evaluation_loss[0]
    assert results[0]["evaluation_loss"] == results[1]["evaluation_loss"]
    assert results[0]["best_evaluation_loss"] == pytest.approx(float(a.evaluation_loss.min()))
