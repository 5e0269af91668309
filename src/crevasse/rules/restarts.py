"""Restarts with selection: several runs, of which the steer set picks one."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import State, Step, Update, copied, inner, joined, own
from crevasse.rules.layout import Layout
from crevasse.rules.oracle import Asking, Oracle
from crevasse.rules.transform import Around
from crevasse.spec import require


@dataclass(frozen=True)
class Restarts(Around):
    """Several runs of the base rule one after another, then on from the end of the one with the lowest steer loss.

    Run r takes the steps r·each … (r + 1)·each − 1. The first begins at the start, the others at
    start + spread·σ·noise with Gaussian noise and σ the standard deviation of the part: what starts constant
    (norms, biases at zero) stays. Each begins with a fresh state of the base. The multi-start search of global
    optimisation (Rinnooy Kan, Timmer 1987), selected by held-out loss.

    Costs the passes of the base and, once a run, a forward pass over the steer set's batch; copies·each steps of
    which all but one run's are thrown away; three vectors of memory and the base's state once more. Not unless
    there are more than copies·each steps (before, nothing is picked); not with a falling schedule, which gives each
    run another rate; and not with a steer set larger than a batch, as each run is then judged on other examples.
    """

    name: ClassVar[str] = "restarts"

    copies: int = 4  # runs; 1: the base rule alone
    each: int = 100  # steps a run
    spread: float = 1.0  # noise at the start of a run, over the spread of the part's own entries

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.copies <= 10_000, f"copies of {self.name} must lie between 1 and 10,000, not {self.copies}")
        require(self.each >= 1, f"each of {self.name} must be at least one step, not {self.each}")
        require(0 <= self.spread < 1e6, f"spread of {self.name} must be a number from 0 up, not {self.spread}")

    @property
    def steers(self) -> bool:
        return self.copies > 1

    def remember(self, weights: Tensor, layout: Layout) -> State:
        best = {f"best.{k}": v for k, v in self.base.init(weights, layout).items()}
        return {
            "start": weights.clone(),
            "best": weights.clone(),
            "lowest": weights.new_full((), math.inf),  # steer loss of the best
            **best,
        }

    def moved_start(self, start: Tensor, step: Step) -> Tensor:
        """Where the run of this step begins. (parameter,)"""
        if step.scale == 0:
            return start
        noise = torch.randn(len(start), generator=step.generator("restart")).to(start)
        sigma = [part.of(start).std(correction=0).expand(part.size) for part in step.layout.parts]
        return start + self.spread * torch.cat(sigma) * noise

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        mine, base = own(state), inner(state)
        run, place = divmod(step.number, self.each)
        if self.copies > 1 and place == 0 and 1 <= run <= self.copies:
            lost = (yield from oracle.loss(self.base.judged(weights, base), steer=True)).to(mine["lowest"])
            if lost < mine["lowest"]:
                mine |= {"best": weights.clone(), "lowest": lost} | {f"best.{k}": v.clone() for k, v in base.items()}
            if run < self.copies:
                weights = self.moved_start(mine["start"], step)
                base = self.base.init(weights, step.layout)
            else:
                weights, base = mine["best"], copied({k: mine[f"best.{k}"] for k in base})
            loss, gradient = yield from oracle.gradient(weights)
        else:
            loss, gradient = yield from oracle.gradient()
        moved, base = self.base.apply(gradient, weights, base, step)
        return Update(moved, joined(mine, base), loss)
