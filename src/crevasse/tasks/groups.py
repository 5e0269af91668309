"""Words over finite groups: solvable ones have shallow solutions, S5 and A5 have none known."""

import functools
import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from crevasse.spec import Sizes, parse_sizes
from crevasse.tasks.base import Facts, Input, Ints, Recursion, check_sizes

Group = Literal["S3", "S4", "S5", "A5", "A4xZ5", "Z60", "Z120"]


def _permutations(n: int, even_only: bool) -> list[tuple[int, ...]]:
    everything = list(itertools.permutations(range(n)))  # in lexicographic order: the identity is element 0
    if not even_only:
        return everything
    return [p for p in everything if sum(a > b for a, b in itertools.combinations(p, 2)) % 2 == 0]


def _permutation_table(n: int, even_only: bool) -> NDArray[np.int64]:
    elements = np.array(_permutations(n, even_only))
    place = n ** np.arange(n)
    number = np.full(n**n, -1)
    number[elements @ place] = np.arange(len(elements))
    return np.asarray(number[np.take_along_axis(elements[:, None], elements[None], axis=2) @ place])


@functools.cache
def multiplication_table(group: Group) -> NDArray[np.int64]:
    """table[a, b] = a·b; for permutations (a·b)(i) = a(b(i)), elements in lexicographic order."""
    if group in ("S3", "S4", "S5", "A5"):
        return _permutation_table(int(group[1]), group[0] == "A")
    if group == "A4xZ5":
        a4, z = _permutation_table(4, True), np.arange(60)
        left, right = a4[z[:, None] // 5, z[None] // 5], (z[:, None] + z[None]) % 5
        return np.asarray(left * 5 + right)
    order = np.arange(int(group[1:]))
    return np.asarray((order[:, None] + order[None]) % len(order))


@dataclass(frozen=True)
class Words(Recursion):
    """The product x1·x2·…·xT of elements of a finite group, numbered from the identity, 0."""

    name: ClassVar[str] = "words"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="solvable groups: by a series of counts; S5 and A5: none",
        depth="solvable: TC0; S5, A5: NC1-complete (Barrington 1989)",
        control="Z120 against S5",
    )

    group: Group = "S5"
    T: Sizes = parse_sizes("1-2+4-5")  # training lengths
    gap: Sizes = parse_sizes("3")  # held-out lengths between trained ones
    beyond: Sizes = parse_sizes("6-8")  # held-out lengths above them

    def __post_init__(self) -> None:
        check_sizes(self.name, self.T, self.gap, self.beyond, 1, 200)

    @property
    def train_sizes(self) -> Sizes:
        return self.T

    @property
    def symmetries(self) -> str:  # type: ignore[override]
        return "order of the operands" if self.group[0] == "Z" else "none"

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Input("x", range(self.symbols), sequence=True),)

    def canonical(self, x: Ints) -> Ints:
        return np.sort(x, axis=1) if self.group[0] == "Z" else x

    @property
    def answer_count(self) -> int | None:
        return self.symbols

    @property
    def symbols(self) -> int:
        return len(multiplication_table(self.group))

    def start(self, x: Ints) -> Ints:
        return x[:, :1]

    def operands(self, x: Ints) -> Ints:
        return x[:, 1:, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        table = multiplication_table(self.group)
        return np.asarray(table[state.astype(np.int64), operand.astype(np.int64)])

    def state_space(self) -> Ints:
        return np.arange(self.symbols)[:, None]
