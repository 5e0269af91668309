"""C9 and C10: what Stirling's and Binet's formulas miss, by arithmetic."""

import math
from collections.abc import Sequence
from decimal import Decimal, localcontext
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from crevasse.studies.base import Budget, Row
from crevasse.studies.claims.base import Claim, Evidence, Ruling, effect
from crevasse.studies.measures import Measure

#: Digits that the decimal arithmetic keeps: 170! has 307.
DIGITS = 360
#: The thesis' answers have so many significant figures.
FIGURES = 7
LARGEST = 170  # the last n whose factorial a double holds
#: Stirling's series: the logarithm of n! over the formula is the sum of these over n, n³, n⁵, …
TERMS = (Decimal(1) / 12, -Decimal(1) / 360, Decimal(1) / 1260)
PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798214808651"
)


def stirling(n: int, terms: int = 0) -> Decimal:
    """√(2πn) (n/e)ⁿ, times the exponential of so many terms of its series (Abramowitz, Stegun 6.1.41)."""
    with localcontext() as context:
        context.prec = 110
        x = Decimal(n)
        series = sum((c / x ** (2 * i + 1) for i, c in enumerate(TERMS[:terms])), Decimal(0))
        return (2 * PI * x).sqrt() * (x / Decimal(1).exp()) ** n * series.exp()


def figures(value: Decimal | int) -> str:
    """In as many significant figures as the thesis writes."""
    return f"{Decimal(value):.{FIGURES - 1}e}"


class Stirling(Claim):
    """See its sentences."""

    number: ClassVar[str] = "C9"
    title: ClassVar[str] = "Stirling's error"
    quote: ClassVar[str] = (
        "Factorial could be approximated with sterling’s eq, but this is not the exact solution and the error is "
        "1/(12*n), so at lower n the error term is noticeable"
    )
    hypothesis: ClassVar[str] = (
        "The relative error of Stirling's formula is 1/(12n) within a tenth for every n, and no closed form reaches "
        "n! to the seven figures that the thesis asks for."
    )
    experiment: ClassVar[str] = (
        "n! exactly, against the formula and its series with up to three terms, for n = 1 … 170 in decimals of 100 "
        "digits."
    )
    rule: ClassVar[str] = (
        "Supported if both parts hold, half right if the error is as said and a closed form reaches seven figures "
        "for nine of ten n or more, refuted if the error is not as said."
    )
    change: ClassVar[str] = "Nothing: it is arithmetic. More figures than seven need more terms."

    def measure(self, budget: Budget, trials: Path, rows: Sequence[Row]) -> list[Measure]:
        found = []
        with localcontext() as context:
            context.prec = DIGITS
            for n in range(1, LARGEST + 1):
                exact = Decimal(math.factorial(n))
                error = (exact - stirling(n)) / exact
                found.append(self.note("relative error times 12n", "no term", float(error * 12 * n), x=n))
                for terms in range(len(TERMS) + 1):
                    same = figures(stirling(n, terms)) == figures(exact)
                    found.append(self.note("seven figures right", f"{terms} terms", float(same), x=n))
        return found

    def decide(self, evidence: Evidence) -> Ruling:
        errors = evidence.measured("relative error times 12n")
        right = evidence.measured("seven figures right", f"{len(TERMS)} terms")
        missed = [round(m["x"] or 0) for m in right if not m["value"]]
        as_said = all(0.9 <= (m["value"] or 0) <= 1.1 for m in errors)
        closed = len(missed) <= 0.1 * len(right)
        key = (
            f"the relative error is about 1/(12n) (1/(12n) times {errors[0]['value']:.3f} at n = 1, "
            f"{errors[9]['value']:.3f} at n = 10); with three terms of the series all seven figures are right for "
            f"every n up to {LARGEST} but {', '.join(map(str, missed))}"
        )
        return Ruling(
            "refuted" if not as_said else "half right" if closed else "supported",
            key,
            [effect("share of n with seven right figures, three terms", 1 - len(missed) / len(right))],
            [{
                "kind": "lines", "x": "n", "y": "share of n with seven right figures", "log_x": True,
                "caption": "Share of all n up to this one whose seven figures are right, by terms of the series",
                "series": [
                    {"name": label, "x": [m["x"] for m in some], "y": _running(some)}
                    for label in dict.fromkeys(m["label"] for m in evidence.measured("seven figures right"))
                    if (some := evidence.measured("seven figures right", label))
                ],
            }],
        )  # fmt: skip


