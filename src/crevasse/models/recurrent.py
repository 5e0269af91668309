"""Learners that read one token at a time and keep a state of fixed size."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from crevasse.models.base import Head, Model, ModelConfig, require_width
from crevasse.spec import require


class _TorchRecurrent(Model):
    """A stack of torch's own GRU or LSTM layers between embedding and head."""

    def __init__(self, kind: type[nn.RNNBase], width: int, layers: int, vocabulary: int, silent: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.cell = kind(width, width, layers, batch_first=True)  # type: ignore[arg-type]
        self.head = Head(width, vocabulary, silent)

    def forward(self, tokens: Tensor, steps: Tensor, first: int = 0, cache: Any = None) -> Tensor:
        out, state = self.cell(self.embed(tokens), cache["state"] if cache else None)
        if cache is not None:
            cache["state"] = state
        hidden: Tensor = out[:, first:]
        return hidden

    def cache(self) -> dict[str, Any]:
        return {"state": None}

    def keep(self, cache: dict[str, Any], rows: Tensor) -> dict[str, Any]:
        state = cache["state"]
        return {"state": tuple(s[:, rows] for s in state) if isinstance(state, tuple) else state[:, rows]}


@dataclass(frozen=True)
class GruConfig(ModelConfig):
    """Gated recurrent unit (Cho et al. 2014)."""

    name: ClassVar[str] = "gru"

    width: int = 64
    layers: int = 1

    def __post_init__(self) -> None:
        require(1 <= self.layers <= 100, f"layers of {self.name} must lie between 1 and 100, not {self.layers}")
        require_width(self.name, self.width)

    def build(self, vocabulary: int, context: int, silent: int = 0) -> Model:
        return _TorchRecurrent(nn.GRU, self.width, self.layers, vocabulary, silent)


@dataclass(frozen=True)
class LstmConfig(GruConfig):
    """Long short-term memory (Hochreiter, Schmidhuber 1997)."""

    name: ClassVar[str] = "lstm"

    def build(self, vocabulary: int, context: int, silent: int = 0) -> Model:
        return _TorchRecurrent(nn.LSTM, self.width, self.layers, vocabulary, silent)


class Bilinear(Model):
    """See `BilinearConfig`."""

    def __init__(self, config: "BilinearConfig", vocabulary: int, silent: int) -> None:
        super().__init__()
        width, products = config.width, config.products
        self.embed = nn.Embedding(vocabulary, width)
        self.by_symbol = nn.Linear(width, products, bias=False)
        self.by_state = nn.Linear(width, products, bias=False)
        self.out = nn.Linear(products, width)
        self.norm = nn.LayerNorm(width)
        self.head = Head(width, vocabulary, silent)
        nn.init.zeros_(self.out.bias)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, steps: Tensor, first: int = 0, cache: Any = None) -> Tensor:
        x = self.embed(tokens)
        symbols = self.by_symbol(x).unbind(1)
        state = cache["state"] if cache else None
        states = []
        for t, symbol in enumerate(symbols):
            # The first token is the first state, as x1 is the product of x1.
            state = x[:, t] if state is None else self.norm(self.out(symbol * self.by_state(state)))
            if t >= first:
                states.append(state)
        if cache is not None:
            cache["state"] = state
        return torch.stack(states, dim=1)

    def cache(self) -> dict[str, Any]:
        return {"state": None}

    def keep(self, cache: dict[str, Any], rows: Tensor) -> dict[str, Any]:
        return {"state": cache["state"][rows]}


@dataclass(frozen=True)
class BilinearConfig(ModelConfig):
    """State and symbol each projected, multiplied entrywise, projected back, normalised: the crevasse cell."""

    name: ClassVar[str] = "bilinear"

    width: int = 64
    products: int = 256  # entrywise products between state and symbol

    def __post_init__(self) -> None:
        require_width(self.name, self.width)
        require(1 <= self.products <= 65536, f"products of bilinear must be 1 to 65536, not {self.products}")

    def build(self, vocabulary: int, context: int, silent: int = 0) -> Bilinear:
        return Bilinear(self, vocabulary, silent)
