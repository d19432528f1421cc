"""Figures: what they show, and that they can be read."""

import itertools
import math

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from fake_runs import fake_ablation, fake_profile, fake_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from lnjax.analysis.gradient_maps import gradient_limits, gradient_map
from lnjax.analysis.plots import coinciding, loss_curves, loss_series, smoothed, stream_lines
from lnjax.analysis.profile_plots import last_gradient_plot, layer_gradient_plot, sublayer_plot
from lnjax.analysis.rate_plots import learning_rate_plot
from lnjax.analysis.run_plots import run_losses, stream_over_training
from lnjax.analysis.style import PALETTE, line_styles, rate_text, short_number, styles_for
from lnjax.analysis.summary import best_runs


def _drawings(runs, profile):
    best = list(best_runs(runs).values())
    names = [str(name) for name in profile["placement"].values]
    styles, limits = styles_for(runs, names), gradient_limits(best)
    yield loss_curves(best, styles, "training", 200.0, {"unigram entropy": 3.35})
    yield loss_curves(best, styles, "held-out", 200.0)
    yield learning_rate_plot(runs, styles)
    yield from (gradient_map(run, limits, 200.0) for run in best)
    yield from (stream_lines(best, styles, at) for at in ("start", "end"))
    yield last_gradient_plot(profile, styles)
    yield layer_gradient_plot(profile, styles)
    yield from (sublayer_plot(profile, styles, name) for name in ("stream_rms", "backward_l2"))
    yield run_losses(best[0], 200.0)
    yield from (stream_over_training(best[0], way) for way in ("forward", "backward"))


def _long_names():
    runs = [
        fake_run("post_ln, no warm-up, embeddings scaled by sqrt(d)", "post_ln", rate)
        for rate in (1e-4, 3e-4, 1e-3)
    ]
    return [*runs, fake_run("_under$core$", "odd", diverge_at=90), fake_run("pre_ln")]


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param(fake_ablation(), id="ablation"),
        pytest.param(_long_names(), id="long names"),
        pytest.param(
            [fake_run(f"scheme_{i}", rate=2.0**i * 1e-4, depth=96) for i in range(11)], id="many"
        ),
    ],
)
def test_no_text_is_clipped_and_no_tick_labels_collide(runs):
    for drawing in _drawings(runs, fake_profile()):
        renderer = FigureCanvasAgg(drawing.figure).get_renderer()
        drawing.figure.draw(renderer)
        page = drawing.figure.bbox.padded(1.0)
        axes = drawing.figure.axes
        ticks = [a.get_xticklabels() for a in axes] + [a.get_yticklabels() for a in axes]
        limits = [a.get_xlim() for a in axes] + [a.get_ylim() for a in axes]
        shown = []
        for labels, (low, high) in zip(ticks, limits, strict=True):
            axis = 0 if len(shown) < len(axes) else 1
            inside = [
                label
                for label in labels
                if label.get_text() and low <= label.get_position()[axis] <= high
            ]
            shown.append([label.get_window_extent(renderer) for label in inside])
        for boxes in shown:
            for one, other in itertools.combinations(boxes, 2):
                assert not one.padded(1.0).overlaps(other), drawing.name
        texts = [*drawing.figure.texts, *(text for a in axes for text in a.texts)]
        texts += [text for legend in drawing.figure.legends for text in legend.get_texts()]
        texts += [label for a in axes for label in (a.xaxis.label, a.yaxis.label)]
        extents = [text.get_window_extent(renderer) for text in texts if text.get_text()]
        for box in itertools.chain(extents, *shown):
            assert page.x0 <= box.x0 and box.x1 <= page.x1, drawing.name
            assert page.y0 <= box.y0 and box.y1 <= page.y1, drawing.name
        if drawing.figure.legends:
            legend = drawing.figure.legends[0].get_window_extent(renderer)
            assert not legend.overlaps(axes[0].get_window_extent(renderer)), drawing.name
            assert not legend.overlaps(drawing.figure.texts[0].get_window_extent(renderer))


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    assert all(drawing.figure for drawing in _drawings(fake_ablation(seeds=1), fake_profile()))
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []


