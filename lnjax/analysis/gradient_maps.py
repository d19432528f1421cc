"""Heat maps of each layer's gradient norm over training."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.colors import LogNorm
from matplotlib.ticker import FixedLocator

from lnjax.analysis.figures import Drawing, panel, styled
from lnjax.analysis.records import RunRecord
from lnjax.analysis.style import log_axis, rate_text, run_name, short_number, slug, step_axis
from lnjax.analysis.summary import block_gradient

_MAX_COLUMNS = 360  # of a heat map: more would be finer than its pixels
_UNRECORDED, _NOT_FINITE = "#eef0f2", "#a9afb6"


def layer_gradients(
    run: RunRecord,
) -> tuple[Float[np.ndarray, " step"], Float[np.ndarray, "layer step"]]:
    """(steps, gradient norm of every block); empty where the run recorded none."""
    if run.telemetry is None or "gradient_l2" not in run.telemetry or not run.steps.size:
        return np.zeros(0), np.zeros((0, 0))
    norms = block_gradient(run.telemetry).transpose("layer", "step")
    return run.steps, norms.values.astype(np.float64)


def gradient_limits(runs: Sequence[RunRecord]) -> tuple[float, float] | None:
    """Color limits that suit all runs together: their 1st to 99th percentile, at most 8 decades.

    Percentiles, so that the last records of one diverging run do not wash out all others.
    """
    cells = [layer_gradients(run)[1].ravel() for run in runs]
    values = np.concatenate(cells) if cells else np.zeros(0)
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return None
    low, high = (float(x) for x in np.percentile(values, (1, 99)))
    if high / low < 1.5:
        low, high = low / 1.25, high * 1.25
    return max(low, high * 1e-8), high


def _column_edges(steps: Float[np.ndarray, " step"]) -> Float[np.ndarray, " edge"]:
    middles = (steps[1:] + steps[:-1]) / 2
    first = steps[0] - (middles[0] - steps[0] if middles.size else 0.5)
    last = steps[-1] + (steps[-1] - middles[-1] if middles.size else 0.5)
    return np.concatenate([[first], middles, [last]])


def _at_most(
    steps: Float[np.ndarray, " step"], norms: Float[np.ndarray, "layer step"], columns: int
) -> tuple[Float[np.ndarray, " column"], Float[np.ndarray, "layer column"], int]:
    """The largest norm of every `stride` neighbouring steps: a thinned map still shows spikes."""
    stride = -(-len(steps) // columns)
    if stride <= 1:
        return steps, norms, 1
    starts = np.arange(0, len(steps), stride)
    return steps[starts], np.fmax.reduceat(norms, starts, axis=1), stride


@styled
def gradient_map(
    run: RunRecord, limits: tuple[float, float] | None, last_step: float
) -> Drawing | None:
    """Heat map, layer by step, of the blocks' gradient norm; `limits` colors all maps alike."""
    steps, norms = layer_gradients(run)
    if not norms.size or limits is None:
        return None
    steps, norms, stride = _at_most(steps, norms, _MAX_COLUMNS)
    layers = np.asarray(run.telemetry["layer"].values, dtype=np.float64)
    low, high = limits
    positive = norms[np.isfinite(norms) & (norms > 0)]
    # a gradient that underflowed to 0 belongs to the bottom of the scale, not to "no data"
    shown = np.ma.masked_invalid(np.where(norms == 0, np.finfo(np.float64).tiny, norms))

    figure, axes = panel(run_name(run), plot_height=188.0)
    axes.grid(False)
    axes.set_facecolor(_UNRECORDED)
    colors = matplotlib.colormaps["viridis"].with_extremes(bad=_NOT_FINITE)
    mesh = axes.pcolormesh(
        _column_edges(steps),
        np.append(layers - 0.5, layers[-1] + 0.5),
        shown,
        norm=LogNorm(low, high),
        cmap=colors,
        rasterized=True,
    )
    step_axis(axes, max(last_step, steps[-1]), min(0.0, steps[0]))
    axes.set_ylabel("layer")
    axes.set_ylim(layers[0] - 0.5, layers[-1] + 0.5)
    axes.yaxis.set_major_locator(FixedLocator(_layer_ticks(layers)))
    below, above = (positive < low).any() or (norms == 0).any(), (positive > high).any()
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}
    bar = figure.colorbar(
        mesh, ax=axes, pad=0.02, fraction=0.06, aspect=18, extend=extend[int(below), int(above)]
    )
    log_axis(bar.ax.yaxis, low, high)
    bar.outline.set_visible(False)
    bar.set_label("gradient L2 norm")

    ended = "" if run.status == "finished" else f" The run {run.outcome}."
    gray = " Dark gray: not a finite number." if not np.isfinite(norms).all() else ""
    thinned = f" Each column shows the largest of {stride} recorded steps." if stride > 1 else ""
    span = (
        f"between {short_number(positive.min())} and {short_number(positive.max())}"
        if positive.size
        else "without a finite positive value"
    )
    return Drawing(
        name=f"gradient-map-{slug(run.label)}",
        figure=figure,
        alt=f"Heat map of the gradient norm of each layer over training, {run_name(run)}: {span}.",
        caption=f"Gradient norm of every block over training, {run.label} at learning rate "
        f"{rate_text(run.learning_rate)}, seed {run.seed}: {span}. Layer 1 is next to the "
        f"embedding; all maps share one color scale.{ended}{gray}{thinned}",
    )


def _layer_ticks(layers: Float[np.ndarray, " layer"]) -> list[float]:
    """The first layer, the last, and about four between."""
    stride = max(1, math.ceil(len(layers) / 6))
    inner = [float(x) for x in layers if x % stride == 0 and x - layers[0] >= stride / 2]
    inner = [x for x in inner if layers[-1] - x >= stride / 2]
    return [float(layers[0]), *inner, float(layers[-1])]
