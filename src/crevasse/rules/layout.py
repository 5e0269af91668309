"""Where in the flat vector of weights each parameter lies, for rules that need more than one long vector."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn

#: embedding: a row a token. head: the last linear map, a row an answer. matrix: any other map. vector: biases, norms.
Kind = Literal["embedding", "head", "matrix", "vector"]


@dataclass(frozen=True)
class Part:
    """One parameter of a module."""

    name: str
    start: int  # where in the vector it begins
    shape: tuple[int, ...]
    kind: Kind

    @property
    def size(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def rows(self) -> int:
        """Units that the parameter belongs to: outputs of a matrix, tokens of an embedding; a vector is one."""
        return self.shape[0] if len(self.shape) > 1 else 1

    def of(self, vector: Tensor) -> Tensor:
        """Its share of a vector, as a view in its own shape. vector (…, parameter)"""
        return vector[..., self.start : self.start + self.size].view((*vector.shape[:-1], *self.shape))

    def matrix(self, vector: Tensor) -> Tensor:
        """The same as (…, row, column); a kernel's further axes are columns."""
        return vector[..., self.start : self.start + self.size].view(*vector.shape[:-1], self.rows, -1)


@dataclass(frozen=True)
class Layout:
    """All parts of a vector, in their order and without a gap."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, module: nn.Module) -> "Layout":
        """The layout of `Weights(module)`: all parameters that are trained, in the order of `parameters()`."""
        embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
        linear = [m for m in module.modules() if isinstance(m, nn.Linear)]
        heads = {id(linear[-1].weight)} - embeddings if linear else set()
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        starts = accumulate((p.numel() for _, p in named), initial=0)

        def kind(p: Tensor) -> Kind:
            if id(p) in embeddings:
                return "embedding"
            return "head" if id(p) in heads else "matrix" if p.dim() > 1 else "vector"

        return cls(tuple(Part(n, s, tuple(p.shape), kind(p)) for (n, p), s in zip(named, starts, strict=False)))

    @classmethod
    def flat(cls, size: int) -> "Layout":
        """Of a vector of which nothing else is known."""
        return cls((Part("weights", 0, (size,), "vector"),))

    @property
    def size(self) -> int:
        """Numbers in the vector."""
        return sum(part.size for part in self.parts)

    @cached_property
    def rows(self) -> int:
        """Rows of all parts together."""
        return sum(part.rows for part in self.parts)

    def row_sums(self, vector: Tensor) -> Tensor:
        """The sum over each row of each part. (…, parameter) -> (…, row)"""
        return torch.cat([part.matrix(vector).sum(-1) for part in self.parts], -1)

    def spread(self, values: Tensor) -> Tensor:
        """The inverse shape: each row's value at all its entries. (…, row) -> (…, parameter)"""
        pieces = torch.split(values, [part.rows for part in self.parts], -1)
        return torch.cat(
            [
                piece.unsqueeze(-1).expand(*piece.shape, part.size // part.rows).flatten(-2)
                for part, piece in zip(self.parts, pieces, strict=True)
            ],
            -1,
        )

    def map(self, change: Callable[[Part, Tensor], Tensor], vector: Tensor) -> Tensor:
        """Each part changed by itself. change: (part, its view in its shape) -> the same shape. (parameter,)"""
        return torch.cat([change(part, part.of(vector)).reshape(-1) for part in self.parts])
