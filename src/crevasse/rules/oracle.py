"""The oracle: all that a rule can see of a model and its data, and what each look costs.

A rule works on one flat vector of all weights. It asks the oracle for losses and gradients of the step's own
training batch or of the steer set, whole or in parts, at the present weights or at others. There is no way from here
to validation or test problems: an oracle holds no data and no model at all, only the right to ask.

A question is *yielded*: the rule stops there until somebody has computed the answer. So a rule need not know whether
its trial runs by itself, in a stack of trials whose questions are answered together, in parts because the batch is too
large for the memory, or in several processes that take a share each. Who answers also counts what it costs.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from crevasse import interrupts
from crevasse.rules.changes import Change, Tally
from crevasse.rules.layout import Layout, Window

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """A rule's question about the batch of its step."""

    parts: int = 1  # equal parts of the batch, each by itself; what does not divide is left out
    slopes: bool = True  # with gradients
    at: Tensor | None = None  # (parameter,) weights to ask at; none: the present ones
    only: tuple[int, ...] | None = None  # of the parts, these alone, each once and in order; none: all
    steer: bool = False  # of the steer set's batch, not of the training batch
    swapped: float = 0.0  # share of the examples that are given the label of another one
    stablemax: bool = False  # the loss with StableMax in the place of softmax
    changes: tuple[Change, ...] = ()  # each example is moved at random by these, one after another
    tally: Change | None = None  # no loss at all, but how this change compares with the answers of the training set
    #: Ask a population of narrow models, each about the whole batch: `at` is then (model, entry of the window), and the
    #: answer has a row a model. Each is the model itself with all entries outside the window at zero.
    window: Window | None = None

    def __post_init__(self) -> None:
        if self.parts < 1:
            raise ValueError(f"a batch cannot be split into {self.parts} parts")
        only = self.only
        if only is not None and not (only and all(0 <= a < self.parts for a in only) and sorted(set(only)) == [*only]):
            raise ValueError(f"{only} are not some of {self.parts} parts, each once and in order")
        if not 0 <= self.swapped <= 1:
            raise ValueError(f"swapped is a share, 0 to 1, not {self.swapped}")
        if self.steer and self.changes:
            raise ValueError("what steers is asked about as it is")
        if self.window is not None and (self.at is None or self.at.dim() != 2 or self.parts > 1):
            raise ValueError("a window goes with the weights of its models, (model, entry), and with one part")

    @property
    def asked(self) -> tuple[int, ...]:
        """Which parts are asked about."""
        return tuple(range(self.parts)) if self.only is None else self.only


@dataclass(frozen=True)
class Seen:
    """The answer: of each part that was asked about the mean loss, and its gradient where it was asked for."""

    losses: Tensor  # (part,)
    gradients: Tensor | None = None  # (part, parameter)
    tally: Tally | None = None  # where it was asked for; there are no losses then


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
    """What was asked, in rows (training examples) that went forward and backward.

    A row through a narrow model counts as the window's share of all weights there, and as a whole one in `samples`.
    """

    forward_rows: float = 0
    backward_rows: float = 0
    samples: int = 0  # rows that gave a gradient, each as often as a model read it

    def count(self, ask: Ask, rows: int, share: float = 1) -> None:
        """Add a question that `rows` rows in all are the answer to. share: of the weights, that they went through."""
        self.forward_rows += rows * share
        self.backward_rows += rows * share * ask.slopes
        self.samples += rows * ask.slopes

    def passes(self, batch: int) -> float:
        """Forward plus backward passes over one training batch; a microbatch counts as its share."""
        return (self.forward_rows + self.backward_rows) / batch


@dataclass(frozen=True)
class Oracle:
    """What a rule may know of the batches of its step, and its questions in words.

    Every method is asked with ``yield from``: ``loss, gradient = yield from oracle.gradient()``. Other questions are
    yielded as they are: ``seen = yield Ask(parts=4, only=(0,), at=moved)``.
    """

    batch: int  # rows of this step's batch
    steer: int = 0  # rows of its batch of the steer set
    places: int = 0  # values of the longest training problem, for rules that ask for changed examples

    def gradient(self, at: Tensor | None = None, steer: bool = False) -> Asking[tuple[Tensor, Tensor]]:
        """Mean loss of the batch and its gradient, at the given weights or the present ones. (), (parameter,)"""
        losses, gradients = yield from self.microbatch_gradients(1, at, steer)
        return losses[0], gradients[0]

    def microbatch_gradients(
        self, k: int, at: Tensor | None = None, steer: bool = False
    ) -> Asking[tuple[Tensor, Tensor]]:
        """The same for k equal parts of the batch. (microbatch,), (microbatch, parameter)

        What does not divide by k is left out. Raises ValueError if the batch has fewer than k rows.
        """
        rows = self.steer if steer else self.batch
        if rows < k:
            raise ValueError(f"a batch of {rows} cannot be split into {k} microbatches")
        seen = yield Ask(k, at=at, steer=steer)
        assert seen.gradients is not None
        return seen.losses, seen.gradients

    def loss(self, at: Tensor | None = None, steer: bool = False) -> Asking[Tensor]:
        """Mean loss of the batch without its gradient. ()"""
        seen = yield Ask(slopes=False, at=at, steer=steer)
        return seen.losses[0]


class Weights:
    """All trained parameters of a module as one vector; the module's own tensors become views of it.

    models: make the module a stack of so many; its parameters and the vector get an axis of models in front.
    """

    flat: Tensor  # (parameter,), or (model, parameter)

    def __init__(self, module: nn.Module, models: int | None = None) -> None:
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.layout = Layout.of(module)  # of one model
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

    @contextlib.contextmanager
    def at(self, flat: Tensor) -> Iterator[None]:
        """Other weights in the place of the present ones for a while; these come back bit for bit. flat (parameter,)"""
        if flat is self.flat:
            yield
            return
        before = self.flat.clone()
        with interrupts.held():
            self.flat.copy_(flat)
            try:
                yield
            finally:
                self.flat.copy_(before)

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
