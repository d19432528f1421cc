"""NumPy float64 oracle: the whole Transformer, assembled from its parts.

Import everything from here. Written from the papers' equations alone, to prove the model under
test correct: `oracle_layers` has the norms, attention and MLP, `oracle_placements` one function
per placement, `oracle_formulas` the loss, the initial scales and the parameter count.
"""

import math
import re
from types import SimpleNamespace

import numpy as np
from jaxtyping import Int
from oracle_formulas import GATED, cross_entropy, init_std, parameter_count
from oracle_layers import (
    Mask,
    alibi_slopes,
    apply_norm,
    attention,
    attention_weights,
    batch_norm,
    l2_normalise,
    layer_norm,
    mlp,
    rms_norm,
    rope,
    scale_norm,
    softmax,
)
from oracle_placements import PLACEMENTS, deepnorm_constants, sublayer_norms

__all__ = [
    "PLACEMENTS",
    "alibi_slopes",
    "apply_norm",
    "attention",
    "attention_weights",
    "batch_norm",
    "cross_entropy",
    "deepnorm_constants",
    "init_std",
    "l2_normalise",
    "layer_norm",
    "mlp",
    "parameter_count",
    "rms_norm",
    "rope",
    "scale_norm",
    "softmax",
    "sublayer_norms",
    "transformer",
    "unstack",
]

Tokens = Int[np.ndarray, "batch time"]


def to_float64(tree):
    """Every leaf of a nested dict as a float64 array."""
    if hasattr(tree, "items"):
        return {name: to_float64(leaf) for name, leaf in tree.items()}
    return np.asarray(tree).astype(np.float64)


def unstack(params: dict):
    """Yield the parameters of block 1, 2, ..., L: blocks_0 from its first layer to its last, ..."""

    def layer(tree, i):
        if hasattr(tree, "items"):
            return {name: layer(leaf, i) for name, leaf in tree.items()}
        return tree[i]

    segments = [name for name in params if re.fullmatch(r"blocks_\d+", name)]
    for name in sorted(segments, key=lambda name: int(name.removeprefix("blocks_"))):
        for i in range(len(params[name]["mlp"]["in"]["kernel"])):
            yield layer(params[name], i)


def refuse_unknown(where: str, params: dict, known: set[str]) -> None:
    """Raise ValueError for a parameter that the equations would leave unused."""
    unknown = set(params) - known
    if unknown:
        raise ValueError(f"{where} has parameters the oracle would ignore: {sorted(unknown)}")


def transformer(
    placement: str,
    params: dict,
    tokens: Tokens,
    *,
    depth: int,
    heads: int,
    kv_heads: int | None = None,
    norm: str = "layernorm",
    eps: float = 1e-5,
    activation: str = "gelu",
    positions: str = "rope",
    causal: bool = True,
    embedding_scale: float | None = None,
    key_mask: Mask | None = None,
    embed_norm: bool | None = None,
    qk_norm: str | None = None,
    v_norm: str | None = None,
    attention_inner_norm: str | None = None,
    mlp_inner_norm: str | None = None,
    scope: str = "head",
    order: str = "before_rope",
) -> dict:
    """The whole model, without dropout.

    Returns "logits" [B, T, V]; "stream", the 2L residual streams [B, T, d] entering attention
    and MLP of block 1, then of block 2, ...; "output" [B, T, d], the stream leaving the last
    block, before the final norm. embedding_scale None means sqrt(d); embed_norm None means the
    placement's own choice. qk_norm, v_norm, ..._inner_norm name a kind of norm. The head is tied
    when params has no "head". Raises ValueError when params does not fit the placement.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"the oracle has no placement {placement!r}; it has {[*PLACEMENTS]}")
    run_block, has_embed_norm, has_final_norm, _ = PLACEMENTS[placement]
    has_embed_norm = has_embed_norm if embed_norm is None else embed_norm
    params = to_float64(params)
    blocks = list(unstack(params))
    if len(blocks) != depth:
        raise ValueError(f"params hold {len(blocks)} blocks, depth says {depth}")
    known = {"embedding", "head"} | {name for name in params if name.startswith("blocks_")}
    known |= {"positions"} if positions == "learned" else set()
    known |= {"embed_norm"} if has_embed_norm else set()
    known |= {"final_norm"} if has_final_norm else set()
    refuse_unknown("the model", params, known)

    def normalizer(p: dict, name: str, kind: str | None):
        """The norm x -> N(x) with the parameters p[name]; None when there is no such norm."""
        return None if kind is None else lambda x: apply_norm(kind, x, p.get(name, {}), eps)

    def attention_sublayer(p: dict, side: dict, names: tuple[str, ...]) -> SimpleNamespace:
        kinds = {"q_norm": qk_norm, "k_norm": qk_norm, "v_norm": v_norm}
        kinds["inner_norm"] = attention_inner_norm
        inner = {name: normalizer(p, name, kind) for name, kind in kinds.items()}
        existing = {name for name, kind in kinds.items() if kind is not None}
        refuse_unknown("attention", p, {"query", "key", "value", "output"} | existing)
        refuse_unknown("attention_residual", side, set(names))

        def A(y):
            return attention(
                y,
                p,
                heads=heads,
                kv_heads=kv_heads or heads,
                positions=positions,
                causal=causal,
                key_mask=key_mask,
                scope=scope,
                order=order,
                **inner,
            )

        return SimpleNamespace(F=A, **{name: normalizer(side, name, norm) for name in names})

    def mlp_sublayer(p: dict, side: dict, names: tuple[str, ...]) -> SimpleNamespace:
        existing = {"in", "out"} | ({"gate"} if activation in GATED else set())
        existing |= {"inner_norm"} if mlp_inner_norm is not None else set()
        refuse_unknown("mlp", p, existing)
        refuse_unknown("mlp_residual", side, set(names))
        inner = normalizer(p, "inner_norm", mlp_inner_norm)

        def M(y):
            return mlp(y, p, activation, inner)

        return SimpleNamespace(F=M, **{name: normalizer(side, name, norm) for name in names})

    table = params["embedding"]["table"]  # [V, d]
    tokens = np.asarray(tokens)
    x = (math.sqrt(table.shape[1]) if embedding_scale is None else embedding_scale) * table[tokens]
    if positions == "learned":
        x = x + params["positions"]["table"][: tokens.shape[1]]
    if has_embed_norm:
        x = normalizer(params, "embed_norm", norm)(x)

    stream = []
    for block, p in enumerate(blocks):
        names = sublayer_norms(placement, block, depth)
        attn = attention_sublayer(p["attention"], p.get("attention_residual", {}), names)
        ffn = mlp_sublayer(p["mlp"], p.get("mlp_residual", {}), names)
        stream.append(x)
        y, x = run_block(x, attn, ffn, block, depth)
        stream.append(y)

    output = x
    y = normalizer(params, "final_norm", norm)(output) if has_final_norm else output
    logits = y @ params["head"]["kernel"] if "head" in params else y @ table.T
    return {"logits": logits, "stream": stream, "output": output}
