"""The oracle: all that a rule can see of a model and its data, and what each look costs.

A rule works on one flat vector of all weights. It asks the oracle for losses and gradients of the step's own
training batch, whole or in microbatches, at the present weights or at others. There is no way from here to
validation or test problems: the objective that the oracle holds was built from training rows alone.

How a gradient comes about is not the rule's business: a batch too large for the memory goes through in parts, and
several processes take a share each.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Weights:
    """All trained parameters of a module as one vector; the module's own tensors become views of it."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.flat = torch.cat([p.detach().reshape(-1) for p in self.parameters])  # (parameter,)
        self._gradient = torch.zeros_like(self.flat)
        sizes = [p.numel() for p in self.parameters]
        parts, slopes = torch.split(self.flat, sizes), torch.split(self._gradient, sizes)
        for p, part, slope in zip(self.parameters, parts, slopes, strict=True):
            p.data = part.view_as(p)
            p.grad = slope.view_as(p)  # autograd adds to a gradient that is there, in place

    def gradient(self, losses: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """The sum of some losses and its gradient. (), (parameter,)

        Each loss is used before the next is asked for, so that one graph is in memory at a time.
        """
        self._gradient.zero_()
        total = self.flat.new_zeros(())
        for loss in losses:
            torch.autograd.backward(loss, inputs=self.parameters)
            total += loss.detach()
        return total, self._gradient.clone()


@dataclass
class Cost:
    """What was asked of the oracle, in rows (training examples) that went forward and backward."""

    forward_rows: int = 0
    backward_rows: int = 0

    def passes(self, batch: int) -> float:
        """Forward plus backward passes over one training batch; a microbatch counts as its share."""
        return (self.forward_rows + self.backward_rows) / batch


#: rows (row,) of the training set -> scalars with a graph that add up to their mean loss. Each is used before the
#: next is asked for.
Objective = Callable[[Tensor], Iterable[Tensor]]


def alone(x: Tensor) -> Tensor:
    """The sum over all processes where there is one."""
    return x


class Oracle:
    """One training step's view. A new one is made for each step; the cost is shared.

    together: sums a tensor over all processes that hold a share of the rows.
    """

    def __init__(
        self,
        objective: Objective,
        weights: Weights,
        rows: Tensor,
        cost: Cost,
        together: Callable[[Tensor], Tensor] = alone,
    ) -> None:
        self._objective, self._weights, self._rows, self._cost = objective, weights, rows, cost
        self._together = together

    @property
    def batch(self) -> int:
        """Rows of this step's batch."""
        return len(self._rows)

    def gradient(self, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean loss of the batch and its gradient, at the given weights or the present ones. (), (parameter,)"""
        return self._at(at, lambda: self._look(self._rows))

    def microbatch_gradients(self, k: int, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same for k equal parts of the batch. (microbatch,), (microbatch, parameter)

        What does not divide by k is left out. Raises ValueError if the batch has fewer than k rows.
        """
        size = self.batch // k
        if size == 0:
            raise ValueError(f"a batch of {self.batch} cannot be split into {k} microbatches")
        parts = torch.split(self._rows[: size * k], size)

        def look() -> tuple[Tensor, Tensor]:
            seen = [self._look(rows) for rows in parts]
            return torch.stack([loss for loss, _ in seen]), torch.stack([g for _, g in seen])

        return self._at(at, look)

    def loss(self, at: Tensor | None = None) -> Tensor:
        """Mean loss of the batch without its gradient. ()"""

        def look() -> tuple[Tensor, Tensor]:
            self._cost.forward_rows += self.batch
            with torch.no_grad():
                total = sum(self._objective(self._rows), self._weights.flat.new_zeros(()))
            return self._together(total), self._weights.flat

        return self._at(at, look)[0]

    def _look(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradient = self._weights.gradient(self._objective(rows))
        self._cost.forward_rows += len(rows)
        self._cost.backward_rows += len(rows)
        return self._together(loss), self._together(gradient)

    def _at(self, at: Tensor | None, look: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        if at is None:
            return look()
        before = self._weights.flat.clone()
        self._weights.flat.copy_(at)
        try:
            return look()
        finally:
            self._weights.flat.copy_(before)
