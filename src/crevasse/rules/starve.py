"""Capacity is withheld until the steer loss falls, then given back."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from crevasse.rules.base import State, Step, Update, inner, joined, own
from crevasse.rules.layout import Layout
from crevasse.rules.oracle import Asking, Oracle
from crevasse.rules.quantise import rounded
from crevasse.rules.transform import Around
from crevasse.spec import require

Kind = Literal["width", "rank", "decay", "precision", "dropout"]
#: Bits of a weight at strength 0 and at strength 1.
MOST_BITS, FEWEST_BITS = 12, 2


def narrowed(whole: Tensor, strength: float, step: Step) -> Tensor:
    """The last units of each width are zero."""
    sizes = step.layout.widths
    kept = step.layout.window(tuple((name, max(1, round(size * (1 - strength)))) for name, size in sizes.items()))
    out = torch.zeros_like(whole)
    out[kept.to(whole.device)] = whole[kept.to(whole.device)]
    return out


def dropped(whole: Tensor, strength: float, step: Step) -> Tensor:
    """In each step other units of each width are zero, each with the probability `strength`."""
    generator, out = step.generator("starve"), whole.clone()
    there = {
        name: (torch.rand(size, generator=generator) >= strength).to(whole) for name, size in step.layout.widths.items()
    }
    for part in step.layout.parts:
        for axis, of in enumerate(part.axes):
            if of is not None:
                mask = there[of[0]].repeat(part.shape[axis] // of[1])
                part.of(out).mul_(mask.view(-1, *[1] * (len(part.shape) - axis - 1)))
    return out


def low_rank(whole: Tensor, strength: float, step: Step) -> Tensor:
    """Matrices keep their largest singular values, a share of 1 − strength of them (Eckart, Young 1936)."""

    def cut(matrix: Tensor) -> Tensor:
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        rank = max(1, round(len(s) * (1 - strength)))
        kept: Tensor = u[:, :rank] * s[:rank] @ v[:rank]
        return kept

    return step.layout.map(lambda p, w: cut(w) if p.kind == "matrix" and w.dim() == 2 else w, whole)


def coarse(whole: Tensor, strength: float, step: Step) -> Tensor:
    """Rows of matrices are rounded to few bits (`quantise`)."""
    bits = round(MOST_BITS + strength * (FEWEST_BITS - MOST_BITS))
    return step.layout.map(
        lambda p, w: w if p.kind == "vector" else rounded(w.reshape(p.rows, -1), bits).view(p.shape), whole
    )


#: What the model is seen as, of all its weights. Decay leaves it as it is, and shrinks it after each step.
WITHHELD: dict[Kind, Callable[[Tensor, float, Step], Tensor]] = {
    "width": narrowed,
    "rank": low_rank,
    "precision": coarse,
    "dropout": dropped,
    "decay": lambda whole, strength, step: whole,
}


@dataclass(frozen=True)
class Starve(Around):
    """The base rule on a model from which capacity is withheld until the steer loss has fallen, and then given back.

    The gradient is that at the weights with less capacity; it moves all weights (straight through: Bengio et al. 2013),
    which the model gets back by and by. Five ways to withhold: `width`, the last units of each width are zero; `rank`,
    the smallest singular values of matrices are zero; `precision`, weights have 12 bits down to 2; `dropout`, other
    units are zero in each step (Srivastava et al. 2014, without rescaling; the model is judged with all of them);
    `decay`, w ← (1 − strength)·w after each step for all but vectors, which is lr·decay of adamw. Strength is the share
    withheld; 0 is the base rule. What is withheld begins to be given back when the steer loss has fallen by the share
    `until` of what it was at first, in `feed` steps, and is never withheld again.

    Costs the passes of the base and a forward pass over the steer set's batch every `check` steps until it feeds; a
    vector of memory; and a decomposition of each matrix a step for `rank`. Not with `width` or `dropout` for models
    that do not say which widths they have; and not where the steer set is so small that its loss falls by chance.
    """

    name: ClassVar[str] = "starve"

    by: Kind = "decay"
    strength: float = 0.1  # share that is withheld
    until: float = 0.5  # share of the first steer loss by which it has to fall
    feed: int = 200  # steps in which capacity is given back
    check: int = 20  # steps between looks at the steer set

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("strength", "until"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} of {self.name} is a share, 0 to 1, not {value}")
        for name in ("feed", "check"):
            value = getattr(self, name)
            require(value >= 1, f"{name} of {self.name} must be at least one step, not {value}")

    @property
    def steers(self) -> bool:
        return self.strength > 0

    def require_model(self, layout: Layout) -> None:
        if self.by in ("width", "dropout"):
            require(bool(layout.widths), f"starve by {self.by} needs a model that says which widths it has")

    def remember(self, weights: Tensor, layout: Layout) -> State:
        return {
            "whole": weights.clone(),  # all weights, those withheld too
            "first": weights.new_full((), math.inf),  # the steer loss at first
            "fed": torch.full(
                (), -1, dtype=torch.int64, device=weights.device
            ),  # steps since feeding began; -1: not yet
        }

    def withheld(self, fed: int) -> float:
        """The share that is withheld so many steps after feeding began; a negative number: it has not."""
        return self.strength * min(max(1 - fed / self.feed, 0.0), 1.0)

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        mine, base = own(state), inner(state)
        whole, fed = mine["whole"], int(mine["fed"])
        if step.scale and self.strength and fed < 0 and step.number % self.check == 0:
            lost = (yield from oracle.loss(steer=True)).to(mine["first"])
            mine["first"] = torch.where(mine["first"].isinf(), lost, mine["first"])
            if lost <= (1 - self.until) * mine["first"]:
                fed = 0
        strength = self.withheld(fed) if step.scale else 0.0
        seen = WITHHELD[self.by](whole, strength, step) if strength else whole
        loss, gradient = yield from oracle.gradient(None if torch.equal(seen, weights) else seen)
        if strength and self.by in ("width", "dropout"):
            gradient = torch.where((seen == 0) & (whole != 0), 0.0, gradient)
        whole, base = self.base.apply(gradient, whole, base, step)
        fed += fed >= 0
        strength = self.withheld(fed) if step.scale else 0.0
        if self.by == "decay" and strength:
            whole = step.layout.map(lambda p, w: w if p.kind == "vector" else (1 - strength) * w, whole)
        mine |= {"whole": whole, "fed": torch.full_like(mine["fed"], fed)}
        stays = not strength or self.by in ("dropout", "decay")
        moved = whole.clone() if stays else WITHHELD[self.by](whole, strength, step)
        return Update(moved, joined(mine, base), loss)
