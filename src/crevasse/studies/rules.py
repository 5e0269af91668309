"""Which update rule finds the rule? All of them on the same benches, with as many tries and passes each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from crevasse.config import config_id
from crevasse.errors import UserError, unknown
from crevasse.studies.base import Arm, Budget, Row, Study
from crevasse.studies.leaderboard.benches import (
    ADD_59,
    CELL,
    CURVE,
    DIGITS,
    RECURSIVE,
    TABLES,
    Bench,
    noisy,
)
from crevasse.studies.leaderboard.board import BASELINE, make_board, split_name
from crevasse.studies.leaderboard.entrants import (
    ON_CURVE,
    ON_LABELS,
    ON_MORE_TABLES,
    ON_TABLES,
    everyone,
    settings,
)
from crevasse.studies.leaderboard.picking import pick
from crevasse.studies.measures import Measure

#: Seeds of the tries; those of the tests begin at 0.
TRIED = 1000
#: What of a config follows from the rule; the bench decides all else.
OF_THE_RULE = ("rule", "steps", "batch", "steer")
NOISY = noisy(DIGITS, 0.5)


@dataclass(frozen=True)
class Stand:
    """A bench, who stands on it, and with how many seeds."""

    bench: Bench
    rules: tuple[str, ...]
    seeds: int


@dataclass(frozen=True)
class RulesStudy(Study):
    """The leaderboard. With rule=my_rule.py a rule of your own stands on every bench beside the others; with
    only=add-59+cell-2000 it is run on those benches alone."""

    name: ClassVar[str] = "rules"
    leading: ClassVar[str | None] = "rule"
    question: ClassVar[str] = "Which update rule finds the rule where the others memorise, and at what cost?"

    rule: str = ""  # a .py file that defines one
    only: str = ""  # benches, with + between; empty: all of the budget

    def stands(self, budget: Budget) -> list[Stand]:
        """Benches in the order in which they run. Raises UserError for a bench that is not in the budget."""
        stands = _stands(budget)
        if self.only:
            wanted = self.only.split("+")
            for name in wanted:
                if name not in [s.bench.name for s in stands]:
                    raise unknown("bench", name, [s.bench.name for s in stands])
            stands = [s for s in stands if s.bench.name in wanted]
        mine = (f"file:{self.rule}",) if self.rule else ()
        return [Stand(s.bench, (*s.rules, *mine), s.seeds) for s in stands]

    def tries(self, budget: Budget) -> list[Arm]:
        benches = {s.bench.name: s.bench for s in _stands(budget)}
        entrants: dict[Bench, dict[str, None]] = {}
        for stand in self.stands(budget):
            tuned = benches[stand.bench.tuned or stand.bench.name]
            entrants.setdefault(tuned, {}).update(dict.fromkeys(stand.rules))
        return [
            Arm(f"{bench.name}/{rule}/{i}", f"{rule}, try {i + 1}", bench.title, bench.config(setting, TRIED), 1)
            for bench, rules in entrants.items()
            for rule in rules
            for i, setting in enumerate(settings(rule, bench.rate))
            if bench.fits(setting)
        ]

    def arms(self, budget: Budget, tried: Sequence[Row] = ()) -> list[Arm]:
        """Each rule at the setting that did best on validation."""
        tries: dict[tuple[str, str], list[Row]] = {}
        for row in tried:
            tries.setdefault(split_name(row["arm"].rpartition("/")[0]), []).append(row)
        found = []
        for stand in self.stands(budget):
            bench = stand.bench
            for rule in stand.rules:
                choices = settings(rule, bench.rate)
                if bench.fits(choices[0]):
                    chosen = choices[pick(tries[bench.tuned or bench.name, rule])]
                    config = bench.config(chosen, 0)
                    found.append(Arm(f"{bench.name}/{rule}", rule, bench.title, config, stand.seeds))
        return found

    def verdict(
        self, budget: Budget, arms: Sequence[dict[str, Any]], rows: Sequence[Row], measures: Sequence[Measure]
    ) -> dict[str, Any]:
        self._require_own(budget, rows)
        board = make_board([s.bench for s in self._known().stands(budget)], rows)
        return {"answer": _headline(board), "board": board}

    def _known(self) -> "RulesStudy":
        """The same without a user's own rule, whose file need not be there to read a report."""
        return replace(self, rule="")

    def _require_own(self, budget: Budget, rows: Sequence[Row]) -> None:
        """Raises UserError unless the rows are those of this leaderboard, each with the hash of its config.

        Of a user's own rule only what the bench decides is looked at: whoever reads a report need not run its file.
        """
        known = self._known()
        benches = {s.bench.name: s.bench for s in _stands(budget)}
        seen = set()
        for row in rows:
            config = json.loads(row["config"])
            if config_id(config) != row["trial"]:
                raise _foreign(row, "the hash of its config is another one")
            if (row["arm"], row["seed"]) in seen:
                raise _foreign(row, "it is there twice")
            seen.add((row["arm"], row["seed"]))
            if "/file:" in row["arm"]:
                bench = benches.get(split_name(row["arm"])[0])
                due = bench.config(BASELINE, row["seed"]).to_json() if bench else {}
                if any(config.get(k) != v for k, v in due.items() if k not in OF_THE_RULE) or not bench:
                    raise _foreign(row, "the leaderboard asks for no such trial")
        tried = [r for r in rows if r["phase"] == "tuning"]
        _match(tried, known.tries(budget))
        _match([r for r in rows if r["phase"] == "test"], known.arms(budget, tried))


