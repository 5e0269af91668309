"""One random direction and two losses: simultaneous perturbation."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from crevasse.rules.base import BaseRule, State, Step, Update, inner, joined, own
from crevasse.rules.oracle import Asking, Oracle
from crevasse.rules.sgd import Sgd
from crevasse.rules.transform import Around
from crevasse.spec import require


@dataclass(frozen=True)
class Mezo(Around):
    """The base rule on (L(w + εz) − L(w − εz))/2ε·z with a random direction z: no backward pass.

    SPSA (Spall 1992), with Gaussian z as in MeZO (Malladi et al. 2023, "Fine-tuning language models with just forward
    passes") or with signs as in Spall's. The loss that is seen is the mean of the two. What MeZO saves in memory by
    drawing z anew from its seed is not saved here.

    Costs two forward passes over the batch and no backward pass. Not to train a net from scratch: of n weights the
    estimate is √n times as long as the gradient, so that the rate has to be n times smaller; and not before a base
    that divides each entry by its own size, as all entries of an estimate are of the size of the noise.
    """

    name: ClassVar[str] = "mezo"

    base: BaseRule = Sgd(lr=1e-3)
    epsilon: float = 1e-3  # size of the noise at each weight
    noise: Literal["gaussian", "sign"] = "gaussian"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.epsilon < 1e6, f"epsilon of {self.name} must be positive, not {self.epsilon}")

    def direction(self, weights: Tensor, step: Step) -> Tensor:
        """Of this step. (parameter,)"""
        drawn = torch.randn(len(weights), generator=step.generator("mezo")).to(weights)
        return drawn if self.noise == "gaussian" else torch.where(drawn < 0, -1.0, 1.0).to(weights)

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        z = self.direction(weights, step)
        ahead = yield from oracle.loss(weights.add(z, alpha=self.epsilon))
        behind = yield from oracle.loss(weights.sub(z, alpha=self.epsilon))
        slope = float(ahead - behind) / (2 * self.epsilon)
        moved, base = self.base.apply(slope * z, weights, inner(state), step)
        return Update(moved, joined(own(state), base), (ahead + behind) / 2)
