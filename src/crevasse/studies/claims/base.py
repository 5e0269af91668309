"""What a claim is: a sentence of the thesis, sharpened into what data can contradict, and its verdict."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict

from crevasse.stats import Score, score
from crevasse.studies.base import Arm, Budget, Row, arm
from crevasse.studies.measures import Measure

#: What the evidence says of a claim.
Decision = Literal["supported", "refuted", "half right", "undecided"]
DECISIONS: tuple[Decision, ...] = ("supported", "half right", "refuted", "undecided")


#: Share of its ceiling at which a rule counts as found, and share of training answers at which they count as learnt.
FOUND, LEARNT = 0.9, 0.9


class Effect(TypedDict):
    """A figure that the verdict rests on."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int


class Series(TypedDict, total=False):
    """One line or set of points of a picture."""

    name: str
    x: Sequence[Any]
    y: Sequence[Any]
    low: Sequence[float | None]  # of an interval around each y, or around each x of dots
    high: Sequence[float | None]
    marks: bool  # points without a line between them


class Picture(TypedDict, total=False):
    """What decides a claim, as data: the report draws it."""

    kind: Literal["lines", "matrix", "dots"]
    caption: str
    x: str  # what stands on each axis
    y: str
    log_x: bool
    log_y: bool
    series: list[Series]
    rows: list[str]  # of a matrix
    columns: list[str]
    values: list[list[float | None]]


@dataclass(frozen=True)
class Ruling:
    """What came of a claim."""

    decision: Decision
    key: str  # one line with the figure that decides it
    effects: list[Effect]
    pictures: list[Picture]


@dataclass(frozen=True)
class Evidence:
    """What a claim is decided on."""

    rows: Sequence[Row]  # of its own arms, tested
    measures: Sequence[Measure]  # its own
    every: Sequence[Row]  # of all arms of all claims that were run

    def of(self, name: str) -> list[Row]:
        """The seeds of an arm, by its name without the claim's number; those that diverged are left out."""
        return [r for r in self.rows if r["arm"].partition("/")[2] == name and r["status"] == "done"]

    def score(self, name: str, split: str = "random") -> Score | None:
        """Share of right answers on a split (or train), over seeds; None where no seed has one."""
        return score([r[split] for r in self.of(name)])

    def mean(self, name: str, split: str = "random") -> float | None:
        found = self.score(name, split)
        return None if found is None else found["mean"]

    def chance(self, name: str, split: str = "random") -> float:
        """The better of the uniform guess and the majority answer."""
        rows = self.of(name)
        return max([r["chance"] for r in rows] + [r[f"majority_{split}"] or 0.0 for r in rows], default=0.0)

    def found(self, name: str, split: str = "random") -> bool:
        """Was the rule found: is held-out, over seeds, at 0.9 of the ceiling or above?"""
        mean = self.mean(name, split)
        return mean is not None and mean >= FOUND * max(r[f"ceiling_{split}"] or 1.0 for r in self.of(name))

    def ever(self, name: str, split: str = "random") -> bool:
        """Was it found in any seed? One is enough to contradict that nobody finds it."""
        return any((r[split] or 0.0) >= FOUND * (r[f"ceiling_{split}"] or 1.0) for r in self.of(name))

    def tested(self, name: str) -> bool:
        """Does the arm tell anything: was the rule found, or were the training problems learnt without it?"""
        return self.ever(name) or any(r["train"] >= LEARNT for r in self.of(name))

    def measured(self, series: str, label: str | None = None) -> list[Measure]:
        return [m for m in self.measures if m["series"] == series and label in (None, m["label"])]


class Claim(ABC):
    """Base of all claims; one file each. Everything here is fixed before any trial runs."""

    number: ClassVar[str]  # C3
    title: ClassVar[str]  # a few words
    quote: ClassVar[str]  # the sentence of the thesis
    hypothesis: ClassVar[str]  # what it could mean, so that data can contradict it
    experiment: ClassVar[str]  # what is run
    rule: ClassVar[str]  # by which it is decided
    change: ClassVar[str]  # what would change the verdict
    #: Raised when `measure` comes to measure something else.
    version: ClassVar[int] = 1

    def arms(self, budget: Budget) -> list[Arm]:
        """The trials it needs; their names begin with its number (`make`)."""
        return []

    def measure(self, budget: Budget, trials: Path, rows: Sequence[Row]) -> list[Measure]:
        """What is measured besides: on its trained trials, in trials/ID, or by arithmetic."""
        return []

    @abstractmethod
    def decide(self, evidence: Evidence) -> Ruling:
        """The verdict, from the evidence alone."""

    def make(
        self, name: str, title: str, task: str, form: str, model: str, rule: str = "adamw", *, seeds: int, **fields: Any
    ) -> Arm:
        """An arm of this claim, from the short texts of the command line."""
        group = f"{self.number}: {self.title}"
        return arm(f"{self.number}/{name}", title, group, task, form, model, rule, seeds=seeds, **fields)

    def note(
        self, series: str, label: str, value: float | None, *, x: float | None = None, seed: int | None = None
    ) -> Measure:
        """One thing that was measured."""
        return {"claim": self.number, "version": self.version, "series": series, "label": label, "seed": seed, "x": x,
                "value": value}  # fmt: skip


def effect(name: str, found: Score | float | None) -> Effect:
    """A score with its interval, or a bare number."""
    if isinstance(found, dict):
        return {"name": name, "value": found["mean"], "low": found["low"], "high": found["high"], "n": found["n"]}
    return {"name": name, "value": found, "low": None, "high": None, "n": 1}


def share(value: float | None) -> str:
    """.97, 1.00; – for none"""
    return "–" if value is None else f"{value:.2f}".removeprefix("0")


def listed(names: Sequence[str]) -> str:
    """``a, b and c``"""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def scores(
    evidence: Evidence,
    names: Sequence[tuple[str, str]],
    caption: str,
    splits: Sequence[tuple[str, str]] = (("train", "training"), ("random", "held-out")),
) -> Picture:
    """A dot a split for each arm, with its interval over seeds. names, splits: as in the evidence, and in words."""
    series: list[Series] = []
    for split, words in splits:
        found = [evidence.score(name, split) for name, _ in names]
        series.append({
            "name": words, "y": [w for _, w in names], "x": [f["mean"] if f else None for f in found],
            "low": [f["low"] if f else None for f in found], "high": [f["high"] if f else None for f in found],
        })  # fmt: skip
    return {"kind": "dots", "caption": caption, "x": "share right", "y": "", "series": series}