def _luminance(rgb):
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in rgb]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def _lab(rgb):
    """CIE L*a*b* of linear RGB, D65."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x = np.asarray(to_xyz) @ rgb / [0.9505, 1.0, 1.089]
    f = np.where(x > 216 / 24389, np.cbrt(x), (24389 / 27 * x + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira & Fernandes 2009, severity 1
_VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


@pytest.mark.parametrize("vision", _VISION)
def test_palette_can_be_told_apart(vision):
    seen = []
    for color in PALETTE:
        rgb = np.array(to_rgb(color))
        assert 1.05 / (_luminance(rgb) + 0.05) >= 3.0, f"{color} is too light on white"
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen.append(_lab(np.clip(np.asarray(_VISION[vision]) @ linear, 0, 1)))
    for (i, one), (j, other) in itertools.combinations(enumerate(seen), 2):
        assert np.linalg.norm(one - other) > 12, f"{PALETTE[i]} and {PALETTE[j]} look alike"


def test_a_placement_keeps_its_color_and_its_variants_differ_in_dash():
    few = line_styles({"post_ln": "post_ln"})
    many = line_styles(
        {"mine": "mine", "post_ln, no warm-up": "post_ln", "pre_ln": "pre_ln", "x": "x"}
    )
    assert few["post_ln"].color == many["post_ln, no warm-up"].color
    assert len({style.color for style in many.values()}) == 4
    twins = line_styles({"a": "post_ln", "b": "post_ln", "c": "post_ln"})
    assert len({style.color for style in twins.values()}) == 1
    assert len({(str(style.dash), style.marker) for style in twins.values()}) == 3
    crowd = line_styles({str(i): str(i) for i in range(20)})
    looks = [(style.color, str(style.dash)) for style in crowd.values()]
    assert len(set(looks)) == 20


def _marks(drawing, kind):
    lines = drawing.figure.axes[0].get_lines()
    return [line for line in lines if line.get_marker() == kind and len(line.get_xdata())]


def test_no_diverged_run_is_dropped_from_the_learning_rate_figure():
    runs = fake_ablation(seeds=3)
    drawing = learning_rate_plot(runs, styles_for(runs))
    lost = {(run.label, run.learning_rate) for run in runs if run.status == "diverged"}
    crosses = _marks(drawing, "x")
    assert len(crosses) == len(lost) > 1
    assert sorted(line.get_xdata()[0] for line in crosses) == sorted(rate for _, rate in lost)
    heights = [line.get_ydata()[0] for line in crosses]
    assert min(heights) > 0.6 and max(heights) < 1, "crosses belong in the strip at the top"
    partly = [text.get_text() for text in drawing.figure.axes[0].texts]
    assert "2/3" in partly and "3/3" not in partly


def test_a_finished_run_beyond_the_axis_is_drawn_at_its_top():
    runs = [fake_run(rate=rate) for rate in (1e-3, 3e-3)]
    bad = {**runs[1].result, "evaluation_loss": 900.0}
    runs[1] = type(runs[1])(**{**vars(runs[1]), "result": bad})
    drawing = learning_rate_plot(runs, styles_for(runs))
    (triangle,) = _marks(drawing, "^")
    low, high = drawing.figure.axes[0].get_ylim()
    assert low < triangle.get_ydata()[0] <= high < 10
    assert "Triangles" in drawing.caption


def test_a_diverged_loss_ends_in_a_cross_at_its_last_finite_value():
    run = fake_run("post_ln", diverge_at=90)
    steps, losses = loss_series(run, "training")
    assert steps[-1] < 90 and np.isfinite(losses).all()
    drawing = loss_curves([run, fake_run()], styles_for([run, fake_run()]), "training", 200.0)
    crosses = _marks(drawing, "x")
    assert {line.get_xdata()[0] for line in crosses} == {steps[-1]}
    assert "A cross marks" in drawing.caption and "cut off" in drawing.caption
    assert drawing.figure.axes[0].get_ylim()[1] < 10, "the breakdown must not set the scale"


def test_smoothing_keeps_the_mean_centred():
    line = np.linspace(0.0, 1.0, 400)
    mean, window = smoothed(line)
    assert window > 1
    np.testing.assert_allclose(mean, line, atol=1e-12)
    assert smoothed(line[:50])[1] == 1


def test_gradient_maps_share_one_scale_and_show_zero_and_spikes():
    runs = [fake_run(), fake_run("post_ln", diverge_at=100)]
    values = runs[0].telemetry["gradient_l2"].values
    values[3], values[-1, 0] = 0.0, np.nan
    limits = gradient_limits(runs)
    maps = [gradient_map(run, limits, 200.0).figure.axes[0].collections[0] for run in runs]
    assert {mesh.get_clim() for mesh in maps} == {limits}
    shown = np.ma.asarray(maps[0].get_array())
    assert not shown.mask[:, 3].any() and (shown[:, 3] < limits[0]).all()
    assert shown.mask[0, -1], "not a number must be gray"

    long = fake_run(steps=4000)
    long = type(long)(
        **{**vars(long), "telemetry": long.telemetry.interp(step=np.arange(0, 4000, 2))}
    )
    long.telemetry["gradient_l2"].values[777] = 50.0
    drawing = gradient_map(long, (0.01, 100.0), 4000.0)
    thinned = drawing.figure.axes[0].collections[0].get_array()
    assert thinned.shape[1] < 400 and thinned.max() > 50, "thinning must keep the spike"
    assert "largest of" in drawing.caption


def test_curves_that_coincide_take_turns():
    x = np.arange(1.0, 4.0)
    curves = {"a": (x, x), "b": (x, 1.0001 * x), "c": (x, 2 * x), "d": (x[:2], x[:2])}
    assert coinciding(curves, (1.0, 10.0)) == [["a", "b"], ["c"], ["d"]]
    runs = [fake_run("post_ln"), fake_run("deepnorm"), fake_run("pre_ln")]
    drawing = stream_lines(runs, styles_for(runs), "start")
    assert "coincide: post_ln = deepnorm." in drawing.caption
    dashes = [line.get_linestyle() for line in drawing.figure.axes[0].get_lines()]
    assert dashes == ["--", "--", "-"]


def test_profile_slopes_are_in_the_legend():
    drawing = last_gradient_plot(fake_profile(), line_styles({n: n for n in _PLACEMENTS}))
    legend = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert legend == ["pre_ln, slope −0.50", "post_ln, slope +0.00", "deepnorm, slope +0.00"]
    one = fake_profile(depths=(6,))
    legend = last_gradient_plot(one, line_styles({n: n for n in _PLACEMENTS})).figure.legends[0]
    assert legend.get_texts()[0].get_text() == "pre_ln"


_PLACEMENTS = ("pre_ln", "post_ln", "deepnorm")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (1.2345, "1.23"), (123.4, "123"), (4e-7, "4e-7"), (2.5e6, "2.5e6")],
)
def test_short_number(value, text):
    assert short_number(value) == text
    assert short_number(math.nan) == "—"
    assert rate_text(0.00032) == "3.2e-4"
