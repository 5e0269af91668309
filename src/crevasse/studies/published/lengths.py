"""Parity and a cycle of five, asked at lengths beyond those that were trained (Delétang et al. 2023)."""

from typing import ClassVar

from crevasse.studies.base import Arm, Budget
from crevasse.studies.published.base import Check, Evidence, Result, check

#: Lengths trained and tested, problems, steps of the recurrent nets, steps of the transformer, seeds.
SIZES: dict[Budget, tuple[str, int, int, int, int]] = {
    "smoke": ("T=1-6,beyond=7-10", 60, 20, 20, 1),
    "minutes": ("T=1-20,beyond=21-50", 2000, 1600, 400, 3),
    "full": ("T=1-40,beyond=41-100", 4000, 6000, 1500, 3),
}
#: What the paper calls solved, and how near ours must come to a figure below that.
RIGHT, NEAR = 0.99, 0.1


class BeyondLengths(Result):
    """One of its tasks; see its sentences."""

    paper: ClassVar[str] = "Delétang et al. 2023"
    differs: ClassVar[str] = (
        "A GRU in the place of the plain recurrent net; all of width 64, two layers for the transformer, with rotary "
        "positions alone. A fixed set of problems instead of fresh ones, which holds out a fifth of all counts; far "
        "fewer steps, one learning rate each; the mean over seeds, not the best. At minutes lengths 1–20 are trained "
        "and 21–50 asked."
    )
    rule: ClassVar[str] = (
        f"On the longer problems the mean of a recurrent net agrees from {RIGHT:.0%} on; that of the transformer "
        f"within {NEAR} of the paper's, which repeats nothing by itself."
    )
    task: ClassVar[str]
    transformer: ClassVar[float]  # the paper's figure

    def arms(self, budget: Budget) -> list[Arm]:
        lengths, train, steps, short, seeds = SIZES[budget]
        task = f"{self.task}:{lengths}"

        def learner(name: str, title: str, model: str, lr: float, steps: int) -> Arm:
            return self.make(name, title, task, "direct", model, f"adamw:lr={lr}", seeds=seeds, steps=steps,
                             train=train, batch=128)  # fmt: skip

        return [
            learner("gru", f"GRU (paper's RNN: {RIGHT:.0%} or more)", "gru", 0.01, steps),
            learner("lstm", f"LSTM (paper: {RIGHT:.0%} or more)", "lstm", 0.01, steps),
            learner("transformer", f"transformer (paper: about {self.transformer:.0%})",
                    "transformer:position=rotary", 0.001, short),
        ]  # fmt: skip

    def checks(self, evidence: Evidence) -> list[Check]:
        def longer(name: str) -> list[float]:
            return evidence.values(name, "extrapolation")

        return [
            check("GRU on longer problems", f"{RIGHT:.0%} or more (RNN)", longer("gru"), lambda v: v >= RIGHT),
            check("LSTM on longer problems", f"{RIGHT:.0%} or more", longer("lstm"), lambda v: v >= RIGHT),
            check(
                "transformer on longer problems",
                f"about {self.transformer:.0%}",
                longer("transformer"),
                lambda v: abs(v - self.transformer) <= NEAR,
                contrast=True,
            ),
        ]


class ParityLengths(BeyondLengths):
    key: ClassVar[str] = "parity"
    title: ClassVar[str] = "Parity beyond the trained lengths"
    reported: ClassVar[str] = (
        "Trained on lengths up to 40 and asked at 41–100, RNN and LSTM answer 99% or more, a transformer about 50%, "
        "which is chance."
    )
    task: ClassVar[str] = "parity"
    transformer: ClassVar[float] = 0.5


class CycleLengths(BeyondLengths):
    key: ClassVar[str] = "cycle"
    title: ClassVar[str] = "A count modulo five beyond the trained lengths"
    reported: ClassVar[str] = (
        "Trained on lengths up to 40 and asked at 41–100, RNN and LSTM answer 99% or more modulo five, a transformer "
        "about 20%, which is chance."
    )
    differs: ClassVar[str] = f"Steps of +1 and −1 alone, on a cycle of five. {BeyondLengths.differs}"
    task: ClassVar[str] = "cycle"
    transformer: ClassVar[float] = 0.2
