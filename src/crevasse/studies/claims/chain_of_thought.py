"""C5: chain of thought is what rescues it."""

from typing import ClassVar

from crevasse.studies.base import Arm, Budget
from crevasse.studies.claims.base import Claim, Decision, Evidence, Ruling, effect, listed, scores, share

PRODUCT, MIXED = "iterated-product", "iterated-product:T=1-6"
#: Short name, words, task, format, model, rule, steps at `minutes`, batch; the last five write no steps.
WAYS = (
    ("direct", "answer only", PRODUCT, "direct", "transformer", "adamw", 600, 128),
    ("trace", "writes every step", PRODUCT, "trace", "transformer", "adamw", 400, 64),
    ("tool", "a calculator writes each result", PRODUCT, "tool", "transformer", "adamw", 400, 64),
    ("filler", "empty tokens instead", PRODUCT, "filler", "transformer", "adamw", 900, 64),
    ("looped", "one block, looped", PRODUCT, "direct", "looped", "adamw:lr=0.006", 900, 64),
    ("mixed", "transformer, lengths 1–6 mixed", MIXED, "direct", "transformer", "adamw", 900, 64),
    ("recurrent", "recurrent", PRODUCT, "direct", "bilinear", "adamw", 1500, 64),
    ("recurrent-mixed", "recurrent, lengths 1–6 mixed", MIXED, "direct", "bilinear", "adamw", 1500, 64),
)
SPELT, RECURRENT = ("trace", "tool"), ("recurrent", "recurrent-mixed")


class ChainOfThought(Claim):
    """See its sentences."""

    number: ClassVar[str] = "C5"
    title: ClassVar[str] = "Chain of thought is the way out"
    quote: ClassVar[str] = (
        "it is impossible for the model to solve f(n) unless it can smear the computation over n tokens (i.e. via "
        "COT style answering or otherwise)"
    )
    hypothesis: ClassVar[str] = (
        "On a product of six numbers, transformers that write every step answer held-out problems, and none that "
        "writes none does: neither with empty tokens, nor with a looped block, nor with shorter problems among the "
        "examples. A recurrent learner spreads its computation over the tokens that it reads: that is the "
        "sentence's “otherwise”."
    )
    experiment: ClassVar[str] = "Eight learners on 2,000 products of six numbers modulo 13, or of one to six."
    rule: ClassVar[str] = (
        "By seeds that answer .9 or more. Supported if writing steps finds the rule and no transformer without them "
        "does in any seed, half of them or more having learnt the training problems; half right if one does; "
        "refuted if steps are learnt and the rule is not found; else undecided."
    )
    change: ClassVar[str] = "A plain transformer that finds the rule from answers alone, given more data."

    def arms(self, budget: Budget) -> list[Arm]:
        seeds, longer = {"smoke": (1, 1), "minutes": (3, 1), "full": (5, 3)}[budget]
        return [
            self.make(name, words, task, form, model, rule, seeds=seeds, steps=steps * longer, batch=batch, train=2000)
            for name, words, task, form, model, rule, steps, batch in WAYS
            if budget != "smoke" or name in ("direct", "trace", "recurrent-mixed")
        ]

    def decide(self, evidence: Evidence) -> Ruling:
        names = [(w[0], w[1]) for w in WAYS if evidence.of(w[0])]
        silent = [name for name, _ in names if name not in SPELT + RECURRENT]
        spelt = [words for name, words in names if name in SPELT and evidence.found(name)]
        other = [words for name, words in names if name in silent and evidence.ever(name)]
        read = [words for name, words in names if name in RECURRENT and evidence.ever(name)]
        decision: Decision = "undecided"
        if spelt and other:
            decision = "half right"
        elif spelt and 2 * sum(evidence.tested(name) for name in silent) >= max(len(silent), 1):
            decision = "supported"
        elif not spelt and any(evidence.tested(name) for name in SPELT):
            decision = "refuted"
        key = (
            f"with steps, the rule is found by {len(spelt)} of {len(SPELT)} ({listed(spelt) or 'none'}); by "
            f"transformers without, {len(other)} of {len(silent)} ({listed(other) or 'none'}); by recurrence, "
            f"{listed(read) or 'none'}; answer only: {share(evidence.mean('direct'))}"
        )
        return Ruling(
            decision, key, [effect(f"held-out, {words}", evidence.score(name)) for name, words in names],
            [scores(evidence, names, "Share of answers that are right")],
        )  # fmt: skip
