"""NumPy float64 oracle, part 2: every placement, as published.

Each placement is one function, straight-line code that repeats its paper's two equations; no
shared algebra. In all of them x is the residual stream entering the block, A the attention and
M the MLP of that block (with their parameters inside), N1, N2, ... its norms, and the result is
(the stream entering the MLP sublayer, the stream leaving the block).
"""

import math

from oracle_layers import Stream

Pair = tuple[Stream, Stream]

# ----------------------------------------------------------------------------------- placements


def post_ln(x: Stream, attn, ffn, block: int, depth: int) -> Pair:
    """x <- N1(x + A(x));  x <- N2(x + M(x)).

    Vaswani et al. 2017 (1706.03762), section 3.1: "LayerNorm(x + Sublayer(x))". No final norm.
    """
    A, N1 = attn.F, attn.out_norm
    M, N2 = ffn.F, ffn.out_norm
    y = N1(x + A(x))
    return y, N2(y + M(y))


def pre_ln(x: Stream, attn, ffn, block: int, depth: int) -> Pair:
    """x <- x + A(N1(x));  x <- x + M(N2(x));  final norm.

    Xiong et al. 2020 (2002.04745), Table 1, right column.
    """
    A, N1 = attn.F, attn.pre_norm
    M, N2 = ffn.F, ffn.pre_norm
    y = x + A(N1(x))
    return y, y + M(N2(y))


def sandwich_ln(x: Stream, attn, ffn, block: int, depth: int) -> Pair:
    """x <- x + N3(A(N1(x)));  x <- x + N4(M(N2(x)));  final norm.

    Ding et al. 2021, CogView (2105.13290), "Stabilization of training": Sandwich-LN adds a norm
    at the end of each residual branch of Pre-LN.
    """
    A, N1, N3 = attn.F, attn.pre_norm, attn.post_norm
    M, N2, N4 = ffn.F, ffn.pre_norm, ffn.post_norm
    y = x + N3(A(N1(x)))
    return y, y + N4(M(N2(y)))


def pre_ln_embed(x: Stream, attn, ffn, block: int, depth: int) -> Pair:
    """x_0 = N_e(embedding);  x <- x + A(N1(x));  x <- x + M(N2(x));  final norm.

    BLOOM (2211.05100), "Modeling details", embedding LayerNorm; N_e is applied by `transformer`.
    """
    A, N1 = attn.F, attn.pre_norm
    M, N2 = ffn.F, ffn.pre_norm
    y = x + A(N1(x))
    return y, y + M(N2(y))


def deepnorm_constants(blocks: int) -> tuple[float, float]:
    """alpha = (2N)^(1/4), beta = (8N)^(-1/4): encoder-only (N) and decoder-only (M) alike.

    Wang et al. 2022, DeepNet (2203.00555), Figure 2.
    """
    return (2.0 * blocks) ** (1.0 / 4.0), (8.0 * blocks) ** (-1.0 / 4.0)


def deepnorm(x: Stream, attn, ffn, block: int, depth: int) -> Pair:
    """x <- N1(alpha x + A(x));  x <- N2(alpha x + M(x)),  alpha = (2L)^(1/4).

    Wang et al. 2022, DeepNet (2203.00555): "x_{l+1} = LN(alpha x_l + G_l(x_l, theta_l))".
    No final norm.
    """
    A, N1 = attn.F, attn.out_norm
    M, N2 = ffn.F, ffn.out_norm
    alpha, _ = deepnorm_constants(depth)
    y = N1(alpha * x + A(x))
    return y, N2(alpha * y + M(y))


def res_post_norm(x: Stream, attn, ffn, block: int, depth: int) -> Pair:
    """x <- x + N1(A(x));  x <- x + N2(M(x));  final norm.

    Liu et al. 2021, Swin V2 (2111.09883), section 3.2; OLMo 2 (2501.00656), section 2.1 (whose
    printed MLP(x) is MLP(h) in section 3.3.2 and in its code).
    """
    A, N1 = attn.F, attn.post_norm
    M, N2 = ffn.F, ffn.post_norm
    y = x + N1(A(x))
    return y, y + N2(M(y))


def peri_ln(x: Stream, attn, ffn, block: int, depth: int) -> Pair:
    """y_0 = N_e(x_0) (optional);  y <- y + N_out(F(N_in(y))), F = A then M;  final norm.

    Kim et al. 2025, Peri-LN (2502.02732), the three steps of the method section; N_e is applied
    by `transformer`.
    """
    A, A_in, A_out = attn.F, attn.pre_norm, attn.post_norm
    M, M_in, M_out = ffn.F, ffn.pre_norm, ffn.post_norm
    y = x + A_out(A(A_in(x)))
    return y, y + M_out(M(M_in(y)))


def mix_ln(x: Stream, attn, ffn, block: int, depth: int) -> Pair:
    """Blocks 1 ... floor(L/4): x <- N1(x + A(x));  x <- N2(x + M(x)).

    Later blocks: x <- x + A(N1(x));  x <- x + M(N2(x)).  Final norm always.
    Li, Yin, Liu 2024, Mix-LN (2412.13795), method section, with its default alpha = 0.25;
    block counts from 0 here.
    """
    A, M = attn.F, ffn.F
    if block < math.floor(0.25 * depth):
        N1, N2 = attn.out_norm, ffn.out_norm
        y = N1(x + A(x))
        return y, N2(y + M(y))
    N1, N2 = attn.pre_norm, ffn.pre_norm
    y = x + A(N1(x))
    return y, y + M(N2(y))


def no_norm(x: Stream, attn, ffn, block: int, depth: int) -> Pair:
    """x <- x + A(x);  x <- x + M(x), no norm anywhere. The contrast: a bare residual network."""
    A, M = attn.F, ffn.F
    y = x + A(x)
    return y, y + M(y)


# name: (block function, embedding norm, final norm, norms of each sublayer)
PLACEMENTS = {
    "post_ln": (post_ln, False, False, ("out_norm",)),
    "pre_ln": (pre_ln, False, True, ("pre_norm",)),
    "sandwich_ln": (sandwich_ln, False, True, ("pre_norm", "post_norm")),
    "pre_ln_embed": (pre_ln_embed, True, True, ("pre_norm",)),
    "deepnorm": (deepnorm, False, False, ("out_norm",)),
    "res_post_norm": (res_post_norm, False, True, ("post_norm",)),
    "peri_ln": (peri_ln, True, True, ("pre_norm", "post_norm")),
    "mix_ln": (mix_ln, False, True, None),  # out_norm or pre_norm, by block: one per sublayer
    "no_norm": (no_norm, False, False, ()),
}


def sublayer_norms(placement: str, block: int, depth: int) -> tuple[str, ...]:
    """Names of the norms around each sublayer of this block (counted from 0)."""
    if placement == "mix_ln":
        return ("out_norm",) if block < math.floor(0.25 * depth) else ("pre_norm",)
    return PLACEMENTS[placement][3]
