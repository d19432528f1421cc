"""A figure with its caption, and its export as PNG and as inline SVG."""

import functools
import io
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lnjax.analysis.style import RC

# One SVG unit (point) is one CSS pixel on a phone's 370 px column, so 10 pt text stays 10 px.
WIDTH, PLOT_HEIGHT = 370.0, 226.0
_LINE, _TITLE_LINE, _PAD = 14.2, 14.5, 6.0
_PNG_DPI, _IMAGE_DPI = 200, 240


@dataclass(frozen=True)
class Drawing:
    """A figure, the name of its file, its text alternative and its caption."""

    name: str
    figure: Figure = field(repr=False)
    alt: str
    caption: str


def styled(draw: Callable) -> Callable:
    """Run a drawing function under this project's matplotlib settings, leaving others' alone."""

    @functools.wraps(draw)
    def wrapped(*args, **kwargs):
        with rc_context(RC):
            return draw(*args, **kwargs)

    return wrapped


def plain(text: str) -> str:
    """`text` safe for matplotlib: no mathtext, and no leading underscore (hidden in legends)."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _shortened(label: str, most: int = 50) -> str:
    """A label of at most `most` characters: its middle goes, since variants differ at the end."""
    return label if len(label) <= most else f"{label[: most - 21]}…{label[-20:]}"


def panel(
    title: str, entries: Sequence[Line2D] = (), plot_height: float = PLOT_HEIGHT
) -> tuple[Figure, Axes]:
    """A figure with one set of axes, its title and, between the two, its legend.

    The legend stands outside the axes, in as many columns as fit, so that it hides no data; the
    figure grows with it.
    """
    lines = textwrap.wrap(plain(title), 48) or [""]
    labels = [plain(_shortened(str(line.get_label()))) for line in entries]
    columns = 1
    if labels:
        widest = max(len(label) for label in labels) * 6.1 + 40
        columns = max(1, min(len(labels), int((WIDTH - 8) // widest), 4))
    rows = -(-len(labels) // columns)
    header = _PAD + _TITLE_LINE * len(lines) + (_LINE * rows + 3 if rows else 2)
    height = plot_height + header
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    figure.set_layout_engine(
        "constrained", rect=(0, 0, 1, 1 - header / height), w_pad=0.05, h_pad=0.04
    )
    top = 1 - _PAD / height
    figure.text(
        6 / WIDTH,
        top,
        "\n".join(lines),
        fontsize=11,
        fontweight="bold",
        va="top",
        linespacing=1.15,
    ).set_in_layout(False)
    if labels:
        legend = figure.legend(
            entries,
            labels,
            loc="upper left",
            bbox_to_anchor=(2 / WIDTH, top - (_TITLE_LINE * len(lines) - 2) / height),
            ncols=columns,
            frameon=False,
            handlelength=2.1,
            handletextpad=0.6,
            columnspacing=1.4,
            labelspacing=0.25,
            borderaxespad=0.2,
        )
        legend.set_in_layout(False)
    return figure, figure.add_subplot()


@styled
def save_png(drawing: Drawing, directory: Path) -> Path:
    path = directory / f"{drawing.name}.png"
    drawing.figure.savefig(path, format="png", dpi=_PNG_DPI, metadata={"Title": drawing.alt})
    return path


def inline_svg(drawing: Drawing) -> str:
    """The figure as one `<svg>` element for an HTML page.

    Its ids begin with the drawing's name, because inline SVGs share the page's id space and a
    clip path or glyph would otherwise be taken from another figure. Deterministic: the same
    data give the same text.
    """
    with rc_context({**RC, "svg.hashsalt": drawing.name}):
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawing.figure.savefig(buffer, format="svg", dpi=_IMAGE_DPI, metadata=nothing)
        drawing.figure.set_layout_engine("none")  # found once, kept for the PNG
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # matplotlib's <style> holds the rule `*{...}`, which would apply to the whole page
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    box = re.search(r'viewBox="([^"]+)"', text)
    if box is None:
        raise RuntimeError(
            "matplotlib wrote an SVG without a viewBox; it cannot be made responsive"
        )
    prefix = re.sub(r"[^A-Za-z0-9_-]", "-", drawing.name)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    opening = (
        f'<svg class="plot" role="img" viewBox="{box.group(1)}" '
        f'aria-label="{escape(drawing.alt, quote=True)}">'
    )
    text = opening + text[text.index(">") + 1 :]
    return re.sub(r"\s*\n\s*", "\n", text).strip()
