"""The claims of the thesis, each decided by an experiment that could have gone otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from crevasse.errors import unknown
from crevasse.studies.base import Arm, Budget, Row, Study
from crevasse.studies.claims.augmentation import Augmentation
from crevasse.studies.claims.base import DECISIONS, Claim, Evidence
from crevasse.studies.claims.blame import Blame
from crevasse.studies.claims.chain_of_thought import ChainOfThought
from crevasse.studies.claims.closed_forms import Binet, Stirling
from crevasse.studies.claims.depth import Depth
from crevasse.studies.claims.explosion import Explosion
from crevasse.studies.claims.few_examples import FewExamples
from crevasse.studies.claims.irreducible import Irreducible
from crevasse.studies.claims.one_to_three import OneToThree
from crevasse.studies.claims.sharpness import Sharpness
from crevasse.studies.claims.step_ratio import StepRatio
from crevasse.studies.claims.structure import Structure
from crevasse.studies.measures import Measure, kept
from crevasse.studies.own import require_measures, require_trials

#: In the order of the report. A claim joins with a file and a line here.
CLAIMS: tuple[Claim, ...] = (
    Structure(), Irreducible(), Depth(), FewExamples(), ChainOfThought(), Sharpness(), Explosion(), StepRatio(),
    Stirling(), Binet(), Augmentation(), OneToThree(), Blame(),
)  # fmt: skip


@dataclass(frozen=True)
class ClaimsStudy(Study):
    """What the thesis says, sentence by sentence. With only=C3+C6 some claims are decided alone."""

    name: ClassVar[str] = "claims"
    question: ClassVar[str] = "Which sentences of the thesis stand, once each is made an experiment?"

    only: str = ""  # claims, with + between; empty: all

    @property
    def claims(self) -> list[Claim]:
        """Raises UserError for one that there is not."""
        known = {c.number: c for c in CLAIMS}
        wanted = [w.upper() for w in self.only.split("+")] if self.only else list(known)
        for number in wanted:
            if number not in known:
                raise unknown("claim", number, known)
        return [c for c in CLAIMS if c.number in wanted]

    def arms(self, budget: Budget, tried: Sequence[Row] = ()) -> list[Arm]:
        return [a for claim in self.claims for a in claim.arms(budget)]

    def measure(self, budget: Budget, out: Path, rows: Sequence[Row]) -> list[Measure]:
        """Kept claim by claim beside the trials, so that what was measured is not measured again."""
        found: list[Measure] = []
        for claim in self.claims:
            if type(claim).measure is Claim.measure:
                continue
            own = _own(claim, rows)
            made_of = [claim.version, budget, sorted(r["trial"] for r in own)]
            found += kept(out, claim.number, made_of, partial(_measured, claim, budget, out / "trials", own))
        return found

    def verdict(
        self, budget: Budget, arms: Sequence[dict[str, Any]], rows: Sequence[Row], measures: Sequence[Measure]
    ) -> dict[str, Any]:
        require_trials(self.arms(budget), rows, "these claims")
        needed = [c.number for c in self.claims if type(c).measure is not Claim.measure]
        require_measures({c.number: c.version for c in self.claims}, needed, measures, "these claims")
        rulings = []
        for claim in self.claims:
            mine = [m for m in measures if m["claim"] == claim.number]
            ruling = claim.decide(Evidence(_own(claim, rows), mine, rows))
            rulings.append({
                "claim": claim.number, "title": claim.title, "quote": claim.quote, "hypothesis": claim.hypothesis,
                "experiment": claim.experiment, "rule": claim.rule, "change": claim.change,
                "decision": ruling.decision, "key": ruling.key, "effects": ruling.effects,
                "pictures": ruling.pictures, "arms": [a["arm"] for a in arms if _number(a["arm"]) == claim.number],
            })  # fmt: skip
        return {"answer": _headline(rulings), "claims": rulings}


def _measured(claim: Claim, budget: Budget, trials: Path, rows: Sequence[Row]) -> list[Measure]:
    """That there was nothing to measure is worth keeping too."""
    return claim.measure(budget, trials, rows) or [claim.note("nothing", "", None)]


def _number(arm: str) -> str:
    """Of the claim that an arm belongs to."""
    return arm.partition("/")[0]


def _own(claim: Claim, rows: Sequence[Row]) -> list[Row]:
    return [r for r in rows if _number(r["arm"]) == claim.number]


def _headline(rulings: Sequence[dict[str, Any]]) -> str:
    """``Of 11 claims 2 are supported (C4, C5), …``"""
    parts = []
    for decision in DECISIONS:
        which = [r["claim"] for r in rulings if r["decision"] == decision]
        if which:
            parts.append(f"{len(which)} {'is' if len(which) == 1 else 'are'} {decision} ({', '.join(which)})")
    return f"Of {len(rulings)} claims " + ", ".join(parts) + "."
