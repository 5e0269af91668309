"""Forward and backward passes over rows: of one trial by itself, or of many trials at once.

A trial yields a `Look`, what it wants to know of its model, and goes on with the `Found` that somebody computed:
`Alone` for a trial that has the process to itself, `Stack` for many of the same shape.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crevasse.config import TrialConfig
from crevasse.documents import Rows
from crevasse.models import Model, losses
from crevasse.objectives import IGNORED, cross_entropy, stablemax_cross_entropy
from crevasse.processes import World
from crevasse.rules import Layout, Weights, Window

#: Parameters times examples a step up to which a stack is faster than its trials one by one (benchmarks/stacking.py).
SMALL = 7_000_000

#: (target, token), (target,) -> (target,)
Objective = Callable[[Tensor, Tensor], Tensor]

#: Rows of a trial in a pass come in multiples of this, or the vector units of the processor would round the last ones
#: of each trial in another way than those of its neighbours.
VECTOR = 64


def stackable(config: TrialConfig, batch: int, parameters: int) -> bool:
    """Does such a trial run in a stack, be it with nobody beside it? The last bits of its numbers depend on it."""
    sizes = [batch // config.rule.microbatches(), *([min(batch, config.steer)] if config.rule.steers else [])]
    whole = all(size % VECTOR == 0 for size in sizes)
    return config.model.stacks and whole and not config.chunk and batch * parameters <= SMALL


@dataclass(frozen=True)
class Look:
    """A trial's question: what is the mean loss over all targets of each of these parts?"""

    rows: Rows
    parts: tuple[Tensor, ...]  # which of the rows, (row,) each, all of the same size
    slopes: bool = False  # with gradients (then without the accuracy)
    at: Tensor | None = None  # (parameter,) weights to look at; none: the trial's own
    stablemax: bool = False
    window: Window | None = None  # of narrow models, whose weights are `at` (model, entry); then of one part

    @property
    def objective(self) -> Objective:
        """What is minimised. (target, token), (target,) -> (target,)"""
        return stablemax_cross_entropy if self.stablemax else cross_entropy


@dataclass(frozen=True)
class Found:
    """The answer."""

    losses: Tensor  # (part,), or (model,) of narrow models
    gradients: Tensor | None = None  # (part, parameter), or (model, entry)
    accuracy: Tensor | None = None  # (part,) share of the targets that were given most weight
    tokens: int = 0  # that were read, without padding
    padded: int = 0  # and with it


