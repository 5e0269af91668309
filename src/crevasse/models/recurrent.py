"""Learners that read one token at a time and keep a state of fixed size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crevasse.models.base import Axes, Model, ModelConfig, Units, require_width
from crevasse.models.layers import Embedding, GatedUnit, Head, LayerNorm, Linear, LongShortTermMemory
from crevasse.spec import require


class Recurrent(Model):
    """A stack of gated layers between embedding and head."""

    def __init__(self, kind: type[GatedUnit], width: int, layers: int, vocabulary: int, silent: int) -> None:
        super().__init__()
        self.embed = Embedding(vocabulary, width)
        self.cells: list[GatedUnit] = []
        for i in range(layers):
            self.cells.append(kind(width))
            self.add_module(f"cell{i}", self.cells[-1])
        self.head = Head(width, vocabulary, silent)

    def forward(self, tokens: Tensor, steps: Tensor, first: int = 0, cache: Any = None) -> Tensor:
        # What a token says to the first layer is the same wherever it stands.
        read = F.embedding(self.embed.entries(tokens), self.cells[0].read(self.embed.table()))
        hidden, before = read, list(cache or ())
        for i, cell in enumerate(self.cells):
            if i:
                read = cell.read(hidden)
            state = before[i] if before else cell.start(read[:, 0, : read.shape[2] // cell.gates])
            outputs = []
            for r in read.unbind(1):
                state = cell.step(r, state)
                outputs.append(state[0])
            if cache is not None:
                cache[i : i + 1] = [state]
            hidden = torch.stack(outputs, dim=1)
        return hidden[:, first:]

    def axes(self) -> Axes:
        width = ("width", self.embed.embedding_dim)
        kinds = {"weight": (width, width), "bias": (width,)}
        layers = {
            f"cell{i}.{map_}.{kind}": axes
            for i in range(len(self.cells))
            for map_ in ("read", "recur")
            for kind, axes in kinds.items()
        }
        return {"embed.weight": (None, width), **layers, "head.weight": (None, width)}

    def units(self) -> Sequence[Units]:
        # The embedding's width and that of each layer are independent. A unit moves in all gates at once.
        width, cells = self.embed.embedding_dim, self.cells
        read_by = [f"cell{i}.read.weight" for i in range(len(cells))] + ["head.weight"]
        found: list[Units] = [(width, (("embed.weight", 1, 0), (read_by[0], 1, 0)))]
        for i, cell in enumerate(cells):
            gates = [
                (f"cell{i}.{map_}.{kind}", 0, gate * width)
                for map_ in ("read", "recur")
                for kind in ("weight", "bias")
                for gate in range(cell.gates)
            ]
            found.append((width, (*gates, (f"cell{i}.recur.weight", 1, 0), (read_by[i + 1], 1, 0))))
        return found

    def cache(self) -> list[Any]:
        return []

    def keep(self, cache: list[Any], rows: Tensor) -> list[Any]:
        return [tuple(part[rows] for part in state) for state in cache]


@dataclass(frozen=True)
class GruConfig(ModelConfig):
    """Gated recurrent unit (Cho et al. 2014)."""

    name: ClassVar[str] = "gru"
    stacks: ClassVar[bool] = True

    width: int = 64
    layers: int = 1

    def __post_init__(self) -> None:
        require(1 <= self.layers <= 100, f"layers of {self.name} must lie between 1 and 100, not {self.layers}")
        require_width(self.name, self.width)

    def build(self, vocabulary: int, context: int, silent: int = 0) -> Model:
        return Recurrent(GatedUnit, self.width, self.layers, vocabulary, silent)


@dataclass(frozen=True)
class LstmConfig(GruConfig):
    """Long short-term memory (Hochreiter, Schmidhuber 1997)."""

    name: ClassVar[str] = "lstm"

    def build(self, vocabulary: int, context: int, silent: int = 0) -> Model:
        return Recurrent(LongShortTermMemory, self.width, self.layers, vocabulary, silent)


class Bilinear(Model):
    """See `BilinearConfig`."""

    def __init__(self, config: "BilinearConfig", vocabulary: int, silent: int) -> None:
        super().__init__()
        width, products = config.width, config.products
        self.embed = Embedding(vocabulary, width)
        self.by_symbol = Linear(width, products, bias=False)
        self.by_state = Linear(width, products, bias=False)
        self.out = Linear(products, width)
        self.norm = LayerNorm(width)
        self.head = Head(width, vocabulary, silent)
        nn.init.zeros_(self.out.bias)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, steps: Tensor, first: int = 0, cache: Any = None) -> Tensor:
        state = cache["state"] if cache else None
        states = []
        # What a token says is the same wherever it stands: projected once, it is looked up, step by step while it is
        # in the cache.
        said = self.by_symbol(self.embed.table())
        for t, entry in enumerate(self.embed.entries(tokens).unbind(1)):
            # The first token is the first state, as x1 is the product of x1.
            if state is None:
                state = F.embedding(entry, self.embed.table())
            else:
                state = self.norm(self.out(F.embedding(entry, said) * self.by_state(state)))
            if t >= first:
                states.append(state)
        if cache is not None:
            cache["state"] = state
        return torch.stack(states, dim=1)

    def axes(self) -> Axes:
        width, products = ("width", self.embed.embedding_dim), ("products", self.out.in_features)
        return {
            "embed.weight": (None, width),
            "by_symbol.weight": (products, width),
            "by_state.weight": (products, width),
            "out.weight": (width, products),
            "out.bias": (width,),
            "norm.weight": (width,),
            "norm.bias": (width,),
            "head.weight": (None, width),
        }

    def units(self) -> Sequence[Units]:
        maps = ("by_symbol.weight", "by_state.weight")
        ends = ("out.weight", "out.bias", "norm.weight", "norm.bias")
        width = [*((name, 1, 0) for name in ("embed.weight", *maps, "head.weight")), *((name, 0, 0) for name in ends)]
        products = [*((name, 0, 0) for name in maps), ("out.weight", 1, 0)]
        return [(self.embed.embedding_dim, tuple(width)), (self.out.in_features, tuple(products))]

    def cache(self) -> dict[str, Any]:
        return {"state": None}

    def keep(self, cache: dict[str, Any], rows: Tensor) -> dict[str, Any]:
        return {"state": cache["state"][rows]}


@dataclass(frozen=True)
class BilinearConfig(ModelConfig):
    """State and symbol each projected, multiplied entrywise, projected back, normalised: the crevasse cell."""

    name: ClassVar[str] = "bilinear"
    stacks: ClassVar[bool] = True

    width: int = 64
    products: int = 256  # entrywise products between state and symbol

    def __post_init__(self) -> None:
        require_width(self.name, self.width)
        require(1 <= self.products <= 65536, f"products of bilinear must be 1 to 65536, not {self.products}")

    def build(self, vocabulary: int, context: int, silent: int = 0) -> Bilinear:
        return Bilinear(self, vocabulary, silent)
