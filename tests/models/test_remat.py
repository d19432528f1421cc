"""Rematerialized blocks are computed again in the backward pass, and so keep little memory."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from small_models import QUICK, shapes, small

from lnjax import placements
from lnjax.models import Transformer

# XLA for CPUs drops barriers before it merges equal computations; that pass left out, it compiles
# as for other devices.
KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}
TOKENS = jax.ShapeDtypeStruct((8, 16), jnp.int32)


def alternating() -> placements.Placement:
    """Pre-LN and Post-LN blocks in turn: every segment has one block."""
    pre, post = (placements.get(name) for name in ("pre_ln", "post_ln"))

    def per_block(block, depth):
        return (post.attention, post.mlp) if block % 2 else None

    return replace(pre, name="alternating", per_block=per_block)


def temporary_bytes(config) -> int:
    """Memory that the gradient takes besides its arguments and results."""

    def loss(params, tokens):
        return Transformer(config).apply({"params": params}, tokens)[0].mean()

    lowered = jax.jit(jax.grad(loss)).lower(shapes(config)["params"], TOKENS)
    program = lowered.compile(compiler_options=QUICK | KEEP_BARRIERS)
    return program.memory_analysis().temp_size_in_bytes


FORMS = {
    "scan": small(depth=6),
    "unrolled": small(depth=6, unroll=0),
    "partly unrolled": small(depth=6, unroll=2),
    "segments of one block": small(alternating(), depth=6),
}


@pytest.mark.parametrize("form", FORMS)
def test_rematerialized_blocks_take_less_memory(x64, form):
    config = FORMS[form]
    kept, recomputed = (temporary_bytes(replace(config, remat=r)) for r in (False, True))
    assert recomputed < 0.7 * kept
