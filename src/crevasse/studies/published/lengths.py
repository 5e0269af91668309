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
#: What the paper reports of its recurrent nets; from where on ours agree; how near to a figure below that is the same.
SOLVED, RIGHT, NEAR = 1.0, 0.99, 0.1


class BeyondLengths(Result):
    """One of its tasks; see its sentences."""

    paper: ClassVar[str] = "Delétang et al. 2023"
    differs: ClassVar[str] = (
        "A GRU in the place of the plain recurrent net; all of width 64, two causal layers for the transformer instead "
        "of five that see the whole word, with rotary positions alone instead of the best of five kinds. A fixed set "
        "of problems instead of fresh ones, which holds out a fifth of all counts; at most 6,000 steps instead of a "
        "million; one learning rate instead of three; longer problems up to 100 instead of 500, and at minutes 1–20 "
        "trained and 21–50 asked; the mean over seeds where the paper gives the best of ten."
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
            learner("gru", f"GRU (paper's RNN: {SOLVED:.0%})", "gru", 0.01, steps),
            learner("lstm", f"LSTM (paper: {SOLVED:.0%})", "lstm", 0.01, steps),
            learner("transformer", f"transformer (paper: {self.transformer:.1%})",
                    "transformer:position=rotary", 0.001, short),
        ]  # fmt: skip

    def checks(self, evidence: Evidence) -> list[Check]:
        def recurrent(name: str, title: str, paper: str) -> Check:
            values = evidence.values(name, "extrapolation")
            return check(f"{title} on longer problems", paper, values, lambda v: v >= RIGHT, figure=SOLVED)

        return [
            recurrent("gru", "GRU", f"{SOLVED:.0%}, an RNN"),
            recurrent("lstm", "LSTM", f"{SOLVED:.0%}"),
            check(
                "transformer on longer problems",
                f"{self.transformer:.1%}",
                evidence.values("transformer", "extrapolation"),
                lambda v: abs(v - self.transformer) <= NEAR,
                figure=self.transformer,
                contrast=True,
            ),
        ]


class ParityLengths(BeyondLengths):
    key: ClassVar[str] = "parity"
    title: ClassVar[str] = "Parity beyond the trained lengths"
    reported: ClassVar[str] = (
        "Trained on lengths up to 40 and asked at 41–500, RNN and LSTM answer all, in every seed; the best transformer "
        "52.0%, where chance is 50%."
    )
    source: ClassVar[str] = (
        "arXiv 2207.02098: sections 4, 5.4 and B.1 of its text; its table as the table of a later paper repeats it."
    )
    task: ClassVar[str] = "parity"
    transformer: ClassVar[float] = 0.520


class CycleLengths(BeyondLengths):
    key: ClassVar[str] = "cycle"
    title: ClassVar[str] = "A count modulo five beyond the trained lengths"
    reported: ClassVar[str] = (
        "Trained on lengths up to 40 and asked at 41–500, RNN and LSTM answer all, in every seed; the best transformer "
        "61.9%, where chance is 20%: more than chance, but it is not solved."
    )
    source: ClassVar[str] = "arXiv 2207.02098: sections 4, 5.4, B.1 and B.3.2 of its text."
    differs: ClassVar[str] = f"Steps of +1 and −1 alone, where the paper has steps of 0 too. {BeyondLengths.differs}"
    task: ClassVar[str] = "cycle"
    transformer: ClassVar[float] = 0.619
