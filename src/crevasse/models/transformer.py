"""The pre-LN decoder, and the same block tied over depth."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crevasse.models.base import Head, Model, ModelConfig, require_width
from crevasse.spec import require

Position = Literal["learned", "rotary", "none"]


class Memory:
    """Keys and values of one attention layer, so far."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self.keys is None else self.keys.shape[2]

    def add(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """(row, head, position, part) each -> all keys and values there are now."""
        if self.keys is None or self.values is None:
            self.keys, self.values = keys, values
        else:
            self.keys = torch.cat([self.keys, keys], dim=2)
            self.values = torch.cat([self.values, values], dim=2)
        return self.keys, self.values

    def keep(self, rows: Tensor) -> "Memory":
        """What belongs to these rows."""
        kept = Memory()
        if self.keys is not None and self.values is not None:
            kept.keys, kept.values = self.keys[rows], self.values[rows]
        return kept


class Attention(nn.Module):
    """Causal self-attention (Vaswani et al. 2017), optionally with rotary positions (Su et al. 2021)."""

    def __init__(self, width: int, heads: int, rotary: bool) -> None:
        super().__init__()
        self.heads, self.rotary = heads, rotary
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, first: int, memory: Memory | None) -> Tensor:
        """x (row, position, width) -> (row, position − first, width): queries from column `first` on."""
        rows, length, width = x.shape
        seen = 0 if memory is None else len(memory)
        parts = self.qkv(x).view(rows, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each (row, head, position, part)
        q = q[:, :, first:]
        if self.rotary:
            q, k = rotate(q, seen + first), rotate(k, seen)
        if memory is not None:
            k, v = memory.add(k, v)
        mixed = attend(q, k, v, offset=seen + first)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(rows, length - first, width))
        return out


def attend(q: Tensor, k: Tensor, v: Tensor, offset: int) -> Tensor:
    """Causal attention; the first query stands at position `offset` of the keys. All (row, head, position, part).

    torch's fused kernel at every length: with torch 2.13 it is never slower than plain matrix products here,
    unlike older releases on short sequences (measured in notes/LOG.md).
    """
    queries, keys = q.shape[2], k.shape[2]
    if queries == keys:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    allowed = None  # a single last query sees everything
    if queries > 1:
        allowed = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(offset)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


def rotate(x: Tensor, start: int) -> Tensor:
    """Rotary position embedding of (row, head, position, part), whose first position is `start`."""
    half = x.shape[3] // 2
    rate = 10_000 ** (-torch.arange(half, device=x.device, dtype=x.dtype) / half)
    angle = torch.arange(start, start + x.shape[2], device=x.device, dtype=x.dtype)[:, None] * rate
    cos, sin = angle.cos(), angle.sin()
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=3)


class Block(nn.Module):
    """Pre-LN block: x + attention(LN x), then x + MLP(LN x)."""

    def __init__(self, width: int, heads: int, rotary: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, rotary)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, first: int = 0, memory: Memory | None = None) -> Tensor:
        """x (row, position, width) -> (row, position − first, width)"""
        x = x[:, first:] + self.attention(self.norm1(x), first, memory)
        out: Tensor = x + self.down(F.relu(self.up(self.norm2(x))))
        return out


class _Decoder(Model):
    """Embedding, positions and head, which both decoders share."""

    def __init__(self, width: int, position: Position, vocabulary: int, context: int, silent: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.place = nn.Embedding(context, width) if position == "learned" else None
        self.norm = nn.LayerNorm(width)
        self.head = Head(width, vocabulary, silent)
        nn.init.normal_(self.embed.weight, std=0.5)
        if self.place is not None:
            nn.init.normal_(self.place.weight, std=0.5)

    def read(self, tokens: Tensor, start: int) -> Tensor:
        """(row, position) -> embeddings (row, position, width)"""
        x: Tensor = self.embed(tokens)
        if self.place is not None:
            x = x + self.place.weight[start : start + tokens.shape[1]]
        return x

    def keep(self, cache: list[Memory], rows: Tensor) -> list[Memory]:
        return [memory.keep(rows) for memory in cache]


class Transformer(_Decoder):
    """See `TransformerConfig`."""

    def __init__(self, config: "TransformerConfig", vocabulary: int, context: int, silent: int) -> None:
        super().__init__(config.width, config.position, vocabulary, context, silent)
        rotary = config.position == "rotary"
        self.blocks = nn.ModuleList(Block(config.width, config.heads, rotary) for _ in range(config.layers))

    def forward(self, tokens: Tensor, steps: Tensor, first: int = 0, cache: Any = None) -> Tensor:
        x = self.read(tokens, len(cache[0]) if cache else 0)
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            x = block(x, first if i == last else 0, cache[i] if cache else None)
        hidden: Tensor = self.norm(x)
        return hidden

    def cache(self) -> list[Memory]:
        return [Memory() for _ in self.blocks]


@dataclass(frozen=True)
class TransformerConfig(ModelConfig):
    """Pre-LN decoder with ReLU MLPs of four times the width."""

    name: ClassVar[str] = "transformer"

    layers: int = 2
    width: int = 64
    heads: int = 4
    position: Position = "learned"  # learned (per position), rotary, or none

    def __post_init__(self) -> None:
        require(1 <= self.layers <= 100, f"layers of transformer must lie between 1 and 100, not {self.layers}")
        require_width(self.name, self.width, self.heads)

    def build(self, vocabulary: int, context: int, silent: int = 0) -> Transformer:
        return Transformer(self, vocabulary, context, silent)


class Looped(_Decoder):
    """See `LoopedConfig`."""

    def __init__(self, config: "LoopedConfig", vocabulary: int, context: int, silent: int) -> None:
        super().__init__(config.width, config.position, vocabulary, context, silent)
        self.loops = config.loops
        self.block = Block(config.width, config.heads, config.position == "rotary")

    def forward(self, tokens: Tensor, steps: Tensor, first: int = 0, cache: Any = None) -> Tensor:
        start = len(cache[0]) if cache else 0
        injected = self.read(tokens, start)
        wanted = steps if self.loops == 0 else None  # loops of each row, or the same for all
        count = self.loops if wanted is None else int(steps.max())
        uniform = wanted is None or bool((steps == count).all())
        x = torch.zeros_like(injected)
        kept = None
        for loop in range(1, count + 1):
            if cache is not None and loop > len(cache):
                cache.append(Memory())
            memory = cache[loop - 1] if cache is not None else None
            x = self.block(x + injected, first if uniform and loop == count else 0, memory)
            if not uniform:  # each row keeps the state of its own last loop
                kept = x if kept is None else torch.where((steps < loop)[:, None, None], kept, x)
        hidden: Tensor = self.norm(x if kept is None else kept[:, first:])
        return hidden

    def cache(self) -> list[Memory]:
        return [Memory()]


@dataclass(frozen=True)
class LoopedConfig(ModelConfig):
    """One pre-LN block applied again and again, the input added before each loop (Dehghani et al. 2019)."""

    name: ClassVar[str] = "looped"

    width: int = 64
    heads: int = 4
    loops: int = 0  # times that the block is applied; 0: once for each step of the problem
    position: Position = "learned"  # learned (per position), rotary, or none

    def __post_init__(self) -> None:
        require(0 <= self.loops <= 1000, f"loops of looped must lie between 0 and 1000, not {self.loops}")
        require_width(self.name, self.width, self.heads)

    def build(self, vocabulary: int, context: int, silent: int = 0) -> Looped:
        return Looped(self, vocabulary, context, silent)
