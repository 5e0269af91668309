"""What every model offers: hidden states of a token sequence, logits where they are wanted, and a cache."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from crevasse.objectives import cross_entropy
from crevasse.spec import Named, require
from crevasse.tokenizer import Tokenizer

#: By the name of a parameter, what each of its axes runs over (`Model.axes`).
Axes = Mapping[str, tuple[tuple[str, int] | None, ...]]
#: Units that can change places: how many, and where they stand, as (parameter, axis, offset of the first along it).
Units = tuple[int, tuple[tuple[str, int, int], ...]]


class Model(nn.Module, ABC):
    """A causal sequence model over token numbers.

    `forward` gives hidden states and `head` turns them into logits, so that logits are computed only where
    there is loss; `first` tells the last layer from which column on anyone will look.
    """

    head: nn.Module
    #: What a user should know about the model before believing its results.
    notes: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, tokens: Tensor, steps: Tensor, first: int = 0, cache: Any = None) -> Tensor:
        """tokens (row, position), steps (row,) of the recursion -> hidden states (row, position − first, width).

        With a cache, tokens stand after those that the cache has seen, and are added to it.
        """

    @abstractmethod
    def cache(self) -> Any:
        """An empty cache for free running."""

    def introduce(self, pieces: Mapping[int, Sequence[int]]) -> None:
        """Tokens that were added to a pretrained vocabulary, and the tokens that their text was written in before."""

    @abstractmethod
    def keep(self, cache: Any, rows: Tensor) -> Any:
        """The cache of these rows alone. rows (kept,)"""

    def axes(self) -> Axes:
        """By the name of a parameter, the width that each of its axes runs over, and its size; None: another thing.

        An entry of a width can be left out: where all weights of the others are zero, it is zero. Empty: none can.
        """
        return {}

    def units(self) -> Sequence[Units]:
        """Sets of units of which any two can change places, all their weights with them, without changing the function.

        Empty: none are known.
        """
        return ()

    def next_logits(self, tokens: Tensor, steps: Tensor, cache: Any) -> Tensor:
        """Logits after the last of the tokens, which are added to the cache. (row, token)"""
        hidden = self(tokens, steps, first=tokens.shape[1] - 1, cache=cache)
        logits: Tensor = self.head(hidden[:, -1])
        return logits


@dataclass(frozen=True)
class Needs:
    """What a model takes."""

    weights: int  # numbers
    trained: int  # of those, the ones that a rule moves
    activations: int  # bytes kept for the backward pass


class ModelConfig(Named, ABC):
    """A frozen dataclass that builds its model."""

    #: All parameters of its model lie in the layers of `crevasse.models.layers`, so that many can train as one stack.
    stacks: ClassVar[bool] = False

    @abstractmethod
    def build(self, vocabulary: int, context: int, silent: int = 0) -> Model:
        """A freshly initialised model for sequences of at most `context` tokens, the first `silent` never written.

        Draws from torch's global generator: seed it before.
        """

    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer whose text the model was pretrained on; None: it reads any alphabet."""
        return None

    def needs(self, tokens: int, targets: int) -> Needs | None:
        """The memory that training takes with so many tokens, and targets among them, at once; None: little."""
        return None


def losses(
    model: Model,
    tokens: Tensor,
    loss: Tensor,
    steps: Tensor,
    first: int,
    answers: Tensor | None = None,
    objective: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss at every position that carries it, and the logits and targets there.

    tokens, loss (row, position); first: no column up to this one carries loss; answers (row, position): the targets,
    where they are not the tokens themselves. -> (target,), (target, token), (target,)
    """
    hidden = model(tokens[:, :-1], steps, first=first)
    wanted, targets = loss[:, first + 1 :], tokens if answers is None else answers
    targets = targets[:, first + 1 :].to(hidden.device)
    if hidden.shape[1] == 1:  # one target a row: nothing to pick out
        logits, targets = model.head(hidden[:, 0]), targets[:, 0]
    else:
        logits, targets = model.head(hidden[wanted]), targets[wanted]
    return objective(logits, targets), logits, targets


def require_width(name: str, width: int, heads: int = 1, low: int = 1) -> None:
    """Raises UserError for a width that cannot be."""
    require(low <= width <= 16384, f"width of {name} must lie between {low} and 16384, not {width}")
    require(1 <= heads <= width, f"heads of {name} must lie between 1 and its width, not {heads}")
    require(width % heads == 0, f"width of {name} ({width}) must be a multiple of its heads ({heads})")


def count_parameters(model: nn.Module) -> int:
    """Number of trained numbers."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
