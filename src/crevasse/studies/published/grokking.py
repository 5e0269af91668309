"""Modular addition found long after it was memorised (Power et al. 2022, Nanda et al. 2023)."""

from collections.abc import Sequence
from typing import ClassVar

from crevasse.studies.base import Arm, Budget, Row
from crevasse.studies.published.base import Check, Evidence, Result, check

#: Share of right answers that counts as found, and as memorised.
FOUND = 0.9
#: Held-out answers come at least so many times as late as those to training problems; and how near the epoch must be.
LATER, FACTOR = 2, 2


class Grokking(Result):
    """One of its tables; see its sentences."""

    differs: ClassVar[str] = (
        "One layer of width 128 with four heads as Nanda et al. have it, but with layer norms, and no equals sign "
        "after the two numbers. The papers draw the share from all pairs, so that of most sums they train a + b or "
        "b + a; here these stand on the same side of the split, and as many sums are trained: of both orders, "
        "three quarters of the pairs for one half, 51% for 30%. The epoch is read on the validation problems, every "
        "20 epochs; the run ends at twice the paper's epoch."
    )
    rule: ClassVar[str] = (
        f"Late: every seed passes {FOUND:.0%} held-out, at {LATER} times the epoch at which training did or later. "
        f"When: the mean epoch of those that do lies within a factor of {FACTOR} of the paper's."
    )
    modulus: ClassVar[int]
    share: ClassVar[float]  # of the pairs in the paper
    epoch: ClassVar[int]  # the paper's
    told: ClassVar[str]  # the same in words
    seeds: ClassVar[dict[Budget, int]]

    def arms(self, budget: Budget) -> list[Arm]:
        if budget not in self.seeds:
            return []
        shown = 1 - (1 - self.share) ** 2  # of the sums, by a random share of the pairs
        train = int(shown * self.modulus**2)
        epochs = 20 if budget == "smoke" else FACTOR * self.epoch
        return [
            self.make(
                "adamw", f"one-layer transformer (paper: near epoch {self.epoch:,})", f"modular:p={self.modulus}",
                "direct", "transformer:layers=1,width=128", "adamw:lr=0.001,decay=1", seeds=self.seeds[budget],
                steps=epochs, train=train, batch=train, schedule="constant", warmup=10 / epochs,
            )
        ]  # fmt: skip

    def checks(self, evidence: Evidence) -> list[Check]:
        epochs = [epochs_of(r) for r in evidence.of("adamw")]
        late = [float(held is not None and train is not None and held >= LATER * train) for train, held in epochs]
        when = [float(held) for _, held in epochs if held is not None]
        return [
            check(f"seeds that pass {FOUND:.0%} long after training", "all", late, lambda v: v == 1, figure=1),
            check(
                f"epoch at which held-out passes {FOUND:.0%}",
                self.told,
                when,
                lambda v: self.epoch / FACTOR <= v <= self.epoch * FACTOR,
                best=min,
            ),
        ]


class Grokking53(Grokking):
    key: ClassVar[str] = "grokking-53"
    title: ClassVar[str] = "Addition modulo 53 found after it was memorised"
    paper: ClassVar[str] = "after Power et al. 2022"
    told: ClassVar[str] = "near 1,600, no source found"
    reported: ClassVar[str] = (
        "A figure without a source: with half of all pairs and weight decay 1, held-out passes 90% near epoch 1,600."
    )
    source: ClassVar[str] = (
        "The effect is that of arXiv 2201.02177; the figure was handed down to us without its paper, and was not found "
        "in one. Nanda et al. 2023 (appendix of arXiv 2301.05217) report that modulo 53 took them weight decay 5."
    )
    modulus: ClassVar[int] = 53
    share: ClassVar[float] = 0.5
    epoch: ClassVar[int] = 1600
    seeds: ClassVar[dict[Budget, int]] = {"smoke": 1, "minutes": 3, "full": 3}


class Grokking113(Grokking):
    key: ClassVar[str] = "grokking-113"
    title: ClassVar[str] = "Addition modulo 113 found after it was memorised"
    paper: ClassVar[str] = "Nanda et al. 2023"
    told: ClassVar[str] = "around 10,000, nearly 100%"
    differs: ClassVar[str] = (
        f"The paper gives the epoch of nearly 100%, ours is that of {FOUND:.0%}. {Grokking.differs}"
    )
    reported: ClassVar[str] = (
        "With 30% of all pairs and weight decay 1, test accuracy rises to nearly 100% after around 10,000 epochs "
        "of 40,000, over five seeds."
    )
    source: ClassVar[str] = "arXiv 2301.05217: section 3, as two of its readers quote it word for word."
    modulus: ClassVar[int] = 113
    share: ClassVar[float] = 0.3
    epoch: ClassVar[int] = 10_000
    seeds: ClassVar[dict[Budget, int]] = {"full": 3}


def epochs_of(row: Row) -> tuple[int | None, int | None]:
    """The first readings at which training and held-out answers are FOUND; None where they never are."""
    return _first(row, "curve_train_exact"), _first(row, "curve_held_out_exact")


def _first(row: Row, curve: str) -> int | None:
    values: Sequence[float] = row[curve] or ()
    return next((step for step, v in zip(row["curve_step"] or (), values, strict=False) if v >= FOUND), None)
