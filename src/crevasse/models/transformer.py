"""The pre-LN decoder, and the same block tied over depth."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from crevasse.models.base import Axes, Model, ModelConfig, Units, require_width
from crevasse.models.layers import Embedding, Head, LayerNorm, Linear
from crevasse.models.sharing import Places, shared_beginnings
from crevasse.spec import require

Position = Literal["learned", "rotary", "first", "none"]


#: The longest sequence whose attention is faster as products of small matrices, forward and backward together, and
#: the longest, with heads of at most so many parts, for which even those are too small to be worth a matrix product.
SHORT, TINY, THIN = 48, 8, 16

#: Is a loss to be differentiated twice? The written-out ways back are made for once.
_twice: ContextVar[bool] = ContextVar("twice", default=False)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Within it losses can be differentiated twice (for curvature); they are the same but for the last bits."""
    token = _twice.set(True)
    try:
        yield
    finally:
        _twice.reset(token)


class Memory:
    """Keys and values of one attention layer, so far."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self.keys is None else self.keys.shape[1]

    def add(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """(row, position, head, part) each -> all keys and values there are now."""
        if self.keys is None or self.values is None:
            self.keys, self.values = keys, values
        else:
            self.keys = torch.cat([self.keys, keys], dim=1)
            self.values = torch.cat([self.values, values], dim=1)
        return self.keys, self.values

    def keep(self, rows: Tensor) -> "Memory":
        """What belongs to these rows."""
        kept = Memory()
        if self.keys is not None and self.values is not None:
            kept.keys, kept.values = self.keys[rows], self.values[rows]
        return kept


def attend(q: Tensor, k: Tensor, v: Tensor, offset: int) -> Tensor:
    """Causal attention (Vaswani et al. 2017); the first query stands at position `offset` of the keys.

    q, k, v (row, position, head, part) -> (row, position, head · part). torch's fused kernel is made for long
    sequences; for short ones its way back takes longer than the products written out (benchmarks/training.py).
    """
    queries, keys = q.shape[1], k.shape[1]
    if queries == 1:  # a single last query sees everything
        scores = (q * k).sum(3) * q.shape[3] ** -0.5  # (row, position, head)
        out: Tensor = (scores.softmax(1)[..., None] * v).sum(1).flatten(1)[:, None]
        return out
    if keys <= SHORT and torch.is_grad_enabled() and not _twice.get():
        form = _Entrywise if keys <= TINY and q.shape[3] <= THIN else _Products
        mixed: Tensor = form.apply(q, k, v, offset)  # type: ignore[no-untyped-call]
        return mixed
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    mask = None if queries == keys else torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(offset)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None).transpose(1, 2).flatten(2)


class _Products(torch.autograd.Function):
    """Attention as batched products, with a way back that writes each gradient once."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, offset: int) -> Tensor:
        rows, queries, heads, part = q.shape
        q, k, v = (x.transpose(1, 2).reshape(rows * heads, -1, part) for x in (q, k, v))
        future = q.new_full((queries, k.shape[1]), -torch.inf).triu(offset + 1)
        weight = torch.baddbmm(future, q, k.transpose(1, 2), alpha=part**-0.5).softmax(-1)
        ctx.save_for_backward(q, k, v, weight)
        ctx.heads = heads
        return (weight @ v).view(rows, heads, queries, part).transpose(1, 2).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, weight = ctx.saved_tensors
        rows, queries, part = len(q) // ctx.heads, q.shape[1], q.shape[2]
        slope = slope.view(rows, queries, ctx.heads, part).transpose(1, 2).reshape(q.shape)
        by_weight = slope @ v.transpose(1, 2)
        # The way back through a softmax: w · (g − Σ w·g).
        by_score = weight * (by_weight - (weight * by_weight).sum(-1, keepdim=True)) * part**-0.5
        found = by_score @ k, by_score.transpose(1, 2) @ q, weight.transpose(1, 2) @ slope
        q, k, v = (x.view(rows, ctx.heads, -1, part).transpose(1, 2) for x in found)
        return q, k, v, None


