r"""The printed equations: as published for each row, and never other than the row that runs."""

from dataclasses import replace

import pytest

from lnjax import placements
from lnjax.norms import Norm
from lnjax.placements import Init, InnerNorm, N, Placement, Scale, Slot, Sublayer, equations

PRE = ["x ← x + A(N(x))", "x ← x + M(N(x))"]
SANDWICH = ["x ← x + N(A(N(x)))", "x ← x + N(M(N(x)))"]
START, NORMED_START = "x ← E[tokens]", "x ← N(E[tokens])"
HEAD, FINAL = "logits = Head(x)", "logits = Head(N(x))"
TEXT = {
    "post_ln": [START, "x ← N(x + A(x))", "x ← N(x + M(x))", HEAD],
    "pre_ln": [START, *PRE, FINAL],
    "sandwich_ln": [START, *SANDWICH, FINAL],
    "pre_ln_embed": [NORMED_START, *PRE, FINAL],
    "deepnorm": [
        START,
        "x ← N(α·x + A(x))",
        "x ← N(α·x + M(x))",
        HEAD,
        "α = (2L)^(1/4)",
        "β = (8L)^(-1/4) (gain of the initial value, output, in, gate, out matrices)",
    ],
    "res_post_norm": [START, "x ← x + N(A(x))", "x ← x + N(M(x))", FINAL],
    "peri_ln": [NORMED_START, *SANDWICH, FINAL],
    "mix_ln": [
        START,
        "x ← N(x + A(x))    (blocks 1 to 3 of 12)",
        "x ← N(x + M(x))",
        "x ← x + A(N(x))    (blocks 4 to 12 of 12)",
        "x ← x + M(N(x))",
        FINAL,
    ],
    "no_norm": [START, "x ← x + A(x)", "x ← x + M(x)", HEAD],
}


@pytest.mark.parametrize("name", placements.names())
def test_text_is_the_published_equations(name):
    assert placements.get(name).equations(12) == TEXT[name]


def n(x):
    return rf"\mathrm{{N}}\left({x}\right)"


def a(x):
    return rf"\mathrm{{A}}\left({x}\right)"


def m(x):
    return rf"\mathrm{{M}}\left({x}\right)"


TOKENS = r"\mathrm{E}[\mathrm{tokens}]"
LATEX = {
    "post_ln": [TOKENS, n(f"x + {a('x')}"), n(f"x + {m('x')}"), "x"],
    "pre_ln": [TOKENS, f"x + {a(n('x'))}", f"x + {m(n('x'))}", n("x")],
    "sandwich_ln": [TOKENS, f"x + {n(a(n('x')))}", f"x + {n(m(n('x')))}", n("x")],
    "pre_ln_embed": [n(TOKENS), f"x + {a(n('x'))}", f"x + {m(n('x'))}", n("x")],
    "deepnorm": [TOKENS, n(rf"\alpha\,x + {a('x')}"), n(rf"\alpha\,x + {m('x')}"), "x"],
    "res_post_norm": [TOKENS, f"x + {n(a('x'))}", f"x + {n(m('x'))}", n("x")],
    "peri_ln": [n(TOKENS), f"x + {n(a(n('x')))}", f"x + {n(m(n('x')))}", n("x")],
    "no_norm": [TOKENS, f"x + {a('x')}", f"x + {m('x')}", "x"],
}
DEEPNORM = [
    r"& \alpha = (2L)^{1/4}",
    r"& \beta = (8L)^{-1/4}\ \text{(gain of the initial } W_\text{value}, W_\text{output}, "
    r"W_\text{in}, W_\text{gate}, W_\text{out}\text{)}",
]


def aligned(lines):
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


@pytest.mark.parametrize("name", LATEX)
def test_latex_is_the_published_equations(name):
    start, attention, mlp, head = LATEX[name]
    lines = [rf"x &\leftarrow {right}" for right in (start, attention, mlp)]
    lines.append(rf"\mathrm{{logits}} &= \mathrm{{Head}}\left({head}\right)")
    lines += DEEPNORM if name == "deepnorm" else []
    assert placements.get(name).latex() == aligned(lines)


def test_latex_of_mix_ln_says_which_blocks():
    post, pre = LATEX["post_ln"], LATEX["pre_ln"]
    expected = [
        rf"x &\leftarrow {TOKENS}",
        rf"x &\leftarrow {post[1]} && \text{{block 1 of 4}}",
        rf"x &\leftarrow {post[2]}",
        rf"x &\leftarrow {pre[1]} && \text{{blocks 2 to 4 of 4}}",
        rf"x &\leftarrow {pre[2]}",
        rf"\mathrm{{logits}} &= \mathrm{{Head}}\left({n('x')}\right)",
    ]
    assert placements.get("mix_ln").latex(4) == aligned(expected)


def test_a_notebook_shows_the_latex():
    pre_ln = placements.get("pre_ln")
    assert pre_ln._repr_latex_() == f"$${pre_ln.latex()}$$"


def test_block_is_one_line():
    mixed = equations.block(placements.get("mix_ln"), 8)
    assert mixed == (
        "x ← N(x + A(x)); x ← N(x + M(x)) (blocks 1–2) | "
        "x ← x + A(N(x)); x ← x + M(N(x)) (blocks 3–8)"
    )
    assert equations.block(placements.get("post_ln")) == "x ← N(x + A(x)); x ← N(x + M(x))"


def lines(attention, **fields):
    mine = Placement(name="mine", attention=attention, mlp=Sublayer(), final=N, **fields)
    return mine.equations(4)


NORM = Sublayer(pre=N)


