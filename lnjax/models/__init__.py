"""The Transformer and its parts."""

from lnjax.models.config import ModelConfig
from lnjax.models.transformer import Transformer

__all__ = ["ModelConfig", "Transformer"]