def _headline(board: dict[str, Any]) -> str:
    """Who finds the rule in half of the seeds or more."""
    said = {CELL.name: "on the crevasse cell", ADD_59.name: "on a table of sums"}
    parts = []
    for bench in board["benches"]:
        if bench["name"] in said:
            found = [e for e in bench["entries"] if 2 * e["reached"] >= e["seeds"]]
            winners = [e["rule"] for e in found if not e["moves"]]
            names = f" ({', '.join(winners)})" if 0 < len(winners) < 9 else ""
            moved = "".join(f", and {e['rule']} by invariances that it found" for e in found if e["moves"])
            parts.append(
                f"{said[bench['name']]} {len(winners) or 'none'} of {sum(not e['moves'] for e in bench['entries'])} "
                f"rules {'find' if len(winners) > 1 else 'finds'} the rule{names}{moved}"
            )
    text = "; ".join(sorted(parts, key=lambda part: "cell" not in part)) or "neither the cell nor the sums were run"
    return text[:1].upper() + text[1:] + "."


def _match(rows: Sequence[Row], arms: Sequence[Arm]) -> None:
    """Raises UserError unless the rows are the trials of these arms, and trials of users' own rules."""
    expected = {(a.name, c.seed): c.id for a in arms for c in a.trials()}
    for row in rows:
        if "/file:" not in row["arm"] and expected.pop((row["arm"], row["seed"]), None) != row["trial"]:
            raise _foreign(row, "the leaderboard asks for no such trial")
    if expected:
        arm, seed = next(iter(expected))
        raise UserError(f"the evidence lacks {len(expected)} trials (first {arm}, seed {seed}); run the study again")


def _foreign(row: Row, why: str) -> UserError:
    return UserError(
        f"the evidence is not that of this leaderboard: {row['arm']}, seed {row['seed']} ({row['trial']}): {why}; "
        "run the study again"
    )


def _stands(budget: Budget) -> list[Stand]:
    if budget == "smoke":
        table, cell = replace(ADD_59, steps=100), replace(CELL, steps=60)
        return [Stand(table, (BASELINE, "perp"), 1), Stand(cell, (BASELINE, "race"), 1)]
    random = noisy(ADD_59, 1, tuned=ADD_59.name)
    if budget == "minutes":
        return [
            Stand(ADD_59, (*ON_TABLES, "muon"), 3),
            Stand(CELL, (BASELINE, "muon", "grokfast", "race"), 3),
            Stand(random, ON_TABLES, 3),
            Stand(CURVE[1], (BASELINE, "race"), 3),
        ]
    some = tuple(dict.fromkeys((*ON_TABLES, *ON_LABELS, "gaf", "snr", "label-noise", "quantise")))
    return [
        Stand(ADD_59, everyone(), 5),
        Stand(CELL, everyone(), 5),
        Stand(random, some, 5),
        *(Stand(bench, ON_CURVE, 5) for bench in CURVE),
        *(Stand(bench, ON_TABLES, 5) for bench in TABLES[:2]),
        *(Stand(bench, ON_MORE_TABLES, 5) for bench in TABLES[2:]),
        Stand(RECURSIVE, (*ON_LABELS, "race", "invariant"), 5),
        Stand(NOISY, ON_LABELS, 5),
        *(Stand(noisy(DIGITS, share, tuned=NOISY.name), ON_LABELS, 5) for share in (0.25, 1.0)),
    ]
