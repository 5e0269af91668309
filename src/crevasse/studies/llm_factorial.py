"""The thesis' experiment on a pretrained language model: does it find n!, or memorise fourteen answers?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from crevasse.spec import require
from crevasse.studies.base import Arm, Budget, Study, arm

THESIS = "n → n!, fine-tuned on 14 problems (1–9 and 15–19)"
SUM = "The reducible control: 1 + … + n, on the same n"
AS_IT_IS = "The model as it is, without training"


@dataclass(frozen=True)
class LlmFactorialStudy(Study):
    """Direct, trace and tool on a pretrained model, its nearest controls, and the model without any training."""

    name: ClassVar[str] = "llm-factorial"
    leading: ClassVar[str | None] = "source"
    question: ClassVar[str] = "Fine-tuned on n → n!, does a language model find the rule, or memorise the answers?"

    source: str = "smollm2-135m"  # any causal language model: a name of `models pull`, a folder, or a hub name

    def __post_init__(self) -> None:
        require(bool(self.source), "llm-factorial needs a model: llm-factorial:smollm2-135m")

    def arms(self, budget: Budget) -> list[Arm]:
        seeds = {"smoke": 1, "minutes": 1, "full": 3}[budget]
        whole, lora = f"pretrained:{self.source}", f"pretrained:{self.source},lora=16"

        def trained(name: str, title: str, group: str, task: str, form: str, model: str, rule: str, steps: int) -> Arm:
            steps = {"smoke": 4, "minutes": steps, "full": steps}[budget]
            return arm(name, title, group, task, form, model, rule, seeds=seeds, train=None, steps=steps, batch=7,
                       chunk=800, probe_every=max(steps // 2, 1))  # fmt: skip

        def as_it_is(name: str, title: str, form: str) -> Arm:
            return arm(name, title, AS_IT_IS, "factorial", form, whole, "sgd", seeds=1, train=None, steps=0)

        grid = [
            trained("direct", "answer only", THESIS, "factorial", "direct", whole, "adamw:lr=0.00005", 80),
            trained("tool", "a calculator multiplies", THESIS, "factorial", "tool:steps=chain", whole,
                    "adamw:lr=0.00005", 40),
        ]  # fmt: skip
        if budget == "smoke":
            return grid
        return [
            *grid,
            trained(
                "trace", "writes every step", THESIS, "factorial", "trace:steps=chain", whole, "adamw:lr=0.00005", 40
            ),
            as_it_is("untrained", "asked as in training", "direct"),
            as_it_is("few-shot", "five solved problems before each", "direct:shots=5,instructions=true"),
            as_it_is("few-shot-tool", "five solved problems, with the calculator", "tool:steps=chain,shots=5"),
            trained("sum-direct", "sum, answer only", SUM, "sum", "direct", lora, "adamw:lr=0.0005", 80),
            trained("sum-tool", "sum, a calculator adds", SUM, "sum", "tool:steps=chain", lora, "adamw:lr=0.0005", 40),
        ]

    def answer(self, arms: Sequence[dict[str, Any]]) -> str:
        by_name = {a["arm"]: a for a in arms}
        parts = []
        for name, does in (("direct", "asked for the answer alone"), ("trace", "writing every step"),
                           ("tool", "with a calculator for the products")):  # fmt: skip
            if a := by_name.get(name):
                parts.append(f"{does}, it {_found(a)}")
        return f"Fine-tuned on 14 values of n!, {self.source} does as follows: " + "; ".join(parts) + "."


def _found(a: dict[str, Any]) -> str:
    verdict = {"rule": "finds the rule", "memory": "memorises", "part": "finds the rule in part"}.get(
        a["finding"], "learns too little to tell"
    )
    new = [s["mean"] for s in a["splits"].values() if s]
    right = "" if not new or a["train"] is None else (
        f" ({100 * a['train']['mean']:.0f}% of the trained problems right, "
        f"{100 * sum(new) / len(new):.0f}% of new ones)"
    )  # fmt: skip
    return verdict + right
