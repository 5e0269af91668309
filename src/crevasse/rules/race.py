"""Starve, then feed: many narrow models are raced, one is kept where the steer set gains, and grown."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from crevasse.rules.base import Rule, State, Step, Update, require_rate
from crevasse.rules.layout import Layout, Window
from crevasse.rules.oracle import Ask, Asking, Oracle
from crevasse.spec import require

#: What a step of the race belongs to.
RACING, REFITTING, RESTING = 0, 1, 2
#: After these shares of a round only so many of the models that began it go on.
HALVINGS = ((0.2, 1 / 4), (0.4, 1 / 10), (0.67, 1 / 32))


@dataclass(frozen=True)
class Race(Rule):
    """Rounds in which many narrow models race at a high learning rate; the steer set picks one and decides on it.

    A narrow model has 1/thin of each width, all other weights being zero: too little to finish by memory, so that it
    stays under pressure. In the rounds after the first the model that was kept stands beside each of them, frozen, and
    the narrow part next to it learns what is missing. In the course of a round all but the few with the lowest steer
    loss are given up (successive halving: Jamieson, Talwalkar 2016). At its end the first is kept if the steer loss has
    fallen by more than `gain`; then all that was kept is trained together for `refit` steps, which count if the steer
    loss falls again. Each round goes on in fresh units of the one full model, until the steer loss is below `enough`,
    no units are left, or `patience` rounds in a row have gained nothing; then training ends. The weights of the model
    are those that were kept: they move at the end of a round. What is not kept is zero.

    With `by` at train the training batch stands in the place of the steer set throughout, and no problem has to be kept
    out of the gradient; rounds are then compared on different batches. `growth` is the most narrow models that may be
    kept: 1 is the race alone.

    Steps are Adam's, with each narrow gradient cut to length one, and a rate that rises and falls within a round.

    Costs for each model that still races a pass at its own width, so many weights of all as it has; and a forward pass
    over the batch that judges four times a round. Not for models that do not say which widths they have (`axes`); not
    with a falling schedule, as a round has its own; and not with a steer set larger than a batch, as the models of
    different rounds are then compared on other examples.
    """

    name: ClassVar[str] = "race"

    lr: float = 0.1
    cells: int = 256  # narrow models that begin a round
    thin: float = 32.0  # a narrow model has one part in so many of each width
    each: int = 300  # steps a round
    by: Literal["steer", "train"] = "steer"  # whose loss ranks and decides: the steer set's, or the step's batch's
    growth: int = 0  # narrow models that may be kept; 0: as many as there is room for
    gain: float = 0.05  # nats by which the steer loss has to fall
    enough: float = 0.05  # nats of steer loss at which nothing more is added
    refit: int = 100  # steps in which all that was kept is trained together
    refit_lr: float = 0.01
    patience: int = 3  # rounds in a row without gain, after which it ends
    decay: float = 0.1

    def __post_init__(self) -> None:
        for name in ("lr", "refit_lr"):
            require_rate(self.name, getattr(self, name))
        for name, low in (("cells", 1), ("each", 1), ("refit", 0), ("patience", 1), ("growth", 0)):
            value = getattr(self, name)
            require(low <= value <= 10**6, f"{name} of {self.name} must lie between {low} and 1,000,000, not {value}")
        require(1 <= self.thin < 1e6, f"thin of {self.name} must be at least 1, not {self.thin}")
        for name in ("gain", "enough", "decay"):
            value = getattr(self, name)
            require(0 <= value < 1e6, f"{name} of {self.name} must be a number from 0 up, not {value}")

    @property
    def steers(self) -> bool:
        return self.by == "steer"

    def require_model(self, layout: Layout) -> None:
        require(
            bool(layout.widths),
            f"{self.name} needs a model that says which widths it has: this one cannot be narrowed",
        )

    # --- which weights take part ------------------------------------------------------------------------------

    def units(self, layout: Layout) -> dict[str, int]:
        """How much of each width a narrow model has."""
        return {name: max(1, round(size / self.thin)) for name, size in layout.widths.items()}

    def rounds(self, layout: Layout) -> int:
        """How many narrow models may be kept in the full one."""
        room = min((layout.widths[name] // units for name, units in self.units(layout).items()), default=0)
        return min(room, self.growth or room)

    def window(self, layout: Layout, blocks: int) -> Window:
        """The part of the model that so many narrow ones fill."""
        return tuple((name, blocks * units) for name, units in self.units(layout).items())

    def block(self, layout: Layout, number: int) -> Tensor:
        """The entries of one narrow model; those that belong to no width belong to all. (entry,)"""
        units = self.units(layout)
        return layout.within({name: (number * size, (number + 1) * size) for name, size in units.items()})

    # --- the race ---------------------------------------------------------------------------------------------

    def init(self, weights: Tensor, layout: Layout) -> State:
        cells = weights.new_zeros(self.cells, len(self.block(layout, 0)))
        number = torch.zeros((), dtype=torch.int64, device=weights.device)
        return {
            "start": weights.clone(),
            "kept": torch.zeros_like(weights),  # zero where nothing was kept
            "blocks": number,  # narrow models that were kept
            "phase": number.clone(),
            "place": number.clone(),  # steps made of the phase
            "failed": number.clone(),  # rounds in a row that gained nothing
            "lowest": weights.new_full((), math.inf),  # the loss of what was kept, when it was
            "cells": cells,
            "mean": torch.zeros_like(cells),
            "square": torch.zeros_like(cells),
        }

    def born(self, state: State, step: Step, entries: Tensor, blocks: int) -> Tensor:
        """Fresh narrow models: noise of each part's own size at the start, for fewer inputs. (model, entry)

        What starts constant starts as it did (norms, biases), what belongs to no width as it is.
        """
        start, layout = state["start"], step.layout
        narrow = layout.narrow(self.window(layout, 1))
        level, spread = torch.zeros_like(start), torch.zeros_like(start)
        for part, thin in zip(layout.parts, narrow.parts, strict=True):
            own = part.of(start)
            inputs = part.shape[-1] / thin.shape[-1] if part.kind in ("matrix", "head") else 1.0
            sigma = own.std(correction=0)
            part.of(level)[:] = torch.where(sigma == 0, own.mean(), 0.0)
            part.of(spread)[:] = sigma * inputs**0.5
            if all(axis is None for axis in part.axes) and blocks:
                part.of(level)[:], part.of(spread)[:] = part.of(state["kept"]), 0.0
        noise = torch.randn(self.cells, len(entries), generator=step.generator("race")).to(start)
        return level[entries] + spread[entries] * noise

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        layout = step.layout
        state = dict(state)
        phase, place, blocks = (int(state[k]) for k in ("phase", "place", "blocks"))
        racing = phase == RACING
        window = self.window(layout, max(blocks + racing, 1))
        inside = layout.window(window)
        if phase == RESTING or step.scale == 0:
            seen = yield Ask(at=state["kept"][inside.to(weights.device)][None], window=window, slopes=False)
            return Update(weights, state, seen.losses[0], done=phase == RESTING)
        entries = self.block(layout, blocks) if racing else inside
        where = torch.searchsorted(inside, entries).to(weights.device)  # of the entries, within the window
        inside, entries = inside.to(weights.device), entries.to(weights.device)
        if place == 0:
            cells = self.born(state, step, entries, blocks) if racing else state["kept"][entries][None]
            state |= {"cells": cells, "mean": torch.zeros_like(cells), "square": torch.zeros_like(cells)}

        def at(cells: Tensor) -> Tensor:
            whole = state["kept"][inside].repeat(len(cells), 1)
            whole[:, where] = cells
            return whole

        if math.isinf(state["lowest"]):  # the model that knows nothing: all weights zero
            nothing = yield self._judging(torch.zeros_like(at(state["cells"][:1])), window)
            state["lowest"] = nothing.losses[0]
        seen = yield Ask(at=at(state["cells"]), window=window)
        assert seen.gradients is not None
        self._move(state, seen.gradients[:, where], place, step.scale)
        place += 1
        length = self.each if racing else self.refit
        left = self._left(place) if racing and place < length else None
        if left is not None or place == length:
            lost = yield self._judging(at(state["cells"]), window)
            order = lost.losses.nan_to_num(math.inf, posinf=math.inf).argsort(stable=True)
            if place < length:
                order = order[:left]
                state |= {k: state[k][order] for k in ("cells", "mean", "square")}
            else:
                self._decide(state, order, lost.losses, entries, racing, self.rounds(layout))
                place = 0
        state["place"] = torch.tensor(place, device=weights.device)
        first = seen.losses.nan_to_num(math.inf, posinf=math.inf).min()
        return Update(state["kept"].clone() if int(state["blocks"]) else weights, state, first)

    def _judging(self, at: Tensor, window: Window) -> Ask:
        """The question for the losses that rank narrow models. at (model, entry of the window)"""
        return Ask(at=at, window=window, slopes=False, steer=self.steers)

    def _move(self, state: State, gradient: Tensor, place: int, scale: float) -> None:
        """A step of Adam (Kingma, Ba 2015) with decoupled decay, each model by itself. gradient (model, entry)"""
        racing = int(state["phase"]) == RACING
        peak, length = (self.lr, self.each) if racing else (self.refit_lr, self.refit)
        warm = max(length // 10, 1)
        lr = scale * peak * min(1.0, (place + 1) / warm) * 0.5 * (1 + math.cos(math.pi * (place + 1) / length))
        gradient = gradient / torch.linalg.vector_norm(gradient, dim=1, keepdim=True).clamp(min=1)
        mean = torch.lerp(state["mean"], gradient, 0.1)
        square = torch.lerp(state["square"], gradient * gradient, 0.02)
        fixed = mean / (1 - 0.9 ** (place + 1)), (square / (1 - 0.98 ** (place + 1))).sqrt()
        cells = state["cells"] * (1 - lr * self.decay) - lr * fixed[0] / (fixed[1] + 1e-8)
        state |= {"cells": cells, "mean": mean, "square": square}

    def _left(self, place: int) -> int | None:
        """How many models go on after so many steps of a round; None where no one is given up."""
        shares = {max(round(at * self.each), 1): share for at, share in HALVINGS}
        return max(round(shares[place] * self.cells), 1) if place in shares else None

    def _decide(self, state: State, order: Tensor, losses: Tensor, entries: Tensor, racing: bool, room: int) -> None:
        """The end of a round or of a refit: keep it or not, and what comes next."""
        first = order[0]
        gained = bool(losses[first] < state["lowest"] - (self.gain if racing else 0.0))
        blocks, failed = int(state["blocks"]), int(state["failed"])
        if gained:
            kept = state["kept"].clone()
            kept[entries] = state["cells"][first]
            state |= {"kept": kept, "lowest": losses[first].clone()}
        if racing:
            blocks, failed = blocks + gained, 0 if gained else failed + 1
        refit = racing and gained and self.refit > 0
        done = blocks == room or failed == self.patience or bool(state["lowest"] < self.enough)
        phase = REFITTING if refit else RESTING if done else RACING
        for name, value in (("blocks", blocks), ("failed", failed), ("phase", phase)):
            state[name] = torch.tensor(value, device=state[name].device)
