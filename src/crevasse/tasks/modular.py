"""The classic tables of the grokking literature: a∘b mod p, and composition in S5."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from crevasse.spec import Sizes
from crevasse.tasks.base import Facts, Input, Ints, Solution, Task, require_prime
from crevasse.tasks.groups import multiplication_table


@dataclass(frozen=True)
class Modular(Task):
    """a∘b mod p for one operation: add, sub, mul, div, squares (a² + b²); or composition in S5."""

    name: ClassVar[str] = "modular"
    facts: ClassVar[Facts] = Facts(
        recursive=False,
        closed_form="its own definition",
        depth="AC0–TC0 (operands of fixed length)",
        control="none",
    )
    splits: ClassVar[str] = "R"

    op: Literal["add", "sub", "mul", "div", "squares", "s5"] = "add"
    p: int = 97  # prime modulus (S5 has its own 120 elements)

    def __post_init__(self) -> None:
        if self.op != "s5":
            require_prime(self.p, self.name)

    @property
    def symmetries(self) -> str:  # type: ignore[override]
        return {
            "add": "order of the operands",
            "mul": "order of the operands",
            "squares": "order and signs of the operands",
        }.get(self.op, "none")

    @property
    def train_sizes(self) -> Sizes:
        return Sizes((1,))  # one table: every problem has the same size

    def size(self, x: Ints) -> Ints:
        return np.ones(len(x), np.int64)

    @property
    def symbols(self) -> int:
        return 120 if self.op == "s5" else self.p

    @property
    def inputs(self) -> tuple[Input, ...]:
        low = {"div": 1}.get(self.op, 0)
        return (Input("a", range(self.symbols)), Input("b", range(low, self.symbols)))

    def count(self, sizes: Sizes) -> int:
        a, b = self.inputs
        return len(a.values) * len(b.values)

    def every(self, sizes: Sizes) -> Ints:
        a, b = (np.asarray(v.values) for v in self.inputs)
        return np.stack([np.repeat(a, len(b)), np.tile(b, len(a))], axis=1)

    def sample(self, rng: np.random.Generator, count: int, sizes: Sizes) -> Ints:
        return np.column_stack([rng.choice(np.asarray(v.values), count) for v in self.inputs])

    def canonical(self, x: Ints) -> Ints:
        if self.op == "squares":
            x = np.minimum(x, (self.p - x) % self.p)
        return np.sort(x, axis=1) if self.op in ("add", "mul", "squares") else x

    @property
    def answer_count(self) -> int | None:
        return self.symbols

    def solve(self, x: Ints, rounded: bool = False) -> Solution:
        a, b, p = x[:, 0], x[:, 1], self.p
        if self.op == "s5":
            answer = multiplication_table("S5")[a, b]
        elif self.op == "div":
            inverse = np.array([0] + [pow(v, -1, p) for v in range(1, p)])
            answer = a * inverse[b] % p
        else:
            answer = {"add": a + b, "sub": a - b, "mul": a * b, "squares": a * a + b * b}[self.op] % p
        return Solution(answer[:, None], None, None)
