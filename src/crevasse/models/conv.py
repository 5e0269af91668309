"""A small convolutional net for pictures that are written pixel by pixel."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from crevasse.models.base import ModelConfig
from crevasse.models.layers import Embedding, Head, Linear
from crevasse.models.mlp import AtOnce
from crevasse.spec import require


class Convolution(Linear):
    """torch's nn.Conv2d of 3×3 with zeros beyond the edge, as a product with patches, which stacks."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(9 * channels, out)

    def forward(self, x: Tensor) -> Tensor:
        """(row, channel, y, x) -> (row, out, y, x)"""
        patches = F.unfold(x, 3, padding=1).mT  # (row, pixel, channel · 9)
        return super().forward(patches).mT.reshape(len(x), -1, *x.shape[2:])


class Conv(AtOnce):
    """See `ConvConfig`."""

    reads = "conv reads square pictures of at least 2×2 pixels, a token a pixel,"

    def __init__(self, config: "ConvConfig", vocabulary: int, length: int, silent: int) -> None:
        side, channels = math.isqrt(length), config.channels
        require(side > 1, f"{self.reads} not prompts of {length} tokens")
        super().__init__(side**2)
        self.side = side
        self.embed = Embedding(vocabulary, config.shades)
        self.first = Convolution(config.shades, channels)
        self.second = Convolution(channels, 2 * channels)
        self.head = Head(2 * channels * (side // 2) ** 2, vocabulary, silent)

    def read(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens).mT.reshape(len(tokens), -1, self.side, self.side)
        return F.max_pool2d(F.relu(self.second(F.relu(self.first(x)))), 2).flatten(1)


@dataclass(frozen=True)
class ConvConfig(ModelConfig):
    """Pixels embedded, two 3×3 convolutions with ReLU, the largest of each 2×2 pixels: for square pictures."""

    name: ClassVar[str] = "conv"
    stacks: ClassVar[bool] = True

    channels: int = 16  # of the first convolution; the second has twice as many
    shades: int = 8  # width of a pixel's embedding

    def __post_init__(self) -> None:
        require(1 <= self.channels <= 1024, f"channels of conv must lie between 1 and 1024, not {self.channels}")
        require(1 <= self.shades <= 1024, f"shades of conv must lie between 1 and 1024, not {self.shades}")

    def build(self, vocabulary: int, context: int, silent: int = 0) -> Conv:
        return Conv(self, vocabulary, context - 1, silent)
