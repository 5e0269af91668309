"""C2: recursive, irreducible and not spelt out means not learnable."""

from typing import ClassVar

from crevasse.studies.base import Arm, Budget
from crevasse.studies.claims.base import Claim, Decision, Evidence, Picture, Ruling, effect, listed, share

#: Short name, words, text, whether a closed form or a shortcut that adds up is known, whether a step is a token read,
#: and training problems at `full` (of parity and of x² + c there are not more).
TASKS = (
    ("parity", "parity", "parity:T=1-12,beyond=13-16", True, True, 6000),
    ("product", "products mod 13", "iterated-product:T=1-4+6,gap=5,beyond=7-8", True, True, 20_000),
    ("affine", "fresh affine maps mod 11", "affine:maps=fresh", False, True, 20_000),
    ("s5", "words in S5", "words:group=S5", False, True, 20_000),
    ("quadratic", "x → x² + c", "quadratic", False, False, 6000),
)
#: Those that write no steps and have no recurrence.
PLAIN = ("direct", "filler")
#: Short name, words, format, model, rule.
LEARNERS = (
    ("direct", "transformer, answer only", "direct", "transformer", "adamw"),
    ("filler", "transformer, empty tokens", "filler", "transformer", "adamw"),
    ("trace", "transformer, writes every step", "trace", "transformer", "adamw"),
    ("recurrent", "recurrent", "direct", "bilinear", "adamw"),
    ("looped", "one block, a loop a step", "direct", "looped", "adamw:lr=0.006"),
)
#: Tasks of long sequences. They have one seed where time is short, as have loops.
LONG = ("parity", "affine")
SPLITS = (("random", "R"), ("interpolation", "G"), ("extrapolation", "X"))


class Irreducible(Claim):
    """See its sentences."""

    number: ClassVar[str] = "C2"
    title: ClassVar[str] = "Recursive, irreducible, not spelt out"
    quote: ClassVar[str] = (
        "if the problem 1) requires recursive computation, 2) is not “reducible” to a simpler subproblem […], and "
        "3) is not broken down for the model via COT (chain of thought) prompting during training, LLMs can not "
        "find the mapping between input and output sequences"
    )
    hypothesis: ClassVar[str] = (
        "Of fresh affine maps, words in S5 and x → x² + c no learner that writes no steps answers held-out "
        "problems, while the one that writes them does."
    )
    experiment: ClassVar[str] = (
        "Five recursive tasks, two of them reducible, by five learners, on the same problems of mixed lengths: "
        "held-out problems (R), a held-out length between (G) and longer ones (X)."
    )
    rule: ClassVar[str] = (
        "By seeds that answer .9 or more. Refuted if a transformer without recurrence and without steps finds one "
        "of the three irreducible tasks, or if two of three are found without steps; half right if one is, by "
        "recurrence; supported if none is, two or more learners without steps learnt the training problems of each, "
        "and with steps one or more is found; else undecided."
    )
    change: ClassVar[str] = "More data, longer training, other learners: it is a claim about all of them."

    def arms(self, budget: Budget) -> list[Arm]:
        seeds, longer = {"smoke": (1, 0.1), "minutes": (2, 1), "full": (3, 2)}[budget]
        return [
            self.make(
                f"{task}-{learner}", f"{title}, {how}", text, "filler" if model == "bilinear" and not listing else form,
                model, rule, seeds=1 if budget == "minutes" and (task in LONG or learner == "looped") else seeds,
                steps=round(900 * longer), train=most if budget == "full" else 4000,
            )
            for task, title, text, _, listing, most in TASKS
            for learner, how, form, model, rule in LEARNERS
        ]  # fmt: skip

    def decide(self, evidence: Evidence) -> Ruling:
        hard = [(name, title) for name, title, _, reducible, *_ in TASKS if not reducible]
        silent = [name for name, *_ in LEARNERS if name != "trace"]
        found = {
            name: [how for learner, how, *_ in LEARNERS if learner in silent and evidence.ever(f"{name}-{learner}")]
            for name, _ in hard
        }
        learnt = {name: sum(evidence.tested(f"{name}-{learner}") for learner in silent) for name, _ in hard}
        spelt = [title for name, title in hard if evidence.ever(f"{name}-trace")]
        plain = [title for name, title in hard if any(evidence.ever(f"{name}-{learner}") for learner in PLAIN)]
        some = [title for name, title in hard if found[name]]
        decision: Decision = "undecided"
        if plain or len(some) >= 2:
            decision = "refuted"
        elif some:
            decision = "half right"
        elif spelt and min(learnt.values()) >= 2:
            decision = "supported"
        best = max((evidence.mean(f"{name}-direct") or 0.0 for name, _ in hard), default=0.0)
        counts = [f"{learnt[name] or 'none'} ({title})" for name, title in hard]
        key = (
            f"without steps, {listed([f'{title} by {listed(found[n])}' for n, title in hard if found[n]]) or 'none'} "
            f"of the irreducible tasks {'is' if len(some) < 2 else 'are'} found (the plain transformer reaches "
            f"{share(best)} at best); with every step written, {listed(spelt) or 'none'}; "
            f"of the {len(silent)} learners without steps, training problems were learnt by {listed(counts)}"
        )
        return Ruling(
            decision,
            key,
            [
                effect(f"{title}, {how}", evidence.score(f"{name}-{learner}"))
                for name, title in hard
                for learner, how, *_ in LEARNERS
            ],
            [matrix(evidence)],
        )


def matrix(evidence: Evidence) -> Picture:
    """Task and split against learner: the share of right answers."""
    splits = {
        name: [(s, w) for s, w in SPLITS if any(evidence.mean(f"{name}-{x[0]}", s) is not None for x in LEARNERS)]
        for name, *_ in TASKS
    }
    cells = [(name, title, split, word) for name, title, *_ in TASKS for split, word in splits[name]]
    return {
        "kind": "matrix",
        "caption": "Share of held-out answers that are right: held-out problems (R; of parity whole counts), a length "
        "between (G), longer ones (X)",
        "x": "", "y": "",
        "columns": [how for _, how, *_ in LEARNERS],
        "rows": [f"{title} · {word}" for _, title, _, word in cells],
        "values": [[evidence.mean(f"{name}-{learner}", split) for learner, *_ in LEARNERS]
                   for name, _, split, _ in cells],
    }  # fmt: skip
