"""lnjax: the laboratory for normalization placement in Transformer language models.

    import lnjax

    lnjax.placements.names()                       # the published schemes
    lnjax.placements.get("deepnorm")               # its equations, rendered in a notebook

    config = lnjax.Config.from_dict({
        "model": {"placement": "peri_ln", "depth": 12},
        "training": {"steps": 200},
    })
    result = lnjax.train(config, "runs/peri_ln")   # status, losses, wall time
    run = lnjax.open("runs/peri_ln")
    run.telemetry.gradient_l2.sel(group="mlp.out") # xarray: step x layer

A placement of your own is one row, no registration:

    from lnjax.placements import N, Placement, Sublayer
    mine = Placement("mine", attention=Sublayer(pre=N, post=N), mlp=Sublayer(pre=N), final=N)
    lnjax.Config(model=lnjax.ModelConfig(placement=mine, vocab_size=0, max_length=0))
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lnjax import data, norms, placements, telemetry
    from lnjax.analysis.runs import Run, open
    from lnjax.data import DataConfig, open_dataset
    from lnjax.models import ModelConfig, Transformer
    from lnjax.placements import Placement, Sublayer
    from lnjax.training.config import Config, OptimizerConfig, TrainingConfig
    from lnjax.training.loop import train

# Loaded when first used: importing lnjax costs next to nothing.
_WHERE = {
    "Config": "lnjax.training.config",
    "DataConfig": "lnjax.data",
    "ModelConfig": "lnjax.models",
    "OptimizerConfig": "lnjax.training.config",
    "Placement": "lnjax.placements",
    "Run": "lnjax.analysis.runs",
    "Sublayer": "lnjax.placements",
    "TrainingConfig": "lnjax.training.config",
    "Transformer": "lnjax.models",
    "open": "lnjax.analysis.runs",
    "open_dataset": "lnjax.data",
    "train": "lnjax.training.loop",
}
_MODULES = ("data", "norms", "placements", "telemetry")

__all__ = [
    "Config",
    "DataConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Placement",
    "Run",
    "Sublayer",
    "TrainingConfig",
    "Transformer",
    "data",
    "norms",
    "open",
    "open_dataset",
    "placements",
    "telemetry",
    "train",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"lnjax.{name}")
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"lnjax has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
