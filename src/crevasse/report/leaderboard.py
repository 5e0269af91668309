"""The page of the leaderboard: two pictures, one table over all benches, one a bench, and how all of it was measured.

Nothing is taken from the verdict's board: it is made again from the evidence, which the study first recognises as its
own.
"""

from collections.abc import Sequence
from typing import Any

from crevasse.catalogue import CURVES
from crevasse.errors import UserError
from crevasse.report import board_figures, page
from crevasse.report.figures import Row, number
from crevasse.studies import EVIDENCE, STUDIES, VERDICT, decide
from crevasse.studies.leaderboard import BASELINE, FOUND
from crevasse.studies.leaderboard.board import ALPHA, split_name
from crevasse.studies.leaderboard.picking import last_exact, passes_to, pick

#: Section of a bench -> its heading.
SECTIONS = {
    "cell": "The crevasse cell: a rule that the architecture holds and gradient descent does not find",
    "tables": "Tables of the grokking literature, half of them held out",
    "recursive": "A recursive family: lengths that were never trained on",
    "labels": "Wrong labels: what is there to memorise",
}
#: The bench whose paths are shown first.
FIRST = "cell-2000"
#: What a rule of no difference, a better and a worse one than the baseline is said to do.
AGAINST = {
    "no difference seen": "no difference seen",
    "sooner": "better: sooner",
    "later": "worse: later, or not at all",
}

Figures = dict[str, Any]


def render(verdict: dict[str, Any], rows: Sequence[Row]) -> str:
    """The page as HTML. rows: all of the evidence. Raises UserError for evidence of something else."""
    made = _decided(verdict, rows)
    tested: dict[str, dict[str, list[Row]]] = {}
    tried: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        test = row["phase"] == "test"
        bench, rule = split_name(row["arm"] if test else row["arm"].rpartition("/")[0])
        (tested if test else tried).setdefault(bench, {}).setdefault(rule, []).append(row)
    board = made["board"]
    benches = [
        _bench(b, f"bench-{i}", tested[b["name"]], tried.get(b["tuned"], {})) for i, b in enumerate(board["benches"])
    ]
    titles = {b["name"]: b["title"] for b in benches}
    pictures = {f"paths-{b['id']}": board_figures.paths(b, tested[b["name"]]) for b in benches}
    curve = board_figures.data_curve(board["benches"])
    if curve:
        pictures["curve"] = curve
    rules = sorted((_rule(r, benches) for r in board["rules"]), key=_difference)
    return page.render(
        "leaderboard.html",
        made,
        rows,
        pictures,
        benches=benches,
        shown=sorted(benches, key=lambda b: b["name"] != FIRST),
        sections=[
            (title, some) for s, title in SECTIONS.items() if (some := [b for b in benches if b["section"] == s])
        ],
        rules=rules,
        standing={word: [r["rule"] for r in rules if r["versus"] and r["versus"]["word"] == word] for word in AGAINST},
        random=[b for b in benches if b["labels"] == "random"],
        curve=curve is not None,
        tries=[(name, titles.get(name, name), _tries(of)) for name, of in tried.items()],
        tests=sum(r["phase"] == "test" for r in rows),
        tuning=sum(r["phase"] == "tuning" for r in rows),
        seeds=sorted({e["seeds"] for b in benches for e in b["entries"]}),
        notes=_notes(made["arms"]),
        baseline=BASELINE,
        found=FOUND,
        alpha=ALPHA,
        against=AGAINST,
    )


# --- is it the evidence of this verdict? -----------------------------------------------------------------------------

_LISTS = tuple(CURVES)
_NUMBERS = ("seed", "steps", "passes", "samples", "seconds", "examples", "chance", "uniform_loss")


def _decided(verdict: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """The verdict as its study gives it on this evidence. Raises UserError."""
    for row in rows:
        page.parsed(row, "config", dict)
        if not all(isinstance(row[c], list) and len(row[c]) == len(row[_LISTS[0]]) for c in _LISTS):
            raise UserError(f"{EVIDENCE} is damaged (the curves of {row['arm']}); run the study again")
        if not all(number(row[c]) is not None for c in _NUMBERS):
            raise UserError(f"{EVIDENCE} is damaged (a number of {row['arm']} is missing); run the study again")
    made = decide(STUDIES.parse(verdict["study"]), verdict["budget"], rows)
    if "board" not in made:
        raise UserError(f"{VERDICT} has a board and is of a study that makes none ({verdict['study']})")
    return made | {"seconds": verdict.get("seconds")}


# --- what the page shows ---------------------------------------------------------------------------------------------


def _bench(bench: Figures, name: str, rows: dict[str, list[Row]], tried: dict[str, list[Row]]) -> Figures:
    """A bench of the board, and what its heading and its table say besides."""
    entries = bench["entries"]
    plain_step = 2 * bench["batch"]  # rows forward and backward of a step that looks once at each row
    told = board_figures.coloured(bench)
    return bench | {
        "id": name,
        "size": bench["train"] or next(iter(rows.values()))[0]["examples"],
        "steps": round(bench["rows"] / plain_step),
        "seeds": sorted({e["seeds"] for e in entries}),
        "tries": max((len(of) for of in tried.values()), default=0),
        "splits": list(dict.fromkeys(split for e in entries for split in e["splits"])),
        "key": [(rule, *of) for rule, of in told.items()],
        "others": len(entries) - len(told),
        "entries": [
            e | {
                "plain_steps": None if e["rows_to"] is None else e["rows_to"] / plain_step,
                "options": _options(e["setting"]),
            }
            for e in entries
        ],
    }  # fmt: skip


def _options(setting: str) -> str:
    """What a setting says besides the name of its rule."""
    return setting if setting.startswith("file:") else setting.partition(":")[2]


def _rule(rule: Figures, benches: Sequence[Figures]) -> Figures:
    on_cell = any(b["section"] == "cell" and e["rule"] == rule["rule"] for b in benches for e in b["entries"])
    return rule | {"on_cell": on_cell}


def _difference(rule: Figures) -> float:
    """What puts the rules into an order that is fair to those which ran on few benches."""
    return rule["versus"]["difference"] if rule["versus"] else 0.0


def _tries(rules: dict[str, list[Row]]) -> list[tuple[str, list[Figures]]]:
    """Of each rule of a bench what it tried, what came of it on validation, and which of it was picked."""
    found = []
    for rule, rows in rules.items():
        best = pick(rows)
        found.append((rule, [
            {"options": _options(r["rule"]), "validation": last_exact(r), "passes": number(passes_to(r)),
             "picked": i == best, "status": r["status"], "trial": r["trial"]}
            for i, r in enumerate(rows)
        ]))  # fmt: skip
    return found


def _notes(arms: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Each note of the trials, and the arms it is of."""
    found: dict[str, list[str]] = {}
    for arm in arms:
        for note in arm["notes"]:
            found.setdefault(note, []).append(arm["arm"])
    return list(found.items())
