"""GPT-2 small's size (124M parameters) in bfloat16 with the fused attention of NVIDIA GPUs.

    python -m experiments.train --config=experiments/configs/gpu_124m.py:peri_ln --workdir=runs/124m

Byte-pair tokens, trained on the corpus; give your own text with
--config.data.source=text --config.data.path='/data/**/*.txt'.
"""

from experiments.command_line import configuration


def get_config(placement: str = "pre_ln"):
    """The configuration, with the placement's name after the colon of --config."""
    return configuration(
        model={"placement": placement, "depth": 12, "width": 768, "heads": 12}
        | {"vocab_size": 50304, "dtype": "bfloat16", "attention_form": "cudnn", "init": "gpt2"},
        data={"tokenizer": "bpe", "vocab_size": 32768, "sequence_length": 1024, "batch_size": 32},
        optimizer={"learning_rate": 6e-4, "warmup": 200},
        training={"steps": 5000, "log_every": 20, "evaluate_every": 500, "checkpoint_every": 1000},
    )
