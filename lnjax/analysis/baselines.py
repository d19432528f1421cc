"""What models that look at no context lose, to tell whether a run has learned more than that."""

import numpy as np

from lnjax.data import Dataset


def unigram_loss(dataset: Dataset, batches: int = 256) -> float:
    """Held-out loss of the token frequencies of the first training batches, in nats per token.

    A Transformer whose layers pass nothing on ends here: its head still learns the frequencies.

    Args:
      dataset: any; every token counts as seen once more than it was.
      batches: how many training batches are counted.

    Raises:
      ValueError: the dataset has no held-out batches.
    """
    if not dataset.config.evaluation_batches:
        raise ValueError("data.evaluation_batches=0: there is no held-out loss to compare with")
    counts = np.ones(dataset.vocab_size)
    for k in range(batches):
        targets, weights = _targets(dataset.batch(0, k))
        counts += np.bincount(targets, weights, minlength=dataset.vocab_size)
    loss = -np.log(counts / counts.sum())
    count = dataset.config.evaluation_batches
    held_out = [_targets(dataset.evaluation_batch(k)) for k in range(count)]
    total = sum(np.sum(loss[targets] * weights) for targets, weights in held_out)
    return float(total / sum(weights.sum() for _, weights in held_out))


def _targets(batch: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    targets = batch["tokens"][:, 1:].ravel()
    return targets, batch.get("weights", np.ones(targets.shape)).ravel()
