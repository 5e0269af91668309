"""The oracle: all that a rule can see of a model and its data, and what each look costs.

A rule works on one flat vector of all weights. It asks the oracle for losses and gradients of the step's own
training batch, whole or in microbatches, at the present weights or at others. There is no way from here to
validation or test problems: an oracle holds no data and no model at all, only the right to ask.

A question is *yielded*: the rule stops there until somebody has computed the answer. So a rule need not know whether
its trial runs by itself, in a stack of trials whose questions are answered together, in parts because the batch is too
large for the memory, or in several processes that take a share each.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """A rule's question about the batch of its step."""

    parts: int = 1  # equal parts of the batch, each by itself
    slopes: bool = True  # with gradients
    at: Tensor | None = None  # (parameter,) weights to ask at; none: the present ones


@dataclass(frozen=True)
class Seen:
    """The answer: of each part the mean loss, and its gradient where it was asked for."""

    losses: Tensor  # (part,)
    gradients: Tensor | None  # (part, parameter)


#: A computation that stops at each question and goes on with the answer.
Asking = Generator[Ask, Seen, T]


def answered(asking: Asking[T], answer: Callable[[Ask], Seen]) -> T:
    """Run a computation to its end, answering each question when it comes."""
    try:
        ask = next(asking)
        while True:
            ask = asking.send(answer(ask))
    except StopIteration as end:
        value: T = end.value
        return value


@dataclass
class Cost:
    """What was asked of the oracle, in rows (training examples) that went forward and backward."""

    forward_rows: int = 0
    backward_rows: int = 0

    def passes(self, batch: int) -> float:
        """Forward plus backward passes over one training batch; a microbatch counts as its share."""
        return (self.forward_rows + self.backward_rows) / batch


@dataclass(frozen=True)
class Oracle:
    """One training step's view. A new one is made for each step; the cost is shared.

    Every method is asked with ``yield from``: ``loss, gradient = yield from oracle.gradient()``.
    """

    batch: int  # rows of this step's batch
    cost: Cost

    def gradient(self, at: Tensor | None = None) -> Asking[tuple[Tensor, Tensor]]:
        """Mean loss of the batch and its gradient, at the given weights or the present ones. (), (parameter,)"""
        losses, gradients = yield from self.microbatch_gradients(1, at)
        return losses[0], gradients[0]

    def microbatch_gradients(self, k: int, at: Tensor | None = None) -> Asking[tuple[Tensor, Tensor]]:
        """The same for k equal parts of the batch. (microbatch,), (microbatch, parameter)

        What does not divide by k is left out. Raises ValueError if the batch has fewer than k rows.
        """
        rows = self.batch // k * k
        if rows == 0:
            raise ValueError(f"a batch of {self.batch} cannot be split into {k} microbatches")
        self.cost.forward_rows += rows
        self.cost.backward_rows += rows
        seen = yield Ask(k, at=at)
        assert seen.gradients is not None
        return seen.losses, seen.gradients

    def loss(self, at: Tensor | None = None) -> Asking[Tensor]:
        """Mean loss of the batch without its gradient. ()"""
        self.cost.forward_rows += self.batch
        seen = yield Ask(slopes=False, at=at)
        return seen.losses[0]


class Weights:
    """All trained parameters of a module as one vector; the module's own tensors become views of it.

    models: make the module a stack of so many; its parameters and the vector get an axis of models in front.
    """

    flat: Tensor  # (parameter,), or (model, parameter)

    def __init__(self, module: nn.Module, models: int | None = None) -> None:
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        flat = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        if models is not None:
            flat = flat.expand(models, -1).clone()
            for p in self.parameters:
                p.grad, p.data = None, p.data.expand(models, *p.shape)
        self.move(flat, torch.zeros_like(flat))

    def move(self, flat: Tensor, slope: Tensor) -> None:
        """From now on the weights lie in `flat`, which holds them already, and their gradient is added up in `slope`.

        Both in the shape of the vector before.
        """
        self.flat, self._slope = flat, slope
        sizes = [p.numel() for p in self.parameters]
        if flat.dim() == 2:
            sizes = [size // len(flat) for size in sizes]
        for p, part, into in zip(
            self.parameters, torch.split(flat, sizes, -1), torch.split(slope, sizes, -1), strict=True
        ):
            p.data = part.view(p.shape)
            p.grad = into.view(p.shape)  # autograd adds to a gradient that is there, in place

    def see(self, flat: Tensor, models: int) -> None:
        """Take another vector as the weights of all models of a stack: it is not copied, and its gradient is theirs.

        flat (parameter,)
        """
        self.flat = flat.expand(models, -1)
        sizes = [p.numel() // len(p) for p in self.parameters]
        for p, part in zip(self.parameters, torch.split(flat, sizes), strict=True):
            p.grad, p.data = None, part.view(p.shape[1:]).expand(models, *p.shape[1:])

    def zero(self) -> None:
        """Forget the gradient."""
        self._slope.zero_()

    def descend(self, loss: Tensor) -> None:
        """Add the gradient of a loss."""
        torch.autograd.backward(loss, inputs=self.parameters)

    def gradient(self) -> Tensor:
        """What was added up since `zero`, as a tensor of its own."""
        return self._slope.clone()

    def gradient_of(self, loss: Tensor) -> Tensor:
        """The gradient of one loss, in the shape of the vector, without adding it up."""
        slopes = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
        return torch.cat([s.reshape(*self.flat.shape[:-1], -1) for s in slopes], -1)
