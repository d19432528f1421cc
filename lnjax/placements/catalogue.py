"""The published placements, one row each. Constants and sources are the papers'.

To add one: build a `Placement` and put it in `CATALOGUE`. To train one of your own, build it in
your own file and pass the object (or "path/to/file.py:name") where a name is expected.
"""

import difflib
import types
from pathlib import Path

from lnjax.placements.algebra import Init, N, Placement, Scale, Sublayer

_PRE = Sublayer(pre=N)
_POST = Sublayer(out=N)
_SANDWICH = Sublayer(pre=N, post=N)

post_ln = Placement(
    name="post_ln",
    attention=_POST,
    mlp=_POST,
    title="Post-LN, the original Transformer",
    paper="Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762",
    equation_source="section 3.1: LayerNorm(x + Sublayer(x))",
    notes="No final norm: the last out norm is it. BERT adds an embedding norm, this does not.",
)

pre_ln = Placement(
    name="pre_ln",
    attention=_PRE,
    mlp=_PRE,
    final=N,
    title="Pre-LN",
    paper="Xiong et al. 2020, On Layer Normalization in the Transformer Architecture, "
    "arXiv:2002.04745; Baevski & Auli 2018, arXiv:1809.10853",
    equation_source="Xiong et al., table 1, right column",
    notes="GPT-2 also divides the initial output projections by sqrt(2L); choose that with "
    "init='gpt2'.",
)

sandwich_ln = Placement(
    name="sandwich_ln",
    attention=_SANDWICH,
    mlp=_SANDWICH,
    final=N,
    title="Sandwich-LN, CogView",
    paper="Ding et al. 2021, CogView, arXiv:2105.13290",
    equation_source="section 2.4; mpu/sparse_transformer.py L250-345 of the released code",
    notes="CogView's LN(x / max|x|) equals LN(x) up to eps and is left out; its PB-relax attention "
    "equals softmax and only matters in float16 arithmetic, where scores here are float32.",
)

pre_ln_embed = Placement(
    name="pre_ln_embed",
    attention=_PRE,
    mlp=_PRE,
    embed=N,
    final=N,
    title="Pre-LN with embedding norm, BLOOM",
    paper="Le Scao et al. 2022, What Language Model to Train if You Have One Million GPU Hours?, "
    "arXiv:2210.15424",
    equation_source="section 4.3; megatron/mpu/layers.py L190-249 of Megatron-DeepSpeed",
    notes="BLOOM itself also uses ALiBi: set positions='alibi'.",
)

_ALPHA = Scale(lambda w: (2 * w.depth) ** 0.25, symbol=r"\alpha", formula="(2L)^{1/4}")
_BETA = Scale(lambda w: (8 * w.depth) ** -0.25, symbol=r"\beta", formula="(8L)^{-1/4}")

deepnorm = Placement(
    name="deepnorm",
    attention=Sublayer(out=N, skip=_ALPHA),
    mlp=Sublayer(out=N, skip=_ALPHA),
    init=Init({name: _BETA for name in ("value", "output", "in", "gate", "out")}),
    title="DeepNorm, DeepNet",
    paper="Wang et al. 2022, DeepNet: Scaling Transformers to 1,000 Layers, arXiv:2203.00555",
    equation_source="section 2, figure 2: decoder-only (2M)^(1/4), (8M)^(-1/4); encoder-only is "
    "the same in N",
    notes="Queries and keys keep gain 1, as in the paper. The baselines called DeepNorm in the "
    "released code of Mix-LN and LayerNorm-Scaling fix alpha at 64^(1/4) and invert the sign "
    "of beta's exponent; this row is the paper's.",
)

res_post_norm = Placement(
    name="res_post_norm",
    attention=Sublayer(post=N),
    mlp=Sublayer(post=N),
    final=N,
    title="Res-post-norm, norm on the branch output only",
    paper="Liu et al. 2021, Swin Transformer V2, arXiv:2111.09883; OLMo 2, arXiv:2501.00656",
    equation_source="Swin V2 section 3.2, figure 1; OLMo 2 section 2.1",
    notes="Gains start at 1 as in OLMo 2 (Swin V2 starts gain and bias at 0). OLMo 2 adds qk-norm: "
    "give the attention row qk=InnerNorm(scope='full').",
)

