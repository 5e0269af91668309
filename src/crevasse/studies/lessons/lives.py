"""Lives in a world: what is drawn, and what a block of them measures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crevasse.errors import UserError
from crevasse.lessons.apply import METHODS, TRAINING, Training
from crevasse.lessons.causes import KINDS, Kind, live
from crevasse.lessons.choice import experienced, lesson_of
from crevasse.lessons.judge import Judge
from crevasse.lessons.regret import AFTER, FALSE, calibration, run_worlds
from crevasse.lessons.scopes import THESIS, shape_of
from crevasse.lessons.world import World
from crevasse.seeds import seed_for
from crevasse.studies.measures import Measure

#: Raised when a block or a story comes to measure something else.
VERSION = 1
#: `claim` of the measures.
LIVES, CALIBRATION, STORIES, JUDGED = "lives", "calibration", "stories", "judged"
#: What is kept of each life, method and number of incidents. false: 1 or 0, a lesson was drawn.
KEPT = ("utility", "regret", "over", "under", "disturbed", "false")
#: What is kept of each life and number of incidents whatever the method: was it pure chance, is the most probable scope
#: the cause, and what the posterior gives to no lesson.
OWN = ("chance", "found", "no lesson")
#: Bins of the calibration.
BINS = 10
#: Blocks begin at this seed. What was tried while the lessons were written had small seeds.
FIRST = 1000
#: The share of lives without any cause in a world of one's own.
CHANCE = 0.2


@dataclass(frozen=True)
class Plan:
    """How much is measured. In each block a learner of its own meets `lives` lives, and `believed` more of which only
    its beliefs are looked at."""

    blocks: int
    lives: int
    believed: int
    training: Training = TRAINING
    experience: int = 200


def kinds_of(world: World) -> tuple[Kind, ...]:
    """What causes there are: those of the restaurant where a world has its attributes; else pure chance, and any
    attribute at any level, all as likely."""
    if all(_names(world, kind.named) for kind in KINDS):
        return KINDS
    named = [(a.name, level) for a in world.attributes for level in range(1, a.levels)]
    return (
        Kind("chance", CHANCE, {}),
        *(Kind(f"{name}, level {level}", (1 - CHANCE) / len(named), {name: level}) for name, level in named),
    )


def methods_of(world: World) -> list[str]:
    """The ways to learn; the thesis' fixed augmentations only where a world has its attributes."""
    fixed = {f"augment-{i}": named for i, named in enumerate(THESIS, 1)}
    return [m for m in METHODS if m not in fixed or _names(world, fixed[m])]


def _names(world: World, named: Any) -> bool:
    try:
        shape_of(world, named)
    except UserError:
        return False
    return True


def block(world: World, number: int, plan: Plan) -> list[Measure]:
    """A row for each life, method, number of incidents (x) and `KEPT`; those of `OWN` have the method's place
    empty."""
    seed, kinds = FIRST + number, kinds_of(world)
    rows = run_worlds(
        world, plan.lives, seed, methods_of(world), kinds=kinds, training=plan.training, lessons=plan.experience
    )
    found = []
    for row in rows:
        life = number * plan.lives + row["world"]
        values = {**row, "false": float(row["chance"] and row["false"] > FALSE)}
        found += [note(LIVES, name, row["method"], values[name], x=row["n"], seed=life) for name in KEPT]
        if row["method"] == "nothing":
            own = zip(OWN, (float(row["chance"]), float(row["found"]), row["nothing"]), strict=True)
            found += [note(LIVES, name, "", value, x=row["n"], seed=life) for name, value in own]
    return found + _believed(world, number, plan, kinds)


def _believed(world: World, number: int, plan: Plan, kinds: Sequence[Kind]) -> list[Measure]:
    """Calibration over further lives: x is the bin, the label the number of incidents."""
    seed = FIRST + number
    prior = experienced(world, plan.experience, seed_for(seed, "others"), kinds)
    lives = [live(world, seed_for(seed, f"believed {i}"), kinds) for i in range(plan.believed)]
    found = []
    for n in AFTER:
        for row in calibration(lives, [lesson_of(life, n, prior) for life in lives], BINS):
            at = row.pop("bin")
            found += [note(CALIBRATION, name, str(n), value, x=at, seed=number) for name, value in row.items()]
    return found


def opinions(world: World, plan: Plan, judge: Judge) -> list[Measure]:
    """The lives of the first block once more, with a judge's opinion beside the learner's own: the utility of each
    method, "judged" among them, and what the opinions cost."""
    rows = run_worlds(
        world, plan.lives, FIRST, ("nothing", "common-sense", "oracle"), kinds=kinds_of(world), training=plan.training,
        lessons=plan.experience, judge=judge, asked=plan.lives,
    )  # fmt: skip
    found = [note(JUDGED, "utility", row["method"], row["utility"], x=row["n"], seed=row["world"]) for row in rows]
    costs = [row["cost"] for row in rows if "cost" in row]
    return found + [note(JUDGED, "cost", name, sum(cost[name] for cost in costs)) for name in costs[0]]


def note(
    part: str, series: str, label: str, value: float | None, *, x: float | None = None, seed: int | None = None
) -> Measure:
    """One thing that was measured."""
    return {"claim": part, "version": VERSION, "series": series, "label": label, "seed": seed, "x": x, "value": value}
