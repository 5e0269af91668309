"""The tables of question.md, from the evidence that is committed: `python docs/tables.py` writes them anew.

tests/test_question.py holds the page to what stands here, and each of its sentences with a figure to the evidence.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from crevasse.studies import STUDIES, decide, read_evidence

HERE = Path(__file__).parent
PAGE, EVIDENCE = HERE / "question.md", HERE.parent / "evidence"

Figures = dict[str, Any]


def verdict(name: str, study: str, budget: str = "full") -> Figures:
    """What the committed evidence says, worked out again from its rows."""
    return decide(STUDIES.parse(study), budget, read_evidence(EVIDENCE / name / "evidence.parquet"))


def rules() -> Figures:
    """Of the leaderboard, as far as it has been run."""
    return verdict("rules-part", "rules:only=add-59+cell-2000+add-59-random+cell-1000")


def starvation() -> Figures:
    """Of the study of starvation, as far as it has been run."""
    return verdict("starvation-part", "starvation:only=baseline+withheld+fewer")


def bench(board: Figures, name: str) -> list[Figures]:
    """The entries of a bench, best first."""
    found: list[Figures] = next(b["entries"] for b in board["benches"] if b["name"] == name)
    return found


def share(value: Any) -> str:
    """.08, 1.00, −.40; – for none"""
    if value is None:
        return "–"
    text = f"{abs(value):.2f}".removeprefix("0")
    return f"−{text}" if value < 0 and float(text) else text


def score(value: Figures | None) -> str:
    """A middle with its interval."""
    if value is None:
        return "–"
    return f"{share(value['mean'])} [{share(value['low'])}–{share(value['high'])}]"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _sums() -> str:
    entries = [e for e in bench(rules()["board"], "add-59") if e["reached"]]
    return table(
        ["rule", "seeds that found it", "steps' worth of passes to 95%", "lockstep", "worst held-out loss first"],
        [
            [f"`{e['rule']}`", f"{e['reached']} of {e['seeds']}", f"{e['rows_to'] / 2 / 1740:.0f}",
             score(e["lockstep"]), "no" if e["lockstep"]["mean"] >= 0 else "yes"]
            for e in entries
        ],
    )  # fmt: skip


def _cell() -> str:
    entries = bench(rules()["board"], "cell-2000")
    best = sorted(entries, key=lambda e: -e["held_out"]["mean"])[:6]
    return table(
        ["rule", "held-out", "train", "seeds that found it", "lockstep", "s_max"],
        [
            [f"`{e['rule']}`", score(e["held_out"]), share(e["train"]["mean"]), f"{e['reached']} of {e['seeds']}",
             share(e["lockstep"]["mean"]) if e["lockstep"] and e["learned"] else "did not learn",
             share(e["s_max"]["mean"])]
            for e in best
        ],
    )  # fmt: skip


def _random() -> str:
    board = rules()["board"]
    clean = {e["rule"]: e for e in bench(board, "add-59")}
    entries = sorted(bench(board, "add-59-random"), key=lambda e: e["train"]["mean"])
    return table(
        ["rule", "random labels remembered", "true labels: held-out"],
        [[f"`{e['rule']}`", score(e["train"]), score(clean[e["rule"]]["held_out"])] for e in entries],
    )


def _starved() -> str:
    arms = [a for a in starvation()["arms"] if not a["arm"].startswith("race")]
    best = sorted(arms, key=lambda a: -a["splits"]["random"]["mean"])
    return table(
        ["what", "held-out", "train"],
        [[f"{a['rule'].split(':')[0]}: {a['title']}", score(a["splits"]["random"]), share(a["train"]["mean"])]
         for a in best],
    )  # fmt: skip


def raced() -> list[tuple[str, int, int, int]]:
    """Of each size: its words, seeds, those found within AdamW's passes, and within twice as many."""
    rows = read_evidence(EVIDENCE / "starvation-part" / "evidence.parquet")
    found = []
    for name in dict.fromkeys(r["arm"] for r in rows if r["arm"].startswith("race-n")):
        mine = [r for r in rows if r["arm"] == name]
        batch = {"race-n2000": 500, "race-n1000": 500}.get(name, 400)
        within = [
            [max((e for e, p in zip(r["curve_held_out_exact"], r["curve_passes"], strict=True) if p * batch <= limit),
                 default=0) >= 0.95 for r in mine]
            for limit in (768_000, 2 * 768_000)
        ]  # fmt: skip
        found.append((mine[0]["title"], len(mine), sum(within[0]), sum(within[1])))
    return found


def _raced() -> str:
    return table(
        ["examples", "seeds", "held-out ≥ .95 within AdamW's passes", "within twice as many"],
        [[words, str(n), str(one), str(two)] for words, n, one, two in raced()],
    )


TABLES: dict[str, Callable[[], str]] = {
    "cell": _cell, "sums": _sums, "random": _random, "starved": _starved, "raced": _raced,
}  # fmt: skip


def filled(page: str) -> str:
    """The page with its tables from the evidence."""

    def block(found: re.Match[str]) -> str:
        return f"<!-- table {found[1]} -->\n{TABLES[found[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", block, page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