peri_ln = Placement(
    name="peri_ln",
    attention=_SANDWICH,
    mlp=_SANDWICH,
    embed=N,
    final=N,
    title="Peri-LN",
    paper="Kim et al. 2025, Peri-LN: Revisiting Normalization Layer in the Transformer "
    "Architecture, arXiv:2502.02732",
    equation_source="section 3: y0 = N(x0); y + N(F(N(y))); N(y_L)",
    notes="The block is Sandwich-LN's. The paper calls the embedding norm optional: "
    "peri_ln.with_(embed=None) drops it. The paper's norm function is RMSNorm.",
)


def mix_ln(fraction: float = 0.25) -> Placement:
    """Mix-LN: Post-LN in the first floor(fraction * L) blocks, Pre-LN in the others.

    Raises:
      ValueError: fraction is not between 0 and 1.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"Mix-LN's fraction of Post-LN blocks must be in [0, 1], got {fraction}")

    def per_block(block: int, depth: int):
        # The small term keeps floor(0.1 * 30) from becoming 2 in binary floating point.
        return (_POST, _POST) if block <= int(fraction * depth + 1e-9) else None

    return Placement(
        name="mix_ln" if fraction == 0.25 else f"mix_ln_{fraction:g}",
        attention=_PRE,
        mlp=_PRE,
        final=N,
        per_block=per_block,
        title="Mix-LN",
        paper="Li, Yin & Liu 2024, Mix-LN: Unleashing the Power of Deeper Layers by Combining "
        "Pre-LN and Post-LN, arXiv:2412.13795",
        equation_source=f"section 3: Post-LN for l <= floor({fraction:g} L), then Pre-LN",
        notes="No DeepNorm-style scaling in the Post-LN part. The paper's norm is RMSNorm. Its "
        "released code initializes embeddings with standard deviation sqrt(2/5).",
    )


no_norm = Placement(
    name="no_norm",
    attention=Sublayer(),
    mlp=Sublayer(),
    title="No normalization",
    paper="the control: a plain residual network, x + F(x)",
    equation_source="all norms left out",
    notes="No norm anywhere, the final one included.",
)

CATALOGUE: dict[str, Placement] = {
    placement.name: placement
    for placement in (
        post_ln,
        pre_ln,
        sandwich_ln,
        pre_ln_embed,
        deepnorm,
        res_post_norm,
        peri_ln,
        mix_ln(),
        no_norm,
    )
}


def names() -> list[str]:
    """The names of the catalogue, in its order."""
    return list(CATALOGUE)


def get(placement: str | Placement) -> Placement:
    """A placement by its name, or by "path/to/file.py:variable" for one of your own.

    Raises:
      ValueError: the name is unknown (the message lists the known ones), or the file has no such
        placement.
    """
    if isinstance(placement, Placement):
        return placement
    if placement in CATALOGUE:
        return CATALOGUE[placement]
    if ".py:" in placement:
        return _from_file(placement)
    close = difflib.get_close_matches(placement, CATALOGUE, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"unknown placement {placement!r}.{hint} Known: {', '.join(CATALOGUE)}; "
        "one of your own is given as path/to/file.py:name"
    )


_FILES: dict[tuple[str, bytes], types.ModuleType] = {}


def _from_file(reference: str) -> Placement:
    path, _, variable = reference.rpartition(":")
    file = Path(path).resolve()
    if not file.is_file():
        raise ValueError(f"placement {reference!r}: there is no file {path}")
    source = file.read_bytes()
    key = (str(file), source)
    if key not in _FILES:
        # One module object per content, so that the same placement compares equal to itself. Not by
        # the time of change, which bytecode caches go by too: two edits in a second look like one.
        module = types.ModuleType(f"lnjax_user_{file.stem}")
        module.__file__ = str(file)
        exec(compile(source, str(file), "exec"), vars(module))
        _FILES[key] = module
    found = getattr(_FILES[key], variable, None)
    if not isinstance(found, Placement):
        has = [n for n, v in vars(_FILES[key]).items() if isinstance(v, Placement)]
        raise ValueError(
            f"placement {reference!r}: {path} has no Placement called {variable!r}"
            + (f"; it has {', '.join(has)}" if has else "; assign one to a variable of that name")
        )
    return found
