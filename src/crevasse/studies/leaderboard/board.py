"""From the trials of the leaderboard to its figures: benches, rules, comparisons. Computed from the evidence alone."""

import json
import math
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from crevasse.probes import LEARNED
from crevasse.rules import RULES
from crevasse.stats import Paired, holm, iqm_score, paired
from crevasse.studies.base import Row
from crevasse.studies.leaderboard.benches import Bench
from crevasse.studies.leaderboard.picking import found_at
from crevasse.tasks import TESTS

#: All others are compared with it.
BASELINE = "adamw"
#: Adjusted p-value up to which a difference is called one.
ALPHA = 0.05

Figures = dict[str, Any]


def split_name(arm: str) -> tuple[str, str]:
    """Bench and rule of an arm's name."""
    bench, _, rule = arm.partition("/")
    return bench, rule


def moves(rule: str) -> bool:
    """Does a rule of the table train on examples that it moves along invariances it found? They are counted apart."""
    return rule in RULES and RULES.parse(rule).changes


def make_board(benches: Sequence[Bench], rows: Sequence[Row]) -> Figures:
    """All figures of the leaderboard.

    -> benches: of each its entries, a rule each, best first; rules: what is said of a rule over all benches.
    """
    tested: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if row["phase"] == "test":
            place, rule = split_name(row["arm"])
            tested.setdefault(place, {}).setdefault(rule, []).append(row)
    found = []
    for bench in benches:
        if bench.name in tested:
            entries = [_entry(rule, of) for rule, of in tested[bench.name].items()]
            _compare(entries, tested[bench.name])
            found.append({
                "name": bench.name, "title": bench.title, "section": bench.section, "labels": bench.labels,
                "noise": bench.noise, "train": bench.train, "rows": bench.rows, "batch": bench.batch,
                "tuned": bench.tuned or bench.name,
                "entries": sorted(entries, key=_remembered if bench.labels == "random" else _standing),
            })  # fmt: skip
    names = list(dict.fromkeys(rule for of in tested.values() for rule in of))
    return {"benches": found, "rules": _overall(names, found, tested)}


def _entry(rule: str, rows: Sequence[Row]) -> Figures:
    """A rule on a bench."""
    reached = [(row, at) for row in rows if (at := found_at(row)) is not None]
    done = [r for r in rows if r["status"] == "done"]

    def at_first(column: str) -> float | None:
        return float(median(float(row[column][at]) for row, at in reached)) if reached else None

    main = next((t for t in TESTS if any(r[t] is not None for r in done)), None)
    splits = {
        t: iqm_score([r[t] if r["status"] == "done" else 0.0 for r in rows])
        for t in TESTS
        if any(r[t] is not None for r in done)
    }
    return {
        "rule": rule,
        "moves": moves(rule),
        "setting": rows[0]["rule"],
        "seeds": len(rows),
        "diverged": len(rows) - len(done),
        "chance": rows[0]["chance"],
        "ceiling": float(np.mean([r[f"ceiling_{main}"] for r in done])) if main else None,
        "train": iqm_score([r["train"] if r["status"] == "done" else 0.0 for r in rows]),
        "splits": splits,
        "held_out": splits.get(main) if main else None,
        "lockstep": iqm_score([r["lockstep"] for r in rows]),
        "s_max": iqm_score([r["s_max"] for r in rows]),
        "learned": bool(median(r["s_max"] or 0.0 for r in rows) >= LEARNED),
        "reached": len(reached),
        "steps_to": at_first("curve_step"),
        "passes_to": at_first("curve_passes"),
        "samples_to": at_first("curve_samples"),
        # Time goes as passes do; the share of the passes is the share of the seconds.
        "seconds_to": float(median(float(r["seconds"]) * _share(r, at) for r, at in reached)) if reached else None,
        "rows_to": float(median(_rows_read(r, at) for r, at in reached)) if reached else None,
        "passes_a_step": float(median(r["passes"] / max(r["steps"], 1) for r in rows)),
        "rows": float(median(r["passes"] * _batch(r) for r in rows)),
        "steps": float(median(r["steps"] for r in rows)),
        "seconds": float(median(r["seconds"] for r in rows)),
    }


def _share(row: Row, at: int) -> float:
    """Of all its own passes, those by a reading."""
    return float(row["curve_passes"][at]) / max(float(row["passes"]), 1e-9)


def _rows_read(row: Row, at: int) -> float:
    """Rows forward plus backward by a reading: passes over batches of whatever size, in one unit for all rules."""
    if not len(row["curve_passes"]):
        return 0.0
    return float(row["curve_passes"][at]) * _batch(row)


def _batch(row: Row) -> int:
    return int(min(json.loads(row["config"])["batch"], row["examples"]))


def _standing(entry: Figures) -> tuple[float, float, float]:
    """Most seeds first, then the soonest, then the best held-out."""
    held = entry["held_out"]
    soon = math.inf if entry["rows_to"] is None else entry["rows_to"]
    return -entry["reached"], soon, -(held["mean"] if held else 0.0)


