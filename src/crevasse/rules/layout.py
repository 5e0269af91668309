"""Where in the flat vector of weights each parameter lies, for rules that need more than one long vector."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

#: What an axis of a parameter runs over: a width of the model, by name, and how large it is; None: anything else.
#: An axis may go through a width several times, as the gates of a recurrent unit do.
Axis = tuple[str, int] | None
#: How much of each width a narrow model has, by name: the first so many units.
Window = tuple[tuple[str, int], ...]

#: embedding: a row a token. head: the last linear map, a row an answer. matrix: any other map. vector: biases, norms.
Kind = Literal["embedding", "head", "matrix", "vector"]


@runtime_checkable
class Narrowable(Protocol):
    """A module that says which widths its parameters run over."""

    def axes(self) -> Mapping[str, tuple[Axis, ...]]:
        """By the name of a parameter, what each of its axes runs over."""


@dataclass(frozen=True)
class Part:
    """One parameter of a module."""

    name: str
    start: int  # where in the vector it begins
    shape: tuple[int, ...]
    kind: Kind
    axes: tuple[Axis, ...] = ()  # of each axis; empty: nothing is known of them

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

    def within(self, ranges: Mapping[str, tuple[int, int]]) -> list[Tensor]:
        """Of each axis the places that lie from the first up to the second number of its width. (axis, place)"""
        found = []
        for axis, length in zip(self.axes or (None,) * len(self.shape), self.shape, strict=True):
            place = torch.arange(length)
            low, high = (0, length) if axis is None else ranges.get(axis[0], (0, axis[1]))
            unit = place if axis is None else place % axis[1]
            found.append(place[(unit >= low) & (unit < high)])
        return found

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

        axes = module.axes() if isinstance(module, Narrowable) else {}
        return cls(
            tuple(
                Part(n, s, tuple(p.shape), kind(p), axes.get(n, ())) for (n, p), s in zip(named, starts, strict=False)
            )
        )

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

    @cached_property
    def widths(self) -> dict[str, int]:
        """The widths that a narrow model can have less of, and how large they are. Empty: it cannot be narrowed."""
        return {axis[0]: axis[1] for part in self.parts for axis in part.axes if axis is not None}

    def within(self, ranges: Mapping[str, tuple[int, int]]) -> Tensor:
        """Entries all of whose widths lie in these ranges (from, up to); a width without one counts whole. (entry,)"""
        found = []
        for part in self.parts:
            place = torch.zeros((), dtype=torch.int64)
            for length, kept in zip(part.shape, part.within(ranges), strict=True):
                place = place[..., None] * length + kept
            found.append(part.start + place.reshape(-1))
        return torch.cat(found)

    def window(self, window: Window) -> Tensor:
        """The entries of the narrow model, in their order: where all others are zero, the model is as narrow. (entry,)

        Raises ValueError for a width that the model does not have, or has less of.
        """
        for name, size in window:
            if not 1 <= size <= self.widths.get(name, 0):
                raise ValueError(f"a window of {name}={size} does not fit the widths {self.widths}")
        return self.within({name: (0, size) for name, size in window})

    def narrow(self, window: Window) -> "Layout":
        """The layout of the narrow model by itself."""
        sizes, parts, start = dict(window), [], 0
        for part in self.parts:
            shape = tuple(map(len, part.within({name: (0, size) for name, size in window})))
            axes = tuple(a if a is None else (a[0], sizes.get(*a)) for a in part.axes)
            parts.append(Part(part.name, start, shape, part.kind, axes))
            start += parts[-1].size
        return Layout(tuple(parts))

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
