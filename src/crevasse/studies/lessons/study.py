"""What is a lesson worth? Lives whose cause is known, every way to learn from an incident, no trials."""

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from crevasse.errors import UserError
from crevasse.lessons.apply import Training
from crevasse.lessons.judge import Judge, parse_judge
from crevasse.lessons.world import World, default_world, load_world
from crevasse.stats import Score
from crevasse.studies.base import Arm, Budget, Row, Study
from crevasse.studies.claims.augmentation import WAYS, Augmentation
from crevasse.studies.claims.base import Evidence, listed, share
from crevasse.studies.lessons.figures import SUBJECT, Lives, calibrated, gather, goals, judged, methods_told
from crevasse.studies.lessons.lives import CALIBRATION, JUDGED, LIVES, STORIES, VERSION, Plan, block, opinions
from crevasse.studies.lessons.stories import STORY, stories
from crevasse.studies.measures import Measure, kept

PLANS: dict[str, Plan] = {
    "smoke": Plan(1, 4, 10, Training(steps=20, memory_steps=30), experience=20),
    "minutes": Plan(15, 20, 40),
    "full": Plan(50, 20, 100),
}
#: Numbers of incidents of which the answer tells.
SAID = (1, 3, 10)
#: Whether a goal is met, in words.
WORDS = {True: "met", False: "missed", None: "not measured"}
REACH = Augmentation()
AGAIN = "run the study again (what it has already measured is kept)"


@dataclass(frozen=True)
class LessonsStudy(Study):
    """Hundreds of lives with a known cause, or none: what each way to learn from incidents is worth in them, and how
    far one example reaches. With world=FILE in a world of one's own; the lattice stays that of the thesis' incident.
    With judge=pretrained:MODEL or judge=endpoint:NAME@URL a language model is asked for its opinion in some lives.
    """

    name: ClassVar[str] = "lessons"
    question: ClassVar[str] = "How far should one example reach, and what is a lesson worth that was thought about?"

    world: str = ""  # a TOML file of kinds; empty: the thesis' restaurant
    judge: str = ""  # a language model whose opinion is asked for; empty: none

    def arms(self, budget: Budget, tried: Sequence[Row] = ()) -> list[Arm]:
        return []

    def measure(self, budget: Budget, out: Path, rows: Sequence[Row]) -> list[Measure]:
        """Kept block by block, so that what was measured is not measured again."""
        world, plan = self._world(), PLANS[budget]

        part = partial(kept, out)
        of_lives = [VERSION, asdict(plan), repr(world)]
        found = part(REACH.number, [REACH.version, budget], partial(REACH.measure, budget, out / "trials", ()))
        found += part(STORIES, of_lives, partial(stories, world, plan))
        if self._judge is not None:
            found += part(JUDGED, [*of_lives, self.judge], partial(opinions, world, plan, self._judge))
        for i in range(plan.blocks):
            found += part(f"{LIVES}-{i}", of_lives, partial(block, world, i, plan))
        return found

    def tries(self, budget: Budget) -> list[Arm]:
        """None; but what is wrong with the world or the judge is told before anything is made."""
        self._world()
        _ = self._judge  # made on the first look, and kept
        return []

    @functools.cached_property
    def _judge(self) -> Judge | None:
        return parse_judge(self.judge) if self.judge else None

    def _world(self) -> World:
        return load_world(self.world) if self.world else default_world()

    def verdict(
        self, budget: Budget, arms: Sequence[dict[str, Any]], rows: Sequence[Row], measures: Sequence[Measure]
    ) -> dict[str, Any]:
        self._require_own(budget, rows, measures)
        lives = gather(measures)
        reached = goals(lives)
        return {
            "answer": _answer(lives, reached),
            "lessons": {
                "lives": lives.count,
                "chance": int(lives.of("chance", "", lives.after[0]).sum()),
                "found": [{"n": n, "share": lives.mean(lives.of("found", "", n))} for n in lives.after],
                "no_lesson": [{"n": n, "share": lives.no_lesson(n)} for n in lives.after],
                "after": list(lives.after),
                "goals": reached,
                "best_fixed": {str(n): lives.best_fixed(n) for n in lives.after},
                "methods": methods_told(lives),
                "calibration": calibrated(measures, lives.after),
                "reach": _reach(measures),
                "judge": judged(measures),
                "stories": [_story(m["label"]) for m in measures if m["claim"] == STORIES],
            },
        }

    def _require_own(self, budget: Budget, rows: Sequence[Row], measures: Sequence[Measure]) -> None:
        """Raises UserError unless this is what this version measures, all of it."""
        if rows:
            raise UserError(f"lessons are measured without trials, and here are {len(rows)}; {AGAIN}")
        parts = (LIVES, CALIBRATION, STORIES, *([JUDGED] if self.judge else []))
        versions = {REACH.number: REACH.version} | dict.fromkeys(parts, VERSION)
        for m in measures:
            if versions.get(m["claim"]) != m["version"]:
                raise UserError(f"{m['claim']} was measured by another version ({m['version']}); {AGAIN}")
        if missing := versions.keys() - {m["claim"] for m in measures}:
            raise UserError(f"nothing is there of what was measured for {', '.join(sorted(missing))}; {AGAIN}")
        plan = PLANS[budget]
        lives = len({m["seed"] for m in measures if m["claim"] == LIVES})
        if lives != plan.blocks * plan.lives:
            raise UserError(f"{lives} lives were measured, not {plan.blocks * plan.lives}; {AGAIN}")


