"""C1: what has a structure that problems share can be learnt from pairs."""

from typing import ClassVar

from crevasse.studies.base import Arm, Budget
from crevasse.studies.claims.base import Claim, Decision, Evidence, Ruling, effect, listed, scores, share

#: Short name, words.
STRUCTURED = (
    ("copy", "copying six symbols"),
    ("add-59", "a + b mod 59, half of the table"),
    ("reversed", "adding decimal numbers, last digit first"),
    ("sum", "arithmetic series mod 31"),
)
CONTROL = "random"


class Structure(Claim):
    """See its sentences."""

    number: ClassVar[str] = "C1"
    title: ClassVar[str] = "Shared structure is learnable"
    quote: ClassVar[str] = (
        "LLMs are hypothesized to have the capacity to map between ANY arbitrary sequences (seq2seq), provided that "
        "a meaningful underlying structure exists between the input sequences and output sequences."
    )
    hypothesis: ClassVar[str] = (
        "From pairs alone, learners answer held-out problems of tasks whose problems share a structure with no "
        "recursion needed, and none where the answers are shuffled."
    )
    experiment: ClassVar[str] = (
        "Copying, a table of sums modulo 59, addition of decimal numbers and arithmetic series, each answered "
        "directly; and the table of sums with shuffled answers."
    )
    rule: ClassVar[str] = (
        "Supported if held-out is found on all of them, half right if on some, refuted if on none; undecided if the "
        "shuffled answers were not learnt, or were found on held-out problems beyond .1 of chance: then something "
        "leaks."
    )
    change: ClassVar[str] = "More data and longer training for the tasks on which it failed; other models."

    def arms(self, budget: Budget) -> list[Arm]:
        seeds = {"smoke": 1, "minutes": 3, "full": 5}[budget]
        longer = 3 if budget == "full" else 1
        tuned = "adamw:lr=0.03,decay=3"
        return [
            self.make("copy", STRUCTURED[0][1], "copy:T=6,p=10", "direct", "transformer", seeds=seeds,
                      steps=500 * longer, train=5000),
            self.make("add-59", STRUCTURED[1][1], "modular:p=59", "direct", "mlp", tuned, seeds=seeds, steps=600,
                      batch=1740, train=1740),
            self.make("reversed", STRUCTURED[2][1], "addition:digits=3,beyond=4", "direct:notation=reversed",
                      "transformer", seeds=seeds, steps=1000 * longer, train=20_000),
            self.make("sum", STRUCTURED[3][1], "sum:p=31,n=2-4+6-8,gap=5,beyond=9-10", "direct", "transformer",
                      "adamw:decay=1", seeds=seeds, steps=1000 * longer, batch=256, train=None),
            self.make(CONTROL, "the table of sums, answers shuffled", "modular:p=59", "direct", "mlp", tuned,
                      seeds=seeds, steps=600, batch=1740, train=1740, labels="random"),
        ]  # fmt: skip

    def decide(self, evidence: Evidence) -> Ruling:
        found = [words for name, words in STRUCTURED if evidence.found(name)]
        missed = [words for name, words in STRUCTURED if not evidence.found(name)]
        shuffled = evidence.score(CONTROL)
        sound = evidence.tested(CONTROL) and shuffled is not None and shuffled["mean"] <= evidence.chance(CONTROL) + 0.1
        decision: Decision = "refuted" if not found else "half right" if missed else "supported"
        if not sound:
            decision = "undecided"
        key = f"held-out problems are answered in {listed(found) or 'none of the tasks'}"
        if missed:
            worst = [f"{words}: {share(evidence.mean(name))}" for name, words in STRUCTURED if words in missed]
            key += f", not in {listed(worst)}"
        key += f"; with shuffled answers in {share(shuffled['mean'] if shuffled else None)}"
        names = [*STRUCTURED, (CONTROL, "answers shuffled")]
        return Ruling(
            decision,
            key,
            [effect(f"held-out, {words}", evidence.score(name)) for name, words in names],
            [scores(evidence, names, "Share of answers that are right, training and held-out")],
        )
