"""Gradients of a batch of which some examples are given others' labels."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from crevasse.rules.base import State, Step, Update, inner, joined, own
from crevasse.rules.oracle import Ask, Asking, Oracle
from crevasse.rules.transform import Around
from crevasse.spec import require


@dataclass(frozen=True)
class LabelNoise(Around):
    """The base rule on the gradient of a batch in which a share p has others' labels, drawn anew each step.

    Blanc et al. 2020, Damian et al. 2021: the noise that never dies away moves the weights along the valley of zero
    loss towards its flat parts. A share of 0 is the base rule. The loss in the ledger is that of the noisy labels.

    Costs one forward and one backward pass over the batch. Not to be read as a test of memory: no example keeps
    a wrong label. The loss cannot fall under the entropy of the noise, so nothing that waits for a low loss works
    with it.
    """

    name: ClassVar[str] = "label-noise"

    p: float = 0.1  # share of the examples that are given another's label

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.p <= 1, f"p of {self.name} is a share, 0 to 1, not {self.p}")

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        seen = yield Ask(swapped=self.p)
        assert seen.gradients is not None
        moved, base = self.base.apply(seen.gradients[0], weights, inner(state), step)
        return Update(moved, joined(own(state), base), seen.losses[0])
