"""Sums written from the lowest digit on, against sums as they are usually written (Lee et al. 2023)."""

from typing import ClassVar

from crevasse.studies.base import Arm, Budget
from crevasse.studies.published.base import Check, Evidence, Result, check

#: The paper's number of examples, from which reversed sums are right; and the most that plain ones are given there.
FEW, MORE = 2500, 10_000
#: The paper's figure for plain sums with the most; from where on all counts as right; how near is the same.
PLAIN, ALL, NEAR = 0.85, 0.95, 0.1


class Reversing(Result):
    """See its sentences."""

    key: ClassVar[str] = "reversed"
    title: ClassVar[str] = "Sums written from the lowest digit on"
    paper: ClassVar[str] = "Lee et al. 2023"
    reported: ClassVar[str] = (
        "Sums of numbers of up to three digits, by a small GPT: reversed answers become right between 1,000 and 4,000 "
        f"examples, nearly all from about {FEW:,} on; plain ones stay a little above {PLAIN:.0%} with {MORE:,}."
    )
    source: ClassVar[str] = "arXiv 2307.03381, as notes of two of its readers report it."
    differs: ClassVar[str] = (
        "Two layers of width 64 instead of six of 384; the numbers of the problem are reversed too, not the answer "
        "alone; numbers are drawn without the paper's balance of digits and carries; a + b and b + a stand on the same "
        f"side of the split. At minutes plain sums are given {FEW:,} examples only."
    )
    rule: ClassVar[str] = (
        f"Reversed agrees where the mean held-out score is {ALL:.0%} or more with {FEW:,} examples. Plain agrees where "
        f"it is less with as many, and within {NEAR} of the paper's with {MORE:,}; it repeats nothing by itself."
    )

    def arms(self, budget: Budget) -> list[Arm]:
        seeds, steps = {"smoke": (1, 20), "minutes": (3, 2000), "full": (3, 4000)}[budget]

        def sums(way: str, train: int, paper: str) -> Arm:
            notation = "reversed" if way == "reversed" else "digits"
            return self.make(f"{way}-{train}", f"{way}, {train:,} examples (paper: {paper})", "addition",
                             f"direct:notation={notation}", "transformer", "adamw", seeds=seeds, steps=steps,
                             train=train, batch=128)  # fmt: skip

        arms = [sums("reversed", FEW, "nearly 100%"), sums("plain", FEW, "less")]
        return [*arms, sums("plain", MORE, f"{PLAIN:.0%}")] if budget == "full" else arms

    def checks(self, evidence: Evidence) -> list[Check]:
        def scores(way: str, train: int) -> list[float]:
            return evidence.values(f"{way}-{train}", "random")

        found = [
            check(f"reversed, {FEW:,} examples", "nearly 100%", scores("reversed", FEW), lambda v: v >= ALL, figure=1),
            check(f"plain, {FEW:,} examples", "less", scores("plain", FEW), lambda v: v < ALL, contrast=True),
        ]
        if more := scores("plain", MORE):
            what, paper = f"plain, {MORE:,} examples", f"a little above {PLAIN:.0%}"
            found.append(check(what, paper, more, lambda v: abs(v - PLAIN) <= NEAR, figure=PLAIN, contrast=True))
        return found