@pytest.mark.parametrize(
    "row, printed, definitions",
    [
        (replace(NORM, tap="norm"), "x ← N(x) + A(N(x))", []),
        (replace(NORM, skip=2.0, branch=0.5), "x ← 2·x + 0.5·A(N(x))", []),
        (replace(NORM, input_scale=0.25), "x ← x + A(0.25·N(x))", []),
        (
            Sublayer(branch=Scale(0.0, learned="scalar")),
            "x ← x + b·A(x)",
            ["learned, starts as b = 0"],
        ),
        (
            Sublayer(branch=Scale(1e-4, learned="vector", symbol=r"\lambda")),
            "x ← x + λ·A(x)",
            ["learned vector, starts as λ = 0.0001"],
        ),
        (
            replace(
                NORM,
                input_scale=Scale(lambda w: w.block**-0.5, symbol="c", formula=r"1/\sqrt{\ell}"),
            ),
            "x ← x + A(c·N(x))",
            ["c = 1/√l"],
        ),
        (
            Sublayer(post=Slot(gain=0.0)),
            "x ← x + N(A(x))",
            ["initial gain of the post norm = 0"],
        ),
        (
            Sublayer(pre=Slot("rmsnorm_no_affine"), out=Slot(Norm("rms", 1e-6))),
            "x ← rmsnorm(x + A(rmsnorm_no_affine(x)))",
            [],
        ),
        (Sublayer(qk=InnerNorm()), "x ← x + A[qk-norm per head](x)", []),
        (
            Sublayer(qk=InnerNorm(scope="full", order="after_rope"), v=InnerNorm(), inner=N),
            "x ← x + A[qk-norm, after RoPE, v-norm per head, sub-LN](x)",
            [],
        ),
        (
            Sublayer(qk=InnerNorm(order="after_rope")),
            "x ← x + A[qk-norm per head, after RoPE](x)",
            [],
        ),
        (
            Sublayer(qk=InnerNorm("rmsnorm", order="after_rope"), inner=Slot("scalenorm")),
            "x ← x + A[qk-norm per head (rmsnorm), after RoPE, sub-LN (scalenorm)](x)",
            [],
        ),
        (
            Sublayer(v=InnerNorm(Norm("rms", 0.25, bias=True, plus_one=True), scope="full")),
            "x ← x + A[v-norm (rmsnorm[bias=True, plus_one=True, eps=0.25])](x)",
            [],
        ),
        (Sublayer(pre=Slot(Norm("layer", 0.01))), "x ← x + A(layernorm_no_bias[eps=0.01](x))", []),
    ],
)
def test_every_part_of_a_row_is_printed(row, printed, definitions):
    assert lines(row) == [START, printed, "x ← x + M(x)", FINAL, *definitions]


def test_init_gains_are_printed():
    init = Init({"output": 0.5, "out": 0.5, "query": 2.0})
    assert lines(NORM, init=init)[4:] == [], "a gain without a symbol is not a definition"


CHANGES = [
    {"pre": N},
    {"post": N},
    {"out": N},
    {"pre": N, "tap": "norm"},
    {"skip": 1.1},
    {"branch": 1.1},
    {"input_scale": 1.1},
    {"inner": N},
    {"qk": InnerNorm()},
    {"qk": InnerNorm(scope="full")},
    {"qk": InnerNorm(order="after_rope")},
    {"qk": InnerNorm("rmsnorm")},
    {"qk": InnerNorm("layernorm")},
    {"qk": InnerNorm(Norm("rms", 1e-2))},
    {"v": InnerNorm()},
    {"v": InnerNorm(scope="full")},
    {"v": InnerNorm("rmsnorm")},
    {"v": InnerNorm("rmsnorm", scope="full")},
    {"inner": Slot("rmsnorm")},
    {"inner": Slot("scalenorm")},
    {"inner": Slot(Norm("scale", 1e-2))},
    {"post": Slot(gain=0.5)},
    {"pre": Slot("rmsnorm")},
    {"pre": Slot(Norm("rms", 1e-2))},
    {"pre": Slot(Norm("rms", 1e-6, bias=True))},
    {"pre": Slot(Norm("rms", 1e-6, gain=False, bias=True))},
    {"pre": Slot(Norm("layer", 1e-5, gain=False, bias=True))},
    {"branch": Scale(1.0, learned="scalar")},
]


def test_no_two_rows_are_printed_alike():
    rows = [Sublayer(), *(Sublayer(**change) for change in CHANGES)]
    for render in (equations.text, equations.latex):
        printed = {
            str(render(Placement(name="p", attention=row, mlp=Sublayer(), final=N))) for row in rows
        }
        assert len(printed) == len(rows)


def test_norms_around_the_stack_are_printed():
    around = {"embed": Slot("rmsnorm", gain=0.1), "final": Slot(Norm("rms", 1e-2), gain=2.0)}
    mine = Placement(name="mine", attention=NORM, mlp=NORM, **around)
    assert mine.equations() == [
        "x ← rmsnorm(E[tokens])",
        *PRE,
        "logits = Head(rmsnorm[eps=0.01](x))",
        "initial gain of the embed norm = 0.1",
        "initial gain of the final norm = 2",
    ]
    assert r"\text{initial gain of the embed norm} = 0.1" in mine.latex()


def test_latex_of_named_norms():
    row = Sublayer(pre=Slot("rmsnorm_no_affine"), v=InnerNorm("layernorm_no_bias"))
    latex = Placement(name="mine", attention=row, mlp=NORM, final=N).latex()
    assert r"\mathrm{rmsnorm\_no\_affine}\left(x\right)" in latex
    assert r"\mathrm{A}^{\text{v-norm per head (layernorm\_no\_bias)}}" in latex
