"""Figures of an untrained model's gradients and stream, against depth and layer.

The profile is a dataset with dims placement, depth, layer (1 .. deepest; NaN beyond a model's
depth), group and sublayer, holding gradient_l2, stream_rms,
backward_l2 and, if known, output_rms (the stream after the last block). Source of the
reference lines: Xiong et al. 2020, arXiv 2002.04745, Theorem 1.
"""

import math
from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lnjax.analysis.figures import Drawing, panel, styled
from lnjax.analysis.plots import DASHED, Curves, depth_axis, draw_curves, entry
from lnjax.analysis.style import MUTED, LineStyle, log_axis, log_limits, short_number, value_ticks
from lnjax.analysis.summary import block_gradient, last_block_gradient, power_law


@styled
def last_gradient_plot(profile: xr.Dataset, styles: Mapping[str, LineStyle]) -> Drawing | None:
    """Gradient of the last block's MLP output matrix against depth, log-log, with fitted slopes."""
    lines = {
        name: series
        for name in _names(profile)
        if (series := last_block_gradient(profile, name))[0].size
    }
    if not lines:
        return None
    slopes = {name: power_law(*series) for name, series in lines.items()}
    figure, axes = panel(
        "Last MLP output matrix, untrained",
        [
            entry(
                styles[name],
                f"{name}, slope {slope:+z.2f}".replace("-", "−") if math.isfinite(slope) else name,
                marker=styles[name].marker,
                ms=5,
            )
            for name, slope in slopes.items()
        ],
    )
    depths = np.unique(np.concatenate([depth for depth, _ in lines.values()]))
    norms = np.concatenate([norm for _, norm in lines.values()])
    for name, (depth, norm) in lines.items():
        style = styles[name]
        axes.plot(depth, norm, color=style.color, ls=style.dash, marker=style.marker, ms=5)
    if depths.size > 1:
        anchor = _reference_height(lines, float(depths[0]))
        norms = np.append(norms, [anchor, anchor * math.sqrt(depths[0] / depths[-1])])
        for exponent, text in ((0.0, "flat"), (-0.5, r"$\propto L^{-1/2}$")):
            _reference(axes, depths, anchor, exponent, text)
    _log_log(axes, depths, norms)
    axes.set_ylabel("gradient L2 norm")
    fitted = "; ".join(
        f"{name}: exponent {short_number(slope)}"
        for name, slope in slopes.items()
        if math.isfinite(slope)
    )
    return Drawing(
        name="init-last-block-gradient",
        figure=figure,
        alt="Gradient norm of the MLP output matrix of the last block against depth, untrained "
        f"models, both axes logarithmic. {fitted or 'One depth only'}.",
        caption="Gradient norm of the last block's MLP output matrix against depth L, before any "
        "training, both axes logarithmic; the slope is the exponent of a power law fitted to the "
        "dots. Dashed: the bounds of Xiong et al. (2020), Theorem 1, up to a constant: flat for "
        "Post-LN, L to the power −1/2 for Pre-LN.",
    )


def _names(profile: xr.Dataset) -> list[str]:
    return [str(name) for name in profile["placement"].values]


def _reference_height(lines: Curves, first: float) -> float:
    """Where the reference lines start: just above everything at the smallest depth."""
    starts = [norm[0] for depth, norm in lines.values() if depth[0] == first]
    return 1.35 * max(starts)


def _reference(
    axes: Axes, depths: Float[np.ndarray, " depth"], anchor: float, exponent: float, text: str
) -> None:
    heights = anchor * (depths / depths[0]) ** exponent
    axes.plot(depths, heights, color=MUTED, lw=1, ls=DASHED, zorder=1.5)
    axes.annotate(
        text,
        (depths[-1], heights[-1]),
        xytext=(0, 3) if exponent == 0 else (-10, -4),
        textcoords="offset points",
        ha="right",
        va="bottom" if exponent == 0 else "top",
        color=MUTED,
    )