def _answer(lives: Lives, reached: Sequence[dict[str, Any]]) -> str:
    """The figures of the goals, and whether they are met."""
    verdicts = [WORDS[g["met"]] for g in reached]
    closed = [share(_mean(lives.gap(SUBJECT, n))) for n in SAID]
    parts = [
        f"After {listed([str(n) for n in SAID])} incidents the common-sense gradient closes {listed(closed)} of the "
        f"gap between learning nothing and knowing the cause (goal: {reached[0]['goal']}, {verdicts[0]})"
    ]
    if lives.fixed:
        best = {n: lives.best_fixed(n) or "" for n in SAID}
        closed = [share(_mean(lives.gap(m, n))) for n, m in best.items()]
        which = list(dict.fromkeys(m.removeprefix("augment-") for m in best.values()))
        parts.append(
            f"the best fixed augmentation closes {listed(closed)} (scope{'s' if len(which) > 1 else ''} "
            f"{listed(which)} of the thesis; goal: {reached[1]['goal']}, {verdicts[1]})"
        )
    false = [share(_mean(lives.false(SUBJECT, n))) for n in SAID]
    chance = int(lives.of("chance", "", lives.after[0]).sum())
    parts.append(
        f"in {listed(false)} of {chance} lives of pure chance it draws a false lesson (goal: {reached[-1]['goal']}, "
        f"{verdicts[-1]})"
    )
    return "; ".join(parts) + "."


def _mean(found: Score | None) -> float | None:
    return found["mean"] if found else None


def _reach(measures: Sequence[Measure]) -> dict[str, Any]:
    """C11 as it is decided, and the lattice that it was measured on: the mean over seeds of each scope."""
    mine = [m for m in measures if m["claim"] == REACH.number]
    ruling = REACH.decide(Evidence([], mine, []))
    scopes: dict[int, dict[str, Any]] = {}
    for m in mine:
        series, _, way = m["series"].partition(", ")
        at = scopes.setdefault(int(m["x"] or 0), {"scope": m["label"], **{w: {} for w in WAYS}})
        at[way].setdefault(series, []).append(m["value"])
    for at in scopes.values():
        for way in WAYS:
            at[way] = {k: None if None in v else sum(v) / len(v) for k, v in at[way].items()}
    return {"claim": REACH.number, "title": REACH.title, "decision": ruling.decision, "key": ruling.key,
            "rule": REACH.rule, "experiment": REACH.experiment,
            "scopes": [scopes[x] for x in sorted(scopes)]}  # fmt: skip


def _story(text: str) -> dict[str, Any]:
    """Raises UserError for what is no story."""
    try:
        story = json.loads(text)
    except ValueError:
        story = None
    if not isinstance(story, dict) or not story.keys() >= STORY:
        raise UserError(f"a story is damaged; {AGAIN}")
    return story
