"""A run's configuration: frozen dataclasses, built and checked once at the border."""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lnjax import norms, placements
from lnjax.data import DataConfig
from lnjax.data.config import Fields
from lnjax.models import ModelConfig
from lnjax.placements.content import content

SCHEDULES = ("constant", "cosine", "linear", "inverse_sqrt")
OPTIMIZERS = ("adamw", "adam", "sgd")


def _choose(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        close = difflib.get_close_matches(str(value), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{name}={value!r}.{hint} Known: {', '.join(known)}")


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its schedule.

    Attributes:
      name: "adamw", "adam" or "sgd".
      learning_rate: peak learning rate.
      schedule: after the warm-up: "constant", "cosine" or "linear" down to end_fraction of the
        peak at the last step, or "inverse_sqrt".
      warmup: steps of linear warm-up; step k of it has (k + 1) / warmup of the peak. 0 is none.
      end_fraction: last learning rate over the peak (cosine, linear).
      weight_decay: decoupled, multiplied by the learning rate; on matrices and tables, never on
        norms, biases and learned scales (adamw only).
      b1, b2, eps: Adam's constants; momentum: SGD's.
      clip: largest global gradient norm; 0 is no clipping.
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup: int = 100
    end_fraction: float = 0.1
    weight_decay: float = 0.1
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    momentum: float = 0.9
    clip: float = 1.0

    def __post_init__(self):
        _choose("optimizer.name", self.name, OPTIMIZERS)
        _choose("optimizer.schedule", self.schedule, SCHEDULES)
        if not self.learning_rate > 0:
            raise ValueError(f"optimizer.learning_rate must be positive, got {self.learning_rate}")
        for name in ("warmup", "weight_decay", "clip", "end_fraction", "eps"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"optimizer.{name} must not be negative")
        for name in ("b1", "b2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name} must be in [0, 1), got {getattr(self, name)}")


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how often, on what.

    Attributes:
      steps: optimizer steps of the whole run.
      seed: of initialization, data order and dropout.
      accumulate: micro-batches per step, one after the other.
      log_every: steps between recorded telemetry (the first and the last are always recorded).
      evaluate_every: steps between evaluations on the held-out batches; 0 only at the end.
      checkpoint_every: steps between checkpoints; 0 only at the end.
      keep: how many checkpoints of parameters and optimizer are kept (telemetry is kept whole).
      telemetry: whether layers are watched.
      parallel: "jit" (over a mesh) or "pmap" (data parallel).
      fsdp, tensor: sizes of these mesh axes (jit); the rest of the devices is data parallel.
      mask_rate: share of the tokens to be predicted in masked language modelling (not causal).
      diverged_margin, diverged_patience: a loss this many nats above the first one for this many
        steps in a row ends the run as diverged (one that is not finite does so at once).
      loss_scale: first dynamic loss scale (float16 only).
      loss_scale_patience: good steps before the loss scale doubles (float16 only).
    """

    steps: int = 500
    seed: int = 0
    accumulate: int = 1
    log_every: int = 10
    evaluate_every: int = 100
    checkpoint_every: int = 250
    keep: int = 1
    telemetry: bool = True
    parallel: str = "jit"
    fsdp: int = 1
    tensor: int = 1
    mask_rate: float = 0.15
    diverged_margin: float = 2.0
    diverged_patience: int = 50
    loss_scale: float = 2.0**15
    loss_scale_patience: int = 1000

    def __post_init__(self):
        _choose("training.parallel", self.parallel, ("jit", "pmap"))
        for name in (
            "steps",
            "accumulate",
            "log_every",
            "keep",
            "fsdp",
            "tensor",
            "diverged_patience",
            "loss_scale",
            "loss_scale_patience",
        ):
            if not getattr(self, name) >= 1:
                raise ValueError(f"training.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("evaluate_every", "checkpoint_every", "seed", "diverged_margin"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"training.{name} must not be negative")
        if self.seed >= 2**32:
            raise ValueError(f"training.seed must be below 2**32, got {self.seed}")
        if not 0 < self.mask_rate < 1:
            raise ValueError(f"training.mask_rate must be in (0, 1), got {self.mask_rate}")
        if self.parallel == "pmap" and (self.fsdp > 1 or self.tensor > 1):
            raise ValueError(
                "pmap is data parallel only: set training.parallel='jit' for fsdp or tensor axes"
            )


@dataclass(frozen=True)
class Config:
    """Everything that decides a run's mathematics."""

    model: ModelConfig = field(default_factory=lambda: ModelConfig(vocab_size=0, max_length=0))
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self):
        if self.data.batch_size % self.training.accumulate:
            raise ValueError(
                f"data.batch_size={self.data.batch_size} is not a multiple of "
                f"training.accumulate={self.training.accumulate}"
            )
        length = self.model.max_length
        if self.model.positions == "learned" and 0 < length < self.data.sequence_length:
            raise ValueError(
                f"model.max_length={length} is shorter than "
                f"data.sequence_length={self.data.sequence_length}: the learned positions end"
            )

    @classmethod
    def from_dict(cls, values: Fields) -> "Config":
        """Build and check a configuration from nested dicts (or a ConfigDict).

        Raises:
          ValueError: a section or field is unknown (the message suggests one), or a value is bad.
        """
        sections = {f.name: f for f in dataclasses.fields(cls)}
        types = {
            "model": ModelConfig,
            "data": DataConfig,
            "optimizer": OptimizerConfig,
            "training": TrainingConfig,
        }
        _known("section", values.keys(), sections)
        built = {}
        for name, kind in types.items():
            fields = dict(values[name]) if name in values.keys() else {}
            _known(f"field of {name}", fields, [f.name for f in dataclasses.fields(kind)])
            if name == "model":
                fields = {"vocab_size": 0, "max_length": 0} | fields
            built[name] = kind(**fields)
        return cls(**built)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dicts that JSON can hold; a placement or norm object becomes its name."""
        values = {
            section.name: {
                f.name: getattr(getattr(self, section.name), f.name)
                for f in dataclasses.fields(getattr(self, section.name))
            }
            for section in dataclasses.fields(self)
        }
        model = values["model"]
        if isinstance(model["placement"], placements.Placement):
            model["placement"] = model["placement"].name
        if isinstance(model["norm"], norms.Norm):
            known = {norm: name for name, norm in norms.NORMS.items()}
            model["norm"] = known.get(model["norm"]) or repr(model["norm"])
        return values

    def placement_content(self) -> dict[str, dict[str, Any]]:
        """All that the placement computes at the model's depth with its norm function."""
        return content(self.model.placed, self.model.depth, self.model.norm)

    def fingerprint(self) -> str:
        """Hash of the configuration and of all that its placement computes."""
        everything = {"config": self.to_dict(), "placement": self.placement_content()}
        return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def program(self) -> "Config":
        """Equal for runs that share their compiled programs: no seed, no learning rate, and the
        placement as an object, because the file that a reference names may change."""
        return self.with_(
            model={"placement": self.model.placed},
            optimizer={"learning_rate": 1.0},
            training={"seed": 0},
        )

    def with_(self, **sections: Mapping[str, Any]) -> "Config":
        """A copy with some fields of some sections replaced: with_(training={"seed": 1})."""
        return dataclasses.replace(
            self,
            **{
                name: dataclasses.replace(getattr(self, name), **fields)
                for name, fields in sections.items()
            },
        )


def _known(what: str, given, known) -> None:
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(str(name), list(known), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known)}"
            raise ValueError(f"unknown {what} of the configuration: {name!r}.{hint}")


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Readable lines "section.field: old -> new" for two configurations as dicts."""
    lines = []
    for section in sorted(set(old) | set(new)):
        before, after = old.get(section, {}), new.get(section, {})
        for name in sorted(set(before) | set(after)):
            a, b = before.get(name, "(absent)"), after.get(name, "(absent)")
            if a != b:
                lines.append(f"{section}.{name}: {a!r} -> {b!r}")
    return lines
