"""How figures look: colours and line styles of labels, axes, numbers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lnjax.analysis.records import RunRecord

INK, MUTED, FAINT = "#22262b", "#5b636d", "#dfe3e8"

# Distinguishable under protanopia and deuteranopia, each at least 3:1 against white (WCAG 1.4.11);
# after Okabe & Ito 2008, with the light yellow, orange and sky blue darkened.
PALETTE = ("#0069ad", "#d55e00", "#009e73", "#c2559a", "#22262b", "#6b5200", "#3b9ad9", "#8f1d5a")

# The placements met most often keep their colour from report to report.
_USUAL = {
    "pre_ln": 0,
    "post_ln": 1,
    "sandwich": 2,
    "peri_ln": 2,
    "deepnorm": 3,
    "lns": 4,
    "mix_ln": 5,
    "res_post_norm": 6,
    "hybrid_norm": 7,
}
DASHES = ("solid", (0, (4.5, 1.8)), (0, (1.2, 1.4)), (0, (6, 1.6, 1.2, 1.6)))
MARKERS = ("o", "s", "^", "D", "v", "P", "h", "p")

RC = {
    "font.family": "DejaVu Sans",  # bundled with matplotlib: the same picture on every machine
    "font.size": 10.5,
    "axes.labelsize": 10.5,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa2ab",
    "xtick.color": "#9aa2ab",
    "ytick.color": "#9aa2ab",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "lines.dash_capstyle": "butt",
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "svg.fonttype": "path",  # text measured here and drawn there must agree: no font is assumed
    "svg.image_inline": True,
    "mathtext.default": "regular",
}


@dataclass(frozen=True)
class LineStyle:
    """How the line of one label is drawn, the same in every figure of a report."""

    color: str
    dash: object = "solid"
    marker: str = "o"


def line_styles(placements: Mapping[str, str]) -> dict[str, LineStyle]:
    """A line style per label, given {label: placement}.

    Well-known placements have a fixed colour. Labels of one placement share its colour and differ
    in dash and marker; a placement without a colour of its own takes the next free one, and dashes
    tell colours apart once all are taken.
    """
    order = list(dict.fromkeys(placements.values()))
    colors: dict[str, int] = {}
    for name in order:
        if name in _USUAL and _USUAL[name] not in colors.values():
            colors[name] = _USUAL[name]
    for name in order:
        if name not in colors:
            taken = [list(colors.values()).count(index) for index in range(len(PALETTE))]
            colors[name] = taken.index(min(taken))
    used = [0] * len(PALETTE)
    styles = {}
    for label, placement in placements.items():
        index = colors[placement]
        variant = used[index]
        used[index] += 1
        styles[label] = LineStyle(
            PALETTE[index],
            DASHES[variant % len(DASHES)],
            MARKERS[(index + variant) % len(MARKERS)],
        )
    return styles


def styles_for(runs: Iterable[RunRecord], extra: Iterable[str] = ()) -> dict[str, LineStyle]:
    """Line styles of the labels of `runs` and of further placements (an init profile's)."""
    placements = {run.label: run.placement for run in runs}
    for name in extra:
        placements.setdefault(name, name)
    return line_styles(placements)


def rate_text(rate: float) -> str:
    """A learning rate as people write it: 3e-4, 1.5e-3."""
    if not math.isfinite(rate) or rate == 0:
        return "0" if rate == 0 else "unknown"
    mantissa, exponent = f"{rate:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def run_name(run: RunRecord) -> str:
    """ "pre_ln, lr 1e-3", and how the run ended where it did not finish."""
    name = f"{run.label}, lr {rate_text(run.learning_rate)}"
    return name if run.status == "finished" else f"{name} ({run.status} at {run.step})"


def slug(text: str) -> str:
    """`text` as part of a file name."""
    kept = "".join(char if char.isalnum() and char.isascii() else "-" for char in text.lower())
    return "-".join(part for part in kept.split("-") if part) or "run"


def short_number(value: float) -> str:
    """Three significant digits, in scientific notation only outside 0.001 .. 9999."""
    if not math.isfinite(value):
        return "—"
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        return rate_text(value)
    digits = 2 - math.floor(math.log10(abs(value))) if value else 2
    return f"{value:.{max(digits, 0)}f}"


def step_text(step: float, _position: object = None) -> str:
    """A tick of the step axis: 500, 20k, 1.5M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(step) >= size and (unit == "M" or abs(step) >= 1e4):
            return f"{step / size:g}{unit}"
    return f"{step:g}"


def step_axis(axes: Axes, last: float, first: float = 0.0) -> None:
    axes.set_xlim(first, max(last, first + 1))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(step_text))
    axes.set_xlabel("step")


def _log_text(value: float, powers: bool) -> str:
    if value <= 0:
        return ""
    if not powers:
        return f"{value:g}"
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = value / 10.0**exponent
    power = f"10^{{{exponent}}}"
    return f"${power}$" if abs(mantissa - 1) < 1e-6 else f"${mantissa:.0f}\\times {power}$"


def log_axis(axis: Axis, low: float, high: float) -> None:
    """Ticks of a log axis from `low` to `high`: 1-2-5 within about a decade, else powers of ten."""
    decades = math.log10(high / low)
    if decades < 0.35:
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    elif decades < 0.8:
        axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    elif decades < 2:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.3 else (1, 3)))
    else:
        axis.set_major_locator(LogLocator(numticks=7))
    axis.set_minor_locator(NullLocator())
    powers = low < 1e-3 or high >= 2e4
    axis.set_major_formatter(FuncFormatter(lambda value, _position: _log_text(value, powers)))


def value_ticks(axis: Axis, values: Sequence[float], low: float, high: float, text) -> None:
    """Ticks at the values themselves on a log axis, leaving out those that would collide."""
    kept: list[float] = []
    room = 0.115 * math.log(high / low)
    for value in sorted(set(values)):
        if not kept or math.log(value / kept[-1]) >= room:
            kept.append(value)
    axis.set_major_locator(FixedLocator(kept))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _position: text(value)))


def log_limits(
    values: Float[np.ndarray, "..."], margin: float = 0.06, least: float = 1.6
) -> tuple[float, float] | None:
    """Limits of a log axis around the finite positive values, at least a factor `least` apart."""
    good = values[np.isfinite(values) & (values > 0)]
    if not good.size:
        return None
    low, high = float(good.min()), float(good.max())
    if high / low < least:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(least), middle * math.sqrt(least)
    stretch = (high / low) ** margin
    return low / stretch, high * stretch