class Alone:
    """Answers one trial: part by part, in groups of similar length, of several processes each its share."""

    def __init__(self, model: Model, weights: Weights, chunk: int, world: World, stacks: bool = False) -> None:
        self.model, self.weights, self.chunk, self.world = model, weights, chunk, world
        #: May several parts go through the model at once?
        self._together = stacks and not chunk and world.size == 1
        self._sides: dict[int, _Side] = {}
        self._population = Population(model, weights.layout)

    def look(self, look: Look) -> Found:
        """The answer to one question."""
        if look.window is not None:
            return self._population.look(look)
        if look.at is None:
            return self._look(look)
        with self.weights.at(look.at):
            return self._look(look)

    def _look(self, look: Look) -> Found:
        if len(look.parts) > 1 and look.slopes and self._together:
            return self._look_together(look)
        rows, tokens, padded = look.rows, 0, 0
        found, slopes, accuracy = [], [], []
        for part in look.parts:
            targets = int(rows.targets[part].sum())
            share = self.world.share(part) if look.slopes else part  # every process reads the probes for itself
            groups = rows.buckets(share, self.chunk) if len(share) else []
            tokens += int(rows.lengths[share].sum())
            padded += rows.padded(groups)
            if look.slopes:
                loss, slope = self._slope(look, groups, targets)
                found.append(self.world.sum(loss))
                slopes.append(self.world.sum(slope))
            else:
                loss, right = self._read(look, groups)
                found.append(loss / targets)
                accuracy.append(right / targets)
        return Found(
            torch.stack(found),
            torch.stack(slopes) if slopes else None,
            torch.stack(accuracy) if accuracy else None,
            tokens,
            padded,
        )

    def _look_together(self, look: Look) -> Found:
        """All parts in one pass, their gradients kept apart."""
        count = len(look.parts)
        if count not in self._sides:
            self._sides[count] = _Side.of_one(self.model, self.weights, count)
        loss, slopes = self._sides[count].slope([(look.rows, part) for part in look.parts], look.objective)
        return Found(loss, slopes, None, *_counts(look))

    def _slope(self, look: Look, groups: Sequence[Tensor], targets: int) -> tuple[Tensor, Tensor]:
        """(), (parameter,): one graph is in memory at a time"""
        self.weights.zero()
        total = self.weights.flat.new_zeros(())
        for group in groups:
            loss = losses(self.model, *look.rows.pick(group), look.objective)[0].sum() / targets
            self.weights.descend(loss)
            total += loss.detach()
        return total, self.weights.gradient()

    @torch.no_grad()
    def _read(self, look: Look, groups: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(), (): the summed loss and the number of targets that were given most weight"""
        total, right = torch.zeros((), dtype=torch.float64), torch.zeros(())
        for group in groups:
            each, logits, targets = losses(self.model, *look.rows.pick(group), look.objective)
            total += each.sum().cpu()
            right += (logits.argmax(1) == targets).sum().cpu()
        return total, right


class Stack:
    """Answers trials of the same shape together: their models side by side, each layer one batched product.

    What a trial gets does not depend on who stands beside it: the same products of the same shapes in the same order,
    bit for bit (tested). It differs from `Alone` by the order of additions.
    """

    def __init__(self, models: Sequence[Model], weights: Sequence[Weights]) -> None:
        self._model = models[0]
        self._population = Population(models[0], weights[0].layout)
        self._sides: dict[int, _Side] = {}
        self._weights: list[Weights] = []
        self.hold(weights)

    def hold(self, weights: Sequence[Weights]) -> None:
        """These trials are in the stack from now on, in this order: their weights lie side by side."""
        flat = torch.stack([w.flat for w in weights])
        self._weights = list(weights)
        self._sides = {}
        self._home = _Side(self._model, len(weights))
        self._home.flat.copy_(flat)
        spare = torch.zeros_like(flat)
        for own, row, slope in zip(weights, self._home.flat, spare, strict=True):
            own.move(row, slope)

    def look(self, looks: Sequence[Look]) -> list[Found]:
        """The answers to one question of each trial; questions of the same shape are answered in one pass."""
        found: list[Found | None] = [None] * len(looks)
        kinds: dict[tuple[object, ...], list[int]] = {}
        for i, look in enumerate(looks):
            if look.window is not None:
                found[i] = self._population.look(look)
                continue
            shape = (look.rows.tokens.shape[1], look.rows.first, look.rows.columns, len(look.parts[0]))
            kinds.setdefault((look.slopes, look.stablemax, len(look.parts), look.at is None, shape), []).append(i)
        for places in kinds.values():
            for i, answer in zip(places, self._answer(places, [looks[i] for i in places]), strict=True):
                found[i] = answer
        return [f for f in found if f is not None]

    def _answer(self, places: Sequence[int], looks: Sequence[Look]) -> list[Found]:
        k = len(looks[0].parts)
        at_home = k == 1 and looks[0].at is None and len(places) == len(self._weights)
        side = self._home if at_home else self._side(len(places) * k)
        if not at_home:
            own = [self._weights[i].flat if look.at is None else look.at for i, look in zip(places, looks, strict=True)]
            torch.stack([w for w in own for _ in range(k)], out=side.flat)
        parts = [(look.rows, part) for look in looks for part in look.parts]
        if looks[0].slopes:
            loss, slopes = side.slope(parts, looks[0].objective)
            each = zip(looks, torch.split(loss, k), torch.split(slopes, k), strict=True)
            return [Found(a, b, None, *_counts(look)) for look, a, b in each]
        loss, right = side.read(parts, looks[0].objective)
        return [Found(a, None, b) for a, b in zip(torch.split(loss, k), torch.split(right, k), strict=True)]

    def _side(self, count: int) -> "_Side":
        """Room for other weights than all the trials' own."""
        if count not in self._sides:
            self._sides[count] = _Side(self._model, count)
        return self._sides[count]


#: Rows that narrow models read at once: few enough for what they compute to stay in the cache of a core.
CACHED = 8192


class Population:
    """Answers questions about many narrow models of one kind, side by side."""

    def __init__(self, model: Model, layout: Layout) -> None:
        self._model, self._layout = model, layout
        self._sides: dict[tuple[Window, int], _Side] = {}

    def look(self, look: Look) -> Found:
        """Losses, and gradients, of the models whose weights are `look.at` (model, entry)."""
        assert look.window is not None and look.at is not None
        (part,) = look.parts
        losses, slopes = [], []
        for at in torch.split(look.at, max(CACHED // len(part), 1)):
            side = self._side(look.window, len(at))
            side.flat.copy_(at)
            parts = [(look.rows, part)] * len(at)
            if look.slopes:
                loss, slope = side.slope(parts, look.objective)
                slopes.append(slope)
            else:
                loss, _ = side.read(parts, look.objective)
            losses.append(loss)
        tokens, padded = _counts(look)
        count = len(look.at)
        return Found(torch.cat(losses), torch.cat(slopes) if slopes else None, None, tokens * count, padded * count)

    def _side(self, window: Window, count: int) -> "_Side":
        if (window, count) not in self._sides:
            model, ranges = copy.deepcopy(self._model), {name: (0, size) for name, size in window}
            for part, p in zip(self._layout.parts, Weights(model).parameters, strict=True):
                data, p.grad = p.data, None
                for axis, kept in enumerate(part.within(ranges)):
                    data = data.index_select(axis, kept)
                p.data = data
            self._sides[window, count] = _Side(model, count)
        return self._sides[window, count]


def _counts(look: Look) -> tuple[int, int]:
    """Tokens that were read, without and with padding: a stack cuts nothing off."""
    lengths = sum(int(look.rows.lengths[part].sum()) for part in look.parts)
    return lengths, sum(len(part) for part in look.parts) * look.rows.tokens.shape[1]


class _Side:
    """So many models side by side, each with weights of its own, or one model seen so many times."""

    def __init__(self, model: Model, count: int) -> None:
        self.module = copy.deepcopy(model)
        self.weights = Weights(self.module, count)

    @classmethod
    def of_one(cls, model: Model, weights: Weights, count: int) -> "_Side":
        """The model with its own weights, as they are at any time; `count` parts of a batch share them."""
        side = cls(model, 1)
        side.weights.see(weights.flat, count)
        return side

    @property
    def flat(self) -> Tensor:
        """(model, parameter)"""
        return self.weights.flat

    def slope(self, parts: Sequence[tuple[Rows, Tensor]], objective: Objective) -> tuple[Tensor, Tensor]:
        """Mean losses (part,) and gradients (part, parameter)."""
        loss = self._losses(parts, objective)[0]
        return loss.detach(), self.weights.gradient_of(loss.sum())

    @torch.no_grad()
    def read(self, parts: Sequence[tuple[Rows, Tensor]], objective: Objective) -> tuple[Tensor, Tensor]:
        """Mean losses and token accuracies, (part,) each."""
        loss, logits, targets = self._losses(parts, objective)
        wanted = targets >= 0
        right = ((logits.argmax(-1) == targets) & wanted).sum(1)
        return loss, right / wanted.sum(1)

    def _losses(self, parts: Sequence[tuple[Rows, Tensor]], objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
        """Mean losses (part,), logits (part, place, token) and targets (part, place), IGNORED where none is wanted."""
        rows = parts[0][0]
        tokens = torch.cat([r.tokens[part] for r, part in parts]).long()
        steps = torch.cat([r.steps[part] for r, part in parts])
        first, columns = rows.first, rows.columns
        hidden = self.module(tokens[:, :-1], steps, first=first)
        told = torch.cat([(r.tokens if r.answers is None else r.answers)[part] for r, part in parts]).long()
        targets = told[:, first + 1 :]
        if columns is None:
            wanted = torch.cat([r.loss[part] for r, part in parts])[:, first + 1 :]
            targets = torch.where(wanted, targets, IGNORED)
        elif len(columns) < targets.shape[1]:
            kept = torch.tensor(columns) - first - 1
            hidden, targets = hidden[:, kept], targets[:, kept]
        logits = self.module.head(hidden.flatten(0, 1))
        targets = targets.reshape(len(parts), -1)
        each = objective(logits, targets.flatten()).view(len(parts), -1)
        return each.sum(1) / (targets >= 0).sum(1), logits.view(len(parts), -1, logits.shape[-1]), targets
