"""An encoder: bidirectional attention, masked language modelling as in BERT.

python -m experiments.train --config=experiments/configs/masked.py:post_ln --workdir=runs/mlm
"""

from experiments.command_line import configuration


def get_config(placement: str = "post_ln"):
    """The configuration, with the placement's name after the colon of --config."""
    return configuration(
        model={"placement": placement, "depth": 6, "width": 128, "heads": 4, "causal": False}
        | {"positions": "learned", "activation": "gelu_erf"},
        data={"sequence_length": 128, "batch_size": 16},
        optimizer={"learning_rate": 1e-3, "warmup": 100, "schedule": "linear"},
        training={"steps": 1000, "mask_rate": 0.15},
    )
