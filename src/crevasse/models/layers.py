"""The layers that models are made of. Each serves one model, or a stack of models side by side.

In a stack every parameter has one more axis in front, one entry a model, and the rows of a batch belong to the
models in equal shares, in their order. A model built of these layers alone need not know: its own code is the same.

The entries may also be one and the same model, seen as many times as there are microbatches (a parameter expanded along
that axis): then everything is computed once as for one model, but the gradient comes apart by microbatch.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class Linear(nn.Linear):
    """torch's linear layer; in a stack one batched product for all models."""

    def forward(self, x: Tensor) -> Tensor:
        """(row, …, width) -> (row, …, out)"""
        return _product(x, self.weight, self.bias)

    def part(self, x: Tensor, start: int, stop: int) -> Tensor:
        """The outputs from `start` up to `stop` alone. (row, …, width) -> (row, …, stop − start)"""
        bias = None if self.bias is None else self.bias[..., start:stop]
        return _product(x, self.weight[..., start:stop, :], bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if weight.dim() == 2:
        return F.linear(x, weight, bias)
    if weight.stride(0) == 0:
        shared: Tensor = _Shared.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return shared
    each, weight = x.reshape(len(weight), -1, x.shape[-1]), weight.transpose(1, 2)
    out = each @ weight if bias is None else torch.baddbmm(bias[:, None], each, weight)
    return out.view(*x.shape[:-1], out.shape[-1])


class _Shared(torch.autograd.Function):
    """The product with one weight, whose gradient is kept apart for equal shares of the rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return F.linear(x, weight[0], None if bias is None else bias[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        each = slope.reshape(len(weight), -1, slope.shape[-1])
        by_weight = each.mT @ x.reshape(len(weight), -1, x.shape[-1])
        return slope @ weight[0], by_weight, each.sum(1) if ctx.biased else None


class LayerNorm(nn.LayerNorm):
    """torch's layer norm over the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        """(row, …, width) -> the same shape

        Where it has weights for less than its width, all other entries of x are taken to be there, and zero.
        """
        if self.weight.shape[-1] != self.normalized_shape[0]:
            return self._narrow(x)
        if self.weight.dim() == 1:
            return super().forward(x)
        each = F.layer_norm(x, self.normalized_shape, eps=self.eps).view(len(self.weight), -1, x.shape[-1])
        return torch.addcmul(self.bias[:, None], each, self.weight[:, None]).view_as(x)

    def _narrow(self, x: Tensor) -> Tensor:
        whole, there = self.normalized_shape[0], x.shape[-1]
        weight, bias = (p.view(-1, 1, there) for p in (self.weight, self.bias))
        each = x.reshape(len(weight), -1, there)
        mean = each.sum(-1, keepdim=True) / whole
        apart = each - mean
        square = (apart * apart).sum(-1, keepdim=True) + (whole - there) * mean * mean
        out = apart * torch.rsqrt(square / whole + self.eps)
        return torch.addcmul(bias, out, weight).view_as(x)


class Embedding(nn.Embedding):
    """torch's embedding, which also hands out its whole table."""

    def table(self) -> Tensor:
        """(model · token, width); of a stack the models' tables one after another"""
        return self.weight.flatten(0, -2)

    def entries(self, tokens: Tensor) -> Tensor:
        """Where in the table the tokens of a batch stand. tokens (row, …)"""
        if self.weight.dim() == 2:
            return tokens
        models, size = self.weight.shape[:2]
        start = torch.arange(models, device=tokens.device).repeat_interleave(len(tokens) // models) * size
        return tokens + start.view(-1, *[1] * (tokens.dim() - 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """(row, …) -> (row, …, width)"""
        return F.embedding(self.entries(tokens), self.table())


class Head(Linear):
    """Logits of all tokens, of which the first `silent` are never written: theirs are minus infinity.

    Tokens that no target ever asks for (the marks, where an answer is one symbol) would have to be unlearnt first,
    and that delays the rule: the crevasse cell on 100,000 examples left its plateau later with them than without.
    """

    def __init__(self, width: int, vocabulary: int, silent: int) -> None:
        super().__init__(width, vocabulary - silent)
        self.silent = silent

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, width) -> (…, token)"""
        logits = super().forward(hidden)
        return F.pad(logits, (self.silent, 0), value=-torch.inf) if self.silent else logits


class GatedUnit(nn.Module):
    """A layer of gated recurrent units, as torch.nn.GRU computes it: gates reset, update, new (Cho et al. 2014)."""

    gates = 3

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read, self.recur = Linear(width, self.gates * width), Linear(width, self.gates * width)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        """The state before the first token. x (row, width)"""
        return (torch.zeros_like(x),)

    def step(self, read: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """read (row, gates · width): the token's share of the gates; state[0] (row, width) is what it puts out."""
        (hidden,) = state
        (r, z, n), (rh, zh, nh) = read.chunk(3, -1), self.recur(hidden).chunk(3, -1)
        update = torch.sigmoid(z + zh)
        new = torch.tanh(torch.addcmul(n, torch.sigmoid(r + rh), nh))
        return (torch.lerp(new, hidden, update),)


class LongShortTermMemory(GatedUnit):
    """A layer of LSTM cells, as torch.nn.LSTM: gates input, forget, cell, output (Hochreiter, Schmidhuber 1997)."""

    gates = 4

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.zeros_like(x), torch.zeros_like(x)

    def step(self, read: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, cell = state
        i, f, g, o = (read + self.recur(hidden)).chunk(4, -1)
        cell = torch.addcmul(torch.sigmoid(f) * cell, torch.sigmoid(i), torch.tanh(g))
        return torch.sigmoid(o) * torch.tanh(cell), cell
