"""A deep and narrow model, where placements part company: 96 blocks of width 64, rematerialized.

    python -m experiments.train --config=experiments/configs/deep.py:post_ln --workdir=runs/deep

Expect Post-LN to stay near the entropy of single bytes (3.3 nats or so) and Pre-LN, Sandwich-LN and
DeepNorm to train.
"""

from experiments.command_line import configuration


def get_config(placement: str = "pre_ln"):
    """The configuration, with the placement's name after the colon of --config."""
    return configuration(
        model={"placement": placement, "depth": 96, "width": 64, "heads": 4, "remat": True},
        data={"sequence_length": 64, "batch_size": 16},
        optimizer={"learning_rate": 1e-3, "warmup": 100},
        training={"steps": 500, "log_every": 10, "checkpoint_every": 100},
    )
