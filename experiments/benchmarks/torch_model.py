"""The same Pre-LN Transformer in PyTorch, as a process that takes steps when asked.

Needs only torch, so that it may run under another interpreter than the one that holds JAX. It
reads a JSON line of sizes, answers "ready", then answers every line "step" with the wall and
CPU seconds that one step took.
"""

import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """x + attention(LN(x)), then x + mlp(LN(x)), with RoPE and tanh-GELU."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.into, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, cosine, sine):
        batch, time_, width = x.shape
        y = self.first(x)

        def split(t):
            return t.view(batch, time_, self.heads, -1).transpose(1, 2)

        def rotate(t):
            a, b = t.chunk(2, -1)
            return torch.cat([a * cosine - b * sine, b * cosine + a * sine], -1)

        query, key = rotate(split(self.query(y))), rotate(split(self.key(y)))
        mixed = functional.scaled_dot_product_attention(
            query, key, split(self.value(y)), is_causal=True
        )
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, time_, width))
        hidden = functional.gelu(self.into(self.second(x)), approximate="tanh")
        return x + self.out(hidden)


class Model(nn.Module):
    """Tied embedding scaled by sqrt(width), blocks, final norm."""

    def __init__(self, *, depth: int, width: int, heads: int, time: int, vocab_size: int = 256):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.final = nn.LayerNorm(width)
        head_width = width // heads
        frequency = 10000.0 ** (-torch.arange(0, head_width, 2) / head_width)
        angle = torch.arange(time)[:, None] * frequency[None]
        self.register_buffer("cosine", angle.cos())
        self.register_buffer("sine", angle.sin())

    def forward(self, tokens):
        x = self.embedding(tokens) * self.embedding.embedding_dim**0.5
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        return functional.linear(self.final(x), self.embedding.weight)


class Trainer:
    """AdamW with the decay on matrices only, gradients clipped at norm 1, as in lnjax's step.

    Args:
      form: "eager" or "compile".
      telemetry: read norm and largest magnitude of every parameter and gradient with .item()
        after each step, the usual loop.
    """

    def __init__(self, form: str, telemetry: bool, *, batch: int, **sizes: int):
        torch.manual_seed(0)
        self._model = Model(**sizes)
        self._forward = torch.compile(self._model) if form == "compile" else self._model
        self._telemetry = telemetry
        tokens = torch.randint(0, 256, (batch, sizes["time"] + 1))
        self._inputs, self._targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        matrices = [p for p in self._model.parameters() if p.ndim > 1]
        vectors = [p for p in self._model.parameters() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": 0.1},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))

    def step(self) -> float:
        """One step; returns its loss."""
        logits = self._forward(self._inputs)
        loss = functional.cross_entropy(logits.flatten(0, 1), self._targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        if self._telemetry:
            self.watched = {
                name: [t.norm().item() for t in (p, p.grad)]
                + [t.abs().max().item() for t in (p, p.grad)]
                for name, p in self._model.named_parameters()
            }
        self._optimizer.zero_grad(set_to_none=True)
        return loss.item()


def main() -> None:
    """Serve steps over standard input and output."""
    request = json.loads(sys.stdin.readline())
    trainer = Trainer(**request)
    trainer.step()
    print("ready", torch.__version__, flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        trainer.step()
        print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)


if __name__ == "__main__":
    main()
