"""Sums written from the lowest digit on, against sums as they are usually written (Lee et al. 2023)."""

from typing import ClassVar

from crevasse.studies.base import Arm, Budget
from crevasse.studies.published.base import Check, Evidence, Result, check

#: The paper's number of examples, and the most that plain sums are given: twice as many.
FEW, MORE = 2500, 5000
ALL = 0.95


class Reversing(Result):
    """See its sentences."""

    key: ClassVar[str] = "reversed"
    title: ClassVar[str] = "Sums written from the lowest digit on"
    paper: ClassVar[str] = "Lee et al. 2023"
    reported: ClassVar[str] = (
        "Sums of numbers of up to three digits, by a small GPT: reversed answers are learnt, to nearly 100%, from "
        "about 2,500 examples; plain ones take several times as many."
    )
    differs: ClassVar[str] = (
        "Two layers of width 64 instead of six of 384; the numbers of the problem are reversed too, not the answer "
        "alone; numbers are drawn without the paper's balance of digits and carries; a + b and b + a stand on the same "
        "side of the split. At minutes plain sums are given 2,500 examples only."
    )
    rule: ClassVar[str] = (
        f"Reversed agrees where the mean held-out score is {ALL:.0%} or more with {FEW:,} examples; plain agrees where "
        "it is less, with as many and with twice as many, and repeats nothing by itself."
    )

    def arms(self, budget: Budget) -> list[Arm]:
        seeds, steps = {"smoke": (1, 20), "minutes": (3, 2000), "full": (3, 4000)}[budget]

        def sums(way: str, train: int, paper: str) -> Arm:
            notation = "reversed" if way == "reversed" else "digits"
            return self.make(f"{way}-{train}", f"{way}, {train:,} examples (paper: {paper})", "addition",
                             f"direct:notation={notation}", "transformer", "adamw", seeds=seeds, steps=steps,
                             train=train, batch=128)  # fmt: skip

        arms = [sums("reversed", FEW, "nearly 100%"), sums("plain", FEW, "less")]
        return [*arms, sums("plain", MORE, "less")] if budget == "full" else arms

    def checks(self, evidence: Evidence) -> list[Check]:
        plain = [n for n in (FEW, MORE) if evidence.of(f"plain-{n}") or n == FEW]
        return [
            check(f"reversed, {FEW:,} examples", "nearly 100%", evidence.values(f"reversed-{FEW}", "random"),
                  lambda v: v >= ALL),
            *(check(f"plain, {n:,} examples", "less: it takes several times as many",
                    evidence.values(f"plain-{n}", "random"), lambda v: v < ALL, contrast=True) for n in plain),
        ]  # fmt: skip
