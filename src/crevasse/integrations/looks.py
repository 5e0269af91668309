"""A rule's questions as turns of the user's own loop, whose body answers them."""

import dataclasses
import inspect
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from crevasse.errors import UserError
from crevasse.integrations.batches import pieces, rows_of
from crevasse.integrations.vector import Vector, finite
from crevasse.rules import Ask, Cost, Seen, Window


@dataclass
class Look:
    """One question: the loss of these rows, at the weights that the model has now."""

    batch: Any  # the rows, in the form of the batch that they come from
    slopes: bool  # with a gradient: else no backward pass is made, and torch.no_grad() around the body saves memory
    part: int  # which of the microbatches
    parts: int
    steer: bool = False  # of the problems that steer
    weight: float = 1.0  # share of the rows of its part
    scaler: Any = None  # a gradient scaler in use
    losses: list[Tensor] = field(default_factory=list)

    def backward(self, loss: Tensor) -> None:
        """Answer with the mean loss of the rows; several calls add up, as parts of one mean do."""
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise UserError("look.backward takes the mean loss, one number in a tensor")
        self.losses.append(loss.detach().reshape(()).float() * self.weight)
        if self.slopes:
            if not loss.requires_grad:
                raise UserError("this loss has no gradient: compute it with the model, and not within torch.no_grad()")
            loss = loss * self.weight
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()


class Loop(Iterator[Look]):
    """The looks of one step. A loop that was left (`break`, an exception) ends where another one begins."""

    def __init__(self, looks: Generator[Look, None, None]) -> None:
        self._looks = looks
        self._left = False

    def __next__(self) -> Look:
        if self._left:
            raise UserError("another loop over looks was begun within this one")
        return next(self._looks)

    def leave(self) -> None:
        """End it without a step: everything is as it was before."""
        self._left = True
        self._looks.close()

    @property
    def open(self) -> bool:
        """Has it begun and not ended?"""
        return inspect.getgeneratorstate(self._looks) == inspect.GEN_SUSPENDED


class NotFiniteError(Exception):
    """A scaled gradient is not finite: no step is made, and the scaler will lower its scale."""


class Scaled:
    """What a gradient scaler has to be told of a step whose gradients it never sees."""

    def __init__(self, scaler: Any, optimizer: torch.optim.Optimizer, vector: Vector) -> None:
        """Raises UserError if its `update` was forgotten."""
        self.scaler = scaler
        scaler.scale(torch.zeros((), device=vector.device))  # its scale is there from the first use on
        vector.parameters[0].grad = torch.zeros_like(vector.parameters[0])
        try:
            scaler.unscale_(optimizer)
        except RuntimeError:
            raise UserError("scaler.update() has to be called after each loop over looks") from None
        finally:
            vector.forget_gradient()

    def unscale(self, gradient: Tensor) -> None:
        """Divide by the scale, in place. Raises NotFiniteError for one that is not finite."""
        gradient /= self.scaler.get_scale()
        if not finite(gradient):
            self.lost = torch.optim.SGD([nn.Parameter(torch.zeros(1, device=gradient.device))])
            self.lost.param_groups[0]["params"][0].grad = torch.full((1,), torch.inf, device=gradient.device)
            self.scaler.unscale_(self.lost)  # by which it knows
            raise NotFiniteError


def answer(
    ask: Ask, batches: tuple[Any, ...], vector: Vector, cost: Cost, scaled: Scaled | None
) -> Generator[Look, None, Seen]:
    """Let the body of the loop answer a question, part by part. Raises UserError for an answer that cannot be."""
    if ask.changes or ask.tally is not None:
        raise ValueError("examples are changed in trials alone; the rule has to say that it `changes` them")
    if ask.window is not None and ask.at is not None:
        return (yield from _population(ask, ask.window, ask.at, batches, vector, cost, scaled))
    dealt = pieces(batches, ask.parts)
    losses: list[Tensor] = []
    gradients = vector.empty(len(ask.asked)) if ask.slopes else None
    with vector.at(ask.at):
        for place, part in enumerate(ask.asked):
            name = f"microbatch {part + 1} of {ask.parts}"
            loss, rows = yield from _part(ask, part, dealt[part], vector, scaled)
            cost.count(ask, rows)
            losses.append(loss)
            if gradients is not None:
                gradient = vector.gradient(name, out=gradients[place])
                if scaled is not None:
                    scaled.unscale(gradient)
                elif not finite(gradient):
                    raise UserError(f"{name} has a gradient that is not finite: no step was made")
            if not bool(loss.isfinite()):
                raise UserError(f"{name} has a loss that is not a number: no step was made")
    return Seen(torch.stack(losses), gradients)


def _population(
    ask: Ask, window: Window, at: Tensor, batches: tuple[Any, ...], vector: Vector, cost: Cost, scaled: Scaled | None
) -> Generator[Look, None, Seen]:
    """Narrow models one after another, each as the whole model with zeros outside its window: it costs whole passes."""
    index = vector.layout.window(window).to(at.device)
    found = []
    for weights in at:
        whole = torch.zeros(vector.layout.size, dtype=at.dtype, device=at.device)
        whole[index] = weights
        one = dataclasses.replace(ask, window=None, at=whole)
        found.append((yield from answer(one, batches, vector, cost, scaled)))
    gradients = [seen.gradients[0][index] for seen in found if seen.gradients is not None]
    return Seen(torch.cat([seen.losses for seen in found]), torch.stack(gradients) if gradients else None)


def _part(
    ask: Ask, part: int, batches: list[Any], vector: Vector, scaled: Scaled | None
) -> Generator[Look, None, tuple[Tensor, int]]:
    """The loss of one part, whose gradient then lies in the parameters, added up over its batches. -> (), rows"""
    rows = [rows_of(batch) for batch in batches]
    total = torch.zeros((), device=vector.device)
    vector.forget_gradient()
    for batch, count in zip(batches, rows, strict=True):
        scaler = None if scaled is None else scaled.scaler
        look = Look(batch, ask.slopes, part, ask.parts, ask.steer, count / sum(rows), scaler)
        versions = vector.versions()
        yield look
        vector.require_same_model()
        if versions != vector.versions():
            raise UserError("the weights moved within the loop's body: the rule makes the step, at the end of the loop")
        if not look.losses:
            raise UserError("the body of the loop has to call look.backward(loss)")
        total = total + torch.stack(look.losses).sum().to(total)
    return total, sum(rows)
