"""Grids are plain data: axes, their products, and which members share a program."""

from pathlib import Path

import pytest
from small_runs import small

from lnjax import placements
from lnjax.sweeps.grids import Member, choices, merged, product
from lnjax.training.config import Config
from lnjax.training.parallel import runner


def test_later_overrides_win_field_by_field():
    first = {"optimizer": {"learning_rate": 1.0, "warmup": 3}}
    second = {"optimizer": {"learning_rate": 2.0}, "training": {"seed": 1}}
    assert merged(first, second) == {
        "optimizer": {"learning_rate": 2.0, "warmup": 3},
        "training": {"seed": 1},
    }
    assert merged(second, first)["optimizer"] == {"learning_rate": 1.0, "warmup": 3}
    assert merged() == {}


def test_merging_leaves_its_arguments_alone():
    first, second = {"optimizer": {"warmup": 3}}, {"optimizer": {"warmup": 4}}
    result = merged(first, second)
    result["optimizer"]["warmup"] = 5
    assert first == {"optimizer": {"warmup": 3}} and second == {"optimizer": {"warmup": 4}}


def test_an_axis():
    assert choices("training", "seed", range(2)) == [
        {"training": {"seed": 0}},
        {"training": {"seed": 1}},
    ]


def test_a_product_has_every_combination_the_last_axis_fastest():
    rates, seeds = (
        choices("optimizer", "learning_rate", (0.1, 0.3)),
        choices("training", "seed", (0, 1, 2)),
    )
    grid = product(rates, seeds)
    found = [(x["optimizer"]["learning_rate"], x["training"]["seed"]) for x in grid]
    assert found == [(0.1, 0), (0.1, 1), (0.1, 2), (0.3, 0), (0.3, 1), (0.3, 2)]
    grid[0]["training"]["seed"] = 9
    assert grid[3]["training"]["seed"] == 0 and seeds[0] == {"training": {"seed": 0}}
    assert product() == [{}]
    assert product(rates, []) == []


def test_axes_that_are_read_once_are_enough():
    seeds = ({"training": {"seed": s}} for s in range(2))
    assert len(product(choices("optimizer", "warmup", (1, 2)), seeds)) == 4


def test_a_grid_configures_runs():
    for fields in product(
        choices("model", "placement", ("pre_ln", "post_ln")), choices("training", "steps", (1, 2))
    ):
        config = Config.from_dict(fields)
        assert config.model.placement == fields["model"]["placement"]
        assert config.training.steps == fields["training"]["steps"]
    with pytest.raises(ValueError, match="Did you mean 'seed'"):
        Config.from_dict(choices("training", "sead", (1,))[0])


def member(**sections) -> Member:
    return Member("any", small(**sections), Path("run"))


def test_members_share_a_program_when_only_learning_rate_and_seed_differ():
    one = member()
    other = member(optimizer={"learning_rate": 0.5}, training={"seed": 7})
    assert one.config != other.config
    assert one.program == other.program and hash(one.program) == hash(other.program)
    assert runner(one.config) is runner(other.config)  # and so the compiled programs


@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"placement": "post_ln"}},
        {"model": {"placement": placements.get("post_ln").with_(name="pre_ln")}},
        {"optimizer": {"warmup": 3}},
        {"optimizer": {"weight_decay": 0.2}},
        {"training": {"steps": 7}},
        {"data": {"batch_size": 16}},
    ],
)
def test_anything_else_is_another_program(sections):
    assert member(**sections).program != member().program
