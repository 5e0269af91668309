"""Learners that read a prompt of one length at once and answer with one token."""

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from crevasse.models.base import Model, ModelConfig, Units, require_width
from crevasse.models.layers import Embedding, Head, Linear
from crevasse.spec import require


class AtOnce(Model):
    """Has one hidden state: after the last token of a prompt."""

    #: What is read, for those who offer something else.
    reads: ClassVar[str]

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    @abstractmethod
    def read(self, tokens: Tensor) -> Tensor:
        """tokens (row, position) -> hidden states (row, width)"""

    def forward(self, tokens: Tensor, steps: Tensor, first: int = 0, cache: Any = None) -> Tensor:
        """As any model, but `first` must be the prompt's last column. -> (row, 1, width)

        Raises UserError for prompts of another length, and where states are wanted elsewhere.
        """
        require(
            tokens.shape[1] == self.length == first + 1,
            f"{self.reads} and answers with one token; here prompts have {first + 1} tokens or more, "
            f"and documents up to {tokens.shape[1] + 1}",
        )
        return self.read(tokens)[:, None]

    def cache(self) -> None:
        """There is nothing to keep: the answer is the only token that is ever written."""

    def keep(self, cache: None, rows: Tensor) -> None:
        pass


class Mlp(AtOnce):
    """See `MlpConfig`."""

    reads = "mlp reads prompts that all have one length"

    def __init__(self, config: "MlpConfig", vocabulary: int, length: int, silent: int) -> None:
        super().__init__(length)
        self.widths = config.width, config.hidden
        tables = [Embedding(vocabulary, config.width) for _ in range(length if config.embeddings == "own" else 1)]
        for table in tables:
            nn.init.normal_(table.weight, std=config.scale / config.width**0.5)
        self.embed = nn.ModuleList(tables if config.embeddings == "own" else tables * length)
        widths = [length * config.width, *[config.hidden] * config.layers]
        self.hidden = nn.ModuleList(Linear(a, b) for a, b in itertools.pairwise(widths))
        self.head = Head(config.hidden, vocabulary, silent)

    def read(self, tokens: Tensor) -> Tensor:
        x = torch.cat([embed(token) for embed, token in zip(self.embed, tokens.unbind(1), strict=True)], -1)
        for layer in self.hidden:
            x = torch.relu(layer(x))
        return x

    def units(self) -> Sequence[Units]:
        # Entries of each table, which the first layer reads side by side; then the units of each hidden layer.
        width, hidden = self.widths
        tables: dict[int, list[int]] = {}
        for i, table in enumerate(self.embed):
            tables.setdefault(id(table), []).append(i)
        found: list[Units] = [
            (width, ((f"embed.{at[0]}.weight", 1, 0), *(("hidden.0.weight", 1, i * width) for i in at)))
            for at in tables.values()
        ]
        maps = [f"hidden.{i}" for i in range(len(self.hidden))] + ["head"]
        found += [
            (hidden, ((f"{a}.weight", 0, 0), (f"{a}.bias", 0, 0), (f"{b}.weight", 1, 0)))
            for a, b in itertools.pairwise(maps)
        ]
        return found


@dataclass(frozen=True)
class MlpConfig(ModelConfig):
    """The embeddings of all tokens side by side, then hidden ReLU layers: for prompts of one length."""

    name: ClassVar[str] = "mlp"
    stacks: ClassVar[bool] = True

    width: int = 64  # of each embedding
    hidden: int = 256  # of each hidden layer
    layers: int = 1  # hidden layers
    embeddings: Literal["own", "shared"] = "own"  # a table for each position, or one for all
    scale: float = 1.0  # length of an embedding at the start; √width is torch's default, and delays the rule

    def __post_init__(self) -> None:
        require_width(self.name, self.width)
        require(1 <= self.hidden <= 65536, f"hidden of mlp must lie between 1 and 65536, not {self.hidden}")
        require(1 <= self.layers <= 100, f"layers of mlp must lie between 1 and 100, not {self.layers}")
        require(0 < self.scale <= 1000, f"scale of mlp must lie above 0 and up to 1000, not {self.scale}")

    def build(self, vocabulary: int, context: int, silent: int = 0) -> Mlp:
        return Mlp(self, vocabulary, context - 1, silent)
