"""Results of the literature repeated, each with the paper's number, ours, and a word that a rule decides."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from crevasse.errors import UserError, unknown
from crevasse.studies.base import Arm, Budget, Row, Study
from crevasse.studies.measures import Measure
from crevasse.studies.own import require_measures, require_trials
from crevasse.studies.published.base import WORDS, Evidence, Result
from crevasse.studies.published.grokking import Grokking53, Grokking113
from crevasse.studies.published.lengths import CycleLengths, ParityLengths
from crevasse.studies.published.looping import LoopedParity, Overlooping
from crevasse.studies.published.reversing import Reversing

#: In the order of the report.
RESULTS: tuple[Result, ...] = (
    ParityLengths(), CycleLengths(), Grokking53(), Grokking113(), Reversing(), LoopedParity(), Overlooping(),
)  # fmt: skip


@dataclass(frozen=True)
class PublishedStudy(Study):
    """Published results, repeated on a small scale. With only=parity+reversed some are repeated alone.

    Each says where its paper's figures were read.
    """

    name: ClassVar[str] = "published"
    question: ClassVar[str] = "Which results of the literature come out here as well, on a small scale?"

    only: str = ""  # results, with + between; empty: all

    @property
    def results(self) -> list[Result]:
        """Raises UserError for one that there is not."""
        known = [r.key for r in RESULTS]
        wanted = self.only.split("+") if self.only else known
        for key in wanted:
            if key not in known:
                raise unknown("result", key, known)
        return [r for r in RESULTS if r.key in wanted]

    def arms(self, budget: Budget, tried: Sequence[Row] = ()) -> list[Arm]:
        arms = [a for result in self.results for a in result.arms(budget)]
        if not arms:
            raise UserError(f"{self.only} is not repeated at the budget {budget}; at full it is")
        return arms

    def measure(self, budget: Budget, out: Path, rows: Sequence[Row]) -> list[Measure]:
        return [m for result in self.results for m in result.measure(out / "trials", _own(result, rows))]

    def verdict(
        self, budget: Budget, arms: Sequence[dict[str, Any]], rows: Sequence[Row], measures: Sequence[Measure]
    ) -> dict[str, Any]:
        require_trials(self.arms(budget), rows, "these results")
        needed = [
            r.key for r in self.results
            if type(r).measure is not Result.measure and any(row["status"] == "done" for row in _own(r, rows))
        ]  # fmt: skip
        require_measures({r.key: r.version for r in self.results}, needed, measures, "these results")
        compared = [
            result.compare(Evidence(own, [m for m in measures if m["claim"] == result.key]))
            for result in self.results
            if (own := _own(result, rows))
        ]
        return {"answer": _headline(compared), "published": compared}


def _own(result: Result, rows: Sequence[Row]) -> list[Row]:
    return [r for r in rows if r["arm"].partition("/")[0] == result.key]


def _headline(compared: Sequence[dict[str, Any]]) -> str:
    """``Of 6 published results 4 are repeated (parity, …), …``"""
    parts = []
    for word in WORDS:
        keys = [c["result"] for c in compared if c["word"] == word]
        if keys:
            parts.append(f"{len(keys)} {'is' if len(keys) == 1 else 'are'} {word} ({', '.join(keys)})")
    return f"Of {len(compared)} published results " + ", ".join(parts) + "."
