"""What a published result is: what a paper reports, how it is repeated here, and how ours is compared with it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict

from crevasse.stats import Score, score
from crevasse.studies.base import Arm, Budget, Row, arm
from crevasse.studies.measures import Measure

Word = Literal["repeated", "in part", "not repeated"]
WORDS: tuple[Word, ...] = ("repeated", "in part", "not repeated")
#: The first seed. Settings were picked on seed 0, which is therefore not among those that are reported.
SEED = 100


class Check(TypedDict):
    """A figure of the paper, and ours."""

    what: str
    paper: str  # as it is reported
    figure: float | None  # the same, where it is a share
    ours: Score | None  # None: no seed has one
    best: float | None  # of the seeds, the nearest to what the paper claims; never shown without the mean
    agrees: bool
    contrast: bool  # what the result is compared with: by itself it repeats nothing


@dataclass(frozen=True)
class Evidence:
    """What came of one result's own arms."""

    rows: Sequence[Row]
    measures: Sequence[Measure]

    def of(self, name: str) -> list[Row]:
        """The seeds of an arm, by its name without the result's; those that diverged are left out."""
        return [r for r in self.rows if r["arm"].partition("/")[2] == name and r["status"] == "done"]

    def values(self, name: str, split: str) -> list[float]:
        """Share of right answers on a split, a seed each."""
        return [r[split] for r in self.of(name) if r[split] is not None]


class Result(ABC):
    """Base of all results. Everything here is fixed before any trial runs."""

    key: ClassVar[str]  # short: its arms are named after it
    title: ClassVar[str]
    paper: ClassVar[str]
    reported: ClassVar[str]  # the paper's figures, and on what settings
    source: ClassVar[str]  # where these were read
    differs: ClassVar[str]  # our setting, and where it is another
    rule: ClassVar[str]  # by which a figure of ours agrees
    #: Raised when `measure` comes to measure something else.
    version: ClassVar[int] = 1

    @abstractmethod
    def arms(self, budget: Budget) -> list[Arm]:
        """The trials it needs; their names begin with its key (`make`). None: not at this budget."""

    def measure(self, trials: Path, rows: Sequence[Row]) -> list[Measure]:
        """What is measured besides, on its trained trials in trials/ID."""
        return []

    @abstractmethod
    def checks(self, evidence: Evidence) -> list[Check]:
        """The paper's figures and ours, from the evidence alone."""

    def make(self, name: str, title: str, *parts: str, seeds: int, **fields: Any) -> Arm:
        """An arm of this result. parts: task, format, model and rule, as on the command line."""
        task, form, model, rule = parts
        group = f"{self.title} ({self.paper})"
        return arm(f"{self.key}/{name}", title, group, task, form, model, rule, seeds=seeds, seed=SEED, **fields)

    def compare(self, evidence: Evidence) -> dict[str, Any]:
        """What the verdict says of it."""
        checks = self.checks(evidence)
        first = evidence.rows[0]
        return {
            "result": self.key, "title": self.title, "paper": self.paper, "reported": self.reported,
            "source": self.source,
            "differs": self.differs, "rule": self.rule, "task": first["task"],
            "ours": {r["arm"]: f"{r['examples']} examples, {r['steps']} steps, {r['model']}, {r['rule']}"
                     for r in evidence.rows},
            "checks": checks, "word": word(checks),
        }  # fmt: skip


def word(checks: Sequence[Check]) -> Word:
    """Repeated if every figure agrees; not repeated if none does but those of a contrast; in part between."""
    if all(c["agrees"] for c in checks):
        return "repeated"
    return "in part" if any(c["agrees"] and not c["contrast"] for c in checks) else "not repeated"


def check(
    what: str,
    paper: str,
    values: Sequence[float],
    agrees: Callable[[float], bool],
    *,
    figure: float | None = None,
    contrast: bool = False,
    best: Callable[[Sequence[float]], float] = max,
) -> Check:
    """Compare the mean over seeds; without any seed it does not agree. agrees: the mean -> whether it does."""
    ours = score(values)
    return {
        "what": what, "paper": paper, "figure": figure, "ours": ours, "best": best(values) if values else None,
        "agrees": ours is not None and agrees(ours["mean"]), "contrast": contrast,
    }  # fmt: skip
