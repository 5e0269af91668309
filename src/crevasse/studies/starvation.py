"""Must capacity be withheld for a network to find the rule, and how? The crevasse cell starved in many ways."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from crevasse.errors import unknown
from crevasse.landscape import read_place
from crevasse.quotients import quotient_scores
from crevasse.rules import RULES
from crevasse.rules.race import Race
from crevasse.studies.base import Arm, Budget, Row, Study, arm
from crevasse.studies.measures import Measure

BASELINE = "The full-width baseline: AdamW"
WITHHELD = "How capacity is withheld: all units are there, and given back once the steer loss falls"
RACED = "Narrow models raced, and what the race is made of"
FEWER = "How few examples the race needs"
ELSEWHERE = "Where it goes on: longer products, another group, other models"
#: Short names of the groups, by which some can be run alone.
GROUPS = {"baseline": BASELINE, "withheld": WITHHELD, "raced": RACED, "fewer": FEWER, "elsewhere": ELSEWHERE}

CELL = "iterated-product"
#: Rows forward plus rows backward that a training may cost: AdamW's 1500 steps of 256.
ROWS = 768_000
BATCH, RACE_BATCH = 256, 500
#: Most problems that steer.
STEER = 250

#: By what `starve` withholds, in words, and the strengths that are tried.
WAYS = {
    "width": ("units left out", (0.5, 0.8)),
    "rank": ("matrices cut in rank", (0.5, 0.8)),
    "decay": ("weights shrunk", (0.03, 0.1)),
    "precision": ("weights rounded", (0.6, 0.9)),
    "dropout": ("other units left out each step", (0.3, 0.6)),
}

#: Short name, words, task, model, and the options of the race.
PLACES = (
    ("t8", "eight factors", f"{CELL}:T=8,beyond=9-10", "bilinear", ""),
    ("t10", "ten factors", f"{CELL}:T=10,beyond=11-12", "bilinear", ""),
    ("s4-t4", "words of four in S4", "words:group=S4,T=4,gap=,beyond=5-6", "bilinear", ""),
    ("s4-t5", "words of five in S4", "words:group=S4,T=5,gap=,beyond=6-7", "bilinear", ""),
    ("gru-t6", "six factors, a GRU", CELL, "gru", ""),
    ("transformer-t4", "four factors, a transformer", f"{CELL}:T=4,beyond=5-6", "transformer", ":lr=0.03,cells=64"),
    ("transformer-t6", "six factors, a transformer", CELL, "transformer", ":lr=0.03,cells=64"),
)


def learner(
    name: str, title: str, group: str, rule: str, *, seeds: int, train: int = 2000, rows: int = ROWS, seed: int = 0,
    task: str = CELL, model: str = "bilinear",
) -> Arm:  # fmt: skip
    """An arm that may cost so many rows. What a rule sees of `train` problems counts, be it to steer."""
    parsed = RULES.parse(rule)
    steer = min(train // 5, STEER) if parsed.steers else 0
    fields: dict[str, Any] = {"train": train, "steer": steer, "rows": rows, "seed": seed}
    if isinstance(parsed, Race):
        # A round has a schedule of its own. Steps cost less and less; few races still run after so many.
        batch = min(RACE_BATCH, train - steer)
        fields |= {"batch": batch, "steps": 2 * rows // 2 // batch, "schedule": "constant", "warmup": 0.0}
    else:
        batch = min(BATCH, train - steer)
        fields |= {"batch": batch, "steps": math.ceil(rows / 2 / batch)}
    return arm(name, title, group, task, "direct", model, rule, seeds=seeds, **fields)


def adamw(lr: float, decay: float, **more: Any) -> Arm:
    name = f"adamw-lr{_short(lr)}-d{_short(decay)}"
    return learner(name, f"lr {lr:g}, decay {decay:g}", BASELINE, f"adamw:lr={lr:g},decay={decay:g}", **more)


def starved(way: str, strength: float, lr: float, **more: Any) -> Arm:
    name = f"starve-{way}-{_short(strength)}-lr{_short(lr)}"
    title = f"{WAYS[way][0]}: strength {strength:g}, lr {lr:g}"
    return learner(name, title, WITHHELD, f"starve:by={way},strength={strength:g},base.lr={lr:g}", **more)


def _short(number: float) -> str:
    """``.003``"""
    return f"{number:g}".removeprefix("0")


@dataclass(frozen=True)
class StarvationStudy(Study):
    """AdamW, five ways to withhold capacity from all units, and races of narrow models, at equal passes.

    The first three groups may cost the same. What is raced on fewer examples or elsewhere may cost twice as much, and
    so may AdamW beside it. With only=baseline+race-n1000 groups or arms are run alone; the groups are baseline,
    withheld, raced, fewer and elsewhere.
    """

    name: ClassVar[str] = "starvation"
    question: ClassVar[str] = (
        "What makes a full-width network fall into the rule: how is capacity to be withheld, how much, "
        "and on how few examples does it still work?"
    )

    only: str = ""  # groups or arms, with + between; empty: all

    def arms(self, budget: Budget, tried: Sequence[Row] = ()) -> list[Arm]:
        arms = {"smoke": self._smoke, "minutes": self._minutes, "full": self._full}[budget]()
        if not self.only:
            return arms
        wanted = self.only.split("+")
        known = [*GROUPS, *(a.name for a in arms)]
        for name in wanted:
            if name not in known:
                raise unknown("group or arm", name, known)
        return [a for a in arms if a.name in wanted or a.group in [GROUPS.get(name) for name in wanted]]

    def _smoke(self) -> list[Arm]:
        """An eighth of the passes, and a race of a quarter of the models: does everything run?"""
        small: dict[str, Any] = {"rows": ROWS // 8, "seeds": 1}
        return [
            adamw(0.003, 0.1, **small),
            starved("decay", 0.1, 0.03, **small),
            learner("race-cells64", "64 models", RACED, "race:cells=64", **small),
        ]

    def _minutes(self) -> list[Arm]:
        return [
            *(adamw(lr, decay, seeds=3) for lr, decay in ((0.003, 0.1), (0.01, 1), (0.03, 3.3))),
            starved("width", 0.5, 0.01, seeds=3),
            starved("decay", 0.1, 0.03, seeds=3),
            starved("precision", 0.9, 0.01, seeds=3),
            starved("dropout", 0.3, 0.01, seeds=3),
            learner("race-by-train", "ranked by the training loss", RACED, "race:by=train", seeds=3),
            *(_fewer(train, seeds=3) for train in (2000, 1000)),
        ]

    def _full(self) -> list[Arm]:
        rates = (0.003, 0.1), (0.003, 3), (0.01, 1), (0.01, 10), (0.03, 1), (0.03, 3.3), (0.1, 1)
        races = [
            *((f"race-thin{thin}", f"1/{thin} of each width", f"race:thin={thin}") for thin in (8, 16)),
            ("race-by-train", "ranked by the training loss", "race:by=train"),
            ("race-growth1", "one model, no growth", "race:growth=1"),
        ]
        return [
            *(adamw(lr, decay, seeds=5) for lr, decay in rates),
            *(starved(way, strength, lr, seeds=5)
              for way, (_, strengths) in WAYS.items() for strength in strengths for lr in (0.01, 0.03)),
            *(learner(name, title, RACED, rule, seeds=5) for name, title, rule in races),
            *(_fewer(train, seeds=10) for train in (2000, 1000, 500)),
            # Thought of after a race above gave up with rows to spare; so it is asked on seeds that none has seen.
            learner("race-patient-n2000", "2,000 examples, races until the rows are spent", FEWER, "race:patience=100",
                    rows=2 * ROWS, seed=200, seeds=10),
            *(there for place in PLACES for there in _elsewhere(*place)),
        ]  # fmt: skip

    def measure(self, budget: Budget, out: Path, rows: Sequence[Row]) -> list[Measure]:
        """Elsewhere, how much of the product was found: the share of held-out answers in the right coset, by the order
        of the quotient."""
        found: list[Measure] = []
        for row in rows:
            if row["group"] == ELSEWHERE and row["status"] == "done":
                place = read_place(out / "trials" / row["trial"])
                found += [
                    {"claim": "starvation", "version": 1, "series": "quotient", "label": row["arm"],
                     "seed": row["seed"], "x": float(order), "value": value}
                    for order, value in quotient_scores(place.config, place.weights).items()
                ]  # fmt: skip
        return found

    def answer(self, arms: Sequence[dict[str, Any]]) -> str:
        groups: dict[str, list[dict[str, Any]]] = {}
        for a in arms:
            groups.setdefault(a["group"], []).append(a)
        parts = []
        if own := groups.get(BASELINE):
            parts.append(f"AdamW by itself found the rule in {_share(own)} settings")
        if own := groups.get(WITHHELD):
            ways = dict.fromkeys(_way(a) for a in own)
            by = [(way, [a for a in own if _way(a) == way]) for way in ways]
            found = [f"{way} in {_share(some)} settings" for way, some in by if any(map(_found, some))]
            text = f"of {len(ways)} ways to withhold capacity at full width {len(found)} found it"
            parts.append(text + (f" ({', '.join(found)})" if found else ""))
        if own := groups.get(RACED):
            parts.append(
                f"narrow models raced found it in {_share(own)} settings (mean held-out score: {_means(own, 'arm')})"
            )
        if own := groups.get(FEWER):
            parts.append(f"by the number of examples, the race's mean held-out score is {_means(own, 'title')}")
        if own := groups.get(ELSEWHERE):
            raced, plain = ([a for a in own if a["arm"].endswith(end)] for end in ("-race", "-adamw"))
            parts.append(f"elsewhere the race found it in {_share(raced)} settings, AdamW in {_share(plain)}")
        text = "; ".join(parts)
        return text[:1].upper() + text[1:] + "."


def _fewer(train: int, *, seeds: int) -> Arm:
    """A race on so few examples, on data that no other arm saw."""
    return learner(
        f"race-n{train}", f"{train:,} examples", FEWER, "race", train=train, rows=2 * ROWS, seed=100, seeds=seeds
    )


def _elsewhere(short: str, words: str, task: str, model: str, options: str) -> list[Arm]:
    """The race and AdamW on another problem or model."""
    same: dict[str, Any] = {"task": task, "model": model, "rows": 2 * ROWS, "seeds": 3}
    return [
        learner(f"{short}-race", f"{words}, raced", ELSEWHERE, f"race{options}", **same),
        learner(f"{short}-adamw", f"{words}, AdamW", ELSEWHERE, "adamw:decay=1", **same),
    ]


def _way(a: dict[str, Any]) -> str:
    """By what an arm's capacity is withheld."""
    return str(a["arm"].split("-")[1])


def _found(a: dict[str, Any]) -> bool:
    return bool(a["finding"] == "rule")


def _share(arms: Sequence[dict[str, Any]]) -> str:
    """``3 of 7``"""
    return f"{sum(map(_found, arms))} of {len(arms)}"


def _means(arms: Sequence[dict[str, Any]], by: str) -> str:
    """``0.98 for 2,000 examples, 0.61 for 1,000 examples``; where every seed diverged there is no score."""
    scores = [(a[by], a["splits"].get(a["main_split"])) for a in arms]
    return ", ".join(f"{s['mean']:.2f} for {words}" if s else f"none for {words}" for words, s in scores)