def _running(measures: Sequence[Measure]) -> list[float]:
    """The mean of all values up to each."""
    total, found = 0.0, []
    for i, m in enumerate(measures, 1):
        total += m["value"] or 0.0
        found.append(total / i)
    return found


class Binet(Claim):
    """See its sentences."""

    number: ClassVar[str] = "C10"
    title: ClassVar[str] = "Binet's error"
    quote: ClassVar[str] = (
        "Fibonnaci can also be approximated with Binet’s eq, but this is not the exact solution and the error is "
        "ϕ^n/(sqrt(5)) where ϕ is the golden ratio (1.62), so its already noticeable at even small n and grows"
    )
    hypothesis: ClassVar[str] = "|φⁿ/√5 − F_n| grows with n, and rounding it does not give F_n."
    experiment: ClassVar[str] = (
        "F_n exactly, against φⁿ/√5 in decimals of 100 digits and in double precision, n = 1 … 170."
    )
    rule: ClassVar[str] = (
        "Refuted if the error falls with every n and rounding always gives F_n; supported if it grows; else half right."
    )
    change: ClassVar[str] = "Nothing: it is arithmetic. In double precision the rounding of φ itself ends it."

    def measure(self, budget: Budget, trials: Path, rows: Sequence[Row]) -> list[Measure]:
        found, a, b = [], 0, 1
        with localcontext() as context:
            context.prec = 100
            root = Decimal(5).sqrt()
            golden = (1 + root) / 2
            for n in range(1, LARGEST + 1):
                binet = golden**n / root
                found.append(self.note("error", "exact arithmetic", float(abs(binet - b)), x=n))
                found.append(self.note("rounded right", "exact arithmetic", float(round(binet) == b), x=n))
                double = ((1 + math.sqrt(5)) / 2) ** n / math.sqrt(5)
                found.append(self.note("error", "double precision", float(abs(Decimal(double) - b)), x=n))
                found.append(self.note("rounded right", "double precision", float(round(double) == b), x=n))
                a, b = b, a + b
        return found

    def decide(self, evidence: Evidence) -> Ruling:
        errors = [m["value"] or 0.0 for m in evidence.measured("error", "exact arithmetic")]
        right = [bool(m["value"]) for m in evidence.measured("rounded right", "exact arithmetic")]
        falls = all(later < earlier for earlier, later in pairwise(errors))
        grows = all(later > earlier for earlier, later in pairwise(errors))
        double = evidence.measured("rounded right", "double precision")
        first = next((round(m["x"] or 0) for m in double if not m["value"]), None)
        key = (
            f"the error is at most {max(errors):.3f} and shrinks with every n; rounding gives F_n for every n up to "
            f"{LARGEST}; in double precision until n = {(first or LARGEST + 1) - 1}"
        )
        if not (falls and all(right)):
            way = "grows" if grows else "does not always fall"
            key = f"the error {way}; rounding is right for {sum(right)} of {len(right)} n"
        return Ruling(
            "refuted" if falls and all(right) else "supported" if grows else "half right",
            key,
            [effect("largest error", max(errors)), effect("share rounded right", sum(right) / len(right))],
            [{
                "kind": "lines", "x": "n", "y": "distance from F_n", "log_y": True,
                "caption": "How far φⁿ/√5 is from F_n",
                "series": [
                    {"name": label, "x": [m["x"] for m in some], "y": [m["value"] or None for m in some]}
                    for label in ("exact arithmetic", "double precision")
                    if (some := evidence.measured("error", label))
                ],
            }],
        )  # fmt: skip
