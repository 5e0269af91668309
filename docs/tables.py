"""What question.md, claims.md and lessons.md take from the committed evidence: `python docs/tables.py` writes it anew.

tests/test_question.py holds the page to what stands here, and each of its sentences with a figure to the evidence.
"""

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from crevasse.report.lattice import tally
from crevasse.studies import STUDIES, decide, read_evidence
from crevasse.studies.leaderboard import FOUND
from crevasse.studies.leaderboard.benches import ADD_59
from crevasse.studies.measures import fingerprint, read_measures
from crevasse.studies.starvation import GROUPS, ROWS

HERE = Path(__file__).parent
PAGE, CLAIMS_PAGE, LESSONS_PAGE = HERE / "question.md", HERE / "claims.md", HERE / "lessons.md"
EVIDENCE = HERE.parent / "evidence"

Figures = dict[str, Any]


def verdict(name: str, study: str, budget: str = "full") -> Figures:
    """What the committed evidence says, worked out again from its rows."""
    return decide(STUDIES.parse(study), budget, read_evidence(EVIDENCE / name / "evidence.parquet"))


@functools.cache
def rules() -> Figures:
    """Of the leaderboard."""
    return verdict("rules-full", "rules")


@functools.cache
def starvation() -> Figures:
    """Of the study of starvation."""
    return verdict("starvation-full", "starvation")


def group(*names: str) -> list[Figures]:
    """The arms of some groups of it."""
    return [a for a in starvation()["arms"] if a["group"] in [GROUPS[n] for n in names]]


def bench(board: Figures, name: str) -> list[Figures]:
    """The entries of a bench, best first."""
    found: list[Figures] = next(b["entries"] for b in board["benches"] if b["name"] == name)
    return found


def alone(entries: Sequence[Figures]) -> list[Figures]:
    """Those that train on the examples as they are."""
    return [e for e in entries if not e["moves"]]


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


def passes(entry: Figures) -> float:
    """Passes to 95% on the table of sums, in plain steps."""
    return float(entry["rows_to"]) / 2 / ADD_59.batch


def in_step(entry: Figures) -> str:
    """The lockstep score, where there was anything to be in step with."""
    return share(entry["lockstep"]["mean"]) if entry["lockstep"] and entry["learned"] else "did not learn"


def _sums() -> str:
    entries = [e for e in bench(rules()["board"], "add-59") if e["reached"]]
    return table(
        ["rule", "seeds that found it", "passes to 95%", "lockstep"],
        [
            [f"`{e['rule']}`", f"{e['reached']} of {e['seeds']}", f"{passes(e):.0f}", score(e["lockstep"])]
            for e in entries
        ],
    )