def _remembered(entry: Figures) -> tuple[bool, float]:
    """Where labels are random there is nothing to find: the least memory first, and last who came to no end."""
    return entry["diverged"] > 0, entry["train"]["mean"] if entry["train"] else math.inf


def _compare(entries: Sequence[Figures], rows: dict[str, list[Row]]) -> None:
    """Each rule with the baseline on the same seeds, by the share of the budget that finding the rule took."""
    for entry in entries:
        differences = [] if entry["rule"] == BASELINE else list(_pairs(rows, entry["rule"]).values())
        entry["versus"] = paired(differences, [0.0] * len(differences)) if differences else None
    _correct(entries)


def _correct(compared: Sequence[Figures]) -> None:
    """Holm's correction for the number of comparisons, and what each of them says. Those that move their examples are a
    family of their own."""
    for family in (True, False):
        some = [c["versus"] for c in compared if c["versus"] and c["moves"] == family]
        for versus, p in zip(some, holm([v["p"] for v in some]), strict=True):
            versus |= {"adjusted": p, "word": _word(p, versus["difference"])}


def _word(adjusted: float, difference: float) -> str:
    return "no difference seen" if adjusted > ALPHA else "sooner" if difference < 0 else "later"


def _cost(row: Row) -> float:
    """What finding the rule cost, as a share of the budget; 2 where it was not found: later than all that were."""
    at = found_at(row)
    if at is None:
        return 2.0
    return _rows_read(row, at) / float(json.loads(row["config"])["rows"])


def _pairs(of: dict[str, list[Row]], name: str) -> dict[int, float]:
    """On a bench, by seed, how much later than the baseline a rule is."""
    base = {r["seed"]: _cost(r) for r in of.get(BASELINE, ())}
    return {r["seed"]: _cost(r) - base[r["seed"]] for r in of.get(name, ()) if r["seed"] in base}


def _versus(benches: Sequence[Figures], tested: dict[str, dict[str, list[Row]]], name: str) -> Paired | None:
    """A rule and the baseline over benches, a pair a bench and seed.

    Sizes of the cell share their problems and their first weights, so that a seed's are one pair: their mean.
    """
    cell: dict[int, list[float]] = {}
    alone: list[float] = []
    for bench in benches:
        for seed, difference in _pairs(tested[bench["name"]], name).items():
            if bench["section"] == "cell":
                cell.setdefault(seed, []).append(difference)
            else:
                alone.append(difference)
    differences = [*(sum(d) / len(d) for d in cell.values()), *alone]
    return paired(differences, [0.0] * len(differences)) if differences else None


def _overall(
    names: Sequence[str], benches: Sequence[Figures], tested: dict[str, dict[str, list[Row]]]
) -> list[Figures]:
    """What is said of each rule over all benches with true labels on which it ran."""
    honest = [b for b in benches if b["labels"] == "true"]
    found = []
    for name in names:
        mine = {b["name"]: e for b in benches for e in b["entries"] if e["rule"] == name}
        clean = [mine[b["name"]] for b in honest if b["name"] in mine]
        seeds = sum(e["seeds"] for e in clean)
        found.append({
            "rule": name,
            "moves": moves(name),
            "benches": len(clean),
            "seeds": seeds,
            "failure_rate": 1 - sum(e["reached"] for e in clean) / seeds if seeds else None,
            "smallest": _smallest(benches, name),
            "random": {b["name"]: mine[b["name"]]["train"] for b in benches
                       if b["labels"] == "random" and b["name"] in mine},
            "passes_a_step": float(median(e["passes_a_step"] for e in mine.values())),
            "slower": _slower(benches, name),
            "versus": None if name == BASELINE else _versus(honest, tested, name),
        })  # fmt: skip
    _correct(found)
    return found


def _smallest(benches: Sequence[Figures], name: str) -> int | None:
    """N*: the least data of the cell on which half of the seeds or more find the rule; None: none that was tried."""
    sizes = [
        b["train"]
        for b in benches
        if b["section"] == "cell"
        for e in b["entries"]
        if e["rule"] == name and 2 * e["reached"] >= e["seeds"]
    ]
    return min(sizes, default=None)


def _slower(benches: Sequence[Figures], name: str) -> float | None:
    """Seconds for the same rows over those of the baseline, the middle of all benches."""
    ratios = []
    for bench in benches:
        of = {e["rule"]: e["seconds"] / e["rows"] for e in bench["entries"] if e["rows"]}
        if name in of and of.get(BASELINE):
            ratios.append(of[name] / of[BASELINE])
    return float(median(ratios)) if ratios else None


def curve(benches: Sequence[Figures], name: str) -> list[tuple[int, Any]]:
    """The data curve of a rule on the cell: N and held-out exact with its interval."""
    return sorted(
        (b["train"], e["held_out"])
        for b in benches
        if b["section"] == "cell"
        for e in b["entries"]
        if e["rule"] == name and e["held_out"]
    )
