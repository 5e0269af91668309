"""C11: augmentation decides how far a lesson reaches."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import ClassVar

from crevasse.lessons.apply import TRAINING, Training
from crevasse.lessons.reach import reach
from crevasse.lessons.world import Event, World, default_world
from crevasse.stats import Score, score
from crevasse.studies.base import Budget, Row
from crevasse.studies.claims.base import Claim, Decision, Evidence, Picture, Ruling, Series, effect, share
from crevasse.studies.measures import Measure

#: Series of the measures, and in words: is what lies outside of the scope held where it was?
WAYS = {"alone": "the scope's events alone", "replay": "half of each batch replay"}
#: The Jaccard index from which on the learnt scope counts as the one that was spanned.
SAME = 0.9
#: In smoke: does it run?
QUICK = Training(steps=20, memory_steps=30)


def thesis_incident(world: World) -> Event:
    """IHOP, 1 pm, a Saturday, with Francois."""
    return world.event({"place": "IHOP on Main Street", "day": "Saturday", "hour": "1 pm", "companion": "Francois"})


class Augmentation(Claim):
    """See its sentences."""

    number: ClassVar[str] = "C11"
    title: ClassVar[str] = "Augmentation chooses the scope"
    quote: ClassVar[str] = (
        "1) avoid that specific IHOP at 1pm on Saturdays with Francois (this is what backprop does today essentially "
        "if we have no data augs) 2) avoid all IHOPs at 1pm on Saturdays with Francois (this is what backprop does "
        "today if we include data augs to span all IHOPS) 3) even more so, avoid all IHOPs at all times with all "
        "people (this is what backprop does today if we include data augs to span all time and ppl)"
    )
    hypothesis: ClassVar[str] = (
        "A policy that learns from one bad incident, augmented to span a scope, changes its decision on the events of "
        "that scope and on no others, whichever scope it is."
    )
    experiment: ClassVar[str] = (
        "The thesis' incident in a world of 5,376 events, and all 180 scopes that hold it, the thesis' nine among "
        "them. From a policy that approaches everything, one is trained for each scope by batches of its events with "
        "the outcome bad, with nothing else in the batch and with half of it replay; then all events are looked at. "
        "Learnt is what is newly avoided; it is held against the scope by the Jaccard index (shared / in either)."
    )
    rule: ClassVar[str] = (
        "By the index of the middle scope, averaged over seeds: supported if it is .9 or more without replay and with "
        "it, half right if in one of the two, refuted if in neither."
    )
    version: ClassVar[int] = 2
    change: ClassVar[str] = (
        "A policy whose architecture separates the attributes, or a training that stops as soon as the scope is "
        "learnt: what is not in the batch is moved along with what is."
    )

    def measure(self, budget: Budget, trials: Path, rows: Sequence[Row]) -> list[Measure]:
        """Of each scope, in the order of the lattice (x, from 1), how far a lesson reached that was to span it."""
        world = default_world()
        seeds, training = {"smoke": (1, QUICK), "minutes": (4, TRAINING), "full": (20, TRAINING)}[budget]
        found = []
        for seed in range(seeds):
            taught = reach(world, thesis_incident(world), seed, training)
            for way in WAYS:
                for x, row in enumerate((r for r in taught if r["replay"] == (way == "replay")), 1):
                    events = row["events"]
                    changed = row["covered"] * events + row["spilled"] * (world.size - events)
                    values = {name: row[name] for name in ("jaccard", "covered", "spilled")}
                    values |= {"events": events, "changed": changed / world.size, "thesis": row["thesis"]}
                    label = row["scope"]
                    found += [self.note(f"{name}, {way}", label, v, x=x, seed=seed) for name, v in values.items()]
        return found

    def decide(self, evidence: Evidence) -> Ruling:
        middle = {way: score(_middles(evidence, f"jaccard, {way}")) for way in WAYS}
        same = [way for way, of in middle.items() if of and of["mean"] >= SAME]
        decisions: tuple[Decision, ...] = ("refuted", "half right", "supported")
        effects = [effect(f"Jaccard index of the middle scope, {WAYS[way]}", of) for way, of in middle.items()]
        for name, words in (("covered", "the scope that is newly avoided"), ("spilled", "all else that is too")):
            effects += [
                effect(f"share of {words}, middle scope, {WAYS[way]}", score(_middles(evidence, f"{name}, {way}")))
                for way in WAYS
            ]
        effects += [effect(f"share of the scopes with an index of {SAME:g} or more, {WAYS[way]}", _same(evidence, way))
                    for way in WAYS]  # fmt: skip
        alone, replayed = (_mean(middle[way]) for way in WAYS)
        return Ruling(
            decisions[len(same)],
            f"the learnt scope shares {share(alone)} with the spanned one where its events are all that is taught, "
            f"{share(replayed)} where half of each batch is replay (Jaccard index, the middle scope)",
            effects,
            [_numbered(evidence), _spread(evidence)],
        )


def _middles(evidence: Evidence, series: str) -> list[float]:
    """The median over scopes, of each seed."""
    by_seed: dict[int | None, list[float]] = {}
    for m in evidence.measured(series):
        by_seed.setdefault(m["seed"], []).append(m["value"] or 0.0)
    return [median(values) for values in by_seed.values()]


def _same(evidence: Evidence, way: str) -> float | None:
    """The share of the scopes whose mean index over seeds is large enough."""
    by_scope: dict[float | None, list[float]] = {}
    for m in evidence.measured(f"jaccard, {way}"):
        by_scope.setdefault(m["x"], []).append(m["value"] or 0.0)
    return fmean(fmean(v) >= SAME for v in by_scope.values()) if by_scope else None


def _mean(found: Score | None) -> float | None:
    return found["mean"] if found else None


def _numbered(evidence: Evidence) -> Picture:
    """The thesis' own scopes."""
    numbers = {m["label"]: int(m["value"]) for m in evidence.measured("thesis, alone") if m["value"]}
    names = sorted(numbers, key=lambda label: numbers[label])
    series: list[Series] = []
    for way, words in WAYS.items():
        found = [score([m["value"] for m in evidence.measured(f"jaccard, {way}", name)]) for name in names]
        series.append({
            "name": words, "y": [f"{numbers[name]}: {name}" for name in names],
            "x": [f["mean"] if f else None for f in found], "low": [f["low"] if f else None for f in found],
            "high": [f["high"] if f else None for f in found],
        })  # fmt: skip
    return {"kind": "dots", "caption": "The scopes of the thesis: how much the learnt one shares with the spanned one",
            "x": "Jaccard index", "y": "", "series": series}  # fmt: skip


def _spread(evidence: Evidence) -> Picture:
    """All scopes: what was to change, and what did."""
    sizes = dict(sorted((m["x"] or 0, m["value"] or 0.0) for m in evidence.measured("events, alone")))
    series: list[Series] = []
    for way, words in WAYS.items():
        changed: dict[float, list[float]] = {}
        for m in evidence.measured(f"changed, {way}"):
            changed.setdefault(m["x"] or 0, []).append(m["value"] or 0.0)
        series.append({"name": words, "x": [sizes[x] for x in changed], "y": [fmean(v) for v in changed.values()],
                       "marks": True})  # fmt: skip
    ends = [min(sizes.values(), default=1), max(sizes.values(), default=1)]
    series.append({"name": "as spanned", "x": ends, "y": [e / ends[1] for e in ends]})
    return {
        "kind": "lines",
        "caption": f"All {len(sizes)} scopes: how many events each holds, and how many were newly avoided",
        "x": "events of the scope", "y": "share of all events that is newly avoided", "log_x": True, "log_y": True,
        "series": series,
    }  # fmt: skip
