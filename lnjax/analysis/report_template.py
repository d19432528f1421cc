"""The HTML page of a report: one file that needs nothing else, on a screen, a phone or paper."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from lnjax.analysis.figures import Drawing, inline_svg

CSS = """
:root { color-scheme: light; --ink: #22262b; --muted: #5b636d; --line: #dfe3e8; --soft: #f6f7f9; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 40px 0 10px; padding-top: 14px;
  border-top: 1px solid var(--line); }
p { max-width: 82ch; }
.lead, .note, .about, figcaption { color: var(--muted); }
.lead { margin: 0; }
.note { font-size: 0.9rem; }
.summary { background: var(--soft); border-left: 4px solid #0069ad; padding: 12px 18px;
  margin: 22px 0 0; max-width: 920px; border-radius: 0 6px 6px 0; }
.summary h2 { border: 0; margin: 0 0 6px; padding: 0; font-size: 1.05rem; }
.summary ul { margin: 0; padding-left: 1.15em; }
.summary li + li { margin-top: 4px; }
.figures { display: grid; gap: 26px 30px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 350px), 1fr)); }
figure { margin: 0; min-width: 0; }
svg.plot { display: block; width: 100%; height: auto; background: #fff; }
svg.plot * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { font-size: 0.84rem; line-height: 1.42; margin-top: 6px; }
figcaption b { color: var(--ink); }
.about { font-size: 0.84rem; line-height: 1.42; margin: 22px 0 8px; max-width: 110ch; }
.scroll { overflow-x: auto; margin: 0 0 22px; }
.scroll:focus-visible { outline: 2px solid #0069ad; outline-offset: 2px; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px 5px 0; text-align: left; vertical-align: top; white-space: nowrap; }
thead th { border-bottom: 1.5px solid var(--ink); vertical-align: bottom; line-height: 1.25;
  white-space: normal; min-width: 5em; }
th:first-child { position: sticky; left: 0; background: #fff; }
tbody th { font-weight: 600; white-space: normal; min-width: 9em; }
tbody tr { border-bottom: 1px solid var(--line); }
th.number, td.number { text-align: right; }
td.words { white-space: normal; min-width: 12.5em; }
.swatch { display: inline-block; width: 0.75em; height: 0.75em; border-radius: 2px;
  margin-right: 0.5em; }
.provenance { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 3px 18px;
  font-size: 0.875rem; }
.provenance dt { color: var(--muted); }
.provenance dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 480px) {
  main { padding: 16px 10px 40px; }
  h1 { font-size: 1.4rem; }
  .provenance { grid-template-columns: 1fr; }
  .provenance dd { margin-bottom: 6px; }
}
@media print {
  @page { margin: 14mm; }
  body { font-size: 10pt; background: #fff; }
  main { max-width: none; padding: 0; }
  .summary { background: #fff; border: 1px solid var(--line); }
  .figures { grid-template-columns: 1fr 1fr; gap: 16px 22px; }
  figure, tr, .summary, .provenance { break-inside: avoid; }
  h2, .about { break-after: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 8pt; width: 100%; }
  th, td { white-space: normal; padding-right: 8px; }
  td.words { min-width: 0; }
}
"""


def page(title: str, lead: str, body: Iterable[str]) -> str:
    """The whole document; `title` and `lead` are plain text, `body` is HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n</header>\n'
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def summary(sentences: Sequence[str]) -> str:
    """The box at the top that says what to read."""
    items = "\n".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return (
        '<section class="summary" aria-labelledby="what-to-read">\n'
        f'<h2 id="what-to-read">What to read here</h2>\n<ul>\n{items}\n</ul>\n</section>'
    )


def section(heading: str, *parts: str) -> str:
    """A headed section; empty if all its parts are."""
    content = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(heading)}</h2>\n{content}\n</section>" if content else ""


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>' if text else ""


def figure_grid(drawings: Sequence[Drawing], first: int) -> str:
    """Figures in a grid, numbered from `first`; empty if there is none."""
    if not drawings:
        return ""
    cells = [
        f'<figure id="figure-{number}" data-name="{drawing.name}">\n{inline_svg(drawing)}\n'
        f"<figcaption><b>Figure {number}.</b> {escape(drawing.caption)}</figcaption>\n</figure>"
        for number, drawing in enumerate(drawings, first)
    ]
    return '<div class="figures">\n' + "\n".join(cells) + "\n</div>"


def figure_names(text: str) -> list[str]:
    """The names of the figures of a page that this module wrote."""
    return re.findall(r'<figure id="figure-\d+" data-name="([a-z0-9-]+)">', text)


def table(
    caption: str,
    columns: Mapping[str, str],
    rows: Sequence[Sequence[str]],
    name: str,
    colors: Sequence[str] = (),
) -> str:
    """A table in a container that scrolls by itself where the page is too narrow.

    Args:
        caption: what the table holds.
        columns: heading -> class of its cells: "" (text), "number" or "words" (long text).
        rows: cells as plain text; the first cell of a row is its heading.
        name: id of the caption, unique on the page.
        colors: a color per row, shown before its heading.
    """
    kinds = list(columns.values())
    head = "".join(
        f'<th scope="col"{_class(kind)}>{escape(name)}</th>' for name, kind in columns.items()
    )
    lines = []
    for index, row in enumerate(rows):
        swatch = (
            f'<span class="swatch" style="background:{colors[index]}"></span>' if colors else ""
        )
        cells = [f'<th scope="row">{swatch}{_text(row[0])}</th>']
        cells += [
            f"<td{_class(kind)}>{_text(cell)}</td>"
            for cell, kind in zip(row[1:], kinds[1:], strict=True)
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<p class="about" id="{name}">{escape(caption)}</p>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}">\n'
        f'<table aria-labelledby="{name}">\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody>\n</table>\n</div>"
    )


def _text(cell: str) -> str:
    """A cell as HTML; a range such as 120–181 is kept on one line."""
    return escape(cell).replace("–", "\u2060–\u2060")


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def provenance_list(provenance: Mapping[str, object]) -> str:
    """How the results came about, as a list of names and values."""
    items = "\n".join(
        f"<dt>{escape(str(name).replace('_', ' '))}</dt><dd>{escape(_words(value))}</dd>"
        for name, value in provenance.items()
    )
    return f'<dl class="provenance">\n{items}\n</dl>' if items else ""


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_words(item) for item in value)
    return str(value)
