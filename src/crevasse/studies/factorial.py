"""Did it find factorial's rule, or memorise its answers? The main job of the laboratory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from crevasse.studies.base import Arm, Budget, Row, Study, arm

THESIS = "The thesis' own experiment: n → n!, trained from scratch, character by character"
PRODUCT = "A product of six numbers modulo 13, where there is data enough"
RISING = "Rising and falling products modulo 31"
CONTROLS = "Controls: a reducible task, and nothing to find at all"
RULES = "The same direct learner under other update rules"


@dataclass(frozen=True)
class FactorialStudy(Study):
    """Direct, trace and tool on n!; and on products where data suffices, with controls and four update rules."""

    name: ClassVar[str] = "factorial"
    question: ClassVar[str] = "Given problems and answers only, does a learner find factorial's rule, or memorise?"

    def arms(self, budget: Budget, tried: Sequence[Row] = ()) -> list[Arm]:
        product, mixed, rising, total = (
            "iterated-product",
            "iterated-product:T=1-6",
            "rising-product",
            "sum:p=31,n=2-4+6-8,gap=5,beyond=9-10",
        )
        # Rotary positions: a trace for n = 24 is longer than any that was trained on.
        letters = "transformer:position=rotary,heads=2"
        seeds = {"smoke": 1, "minutes": 3, "full": 5}[budget]
        longer = 3 if budget == "full" else 1  # times as many steps

        def make(name: str, title: str, group: str, task: str, form: str, model: str = "transformer",
                 rule: str = "adamw", *, steps: int, train: int | None = 2000, **more: Any) -> Arm:  # fmt: skip
            more = {"seeds": seeds, "steps": longer * steps, "train": train, **more}
            return arm(name, title, group, task, form, model, rule, **more)

        grid = [
            make("product-recurrent", "recurrent, answers only", PRODUCT, product, "direct", "bilinear", steps=600),
            make("product-trace", "writes every step", PRODUCT, product, "trace", steps=400, batch=64),
            make("product-direct", "answer only", PRODUCT, product, "direct", steps=600),
            make("product-recurrent-mixed", "recurrent, lengths 1–6 mixed", PRODUCT, mixed, "direct", "bilinear",
                 steps=1500, batch=64),
            make("thesis-direct", "answer only", THESIS, "factorial", "direct", letters, steps=250, train=None),
        ]  # fmt: skip
        if budget == "smoke":
            return grid
        return [
            *grid,
            make("product-recurrent-100k", "recurrent, 100,000 examples", PRODUCT, product, "direct", "bilinear",
                 steps=500, batch=512, train=100_000),
            make("product-filler", "thinks in empty tokens", PRODUCT, product, "filler", steps=900, batch=64),
            make("product-looped", "one layer looped six times", PRODUCT, product, "direct", "looped",
                 "adamw:lr=0.006", steps=900, batch=64),
            make("rules-sgd", "sgd", RULES, product, "direct", rule="sgd:momentum=0.9", steps=600),
            make("rules-gaf", "gaf", RULES, product, "direct", rule="gaf", steps=600),
            make("rules-gaf-sign", "gaf-sign", RULES, product, "direct", rule="gaf-sign", steps=600),
            make("random-labels", "random labels", CONTROLS, product, "direct", steps=600, labels="random"),
            make("sum-direct", "sum, answer only", CONTROLS, total, "direct", steps=600, batch=64, train=None),
            make("sum-trace", "sum, writes every step", CONTROLS, total, "trace", steps=400, batch=64, train=None),
            make("rising-direct", "answer only", RISING, rising, "direct", steps=600, batch=64, train=None),
            make("rising-trace", "writes every step", RISING, rising, "trace", steps=400, batch=64, train=None),
            make("rising-filler", "thinks in empty tokens", RISING, rising, "filler", steps=400, batch=64, train=None),
            make("rising-recurrent", "recurrent, thinks in empty tokens", RISING, rising, "filler", "bilinear",
                 steps=600, batch=64, train=None),
            make("rising-looped", "one layer, a loop a factor", RISING, rising, "direct", "looped", steps=400,
                 batch=64, train=None),
            make("thesis-tool", "writes the steps, a calculator multiplies", THESIS, "factorial", "tool", letters,
                 steps=200, train=None),
            make("thesis-trace", "writes every step", THESIS, "factorial", "trace", letters, steps=200, train=None),
        ]  # fmt: skip

    def answer(self, arms: Sequence[dict[str, Any]]) -> str:
        def of(*findings: str) -> list[dict[str, Any]]:
            return [a for a in arms if a["finding"] in findings]

        found, memory = of("rule"), of("memory")
        parts = []
        if found:
            parts.append(f"{_count(found, 'learner')} of {len(arms)} found the rule ({_names(found)})")
        else:
            parts.append(f"none of {len(arms)} learners found the rule")
        if memory:
            parts.append(f"{_count(memory)} memorised the training answers and know nothing beyond ({_names(memory)})")
        if some := of("part"):
            parts.append(f"{_count(some)} found it in part ({_names(some)})")
        if rest := of("nothing", "diverged"):
            parts.append(f"{_count(rest)} learnt too little to tell ({_names(rest)})")
        return "; ".join(parts)[0].upper() + "; ".join(parts)[1:] + "."


_NUMBERS = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)


def _count(arms: Sequence[dict[str, Any]], noun: str = "") -> str:
    n = len(arms)
    word = _NUMBERS[n] if n < len(_NUMBERS) else str(n)
    return f"{word} {noun}{'s' if n != 1 else ''}" if noun else word


def _names(arms: Sequence[dict[str, Any]]) -> str:
    return ", ".join(a["arm"] for a in arms)
