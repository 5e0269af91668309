"""The thesis' experiment on a pretrained language model: does it find n!, or memorise fourteen answers?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from crevasse.studies.base import Arm, Budget, Row, Study, arm

THESIS = "n → n!, fine-tuned on 14 problems (1–9 and 15–19)"
SUM = "The reducible control: n + … + 1, on the same n"
AS_IT_IS = "The model as it is, without training"

#: Every arm reads the same sentence first, and numbers of two digits at least.
_TEXT = "instructions=true,pad=2"
#: Adapters of low rank, which have little room to memorise in, and a rate that suits them.
_ADAPTERS, _RULE = "lora=2", "adamw:lr=0.001"


@dataclass(frozen=True)
class LlmFactorialStudy(Study):
    """Direct, trace and tool on a pretrained model, its nearest controls, and the model without any training."""

    name: ClassVar[str] = "llm-factorial"
    leading: ClassVar[str | None] = "source"
    question: ClassVar[str] = "Fine-tuned on n → n!, does a language model find the rule, or memorise the answers?"

    source: str = "smollm2-135m"  # any causal language model: a name of `models pull`, a folder, or a hub name

    def arms(self, budget: Budget, tried: Sequence[Row] = ()) -> list[Arm]:
        seeds = {"smoke": 1, "minutes": 1, "full": 3}[budget]
        model = f"pretrained:{self.source}"

        def trained(name: str, title: str, group: str, task: str, form: str, *, seeds: int = seeds,
                    steps: int = 50) -> Arm:  # fmt: skip
            steps = 4 if budget == "smoke" else steps
            return arm(name, title, group, task, form, f"{model},{_ADAPTERS}", _RULE, seeds=seeds,
                       train=None, steps=steps, batch=7, chunk=800, probe_every=max(steps // 3, 1))  # fmt: skip

        def as_it_is(name: str, title: str, form: str) -> Arm:
            return arm(name, title, AS_IT_IS, "factorial", form, model, "sgd", seeds=1, train=None, steps=0)

        direct, trace, tool = f"direct:{_TEXT}", f"trace:steps=chain,{_TEXT}", f"tool:steps=chain,{_TEXT}"
        grid = [
            trained("direct", "answer only", THESIS, "factorial", direct, steps=200),
            trained("tool", "a calculator multiplies", THESIS, "factorial", tool),
        ]
        if budget == "smoke":
            return grid
        return [
            *grid,
            trained("trace", "writes every step", THESIS, "factorial", trace),
            as_it_is("untrained", "asked as in training", direct),
            as_it_is("few-shot", "five solved problems before each", f"{direct},shots=5"),
            as_it_is("few-shot-tool", "five solved problems, with the calculator", f"{tool},shots=5"),
            trained("sum-direct", "sum, answer only", SUM, "sum", direct, steps=200, seeds=1),
            trained("sum-tool", "sum, a calculator adds", SUM, "sum", tool, seeds=1),
        ]

    def answer(self, arms: Sequence[dict[str, Any]]) -> str:
        by_name = {a["arm"]: a for a in arms}
        parts = [
            f"{does} it {_found(by_name[name])}"
            for name, does in (("direct", "asked for the answer alone"), ("trace", "writing every step itself"),
                               ("tool", "with a calculator for the products"))
            if name in by_name
        ]  # fmt: skip
        return f"Fine-tuned on 14 values of n!, {self.source}: " + "; ".join(parts) + "."


def _found(a: dict[str, Any]) -> str:
    """``memorises (100% of the trained problems right, 0% of new ones)``"""
    words = {"rule": "finds the rule", "memory": "memorises", "part": "finds the rule in part"}
    new = [s["mean"] for s in a["splits"].values() if s]
    found = words.get(a["finding"], "learns too little to tell")
    if not new or a["train"] is None:
        return found
    return f"{found} ({a['train']['mean']:.0%} of the trained problems right, {sum(new) / len(new):.0%} of new ones)"
