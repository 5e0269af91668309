"""C4: the model memorises the few examples."""

from typing import ClassVar

import numpy as np

from crevasse.studies.base import Arm, Budget
from crevasse.studies.claims.base import LEARNT, Claim, Decision, Evidence, Ruling, effect, scores, share

LETTERS = "transformer:position=rotary,heads=2"
#: Short name, words, the split that decides.
CASES = (
    ("thesis", "n! of 14 numbers", "interpolation"),
    ("rising", "rising products mod 31", "random"),
    ("product", "products of six mod 13, 2,000 examples", "random"),
)


class FewExamples(Claim):
    """See its sentences."""

    number: ClassVar[str] = "C4"
    title: ClassVar[str] = "The few examples are memorised"
    quote: ClassVar[str] = (
        "In practice, this program is not learned m times, but instead, the model will only memorize the answers "
        "for the few examples provided to the model, which of course does not generalize to a test set."
    )
    hypothesis: ClassVar[str] = (
        "A transformer that answers directly gets the training answers right and is no better on held-out problems "
        "than a lookup table, the majority answer or the nearest training problem."
    )
    experiment: ClassVar[str] = "The thesis' own 14 factorials, digit by digit; and two products with more examples."
    rule: ClassVar[str] = (
        "A case tells if training is .9 or more; it memorises if held-out is then within .05 of the best of the "
        "three non-learners. Supported if all cases that tell memorise, refuted if none does, else half right; "
        "undecided if fewer than two tell."
    )
    change: ClassVar[str] = "A pretrained model, which has seen factorials before (crevasse study llm-factorial)."

    def arms(self, budget: Budget) -> list[Arm]:
        seeds, longer = {"smoke": (1, 1), "minutes": (3, 1), "full": (5, 3)}[budget]
        return [
            self.make("thesis", CASES[0][1], "factorial", "direct", LETTERS, seeds=seeds, steps=250 * longer),
            self.make("rising", CASES[1][1], "rising-product", "direct", "transformer", seeds=seeds,
                      steps=600 * longer, batch=64),
            self.make("product", CASES[2][1], "iterated-product", "direct", "transformer", seeds=seeds,
                      steps=600 * longer, train=2000),
        ]  # fmt: skip

    def decide(self, evidence: Evidence) -> Ruling:
        effects, told, memorised, parts = [], 0, 0, []
        for name, words, split in CASES:
            train, held_out = evidence.mean(name, "train") or 0.0, evidence.score(name, split)
            rows = evidence.of(name)
            kinds = ("majority", "lookup", "nearest")
            simple = max((float(np.mean([r[f"{k}_{split}"] or 0.0 for r in rows])) for k in kinds if rows), default=0.0)
            mean = held_out["mean"] if held_out else 0.0
            told += train >= LEARNT
            memorised += train >= LEARNT and mean <= simple + 0.05
            effects += [effect(f"{words}: held-out", held_out), effect(f"{words}: best non-learner", simple)]
            parts.append(f"{words}: training {share(train)}, held-out {share(mean)}, a non-learner {share(simple)}")
        decision: Decision = "supported" if memorised == told else "half right" if memorised else "refuted"
        if told < 2:
            decision = "undecided"
        names = [(name, words) for name, words, _ in CASES]
        splits = (("train", "training"), ("random", "held-out, random"), ("interpolation", "held-out, between"))
        return Ruling(
            decision, "; ".join(parts), effects,
            [scores(evidence, names, "Share of answers that are right", splits)],
        )  # fmt: skip
