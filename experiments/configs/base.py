"""A small language model on the Python standard library's source, to try any placement with.

    python -m experiments.train --config=experiments/configs/base.py:deepnorm --workdir=runs/deep

12 blocks of width 64, byte tokens, 500 steps. 75 seconds on 2 CPU cores; Pre-LN ends at a
held-out loss of 1.65 nats per byte.
"""

from experiments.command_line import configuration


def get_config(placement: str = "pre_ln"):
    """The configuration, with the placement's name after the colon of --config."""
    return configuration(
        model={"placement": placement, "depth": 12, "width": 64, "heads": 4},
        data={"sequence_length": 64, "batch_size": 16},
        optimizer={"learning_rate": 3e-3, "warmup": 50},
        training={"steps": 500, "log_every": 10, "evaluate_every": 100, "checkpoint_every": 250},
    )
