"""Jumps to simpler weights, kept where the whole description becomes shorter."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from crevasse.rules.base import State, Step, Update, copied, inner, joined, own
from crevasse.rules.layout import Layout, Part
from crevasse.rules.oracle import Asking, Oracle
from crevasse.rules.transform import Around
from crevasse.spec import require

Simpler = Literal["rounded", "pruned", "shared", "lowrank"]
KINDS: tuple[Simpler, ...] = ("rounded", "pruned", "shared", "lowrank")


def plain_bits(values: Tensor, precision: float) -> Tensor:
    """Bits of numbers written one by one: Σ 1 + log₂(1 + |v|/precision); a zero is one bit. ()"""
    return (1 + torch.log2(1 + values.abs() / precision)).sum()


@dataclass(frozen=True)
class Jump(Around):
    """The base rule and, every so often, a jump to simpler weights, repaired by the base, then kept or taken back.

    Proposed here, to be refuted. A jump changes each parameter that is a matrix or more to

    - rounded: the nearest of 2^bits − 1 values at equal distances around zero;
    - pruned: the same with its smallest `share` of entries set to zero;
    - shared: the nearest of 2^bits of its own quantiles;
    - lowrank: its best approximation with `rank` times its rank (Eckart, Young 1936).

    After `repair` steps of the base the same change is made once more, as repair leaves no structure, and the result
    is accepted if it is shorter to describe than the weights before the jump, both read on the present batch:

        examples·loss/ln 2 + bits of the weights (two-part code, Rissanen 1978).

    A weight costs 1 + log₂(1 + |w|/precision) bits, or, where shorter for its parameter, by the structure:
    rounded 1 + log₂(1 + |index|); shared the quantiles and `bits` an entry; lowrank both factors U√S, V√S. Otherwise
    the weights and the base's state before the jump come back, and the steps since are lost. While a jump is on trial
    the weights before it stand for the model.

    Costs the passes of the base; where a jump is judged one more forward pass, and where it is taken back one more
    forward and backward pass; one vector of memory and the base's state once more. Not on a batch much smaller than
    the training set: the loss on it is too noisy to be multiplied by `examples`. And not while the loss falls fast: a
    jump is credited with what the steps of its repair would have gained without it.
    """

    name: ClassVar[str] = "jump"

    every: int = 200  # steps from jump to jump; 0: never
    start: int = 0  # step from which they are counted: the first jump is at start + every
    repair: int = 20  # steps from a jump to its judgement
    kind: Literal["cycle", "rounded", "pruned", "shared", "lowrank"] = "cycle"  # cycle: one after another
    bits: int = 4  # of an entry, where rounded or shared
    share: float = 0.2  # of the entries that are pruned
    rank: float = 0.5  # share of the rank that is left
    precision: float = 1e-3  # to which a weight is written down
    examples: int | None = None  # that the weights have to explain; none: those of the batch

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.every >= 0, f"every of {self.name} must not be negative, not {self.every}")
        require(self.start >= 0, f"start of {self.name} must not be negative, not {self.start}")
        require(
            self.repair >= 1 and (self.repair < self.every or not self.every),
            f"repair of {self.name} must lie between 1 and every − 1 ({self.every - 1}), not {self.repair}",
        )
        require(2 <= self.bits <= 16, f"bits of {self.name} must lie between 2 and 16, not {self.bits}")
        for name in ("share", "rank"):
            require(
                0 < getattr(self, name) <= 1, f"{name} of {self.name} must lie in (0, 1], not {getattr(self, name)}"
            )
        require(0 < self.precision < 1e6, f"precision of {self.name} must be positive, not {self.precision}")
        require(
            self.examples is None or self.examples >= 1,
            f"examples of {self.name} must be at least one, not {self.examples}",
        )

    def remember(self, weights: Tensor, layout: Layout) -> State:
        kept = {f"kept.{k}": v for k, v in self.base.init(weights, layout).items()}
        zero = weights.new_zeros(())
        return {
            "kept": weights.clone(),  # the weights before the jump
            "pending": zero,  # 1: a jump is on trial
            "proposed": zero.clone(),  # jumps so far
            "accepted": zero.clone(),
            **kept,
        }

    def judged(self, weights: Tensor, state: State) -> Tensor:
        mine, base = own(state), inner(state)
        if mine["pending"]:
            return self.base.judged(mine["kept"], {k: mine[f"kept.{k}"] for k in base})
        return self.base.judged(weights, base)

    def simpler(self, part: Part, values: Tensor, kind: Simpler) -> tuple[Tensor, Tensor]:
        """A parameter made simpler, and the bits that it then costs. (row, column) -> (row, column), ()"""
        if part.kind == "vector":
            return values, plain_bits(values, self.precision)
        cost = None
        if kind == "rounded":
            grid = (values.abs().amax() / (2 ** (self.bits - 1) - 1)).clamp(min=1e-30)
            places = (values / grid).round()
            simple, cost = places * grid, plain_bits(places, 1.0) + plain_bits(grid, self.precision)
        elif kind == "pruned":
            least = values.abs().flatten().argsort(stable=True)[: int(self.share * part.size)]
            simple = values.flatten().index_fill(0, least, 0.0).view_as(values)
        elif kind == "shared":
            count = 2**self.bits
            places = ((torch.arange(count, device=values.device) + 0.5) * part.size / count).long()
            book = values.flatten().sort().values[places]
            simple = book[torch.bucketize(values.contiguous(), (book[1:] + book[:-1]) / 2)]
            cost = plain_bits(book, self.precision) + self.bits * part.size
        else:
            left, size, right = torch.linalg.svd(values.float(), full_matrices=False)
            rank = max(1, round(self.rank * len(size)))
            root = size[:rank].sqrt()
            left, right = left[:, :rank] * root, right[:rank] * root[:, None]
            simple, cost = (
                (left @ right).to(values),
                plain_bits(left, self.precision) + plain_bits(right, self.precision),
            )
        plain = plain_bits(simple, self.precision)
        return simple, plain if cost is None else torch.minimum(cost, plain)

    def simplified(self, weights: Tensor, layout: Layout, kind: Simpler) -> tuple[Tensor, float]:
        """All of the weights made simpler, and the bits that they then cost. (parameter,)"""
        parts = [self.simpler(part, part.matrix(weights), kind) for part in layout.parts]
        return torch.cat([values.flatten() for values, _ in parts]), sum(float(bits) for _, bits in parts)

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        mine, base = own(state), inner(state)
        turn, place = divmod(step.number - self.start, self.every) if self.every else (0, 0)
        pending = turn >= 1 and bool(mine["pending"])
        kind = KINDS[(turn - 1) % len(KINDS)] if self.kind == "cycle" else self.kind
        if pending and place == self.repair:
            weights, accepted, loss, gradient = yield from self.judge(oracle, weights, mine, step, kind)
            if not accepted:
                base = copied({k: mine[f"kept.{k}"] for k in base})
            mine |= {"pending": mine["pending"] - 1, "accepted": mine["accepted"] + accepted}
        elif turn >= 1 and place == 0 and step.scale and bool(weights.isfinite().all()):
            kept = {"kept": weights.clone()} | {f"kept.{k}": v for k, v in copied(base).items()}
            weights, _ = self.simplified(weights, step.layout, kind)
            loss, gradient = yield from oracle.gradient(weights)
            mine |= kept | {"pending": mine["pending"] + 1, "proposed": mine["proposed"] + 1}
        else:
            loss, gradient = yield from oracle.gradient()
        moved, base = self.base.apply(gradient, weights, base, step)
        return Update(moved, joined(mine, base), loss)

    def judge(
        self, oracle: Oracle, weights: Tensor, mine: State, step: Step, kind: Simpler
    ) -> Asking[tuple[Tensor, bool, Tensor, Tensor]]:
        """The weights to go on with, was the jump accepted?, and their loss and gradient."""
        kept = mine["kept"]
        examples = self.examples or oracle.batch
        if bool(weights.isfinite().all()):
            simple, bits = self.simplified(weights, step.layout, kind)
            loss, gradient = yield from oracle.gradient(simple)
            before = yield from oracle.loss(kept)
            saved = examples * float(before - loss) / math.log(2) + float(plain_bits(kept, self.precision)) - bits
            if saved > 0:
                return simple, True, loss, gradient
        loss, gradient = yield from oracle.gradient(kept)
        return kept, False, loss, gradient