def _cell() -> str:
    board = rules()["board"]
    best = [
        (n, e)
        for n, most in ((2000, 5), (1000, 4))
        for e in sorted(bench(board, f"cell-{n}"), key=lambda e: -e["held_out"]["mean"])[:most]
    ]
    return table(
        ["N", "rule", "held-out", "train", "seeds that found it", "lockstep", "s_max"],
        [
            [f"{n:,}", f"`{e['rule']}`", score(e["held_out"]), share(e["train"]["mean"]),
             f"{e['reached']} of {e['seeds']}", in_step(e), share(e["s_max"]["mean"])]
            for n, e in best
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


def raced() -> list[tuple[str, int, int, int]]:
    """Of each race, in words: seeds, those found within AdamW's passes, and within twice as many."""
    rows = read_evidence(EVIDENCE / "starvation-full" / "evidence.parquet")
    found = []
    for name in (a["arm"] for a in group("fewer")):
        mine = [r for r in rows if r["arm"] == name]
        config = json.loads(mine[0]["config"])
        batch = min(config["batch"], mine[0]["examples"])
        counts = []
        for limit in (ROWS, 2 * ROWS):
            readings = [
                [e for e, p in zip(r["curve_held_out_exact"], r["curve_passes"], strict=True) if p * batch <= limit]
                for r in mine
            ]
            counts.append(sum(of[-1] >= FOUND for of in readings))
        patient = " and no end before its passes are spent" if "patience" in mine[0]["rule"] else ""
        found.append((f"{config['train']:,} examples{patient}", len(mine), counts[0], counts[1]))
    return found


SIZES = (500, 1000, 2000, 5000, 20_000, 50_000)


def entry(name: str, rule: str) -> Figures | None:
    """A rule on a bench; None where it did not run."""
    return next((e for e in bench(rules()["board"], name) if e["rule"] == rule), None)


def _curve() -> str:
    named = [e["rule"] for e in bench(rules()["board"], "cell-500")]
    rows = []
    for rule in named:
        found = [entry(f"cell-{n}", rule) for n in SIZES]
        rows.append(
            [f"`{rule}`", *(f"{score(e['held_out'])}, {e['reached']} of {e['seeds']}" if e else "–" for e in found)]
        )
    return table(["rule", *(f"N = {n:,}" for n in SIZES)], rows)


def steps(name: str, e: Figures) -> str:
    """Steps and passes to 95% on a bench, where it was found in a seed."""
    if not e["reached"]:
        return "–"
    batch = next(b["batch"] for b in rules()["board"]["benches"] if b["name"] == name)
    return f"{e['steps_to']:.0f} ({e['rows_to'] / 2 / batch:.0f})"


def _transformer() -> str:
    return table(
        ["table", "rule", "seeds that found it", "steps (passes) to 95%", "held-out", "lockstep"],
        [
            [
                name,
                f"`{e['rule']}`",
                f"{e['reached']} of {e['seeds']}",
                steps(name, e),
                score(e["held_out"]),
                in_step(e),
            ]
            for name in ("add-97", "S5", "div-97", "mul-97")
            for e in bench(rules()["board"], name)
        ],
    )


def _lengths() -> str:
    return table(
        ["rule", "held-out", "a length between", "longer", "lockstep"],
        [
            [
                f"`{e['rule']}`",
                *(score(e["splits"].get(s)) for s in ("random", "interpolation", "extrapolation")),
                in_step(e),
            ]
            for e in bench(rules()["board"], "product-lengths")
        ],
    )


def _wrong() -> str:
    names = ("digits-noisy-25", "digits-noisy-50", "digits-random")
    named = [e["rule"] for e in bench(rules()["board"], "digits-noisy-50")]
    rows = []
    for rule in named:
        found = [entry(name, rule) for name in names]
        rows.append([
            f"`{rule}`",
            *(f"{score(e['held_out'])}; {share(e['train']['mean'])}" if e else "–" for e in found[:2]),
            share(found[2]["train"]["mean"]) if found[2] else "–",
        ])  # fmt: skip
    return table(["rule", "25% wrong: test; training labels", "50% wrong: the same", "random: training labels"], rows)


def _raced() -> str:
    return table(
        ["a race on", "data seeds", "found within AdamW's passes", "within twice as many", "test, at the end"],
        [
            [words, str(seeds), str(one), str(two), score(a["splits"]["random"])]
            for (words, seeds, one, two), a in zip(raced(), group("fewer"), strict=True)
        ],
    )


def _withheld() -> str:
    return table(
        ["what is withheld", "held-out", "training", "finding"],
        [[a["title"], score(a["splits"].get("random")), share(a["train"]["mean"] if a["train"] else None), a["finding"]]
         for a in group("baseline", "withheld", "raced")],
    )  # fmt: skip


def found_quotients() -> dict[str, dict[int, int]]:
    """Of each arm elsewhere, by seed the order of the largest quotient in whose cosets the answers lie; 1: in none."""
    folder = EVIDENCE / "starvation-full"
    trials = [r["trial"] for r in read_evidence(folder / "evidence.parquet")]
    found: dict[str, dict[int, int]] = {}
    for m in read_measures(folder / "measures.parquet", fingerprint(trials)):
        assert m["series"] == "quotient" and m["seed"] is not None and m["x"] is not None and m["value"] is not None
        of = found.setdefault(m["label"], {})
        of[m["seed"]] = max(of.get(m["seed"], 1), round(m["x"]) if m["value"] >= FOUND else 1)
    return found


def _elsewhere() -> str:
    def quotient(arm: str) -> str:
        orders = found_quotients()[arm].values()
        return ", ".join(f"of order {n}: {sum(o == n for o in orders)}" for n in sorted({*orders} - {1})) or "none"

    return table(
        ["where", "held-out", "training", "lockstep", "seeds that found a quotient"],
        [[a["title"], score(a["splits"].get("random")), share(a["train"]["mean"] if a["train"] else None),
          in_step(a), quotient(a["arm"])]
         for a in group("elsewhere")],
    )  # fmt: skip


TABLES: dict[str, Callable[[], str]] = {
    "cell": _cell, "curve": _curve, "raced": _raced, "withheld": _withheld, "elsewhere": _elsewhere, "sums": _sums,
    "transformer": _transformer, "lengths": _lengths, "random": _random, "wrong": _wrong,
}  # fmt: skip


def _more() -> list[str]:
    """Of the benches beyond the cell at 2,000 and the sums."""
    board = rules()["board"]
    smallest = {r["rule"]: r["smallest"] for r in board["rules"]}
    named = [e["rule"] for e in bench(board, "cell-500")]
    at_least = ", ".join(f"{smallest[r]:,} for `{r}`" if smallest[r] else f"none for `{r}`" for r in named)
    some = [
        f"at N = {n:,} by "
        + (", ".join(f"`{e['rule']}` in {e['reached']}" for e in bench(board, f"cell-{n}") if e["reached"]) or "none")
        for n in (5000, 20_000, 50_000)
    ]
    sentences = [f"Of 5 seeds it is found {'; '.join(some)}."]
    sentences += [f"The fewest examples with which half of the seeds find it, of the sizes tried: {at_least}."]
    for name in ("add-97", "S5", "div-97", "mul-97"):
        mine = entry(name, "adamw")
        assert mine is not None
        every = [e for e in bench(board, name) if e["reached"] == e["seeds"]]
        sooner = [f"`{e['rule']}` ({_after(name, e)})" for e in every if e["rows_to"] < mine["rows_to"]]
        found = f"AdamW finds it in {mine['reached']} of {mine['seeds']} seeds, after {_after(name, mine)}"
        rest = (
            f"sooner in every seed: {', '.join(sooner)}" if sooner else "nothing that finds it in every seed is sooner"
        )
        sentences.append(f"{name}: {found}; {rest if every else 'no rule finds it in every seed'}.")
    steady = [(name, entry(name, "starve"), entry(name, "adamw")) for name in ("add-97", "div-97", "mul-97")]
    sentences.append(
        "Of those that see the examples alone, nearest to step is `starve`, which shrinks the weights until the steer "
        "loss falls: lockstep "
        + ", ".join(
            f"{share(a['lockstep']['mean'])} on {name} ({a['reached']} of {a['seeds']} seeds; AdamW "
            f"{share(b['lockstep']['mean'])})"
            for name, a, b in steady
            if a and b
        )
        + "."
    )
    lengths = alone(bench(board, "product-lengths"))
    every = [e for e in lengths if e["reached"] == e["seeds"]]
    least = min(every, key=lambda e: e["splits"]["extrapolation"]["mean"])
    sentences.append(
        f"With lengths mixed {len(every)} of {len(lengths)} rules find the product in every seed, and answer "
        f"longer ones too: the least by `{least['rule']}`, {share(least['splits']['extrapolation']['mean'])}."
    )
    for name, words in (("digits-noisy-25", "a quarter"), ("digits-noisy-50", "half")):
        first, second = sorted(bench(board, name), key=lambda e: -e["held_out"]["mean"])[:2]
        sentences.append(
            f"With {words} of the labels wrong, `{first['rule']}` answers {share(first['held_out']['mean'])} of the "
            f"clean test and gives back {share(first['train']['mean'])} of the training labels, `{second['rule']}` "
            f"{share(second['held_out']['mean'])} and {share(second['train']['mean'])}."
        )
    for word, said in (("sooner", "better"), ("later", "worse")):
        which = [f"`{r['rule']}`" for r in alone(board["rules"]) if r["versus"] and r["versus"].get("word") == word]
        sentences.append(
            f"Over all benches with true labels, significantly {said} than AdamW: {', '.join(which) or 'none'}."
        )
    return sentences


def _starved() -> list[str]:
    """Of the ways to withhold capacity, and of the places where the race fails."""

    def best(arms: Sequence[Figures]) -> str:
        return share(max(a["splits"]["random"]["mean"] for a in arms))

    own, withheld, raced, fewer = (group(g) for g in ("baseline", "withheld", "raced", "fewer"))
    assert not any(a["finding"] == "rule" for a in own + withheld)
    memory = [a for a in withheld if a["finding"] == "memory"]
    nothing = [a for a in withheld if a["train"]["mean"] < 0.25]
    there = {end: [a for a in group("elsewhere") if a["arm"].endswith(end)] for end in ("-race", "-adamw")}
    by = {a["arm"]: share(a["splits"]["random"]["mean"]) for a in raced}
    default = next(a for a in fewer if a["arm"] == "race-n2000")
    return [
        f"Neither AdamW in {len(own)} settings nor any of {len(withheld)} settings of five ways to withhold capacity "
        f"from the whole cell finds it: the best means are {best(own)} and {best(withheld)}.",
        f"{len(memory)} of the {len(withheld)} end in memory, {len(nothing)} learn nothing.",
        f"A race of models an eighth as wide answers {by['race-thin8']}, a sixteenth {by['race-thin16']}, ranked by "
        f"the training loss {by['race-by-train']}, without growth {by['race-growth1']}; the race as it is, on other "
        f"seeds, {share(default['splits']['random']['mean'])}.",
        f"In {_seeds(True)} of {sum(len(s) for a, s in found_quotients().items() if a.endswith('-race'))} seeds raced "
        "the answers lie in the right coset of a quotient of the group "
        f"({', '.join(f'order {n} in {k}' for n, k in sorted(_orders().items()))}), and in {_seeds(False)} of AdamW's.",
        f"Elsewhere the race finds it in {sum(a['finding'] == 'rule' for a in there['-race'])} of "
        f"{len(there['-race'])} places, and AdamW in {sum(a['finding'] == 'rule' for a in there['-adamw'])}; AdamW "
        f"memorises in {sum(a['finding'] == 'memory' for a in there['-adamw'])}, the race in "
        f"{sum(a['finding'] == 'memory' for a in there['-race'])}, and its best mean is {best(there['-race'])}.",
    ]


def _moved() -> list[str]:
    """Of the rule that moves its examples."""

    def reached(name: str) -> str:
        e = entry(name, "invariant")
        assert e is not None
        return f"{e['reached']} of {e['seeds']}"

    two = entry("cell-2000", "invariant")
    assert two is not None
    cells = [b["name"] for b in rules()["board"]["benches"] if b["section"] == "cell"]
    some = [f"{reached(c)} at N = {int(c.removeprefix('cell-')):,}" for c in cells if not reached(c).startswith("0")]
    return [
        f"It finds the sum modulo 59 in {reached('add-59')} seeds and add-97 in {reached('add-97')}, S5 in "
        f"{reached('S5')}, div-97 in {reached('div-97')}, mul-97 in {reached('mul-97')}.",
        f"On the cell it answers {share(two['held_out']['mean'])} of what is held out at N = 2,000, and finds the rule "
        f"in {' and '.join(some) or 'no seed of any size'}, within the passes that all rules have.",
    ]


def _seeds(raced: bool) -> int:
    """How many seeds elsewhere found a quotient."""
    return sum(o > 1 for a, of in found_quotients().items() if a.endswith("-race") == raced for o in of.values())


def _orders() -> dict[int, int]:
    """Of the races: order of the quotient -> seeds that found it."""
    return dict(Counter(o for a, of in found_quotients().items() if a.endswith("-race") for o in of.values() if o > 1))


def _after(name: str, e: Figures) -> str:
    """``240 steps`` or, where a rule looks more than once at each row, ``120 steps (240 passes)``"""
    batch = next(b["batch"] for b in rules()["board"]["benches"] if b["name"] == name)
    passes = round(e["rows_to"] / 2 / batch)
    return f"{e['steps_to']:.0f} steps" + ("" if passes == round(e["steps_to"]) else f" ({passes} passes)")


def sentences() -> list[str]:
    """What the page says in words with figures of the evidence in them."""
    board = rules()["board"]
    cell, sums, random = (alone(bench(board, name)) for name in ("cell-2000", "add-59", "add-59-random"))
    race = next(e for e in cell if e["rule"] == "race")
    thousand = next(e for e in bench(board, "cell-1000") if e["rule"] == "race")
    wide = [e for e in cell if e["rule"] != "race"]
    top = max(e["held_out"]["mean"] for e in wide)
    memory = [e for e in wide if e["train"]["mean"] >= 0.9]
    every = [e for e in sums if e["reached"] == e["seeds"]]
    adamw = next(e for e in sums if e["rule"] == "adamw")
    strong = [e for e in sums if "lr=0.03,base.decay=3" in e["setting"]]
    sooner = [e for e in every if passes(e) < 0.8 * passes(adamw)]
    named = [f"`{e['rule']}` ({passes(e):.0f} passes)" for e in sooner]
    in_order = sorted(every, key=lambda e: -e["lockstep"]["mean"])
    learns = {e["rule"] for e in sums if e["held_out"]["mean"] >= FOUND}
    remembers = [e for e in random if e["rule"] in learns]
    least = min(remembers, key=lambda e: e["train"]["mean"])
    return [
        f"None of {len(wide)} rules that train the cell at full width finds the rule in any seed: the best mean is "
        f"{share(top)}, where guessing is right in {share(cell[0]['chance'])}.",
        f"{len(memory)} of them answer nine of ten training problems or more: they memorise.",
        f"The race finds it in {race['reached']} of {race['seeds']} seeds at N = 2,000, and in "
        f"{thousand['reached']} of {thousand['seeds']} at N = 1,000, for no more passes.",
        f"{len(every)} of {len(sums)} rules find the sum in every seed.",
        f"Plain AdamW is among them, after {passes(adamw):.0f} passes, at a rate of .03 with a decay of 3; "
        f"{len(strong)} of the rules that stand on it pick that setting too.",
        f"Sooner than that by a fifth or more: {', '.join(named)}.",
        f"Of those that find the sum in every seed, `{in_order[0]['rule']}` keeps step best, with a lockstep score "
        f"of {share(in_order[0]['lockstep']['mean'])}; {sum(e['lockstep']['mean'] < 0 for e in every)} of "
        f"{len(every)} are below zero.",
        f"Of {len(remembers)} rules that find the sum and were given random labels, {_kept(remembers)} remember nine "
        f"of ten of them or more; the least, {share(least['train']['mean'])}, is remembered by `{least['rule']}`.",
        *_more(),
        *_starved(),
        *_moved(),
        *(
            f"On {seeds} fresh data seeds with {words} it is found in {one} within AdamW's passes, in {two} within "
            "twice as many."
            for words, seeds, one, two in raced()
        ),
    ]


def _kept(entries: Sequence[Figures]) -> int:
    return sum(e["train"]["mean"] >= 0.9 for e in entries)


@functools.cache
def claims() -> Figures:
    """Of the claims of the thesis, worked out again."""
    folder = EVIDENCE / "claims-full"
    rows = read_evidence(folder / "evidence.parquet")
    measures = read_measures(folder / "measures.parquet", fingerprint([r["trial"] for r in rows]))
    return decide(STUDIES.parse("claims"), "full", rows, measures)


def _verdicts() -> str:
    return table(
        ["claim", "verdict", "what decides it"],
        [[f"{c['claim']} {c['title']}", c["decision"], c["key"].replace("|", "\\|")] for c in claims()["claims"]],
    )


def _claim(c: Figures) -> str:
    parts = [f"> {c['quote']}", f"*Hypothesis.* {c['hypothesis']}", f"*Experiment.* {c['experiment']}",
             f"*Decision rule.* {c['rule']}", f"**{c['decision'].capitalize()}**: {c['key']}.",
             f"*What would change it.* {c['change']}"]  # fmt: skip
    return "\n\n".join(parts)


def claim_tables() -> dict[str, Callable[[], str]]:
    """Of claims.md: all verdicts, and each claim by itself."""
    return {"verdicts": _verdicts} | {c["claim"]: functools.partial(_claim, c) for c in claims()["claims"]}


@functools.cache
def lessons() -> Figures:
    """Of the study of lessons, worked out again."""
    folder = EVIDENCE / "lessons-minutes"
    measures = read_measures(folder / "measures.parquet", fingerprint([]))
    found: Figures = decide(STUDIES.parse("lessons"), "minutes", [], measures)["lessons"]
    return found


def _goals() -> str:
    met = {True: "met", False: "**missed**", None: "not measured"}
    return table(
        ["goal", "figure", "measured", ""],
        [[g["goal"], g["figure"], f"{g['value']['mean']:.3f} [{g['value']['low']:.3f}–{g['value']['high']:.3f}]",
          met[g["met"]]] for g in lessons()["goals"]],
    )  # fmt: skip


def _gaps() -> str:
    named = {"map": "most probable scope alone", "common-sense": "common-sense gradient", "sgd": "SGD on the incidents",
             "sgd+replay": "SGD with replay", "nothing": "nothing learnt"}  # fmt: skip
    lines = []
    for m in sorted(lessons()["methods"], key=lambda m: -m["after"][2]["gap"]["mean"]):
        name = named.get(m["method"], m["method"].replace("augment-", "scope ").replace("-", " "))
        lines.append([name, *(score(a["gap"]) for a in m["after"] if a["n"] in (1, 3, 10)),
                      f"{m['after'][2]['regret']['mean']:.4f}",
                      ", ".join(share(a["false"]["mean"]) for a in m["after"] if a["n"] in (1, 3, 10))])  # fmt: skip
    heads = ["", "gap closed after 1", "after 3", "after 10", "regret after 3", "false lessons after 1, 3, 10"]
    return table(heads, lines)


def _sure() -> str:
    first, *_, last = lessons()["calibration"]
    one, *_, ten = lessons()["found"]
    return (
        f"In {lessons()['lives']} lives, {lessons()['chance']} of them of pure chance. The most probable scope is the "
        f"true cause in {share(one['share']['mean'])} of them after {one['n']} incident, in "
        f"{share(ten['share']['mean'])} after {ten['n']}. What the posterior says of an event is {first['error']:.3f} "
        f"from the truth on average after {first['n']} incident, {last['error']:.3f} after {last['n']}."
    )


def _reach() -> str:
    reach = lessons()["reach"]
    counts = {way: tally(reach["scopes"])[way] for way in ("alone", "replay")}
    said = [
        f"{words}, " + ", ".join(f"{n} {what}" for _, what, n in counts[way])
        for way, words in (("alone", "taught alone"), ("replay", "with replay"))
    ]
    return f"**{reach['decision'].capitalize()}**: {reach['key']}. Of {len(reach['scopes'])} scopes: {'; '.join(said)}."


LESSON_TABLES: dict[str, Callable[[], str]] = {"goals": _goals, "gaps": _gaps, "sure": _sure, "reach": _reach}


def filled(page: str, tables: dict[str, Callable[[], str]] = TABLES) -> str:
    """The page with its tables from the evidence."""

    def block(found: re.Match[str]) -> str:
        return f"<!-- table {found[1]} -->\n{tables[found[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", block, page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
    CLAIMS_PAGE.write_text(filled(CLAIMS_PAGE.read_text("utf-8"), claim_tables()), "utf-8")
    LESSONS_PAGE.write_text(filled(LESSONS_PAGE.read_text("utf-8"), LESSON_TABLES), "utf-8")
