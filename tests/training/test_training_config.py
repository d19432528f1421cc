"""Configurations: checked when built, round trips, readable differences."""

import json

import pytest
from ml_collections import ConfigDict

from lnjax import placements
from lnjax.data import DataConfig
from lnjax.models import ModelConfig
from lnjax.norms import NORMS, Norm
from lnjax.training.config import Config, OptimizerConfig, TrainingConfig, difference


def test_the_defaults_are_valid_and_round_trip():
    config = Config.from_dict({})
    assert config == Config()
    values = config.to_dict()
    assert set(values) == {"model", "data", "optimizer", "training"}
    assert Config.from_dict(json.loads(json.dumps(values))) == config


def test_every_field_round_trips():
    values = {
        "model": {"placement": "deepnorm", "depth": 3, "width": 32, "norm": "rmsnorm"},
        "data": {"source": "copy", "batch_size": 12, "sequence_length": 9},
        "optimizer": {"name": "sgd", "learning_rate": 0.3, "schedule": "linear"},
        "training": {"steps": 7, "accumulate": 3, "seed": 5, "parallel": "pmap"},
    }
    config = Config.from_dict(values)
    for section, fields in values.items():
        for name, value in fields.items():
            assert getattr(getattr(config, section), name) == value
            assert config.to_dict()[section][name] == value
    assert Config.from_dict(config.to_dict()) == config


def test_a_config_dict_is_as_good_as_a_dict():
    values = {"model": {"depth": 3}, "training": {"steps": 7}}
    assert Config.from_dict(ConfigDict(values)) == Config.from_dict(values)


def test_objects_become_their_names():
    model = ModelConfig(placement=placements.get("peri_ln"), norm=NORMS["rmsnorm"])
    values = Config(model=model).to_dict()
    assert values["model"]["placement"] == "peri_ln" and values["model"]["norm"] == "rmsnorm"
    custom = Config(model=ModelConfig(norm=Norm("rms", 0.125))).to_dict()["model"]["norm"]
    assert "0.125" in custom
    json.dumps(values)


def test_with_replaces_fields_and_checks_them():
    config = Config().with_(training={"seed": 4}, model={"depth": 2})
    assert (config.training.seed, config.model.depth, config.training.steps) == (4, 2, 500)
    with pytest.raises(ValueError, match="training.steps must be at least 1"):
        Config().with_(training={"steps": 0})


def test_the_fingerprint_sees_every_change():
    base = Config()
    changes = ({"training": {"seed": 1}}, {"model": {"depth": 3}}, {"optimizer": {"eps": 1e-6}})
    prints = {base.fingerprint(), *(base.with_(**c).fingerprint() for c in changes)}
    assert len(prints) == 4
    assert Config().fingerprint() == base.fingerprint()
    # A placement that keeps its name but has another equation is another configuration.
    impostor = placements.get("post_ln").with_(name="pre_ln")
    assert base.with_(model={"placement": impostor}).fingerprint() not in prints


def test_differences_are_named():
    old = Config().to_dict()
    new = Config().with_(training={"seed": 1}, optimizer={"learning_rate": 0.5}).to_dict()
    assert difference(old, new) == [
        "optimizer.learning_rate: 0.001 -> 0.5",
        "training.seed: 0 -> 1",
    ]
    assert difference(old, old) == []
    assert difference({"a": {"x": 1}}, {"a": {}}) == ["a.x: 1 -> '(absent)'"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modle": {}}, "unknown section.*'modle'.*Did you mean 'model'"),
        ({"model": {"widht": 3}}, "unknown field of model.*'widht'.*Did you mean 'width'"),
        ({"training": {"zzzz": 3}}, "unknown field of training.*'zzzz'.*Known: steps"),
        ({"optimizer": {"name": "adamww"}}, "optimizer.name='adamww'.*Did you mean 'adamw'"),
        ({"optimizer": {"schedule": "cosin"}}, "optimizer.schedule.*Did you mean 'cosine'"),
        ({"training": {"parallel": "pjit"}}, "training.parallel='pjit'.*Known: jit, pmap"),
        ({"model": {"placement": "pre-ln"}}, "unknown placement.*Did you mean 'pre_ln'"),
    ],
)
def test_misspelt_names_get_a_suggestion(values, message):
    with pytest.raises(ValueError, match=message):
        Config.from_dict(values)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        *(
            ({name: -1 if name == "warmup" else -1.0}, f"optimizer.{name} must not be negative")
            for name in ("warmup", "weight_decay", "clip", "end_fraction", "eps")
        ),
        *(({name: 1.0}, rf"optimizer.{name} must be in \[0, 1\)") for name in ("b1", "b2")),
        ({"momentum": -0.1}, r"optimizer.momentum must be in \[0, 1\), got -0.1"),
    ],
)
def test_optimizer_values_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *(
            ({name: 0}, f"training.{name} must be at least 1, got 0")
            for name in ("steps", "accumulate", "log_every", "keep", "fsdp", "tensor")
        ),
        ({"diverged_patience": 0}, "training.diverged_patience must be at least 1, got 0"),
        *(
            ({name: -1}, f"training.{name} must not be negative")
            for name in ("evaluate_every", "checkpoint_every", "seed")
        ),
        ({"diverged_margin": -1.0}, "training.diverged_margin must not be negative"),
        ({"seed": 2**32}, "training.seed must be below 2"),
        ({"mask_rate": 0.0}, r"training.mask_rate must be in \(0, 1\)"),
        ({"mask_rate": 1.0}, r"training.mask_rate must be in \(0, 1\)"),
        ({"loss_scale": 0.0}, "training.loss_scale must be at least 1"),
        ({"loss_scale_patience": 0}, "training.loss_scale_patience must be at least 1"),
        ({"parallel": "pmap", "fsdp": 2}, "pmap is data parallel only"),
        ({"parallel": "pmap", "tensor": 2}, "training.parallel='jit'"),
    ],
)
def test_training_values_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**fields)


def test_sections_are_checked_against_each_other():
    with pytest.raises(ValueError, match="data.batch_size=6 is not a multiple of"):
        Config(data=DataConfig(batch_size=6), training=TrainingConfig(accumulate=4))
    short = ModelConfig(positions="learned", max_length=8)
    with pytest.raises(ValueError, match="model.max_length=8 is shorter than"):
        Config(model=short, data=DataConfig(sequence_length=9))
    Config(model=short, data=DataConfig(sequence_length=8))
