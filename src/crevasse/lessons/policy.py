"""Small networks that say how likely an event is bad, many side by side, and what is decided by them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from crevasse.lessons.world import Bools, Floats, Ints, World

#: What an approached event is worth, good or bad; one that is avoided is worth 0.
GOOD, BAD = 1.0, -4.0
#: Approaching is worth GOOD + p (BAD − GOOD), which is above 0 below this p.
THRESHOLD = GOOD / (GOOD - BAD)
#: Policies that are computed together: as many as the cache of a core holds.
TOGETHER = 64


class Policies:
    """A stack of multilayer perceptrons with the policy axis in front: one-hot values of all attributes -> `width` relu
    -> one logit of "bad". They share the code that computes them and nothing else.

    Parameters are `first` (policy, input, width), `bias` (policy, 1, width), `second` (policy, width, 1) and `last`
    (policy, 1, 1), begun as torch.nn.Linear begins.
    """

    def __init__(self, world: World, count: int, seed: int, width: int = 64) -> None:
        self.inputs = torch.from_numpy(world.one_hot)
        draw = torch.Generator().manual_seed(seed)

        def uniform(*shape: int, fan_in: int) -> Tensor:
            bound = fan_in**-0.5
            return torch.empty(count, *shape).uniform_(-bound, bound, generator=draw)

        n = self.inputs.shape[1]
        self.parameters = [
            uniform(n, width, fan_in=n), uniform(1, width, fan_in=n),
            uniform(width, 1, fan_in=width), uniform(1, 1, fan_in=width),
        ]  # fmt: skip

    def __len__(self) -> int:
        return len(self.parameters[0])

    def take(self, which: Sequence[int] | Ints) -> "Policies":
        """Copies of some of them, each as often as it is named."""
        taken = object.__new__(Policies)
        taken.inputs = self.inputs
        taken.parameters = [p[torch.as_tensor(which)] for p in self.parameters]
        return taken

    def fit(self, rows: Ints, targets: Floats, rate: float, decay: float = 0.0) -> None:
        """Train by Adam, begun afresh, on the mean cross-entropy of each batch; the rate falls to 0 in a straight line.

        rows: (policy, step, row) numbers of events; targets: the probability of bad there, of the same shape.
        decay: AdamW's.
        """
        for at in range(0, len(self), TOGETHER):
            part = [p[at : at + TOGETHER].clone().requires_grad_() for p in self.parameters]
            optimizer = torch.optim.AdamW(part, lr=rate, weight_decay=decay)
            events = torch.from_numpy(rows[at : at + TOGETHER])
            wanted = torch.from_numpy(targets[at : at + TOGETHER]).float()
            for step in range(events.shape[1]):
                logits = _logits(part, self.inputs[events[:, step]])
                # Each policy's own mean: a mean over all would make a policy's step depend on how many there are.
                loss = F.binary_cross_entropy_with_logits(logits, wanted[:, step], reduction="sum") / events.shape[2]
                optimizer.param_groups[0]["lr"] = rate * (1 - step / events.shape[1])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            for whole, new in zip(self.parameters, part, strict=True):
                whole[at : at + TOGETHER] = new.detach()

    def bad(self) -> Floats:
        """The probability of bad that each policy gives to every event: (policy, event)."""
        with torch.no_grad():
            # One policy at a time: its hidden units of all events just fit into the cache.
            each = [_logits([p[i : i + 1] for p in self.parameters], self.inputs[None]) for i in range(len(self))]
            return np.asarray(torch.cat(each).sigmoid().double().numpy())


def _logits(parameters: Sequence[Tensor], x: Tensor) -> Tensor:
    """x: (policy, row, input) -> (policy, row)"""
    first, bias, second, last = parameters
    hidden = torch.baddbmm(bias, x, first).relu_()
    return torch.baddbmm(last, hidden, second).squeeze(-1)


def approaches(bad: Floats) -> Bools:
    """Which events are approached, by the probability that they are bad."""
    return bad < THRESHOLD