def _log_log(
    axes: Axes, depths: Float[np.ndarray, " depth"], norms: Float[np.ndarray, " n"]
) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    left, right = log_limits(depths, margin=0.05)
    low, high = log_limits(norms, margin=0.09)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    value_ticks(axes.xaxis, depths.tolist(), left, right, lambda depth: f"{depth:g}")
    log_axis(axes.yaxis, low, high)
    axes.set_xlabel("depth (blocks)")


@styled
def layer_gradient_plot(profile: xr.Dataset, styles: Mapping[str, LineStyle]) -> Drawing | None:
    """Gradient norm of every block of the deepest untrained model."""
    if "gradient_l2" not in profile:
        return None
    norms = block_gradient(profile)
    depth = norms["depth"].values.max()
    layers = norms["layer"].values.astype(np.float64)
    lines = {
        name: (layers, norms.sel(placement=name, depth=depth).values.astype(np.float64))
        for name in _names(profile)
    }
    return _against_layer(
        lines,
        styles,
        name="init-layer-gradient",
        title=f"Gradient of each block, untrained, {depth} blocks",
        quantity="gradient L2 norm",
        reading="Flat: all blocks are given a gradient of the same size. A line that rises to the "
        "right: blocks near the embedding are given the smaller gradients.",
    )


@styled
def sublayer_plot(
    profile: xr.Dataset, styles: Mapping[str, LineStyle], variable: str
) -> Drawing | None:
    """`stream_rms` or `backward_l2` against depth in the deepest untrained model."""
    if variable not in profile:
        return None
    data = profile[variable].transpose("placement", "depth", "layer", "sublayer")
    depth = data["depth"].values.max()
    count = data.sizes["sublayer"]
    inside = np.arange(count) / count
    blocks = (data["layer"].values[:, None] - 1 + inside[None, :]).reshape(-1).astype(np.float64)
    forward = variable == "stream_rms"
    lines = {}
    for name in _names(profile):
        at = {"placement": name, "depth": depth}
        values = data.sel(at).values.astype(np.float64).reshape(-1)
        lines[name] = (blocks, values)
        if forward and "output_rms" in profile:
            output = float(profile["output_rms"].sel(at))
            lines[name] = (np.append(blocks, float(depth)), np.append(values, output))
    return _against_layer(
        lines,
        styles,
        name="init-stream" if forward else "init-backward-stream",
        title=("Residual stream" if forward else "Gradient of the stream")
        + f", untrained, {depth} blocks",
        quantity="stream RMS" if forward else "L2 norm of dL/dx",
        reading="A rising line is a stream that grows from block to block, a flat one a stream "
        "that is normalized."
        if forward
        else "The gradient runs from right to left; a line that falls to the left is a gradient "
        "that vanishes on its way to the embedding.",
        sites=True,
    )


def _against_layer(
    lines: Curves,
    styles: Mapping[str, LineStyle],
    name: str,
    title: str,
    quantity: str,
    reading: str,
    sites: bool = False,
) -> Drawing | None:
    kept: Curves = {}
    for label, (x, y) in lines.items():
        good = np.isfinite(y) & (y > 0)
        if good.any():
            kept[label] = (x[good], y[good])
    if not kept:
        return None
    figure, axes = panel(title, [entry(styles[label], label) for label in kept])
    same = draw_curves(axes, kept, styles)
    last = max(x[-1] for x, _ in kept.values())
    if sites:
        depth_axis(axes, float(math.ceil(last + 1e-9)))
    else:
        axes.set_xlim(0.5, last + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        axes.set_xlabel("layer")
    axes.set_ylabel(quantity)
    values = "; ".join(
        f"{label}: {short_number(y[0])} at the first, {short_number(y[-1])} at the last"
        for label, (_, y) in kept.items()
    )
    return Drawing(
        name=name,
        figure=figure,
        alt=f"{quantity} against {'depth' if sites else 'layer'}: {values}.",
        caption=f"{title}: {quantity}, logarithmic. {reading}{same}",
    )