class _Entrywise(torch.autograd.Function):
    """Attention query by query, entry by entry, with rows as the last axis: long vectors instead of tiny matrices."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, offset: int) -> Tensor:
        ctx.offset, scale = offset, q.shape[3] ** -0.5
        q, k, v = (x.permute(1, 2, 3, 0).contiguous() for x in (q, k, v))  # (position, head, part, row)
        mixed, weights = torch.empty_like(q), []
        for i, query in enumerate(q):
            seen = offset + i + 1
            weight = ((query * k[:seen]).sum(2) * scale).softmax(0)  # (position, head, row)
            torch.mul(weight[0, :, None], v[0], out=mixed[i])
            for w, value in zip(weight[1:], v[1:seen], strict=True):
                mixed[i].addcmul_(w[:, None], value)
            weights.append(weight)
        ctx.save_for_backward(q, k, v, *weights)
        return mixed.permute(3, 0, 1, 2).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *weights = ctx.saved_tensors
        rows, queries, _ = slope.shape
        slope = slope.view(rows, queries, *q.shape[1:3]).permute(1, 2, 3, 0).contiguous()
        scale = q.shape[2] ** -0.5
        by_q, by_k, by_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for i, (weight, g) in enumerate(zip(weights, slope, strict=True)):
            seen = ctx.offset + i + 1
            by_weight = (g * v[:seen]).sum(2)
            by_score = (weight * (by_weight - (weight * by_weight).sum(0)) * scale)[:, :, None]
            by_v[:seen].addcmul_(weight[:, :, None], g)
            by_k[:seen].addcmul_(by_score, q[i])
            torch.sum(by_score * k[:seen], 0, out=by_q[i])
        by_q, by_k, by_v = (x.permute(3, 0, 1, 2) for x in (by_q, by_k, by_v))
        return by_q, by_k, by_v, None


def rotate(x: Tensor, start: int) -> Tensor:
    """Rotary position embedding of (row, position, head, part), whose first position is `start`."""
    half = x.shape[3] // 2
    rate = 10_000 ** (-torch.arange(half, device=x.device, dtype=x.dtype) / half)
    angle = torch.arange(start, start + x.shape[1], device=x.device, dtype=x.dtype)[:, None, None] * rate
    cos, sin = angle.cos(), angle.sin()
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=3)


class Block(nn.Module):
    """Pre-LN block: x + attention(LN x), then x + MLP(LN x), on the nodes of a batch."""

    def __init__(self, width: int, heads: int, rotary: bool) -> None:
        super().__init__()
        self.heads, self.part, self.rotary = heads, width // heads, rotary
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        self.qkv, self.out = Linear(width, 3 * width), Linear(width, width)
        self.up, self.down = Linear(width, 4 * width), Linear(4 * width, width)

    def forward(self, x: Tensor, at: Places, to: Places, first: int = 0, memory: Memory | None = None) -> Tensor:
        """x (node of `at`, width) -> (node of `to`, width), or with `first` (row · (position − first), width)."""
        normed, width = self.norm1(x), self.qkv.weight.shape[-2] // 3
        if first:  # everything but keys and values from that column on alone
            x = at.spread(x, first).flatten(0, 1)
            q = self.qkv.part(at.spread(normed, first), 0, width)
            k, v = at.spread(self.qkv.part(normed, width, 3 * width)).chunk(2, -1)
            x = x + self.out(self.mix(q, k, v, first, memory).flatten(0, 1))
        else:
            q, k, v = at.spread(self.qkv(normed)).chunk(3, -1)
            x = at.move(x, to) + self.out(to.gather(self.mix(q, k, v, 0, memory)))
        out: Tensor = x + self.down(F.relu(self.up(self.norm2(x)), inplace=True))
        return out

    def mix(self, q: Tensor, k: Tensor, v: Tensor, first: int, memory: Memory | None) -> Tensor:
        """Attention, optionally with rotary positions (Su et al. 2021). The first query stands in column `first`.

        q, k, v (row, position, width) -> (row, position, width), as many as queries
        """
        seen = 0 if memory is None else len(memory)
        q, k, v = (x.view(*x.shape[:2], self.heads, -1) for x in (q, k, v))
        if q.shape[3] != self.part:  # narrow: scores are divided by the root of what a head has here, not of all of it
            q = q * (q.shape[3] / self.part) ** 0.5
        if self.rotary:
            q, k = rotate(q, seen + first), rotate(k, seen)
        if memory is not None:
            k, v = memory.add(k, v)
        return attend(q, k, v, offset=seen + first)


class _Decoder(Model):
    """Embedding, positions and head, which both decoders share."""

    def __init__(self, width: int, position: Position, vocabulary: int, context: int, silent: int) -> None:
        super().__init__()
        self.embed = Embedding(vocabulary, width)
        self.first_alone = position == "first"
        places = 1 if self.first_alone else context
        self.place = Embedding(places, width) if position in ("learned", "first") else None
        self.norm = LayerNorm(width)
        self.head = Head(width, vocabulary, silent)
        nn.init.normal_(self.embed.weight, std=0.5)
        if self.place is not None:
            nn.init.normal_(self.place.weight, std=0.5)

    def axes(self) -> Axes:
        # Each head has a share of the width; a narrow model keeps all heads, and less of each.
        block = next(m for m in self.modules() if isinstance(m, Block))
        if block.rotary:  # the angles depend on how much of a head there is
            return {}
        width, part, hidden = (
            ("width", self.embed.embedding_dim),
            ("part", block.part),
            ("hidden", block.up.out_features),
        )
        kinds: Axes = {
            "embed.weight": (None, width), "place.weight": (None, width), "head.weight": (None, width),
            "qkv.weight": (part, width), "qkv.bias": (part,), "out.weight": (width, part), "out.bias": (width,),
            "up.weight": (hidden, width), "up.bias": (hidden,), "down.weight": (width, hidden), "down.bias": (width,),
            **{f"{norm}.{kind}": (width,) for norm in ("norm", "norm1", "norm2") for kind in ("weight", "bias")},
        }  # fmt: skip
        ends = {name: ".".join(name.split(".")[-2:]) for name, _ in self.named_parameters()}
        return {name: kinds[end] for name, end in ends.items() if end in kinds}

    def units(self) -> Sequence[Units]:
        # The width of the residual stream, and the hidden units of each block. Heads, and what is within a head, could
        # change places too; that is left out.
        blocks = {name: m for name, m in self.named_modules() if isinstance(m, Block)}
        reads = [f"{block}.{map_}.weight" for block in blocks for map_ in ("qkv", "up")]
        writes = [
            f"{block}.{map_}.{kind}" for block in blocks for map_ in ("out", "down") for kind in ("weight", "bias")
        ]
        norms = ["norm", *(f"{block}.{norm}" for block in blocks for norm in ("norm1", "norm2"))]
        ends = ["embed.weight", "head.weight", *(["place.weight"] if self.place is not None else [])]
        stream = [
            *((name, 1, 0) for name in (*ends, *reads)),
            *((name, 0, 0) for name in writes),
            *((f"{norm}.{kind}", 0, 0) for norm in norms for kind in ("weight", "bias")),
        ]
        hidden = [
            (m.up.out_features, ((f"{b}.up.weight", 0, 0), (f"{b}.up.bias", 0, 0), (f"{b}.down.weight", 1, 0)))
            for b, m in blocks.items()
        ]
        return [(self.embed.embedding_dim, tuple(stream)), *hidden]

    def read(self, tokens: Tensor, start: int) -> tuple[Tensor, Places, Places]:
        """tokens (row, position) -> embeddings (node, width), where they stand, and where the states will.

        Where there are fewer tokens than rows, the embeddings are those of all (token, position) pairs.
        """
        rows, length = tokens.shape
        models = self.embed.weight.dim() - 1  # more than 1: a stack, in which models have equal shares of all nodes
        whole = Places(rows, length)
        entry = self.embed.entries(tokens)
        if start == 0 and len(self.embed.table()) < rows:
            table, node = self.embed.table(), entry
            if self.place is not None:
                table = self._add_places(table[:, None], 0, length).flatten(0, 1)
                node = node * length + torch.arange(length, device=node.device)
            to = shared_beginnings(tokens) if models == 1 and torch.is_grad_enabled() else whole
            return table, Places(rows, length, node.flatten()), to
        x = F.embedding(entry, self.embed.table())
        if self.place is not None:
            x = self._add_places(x, start, length)
        return x.flatten(0, 1), whole, whole

    def _add_places(self, x: Tensor, start: int, length: int) -> Tensor:
        """x (row, position or 1, width), of a stack with the models in front -> (row, position, width)"""
        assert self.place is not None
        place = self.place.weight[..., start : start + length, :]  # (position, width), as x
        if self.first_alone:  # nothing is added to the others
            place = F.pad(place, (0, 0, 0, length - place.shape[-2]))
        if place.dim() == 2:
            return x + place
        models = len(place)
        return (x.view(models, -1, *x.shape[1:]) + place[:, None]).flatten(0, 1)

    def keep(self, cache: list[Memory], rows: Tensor) -> list[Memory]:
        return [memory.keep(rows) for memory in cache]


class Transformer(_Decoder):
    """See `TransformerConfig`."""

    def __init__(self, config: "TransformerConfig", vocabulary: int, context: int, silent: int) -> None:
        super().__init__(config.width, config.position, vocabulary, context, silent)
        rotary = config.position == "rotary"
        self.blocks = nn.ModuleList(Block(config.width, config.heads, rotary) for _ in range(config.layers))

    def forward(self, tokens: Tensor, steps: Tensor, first: int = 0, cache: Any = None) -> Tensor:
        x, at, to = self.read(tokens, len(cache[0]) if cache else 0)
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            x = block(x, at, to, first if i == last else 0, cache[i] if cache else None)
            at = to
        hidden: Tensor = self.norm(x.view(len(tokens), -1, x.shape[-1]) if first else to.spread(x))
        return hidden

    def cache(self) -> list[Memory]:
        return [Memory() for _ in self.blocks]


@dataclass(frozen=True)
class TransformerConfig(ModelConfig):
    """Pre-LN decoder with ReLU MLPs of four times the width."""

    name: ClassVar[str] = "transformer"
    stacks: ClassVar[bool] = True

    layers: int = 2
    width: int = 64
    heads: int = 4
    position: Position = "learned"  # learned (per position), rotary, first (it alone is marked), or none

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
        injected, at, to = self.read(tokens, len(cache[0]) if cache else 0)
        wanted = steps if self.loops == 0 else None  # loops of each row, or the same for all
        count = self.loops if wanted is None else int(steps.max())
        uniform = wanted is None or bool((steps == count).all())
        if not uniform and to.node is not None:  # rows that begin alike may end after different loops
            to = Places(*tokens.shape)
        x, kept = injected, None
        for loop in range(1, count + 1):
            if cache is not None and loop > len(cache):
                cache.append(Memory())
            memory = cache[loop - 1] if cache is not None else None
            last = uniform and loop == count
            x = self.block(x, at, to, first if last else 0, memory)
            if loop == 1:  # from here on all states stand at the same nodes
                injected, at = at.move(injected, to), to
            if not uniform:  # each row keeps the state of its own last loop
                states = to.spread(x)
                kept = states if kept is None else torch.where((steps < loop)[:, None, None], kept, states)
            if loop < count:
                x = x + injected
        if kept is not None:
            kept = kept[:, first:]
        elif first:
            kept = x.view(len(tokens), -1, x.shape[-1])
        else:
            kept = to.spread(x)
        hidden: Tensor = self.norm(kept)
        return hidden

    def cache(self) -> list[Memory]:
        return [Memory()]


@dataclass(frozen=True)
class LoopedConfig(ModelConfig):
    """One pre-LN block applied again and again, the input added before each loop (Dehghani et al. 2019)."""

    name: ClassVar[str] = "looped"
    stacks: ClassVar[bool] = True

    width: int = 64
    heads: int = 4
    loops: int = 0  # times that the block is applied; 0: once for each step of the problem
    position: Position = "learned"  # learned (per position), rotary, first (it alone is marked), or none

    def __post_init__(self) -> None:
        require(0 <= self.loops <= 1000, f"loops of looped must lie between 0 and 1000, not {self.loops}")
        require_width(self.name, self.width, self.heads)

    def build(self, vocabulary: int, context: int, silent: int = 0) -> Looped:
        return Looped(self, vocabulary, context, silent)
