"""Rows become one Dataset with the documented dimensions, names and derived quantities."""

import jax
import numpy as np
import pytest
from small_runs import quick_compile, run_steps, small  # noqa: F401

from lnjax.telemetry.history import History, dataset, flatten, layout_dict
from lnjax.telemetry.statistics import Layout
from lnjax.training.parallel import JitRunner

STEP = ("step",)
GROUPS = ("step", "layer", "group")
EDGES = ("step", "edge")
SITES = ("step", "layer", "sublayer", "site")
SUBLAYERS = ("step", "layer", "sublayer")
SCHEMA = {
    **dict.fromkeys(("loss", "learning_rate", "gradient_norm", "weight_norm", "update_norm"), STEP),
    **{f"{q}_{s}": GROUPS for q in ("gradient", "weight", "update") for s in ("l2", "max", "rms")},
    "update_ratio": GROUPS,
    **{f"edge_{q}_{s}": EDGES for q in ("gradient", "weight", "update") for s in ("l2", "max")},
    **{f"activation_{s}": SITES for s in ("rms", "max", "mean")},
    **dict.fromkeys(("cosine", "angular_distance", "branch_ratio"), SUBLAYERS),
    **{f"backward_{s}": SUBLAYERS for s in ("l2", "max")},
    **dict.fromkeys(
        ("output_rms", "output_max", "output_backward_l2", "output_backward_max"), STEP
    ),
    "evaluation_loss": ("evaluation_step",),
}


@pytest.fixture(scope="module")
def run():
    """Layout, and the metrics of five steps of a model of two segments."""
    config = small(model={"placement": "mix_ln", "depth": 4}, optimizer={"clip": 0.01, "warmup": 0})
    runner = JitRunner(config, jax.devices()[:1])
    return layout_dict(Layout.of(runner.abstract.params)), run_steps(runner, config, 5)[1]


def recorded(metrics, steps, evaluations=()):
    """A block of rows."""
    history = History()
    for step in steps:
        history.record(step, metrics[step])
    for step, loss in evaluations:
        history.evaluated(step, loss)
    return history.block()


def test_the_schema_is_the_documented_one(run):
    layout, metrics = run
    data = dataset([recorded(metrics, range(5), [(2, 1.5)])], layout)
    assert {name: data[name].dims for name in data.data_vars} == SCHEMA
    assert {data[name].dtype for name in data.data_vars} == {np.dtype("float32")}
    assert dict(data.sizes) == {
        "step": 5,
        "layer": 4,
        "sublayer": 2,
        "site": 4,
        "group": len(layout["groups"]),
        "edge": 2,
        "evaluation_step": 1,
    }
    assert data.layer.values.tolist() == [1, 2, 3, 4]
    assert data.sublayer.values.tolist() == ["attention", "mlp"]
    assert data.site.values.tolist() == ["stream", "body", "branch", "sum"]
    assert data.edge.values.tolist() == ["embedding", "final_norm"]
    assert data.step.values.tolist() == list(range(5))


def test_values_are_where_their_names_say(run):
    layout, metrics = run
    data = dataset([recorded(metrics, range(5))], layout)
    last, telemetry = data.sel(step=4), metrics[4]["telemetry"]
    assert float(last.loss) == metrics[4]["loss"]
    group = layout["groups"].index("mlp.out")
    assert (
        last.update_max.sel(layer=3, group="mlp.out")
        == telemetry["parameters"]["update"]["max"][2, group]
    )
    assert (
        last.edge_weight_l2.sel(edge="final_norm")
        == telemetry["parameters"]["weight"]["edge_l2"][1]
    )
    mlp = telemetry["forward"]["sublayers"][1]
    assert last.activation_mean.sel(layer=2, sublayer="mlp", site="body") == mlp["moments"][1, 1, 1]
    assert last.activation_max.sel(layer=2, sublayer="mlp", site="sum") == mlp["moments"][1, 3, 2]
    assert last.cosine.sel(layer=4, sublayer="mlp") == mlp["cosine"][3]
    backward = telemetry["backward"]
    assert last.backward_l2.sel(layer=3, sublayer="attention") == backward["l2"][4]
    assert last.backward_max.sel(layer=3, sublayer="mlp") == backward["max"][5]
    assert last.output_backward_l2 == backward["l2"][8]


def test_derived_variables(run):
    layout, metrics = run
    data = dataset([recorded(metrics, range(5))], layout)
    sizes = {"attention.query": 16 * 16, "mlp.in": 16 * 24, "mlp.out_norm": 16}
    for group, size in sizes.items():
        at = data.sel(group=group)
        for quantity in ("gradient", "weight", "update"):
            np.testing.assert_allclose(
                at[f"{quantity}_rms"], at[f"{quantity}_l2"] / np.sqrt(size), rtol=1e-6
            )
        np.testing.assert_allclose(at.update_ratio, at.update_l2 / at.weight_l2, rtol=1e-6)
    assert np.isnan(data.gradient_rms.sel(group="mlp.out_norm", layer=2)).all()
    assert np.isfinite(data.gradient_rms.sel(group="mlp.out_norm", layer=1)).all()
    np.testing.assert_allclose(np.cos(np.pi * data.angular_distance), data.cosine, atol=1e-6)
    rms = data.activation_rms
    np.testing.assert_allclose(
        data.branch_ratio, rms.sel(site="branch") / rms.sel(site="stream"), rtol=1e-6
    )
    # The root mean square is that of the mean square that was measured.
    squares = [m["telemetry"]["forward"]["sublayers"][0]["moments"][..., 0] for m in metrics]
    np.testing.assert_allclose(rms.sel(sublayer="attention"), np.sqrt(squares), rtol=1e-6)


def test_blocks_are_joined_in_order(run):
    import xarray as xr

    layout, metrics = run
    whole = dataset([recorded(metrics, range(5), [(2, 1.5), (4, 1.25)])], layout)
    blocks = [
        recorded(metrics, range(2), [(2, 1.5)]),
        recorded(metrics, [], [(4, 1.25)]),
        recorded(metrics, range(2, 5)),
    ]
    xr.testing.assert_identical(dataset(blocks, layout), whole)


def test_a_block_holds_only_what_came_since_the_one_before(run):
    history = History()
    history.record(0, run[1][0])
    assert history.block()["step"].tolist() == [0]
    assert history.block() == {}
    history.record(1, run[1][1])
    assert history.block()["step"].tolist() == [1]


def test_a_run_without_telemetry_has_its_scalars(run):
    layout, metrics = run
    bare = [{k: v for k, v in m.items() if k != "telemetry"} for m in metrics]
    assert set(flatten(bare[0])) == {
        "loss",
        "learning_rate",
        "gradient_norm",
        "weight_norm",
        "update_norm",
    }
    data = dataset([recorded(bare, range(5))], layout)
    assert set(data.data_vars) == set(flatten(bare[0])) | {"evaluation_loss"}
    assert data.sizes["step"] == 5 and data.sizes["evaluation_step"] == 0


def test_zero_weights_have_no_update_ratio(run):
    layout, metrics = run
    block = recorded(metrics, range(2))
    block["weight_l2"][:, 0, 1] = 0.0
    data = dataset([block], layout)
    assert (
        np.isnan(data.update_ratio[:, 0, 1]).all() and np.isfinite(data.weight_rms[:, 0, 1]).all()
    )
