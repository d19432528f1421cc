"""What a Transformer is made of, checked before anything is computed."""

import difflib
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

from lnjax import norms, placements

ACTIVATIONS = ("gelu", "gelu_erf", "relu", "relu2", "swiglu", "geglu")
POSITIONS = ("rope", "learned", "alibi", "none")
DTYPES = ("float32", "bfloat16", "float16", "float64")
INITS = ("xavier_normal", "xavier_uniform", "lecun_normal", "gpt2", "fairseq")
ATTENTION_FORMS = ("chunked", "xla", "cudnn")


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only (causal) or encoder (not causal) Transformer.

    Attributes:
      placement: a catalogue name, "path/to/file.py:name", or a `Placement`.
      norm: a norm name or `Norm`, used by every slot that names none.
      depth, width, heads: blocks L, model width d, query heads.
      kv_heads: key/value heads; 0 means as many as heads (MHA), 1 is MQA, between is GQA.
      mlp_width: hidden width of the MLP; 0 means 4 * width.
      vocab_size, max_length: tokens, and positions a learned table has. 0 in a training
        configuration means as many as the data has; a model needs numbers.
      positions: "rope", "learned", "alibi" or "none".
      activation: "gelu" (tanh form), "gelu_erf", "relu", "relu2", "swiglu" or "geglu".
      causal: whether a position sees only itself and earlier ones.
      tied: whether the head is the embedding table.
      bias: biases of the linear maps (norms have their own switch).
      dropout: rate on the embedding, the attention weights and the branches.
      embedding_scale: "sqrt_width" multiplies the embedding by sqrt(d) (Vaswani et al. 2017),
        which with the table's initial deviation d^-1/2 starts the stream at unit variance;
        "one" leaves it.
      embedding_std: initial deviation of the embedding table and the head; 0 means d^-1/2.
      init: base initialization of the matrices, see lnjax.models.initializers.
      dtype: of the computation; norms, softmax and the loss are at least float32.
      param_dtype: of the parameters.
      remat: recompute each block in the backward pass (memory O(depth * batch * time * width)).
        On a CPU it takes the scan: XLA undoes it there for blocks that are unrolled.
      unroll: blocks per iteration of the layer scan; 0 unrolls all (longer compile, faster steps).
      attention_form: "chunked" (this package's, fastest on CPU), "xla" or "cudnn" (jax.nn's;
        cudnn is the fused kernel of NVIDIA GPUs, for bfloat16 and float16, without ALiBi).
    """

    placement: str | placements.Placement = "pre_ln"
    norm: str | norms.Norm = "layernorm"
    depth: int = 12
    width: int = 64
    heads: int = 4
    kv_heads: int = 0
    mlp_width: int = 0
    vocab_size: int = 256
    max_length: int = 128
    positions: Literal["rope", "learned", "alibi", "none"] = "rope"
    activation: str = "gelu"
    causal: bool = True
    tied: bool = True
    bias: bool = True
    dropout: float = 0.0
    embedding_scale: Literal["sqrt_width", "one"] = "sqrt_width"
    embedding_std: float = 0.0
    init: str = "xavier_normal"
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: bool = False
    unroll: int = 1
    attention_form: Literal["chunked", "xla", "cudnn"] = "chunked"

    def __post_init__(self):
        placements.get(self.placement)
        norms.get(self.norm)
        for name in ("depth", "width", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        for name in (
            "kv_heads",
            "mlp_width",
            "unroll",
            "embedding_std",
            "vocab_size",
            "max_length",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"model.{name} must not be negative, got {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(
                f"model.width={self.width} is not a multiple of model.heads={self.heads}: "
                "every head needs the same width"
            )
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(
                f"model.heads={self.heads} is not a multiple of model.kv_heads={self.kv_heads}: "
                "every key/value head serves the same number of query heads"
            )
        if self.positions == "rope" and self.head_width % 2:
            raise ValueError(
                f"RoPE rotates pairs, but width/heads = {self.head_width} is odd: "
                "change model.heads or model.positions"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout must be in [0, 1), got {self.dropout}")
        if self.attention_form != "chunked" and self.dropout:
            raise ValueError(
                f"attention_form={self.attention_form!r} has no dropout of attention weights: "
                "set model.attention_form='chunked' or model.dropout=0"
            )
        if self.attention_form == "cudnn" and self.positions == "alibi":
            raise ValueError(
                f"attention_form='cudnn' takes ALiBi only in {self.dtype}, which rounds long "
                "distances: set model.attention_form='xla' or 'chunked'"
            )
        for name, known in (
            ("positions", POSITIONS),
            ("activation", ACTIVATIONS),
            ("dtype", DTYPES),
            ("param_dtype", DTYPES),
            ("init", INITS),
            ("attention_form", ATTENTION_FORMS),
            ("embedding_scale", ("sqrt_width", "one")),
        ):
            value = getattr(self, name)
            if value not in known:
                close = difflib.get_close_matches(str(value), known, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ValueError(f"model.{name}={value!r}.{hint} Known: {', '.join(known)}")

    @property
    def head_width(self) -> int:
        """Features per head."""
        return self.width // self.heads

    @property
    def kv(self) -> int:
        """Number of key/value heads."""
        return self.kv_heads or self.heads

    @property
    def hidden(self) -> int:
        """Hidden width of the MLP."""
        return self.mlp_width or 4 * self.width

    @property
    def gated(self) -> bool:
        """Whether the MLP has a gate matrix."""
        return self.activation in ("swiglu", "geglu")

    @property
    def placed(self) -> placements.Placement:
        """The placement as an object."""
        return placements.get(self.placement)

    @property
    def compute_dtype(self) -> jnp.dtype:
        """dtype of the stream and the matrix products."""
        return jnp.dtype(self.dtype)
