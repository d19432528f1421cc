"""Prints a placement's equations, as text or LaTeX, from the very rows that the model runs."""

import re
from dataclasses import dataclass, replace

from lnjax import norms
from lnjax.placements.algebra import InnerNorm, Placement, Row, Scale, Slot, Sublayer, Where


@dataclass(frozen=True)
class Notation:
    """How symbols are written. `{}` stands for the argument."""

    norm: str
    named_norm: str
    apply: str
    times: str
    arrow: str
    stream: str
    attention: str
    mlp: str
    embedding: str
    head: str
    latex: bool


TEXT = Notation("N", "{}", "{}({})", "{}·{}", "←", "x", "A", "M", "E[tokens]", "Head", False)
LATEX = Notation(
    r"\mathrm{N}",
    r"\mathrm{{{}}}",
    r"{}\left({}\right)",
    r"{}\,{}",
    r"\leftarrow",
    "x",
    r"\mathrm{A}",
    r"\mathrm{M}",
    r"\mathrm{E}[\mathrm{tokens}]",
    r"\mathrm{Head}",
    True,
)

_PLAIN = {
    r"\alpha": "α",
    r"\beta": "β",
    r"\gamma": "γ",
    r"\lambda": "λ",
    r"\omega": "ω",
    r"\sqrt": "√",
    r"\ell": "l",
    r"\lfloor": "⌊",
    r"\rfloor": "⌋",
    "{": "",
    "}": "",
}


def _plain(latex: str) -> str:
    latex = re.sub(r"\^\{([^{}]*)\}", r"^(\1)", latex)
    for old, new in _PLAIN.items():
        latex = latex.replace(old, new)
    return latex


def _number(value: float) -> str:
    return f"{value:.4g}"


def _symbol(scale: Scale, default: str, notation: Notation) -> str:
    symbol = scale.symbol
    if not symbol:
        symbol = _number(scale.value) if scale.learned == "no" else default
    return symbol if notation.latex else _plain(symbol)


def _norm_name(norm: str | norms.Norm, notation: Notation) -> str:
    """The known name, with what differs from it: rmsnorm[eps=0.01], rmsnorm[bias=True, eps=...]."""
    if isinstance(norm, norms.Norm):
        known = {replace(like, eps=norm.eps): name for name, like in norms.NORMS.items()}
        name = known.get(norm)
        details = []
        if name is None:
            name = f"{norm.kind}norm"
            for flag in ("gain", "bias", "plus_one"):
                if getattr(norm, flag) != getattr(norms.NORMS[name], flag):
                    details.append(f"{flag}={getattr(norm, flag)}")
        if norm.eps != norms.NORMS[name].eps:
            details.append(f"eps={norm.eps:g}")
        norm = f"{name}[{', '.join(details)}]" if details else name
    return norm.replace("_", r"\_") if notation.latex else norm


def _norm(slot: Slot, notation: Notation) -> str:
    if slot.norm is None:
        return notation.norm
    return notation.named_norm.format(_norm_name(slot.norm, notation))


def _superscripts(row: Sublayer, notation: Notation) -> list[str]:
    """What happens inside F, as labels."""

    def label(name: str, norm: InnerNorm | Slot) -> str:
        scope = " per head" if isinstance(norm, InnerNorm) and norm.scope == "head" else ""
        function = "" if norm.norm is None else f" ({_norm_name(norm.norm, notation)})"
        return name + scope + function

    labels = []
    if row.qk is not None:
        order = ", after RoPE" if row.qk.order == "after_rope" else ""
        labels.append(label("qk-norm", row.qk) + order)
    if row.v is not None:
        labels.append(label("v-norm", row.v))
    if row.inner is not None:
        labels.append(label("sub-LN", row.inner))
    return labels


def sublayer(row: Sublayer, body: str, notation: Notation) -> str:
    """One sublayer's update, for example x ← x + N(A(N(x)))."""
    x, apply = notation.stream, notation.apply
    normed = x if row.pre is None else apply.format(_norm(row.pre, notation), x)
    argument = normed
    if not row.input_scale.is_one:
        argument = notation.times.format(_symbol(row.input_scale, "c", notation), normed)
    labels = ", ".join(_superscripts(row, notation))
    if labels:
        body = f"{body}^{{\\text{{{labels}}}}}" if notation.latex else f"{body}[{labels}]"
    branch = apply.format(body, argument)
    if row.post is not None:
        branch = apply.format(_norm(row.post, notation), branch)
    if not row.branch.is_one:
        branch = notation.times.format(_symbol(row.branch, "b", notation), branch)
    residual = x if row.tap == "stream" else normed
    if not row.skip.is_one:
        residual = notation.times.format(_symbol(row.skip, "a", notation), residual)
    update = f"{residual} + {branch}"
    if row.out is not None:
        update = apply.format(_norm(row.out, notation), update)
    return f"{x} {notation.arrow} {update}"


