"""Statistics of parameter-shaped trees, compared with NumPy over the tree's leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import assert_bitwise, batches, quick_compile, small  # noqa: F401

from lnjax.models import Transformer
from lnjax.telemetry import Layout, group_statistics, parameter_statistics
from lnjax.training.objectives import token_losses
from lnjax.training.parallel import JitRunner
from lnjax.training.step import initialize

# The weight group of every module below a block, written out.
PLACES = {
    ("attention", "query"): "attention.query",
    ("attention", "key"): "attention.key",
    ("attention", "value"): "attention.value",
    ("attention", "output"): "attention.output",
    ("mlp", "in"): "mlp.in",
    ("mlp", "gate"): "mlp.gate",
    ("mlp", "out"): "mlp.out",
    ("attention_residual", "pre_norm"): "attention.pre_norm",
    ("attention_residual", "out_norm"): "attention.out_norm",
    ("mlp_residual", "pre_norm"): "mlp.pre_norm",
    ("mlp_residual", "out_norm"): "mlp.out_norm",
}
KINDS = {
    "pre_ln": {"norm": "layernorm", "bias": True},
    "mix_ln": {"depth": 4},
    "scalenorm": {"norm": "scalenorm"},
    "edges": {"norm": "layernorm", "placement": "peri_ln", "positions": "learned", "tied": False},
    "gated": {"activation": "swiglu", "bias": False, "placement": "post_ln"},
}


def statistics(tree) -> dict:
    """`group_statistics` of a tree of NumPy arrays, as NumPy."""
    return jax.device_get(jax.jit(group_statistics)(tree))


def tree_of(model: dict):
    """Parameters of a model, each leaf random."""
    config = small(model=({"placement": "mix_ln"} if model.get("depth") else {}) | model)
    shapes = jax.eval_shape(lambda: initialize(config, jnp.uint32(0), jnp.float32(1.0))).params
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda s: rng.standard_normal(s.shape).astype(np.float32), shapes)


def expected(tree) -> tuple[dict, dict]:
    """All values of each (layer, group) and each edge, flat."""
    blocks, edges, first = {}, {}, 0
    for index in range(len([name for name in tree if name.startswith("blocks_")])):
        segment = tree[f"blocks_{index}"]
        length = len(jax.tree.leaves(segment)[0])
        for part, modules in segment.items():
            for module, leaves in modules.items():
                group = PLACES.get((part, module)) or f"{part.removesuffix('_residual')}.{module}"
                for layer in range(length):
                    values = [np.ravel(leaf[layer]) for leaf in leaves.values()]
                    blocks[first + layer, group] = np.concatenate(values)
        first += length
    for name, leaves in tree.items():
        if not name.startswith("blocks_"):
            edges[name] = np.concatenate([leaf.ravel() for leaf in leaves.values()])
    return blocks, edges


@pytest.mark.parametrize("kind", KINDS)
def test_group_statistics_equal_numpy(kind):
    tree = tree_of(KINDS[kind])
    layout, found = Layout.of(tree), statistics(tree)
    blocks, edges = expected(tree)
    assert set(layout.groups) == {group for _, group in blocks}
    for layer in range(layout.depth):
        for column, group in enumerate(layout.groups):
            at, values = (layer, column), blocks.get((layer, group))
            if values is None:
                assert np.isnan(found["l2"][at]) and np.isnan(found["max"][at])
                assert layout.sizes[at] == 0
                continue
            np.testing.assert_allclose(found["l2"][at], np.linalg.norm(values), rtol=1e-6)
            assert found["max"][at] == np.abs(values).max()
            assert layout.sizes[at] == values.size
    assert set(layout.edges) == set(edges)
    for column, name in enumerate(layout.edges):
        np.testing.assert_allclose(found["edge_l2"][column], np.linalg.norm(edges[name]), rtol=1e-6)
        assert found["edge_max"][column] == np.abs(edges[name]).max()


@pytest.mark.parametrize("kind", KINDS)
def test_layout_counts_every_parameter_once(kind):
    tree = tree_of(KINDS[kind])
    blocks = jax.tree.leaves({k: v for k, v in tree.items() if k.startswith("blocks_")})
    layout = Layout.of(tree)
    assert layout.sizes.sum() == sum(leaf.size for leaf in blocks)
    assert layout.sizes.shape == (layout.depth, len(layout.groups))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
    assert np.array_equal(Layout.of(shapes).sizes, layout.sizes)


def test_mix_ln_has_two_segments_and_nan_where_a_norm_is_missing():
    tree = tree_of(KINDS["mix_ln"])
    assert {"blocks_0", "blocks_1"} < set(tree)
    layout, found = Layout.of(tree), statistics(tree)
    missing = np.isnan(found["l2"])
    for group, layers in {"attention.pre_norm": [0], "mlp.out_norm": [1, 2, 3]}.items():
        assert np.flatnonzero(missing[:, layout.groups.index(group)]).tolist() == layers
    assert not missing[:, layout.groups.index("mlp.in")].any()


def test_the_order_of_groups_and_edges_is_that_of_the_forward_pass():
    layout = Layout.of(tree_of(KINDS["edges"]))
    assert layout.edges == ("embedding", "positions", "embed_norm", "final_norm", "head")
    at = [layout.groups.index(g) for g in ("attention.query", "attention.output", "mlp.in")]
    assert at == sorted(at)
    assert layout.groups[0] == "attention.pre_norm"


def test_largest_magnitude_is_of_negative_values_too():
    tree = tree_of({})
    tree["blocks_0"]["mlp"]["in"]["kernel"][1] = -7.0
    layout, found = Layout.of(tree), statistics(tree)
    assert found["max"][1, layout.groups.index("mlp.in")] == 7.0


def test_half_precision_is_summed_in_float32():
    tree = jax.tree.map(lambda x: jnp.full(x.shape, 300.0, jnp.float16), tree_of({}))
    layout, found = Layout.of(tree), statistics(tree)
    assert found["l2"].dtype == jnp.float32
    np.testing.assert_allclose(found["l2"], 300.0 * np.sqrt(layout.sizes), rtol=1e-6)


def test_statistics_of_a_step_are_of_the_unclipped_gradient_and_the_weights_before_it():
    config = small(model={"placement": "mix_ln", "depth": 4}, optimizer={"clip": 0.01, "warmup": 0})
    batch = batches(config, 1)[0]
    runner = JitRunner(config, jax.devices()[:1])
    state = runner.initialize(0, 1e-2)
    before = jax.device_get(state.params)

    def loss(params):
        logits, _ = Transformer(config.model, train=True).apply(
            {"params": params}, jnp.asarray(batch["inputs"])
        )
        return token_losses(logits, jnp.asarray(batch["targets"])).mean()

    gradient = jax.device_get(jax.jit(jax.grad(loss))(before))
    state, metrics = runner.step(state, runner.place(batch))
    after, metrics = jax.device_get((state.params, metrics))
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in jax.tree.leaves(gradient)))
    assert norm > 10 * config.optimizer.clip  # so clipping did something
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-5)
    found = metrics["telemetry"]["parameters"]
    update = jax.tree.map(np.subtract, after, before)
    for name, tree, rtol in (
        ("gradient", gradient, 2e-5),
        ("weight", before, 1e-6),
        ("update", update, 1e-3),  # a difference of float32 weights has few digits
    ):
        for statistic, values in statistics(tree).items():
            np.testing.assert_allclose(
                found[name][statistic], values, rtol, 1e-7, err_msg=f"{name} {statistic}"
            )


def test_parameter_statistics_are_those_of_its_three_trees():
    tree = jax.tree.map(jnp.asarray, tree_of({}))
    trees = [jax.tree.map(lambda x, c=c: c * x, tree) for c in (1.0, 2.0, 3.0)]
    found = parameter_statistics(*trees)
    for name, one in zip(("gradient", "weight", "update"), trees, strict=True):
        assert_bitwise(found[name], group_statistics(one))
