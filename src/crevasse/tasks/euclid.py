"""Euclid's algorithm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from crevasse.spec import Sizes, parse_sizes, require
from crevasse.tasks.base import BLANK, Bools, Consecutive, Facts, Input, Ints, Recursion, check_sizes


@dataclass(frozen=True)
class Gcd(Recursion):
    """The greatest common divisor of a and b, by (a, b) → (b, a mod b) from a ≥ b until b is 0.

    The size of a problem is its number of divisions. Training and held-out problems have a, b ≤ m.
    """

    name: ClassVar[str] = "gcd"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="none",
        depth="not known to be in NC (sublinear time at best: Chor, Goldreich 1990)",
        control="fibonacci",  # the same pairs run backwards, with every quotient 1
    )
    #: That a division leaves the answer as it is is no symmetry: it is the rule that is to be found.
    symmetries: ClassVar[str | None] = "order of the two numbers"
    splits: ClassVar[str] = "XR"
    operator: ClassVar[str] = "%"
    call_widths: ClassVar[tuple[int, int] | None] = (2, 0)

    m: int = 200  # largest number in a problem
    steps: Sizes = parse_sizes("1-5")  # training numbers of divisions
    beyond: Sizes = parse_sizes("6-7")  # held-out numbers of divisions above them

    def __post_init__(self) -> None:
        require(2 <= self.m <= 600, f"m of gcd must lie between 2 and 600, not {self.m}")
        check_sizes(self.name, self.steps, Sizes(()), self.beyond, 1, _most_divisions(self.m))

    @property
    def train_sizes(self) -> Sizes:
        return self.steps

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Input("a", range(1, 100_001)), Input("b", range(1, 100_001)))

    def size(self, x: Ints) -> Ints:
        return np.asarray((self.operands(x)[:, :, 0] != BLANK).sum(1))

    def canonical(self, x: Ints) -> Ints:
        return np.sort(x, axis=1)

    def count(self, sizes: Sizes) -> int:
        return self.m**2

    def every(self, sizes: Sizes) -> Ints:
        pairs = np.indices((self.m, self.m)).reshape(2, -1).T + 1
        return pairs[np.isin(self.size(pairs), sizes)]

    def sample(self, rng: np.random.Generator, count: int, sizes: Sizes) -> Ints:
        x = self.every(sizes)
        size = self.size(x)
        weight = 1 / np.bincount(size)[size]
        return x[rng.choice(len(x), count, p=weight / weight.sum())]

    @property
    def answer_count(self) -> int | None:
        return self.m

    @property
    def symbols(self) -> int:
        return self.m + 1

    def start(self, x: Ints) -> Ints:
        return np.sort(x, axis=1)[:, ::-1]

    def operands(self, x: Ints) -> Ints:
        pair, live = self.start(x), []
        while (more := pair[:, 1] != 0).any():
            live.append(more)
            pair = np.where(more[:, None], self.step(pair, pair, x), pair)
        return np.where(np.array(live, bool).reshape(len(live), len(x)).T, 1, BLANK)[:, :, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        a, b = state[:, :1], state[:, 1:]
        return np.concatenate([b, a % np.maximum(b, 1)], axis=1)  # at b = 0 the run has ended

    def read(self, state: Ints) -> Ints:
        return state[:, :1]

    def call(self, arguments: Sequence[int], x: Ints) -> list[int] | None:
        return None if 0 in arguments[1:] else super().call(arguments, x)  # nothing divides by 0

    def consecutive(self, x: Ints) -> Consecutive | None:
        # A division leaves the answer as it is, and so does whoever writes one number for everything. So a link ties
        # two such pairs of problems, a and b, a + 1 and b, whose answers differ.
        here = self.start(x)
        there = here + np.array([[1, 0]])
        problems = tuple(p for later in (here, there) for p in (self.step(later, later, x), later))
        telling = np.gcd.reduce(here, axis=1) != np.gcd.reduce(there, axis=1)
        sizes = [np.isin(self.size(p), self.sizes) for p in problems]
        keep = np.all([*sizes, telling, there[:, 0] <= self.m], axis=0)
        return Consecutive(tuple(p[keep] for p in problems)) if keep.any() else None

    def obeys(self, links: Consecutive, outputs: Sequence[Ints]) -> Bools:
        rest, here, other_rest, there = outputs
        return np.asarray(((rest == here) & (other_rest == there) & (here != there))[:, 0])


def _most_divisions(m: int) -> int:
    """Of all numbers up to m, two consecutive Fibonacci numbers take the most divisions (Lamé 1844)."""
    a, b, count = 1, 2, 0
    while b <= m:
        a, b, count = b, a + b, count + 1
    return count