def _block_lines(row: Row, notation: Notation) -> list[str]:
    attention, mlp = row
    return [
        sublayer(attention, notation.attention, notation),
        sublayer(mlp, notation.mlp, notation),
    ]


def _definitions(placement: Placement, depth: int, notation: Notation) -> list[str]:
    """What the symbols stand for: factors, initial gains, initial scales of matrices."""
    lines: dict[str, None] = {}

    def define(scale: Scale, default: str, of: str = "") -> None:
        if scale.is_one:
            return
        symbol = scale.symbol or (default if scale.learned != "no" else "")
        formula = scale.formula
        if not formula and not callable(scale.value):
            formula = _number(scale.value)
        if not symbol or not formula:
            return
        text = f"{symbol} = {formula}" if notation.latex else _plain(f"{symbol} = {formula}")
        learned = {
            "no": "",
            "scalar": "learned, starts as ",
            "vector": "learned vector, starts as ",
        }
        if scale.learned != "no":
            prefix = learned[scale.learned]
            text = rf"\text{{{prefix}}} {text}" if notation.latex else prefix + text
        lines[text + of] = None

    for row in placement.rows(depth):
        for part in row:
            define(part.skip, "a")
            define(part.branch, "b")
            define(part.input_scale, "c")
    gains: dict[Scale, list[str]] = {}
    for matrix, scale in placement.init.gains:
        gains.setdefault(scale, []).append(matrix)
    for scale, matrices in gains.items():
        if notation.latex:
            names = ", ".join(rf"W_\text{{{matrix}}}" for matrix in matrices)
            define(scale, r"\beta", rf"\ \text{{(gain of the initial }} {names}\text{{)}}")
        else:
            define(scale, "β", f" (gain of the initial {', '.join(matrices)} matrices)")
    for name, slot in _slots_with_gain(placement, depth):
        value = slot.gain.formula or _number(slot.gain.at(Where(1, 1, depth)))
        text = value if notation.latex else _plain(value)
        if notation.latex:
            lines[rf"\text{{initial gain of the {name} norm}} = {text}"] = None
        else:
            lines[f"initial gain of the {name} norm = {text}"] = None
    return list(lines)


def _slots_with_gain(placement: Placement, depth: int):
    for name in ("embed", "final"):
        slot = getattr(placement, name)
        if slot is not None and not slot.gain.is_one:
            yield name, slot
    for row in placement.rows(depth):
        for part in row:
            for name in ("pre", "post", "out", "inner"):
                slot = getattr(part, name)
                if slot is not None and not slot.gain.is_one:
                    yield name, slot


def _lines(placement: Placement, depth: int, notation: Notation) -> list[tuple[str, str]]:
    """(equation, remark) lines from the embedding to the head."""
    x, arrow, apply = notation.stream, notation.arrow, notation.apply
    start = notation.embedding
    if placement.embed is not None:
        start = apply.format(_norm(placement.embed, notation), start)
    lines = [(f"{x} {arrow} {start}", "")]
    segments = placement.segments(depth)
    for first, count, row in segments:
        remark = ""
        if len(segments) > 1:
            last = first + count - 1
            remark = f"block {first}" if count == 1 else f"blocks {first} to {last}"
            remark += f" of {depth}"
        first_line, second_line = _block_lines(row, notation)
        lines += [(first_line, remark), (second_line, "")]
    out = x if placement.final is None else apply.format(_norm(placement.final, notation), x)
    lines.append((f"logits = {apply.format(notation.head, out)}", ""))
    return lines


def text(placement: Placement, depth: int = 12) -> list[str]:
    """The equations of a placement as plain text, one per line."""
    lines = [
        f"{line}    ({remark})" if remark else line
        for line, remark in _lines(placement, depth, TEXT)
    ]
    return lines + _definitions(placement, depth, TEXT)


def latex(placement: Placement, depth: int = 12) -> str:
    """The equations of a placement as a LaTeX `aligned` environment."""
    rows = []
    for line, remark in _lines(placement, depth, LATEX):
        line = line.replace("logits =", r"\mathrm{logits} &=")
        line = line.replace(LATEX.arrow, "&" + LATEX.arrow, 1)
        rows.append(line + (rf" && \text{{{remark}}}" if remark else ""))
    rows += [f"& {line}" for line in _definitions(placement, depth, LATEX)]
    body = " \\\\\n".join(rows)
    return f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"


def block(placement: Placement, depth: int = 12) -> str:
    """The block's two updates on one line, for tables."""
    parts = []
    for first, count, row in placement.segments(depth):
        where = ""
        if len(placement.segments(depth)) > 1:
            where = f" (blocks {first}–{first + count - 1})"
        parts.append("; ".join(_block_lines(row, TEXT)) + where)
    return " | ".join(parts)
