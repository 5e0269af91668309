"""The page of arms: what came of each, how it got there, and what it wrote. Studies without another page have it."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from crevasse.probes import LEARNED
from crevasse.report import figures, page
from crevasse.report.figures import Row, number
from crevasse.report.page import parsed

SPLITS = ("random", "interpolation", "extrapolation")
#: Finding -> the word for it in the report. In this order findings sort.
WORDS = {
    "rule": "found the rule",
    "part": "in part",
    "memory": "memorised",
    "nothing": "did not learn",
    "diverged": "diverged",
}


def render(
    verdict: dict[str, Any],
    rows: Sequence[Row],
    template: str = "arms.html",
    pictures: dict[str, Any] | None = None,
    **more: Any,
) -> str:
    """The page as HTML. rows: those that are tested; template: one that extends the page of arms, pictures and more:
    what it shows besides. Raises UserError for a column that is damaged."""
    arms = [_arm(a, [r for r in rows if r["arm"] == a["arm"]]) for a in verdict["arms"]]
    groups = list(dict.fromkeys(a["group"] for a in arms))
    spelt_out = _spelt_out(arms)
    drawn = {
        "lockstep": figures.diagonal(rows, {a["arm"]: a["finding"] for a in verdict["arms"]}),
        **{a["id"]: a["picture"] for a in arms},
        **{f"breaks-{a['id']}": figures.breaks(a["title"], a["bars"]) for a in spelt_out},
    }
    return page.render(
        template,
        verdict,
        rows,
        drawn | (pictures or {}),
        groups=[(name, [a for a in arms if a["group"] == name]) for name in groups],
        arms=arms,
        breaks=_breaks(spelt_out),
        broken=spelt_out,
        faults=figures.FAULTS,
        trials=len(rows),
        seeds=sorted({a["seeds"] for a in arms}),
        tally=_tally(arms),
        splits=SPLITS,
        words=WORDS,
        learned=LEARNED,
        **more,
    )


def _arm(verdict: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """What the page shows of an arm: its verdict, and what only the rows know."""
    first = figures.leading(rows)
    sampled = next((r for r in rows if r["status"] == "done"), first)
    outputs = {
        split: [_sample(o) for o in some]
        for split, some in parsed(sampled, "outputs", dict).items()
        if isinstance(some, list)
    }
    return {
        **verdict,
        # Names are free text; an id in HTML must not be.
        "id": "arm-" + hashlib.sha256(verdict["arm"].encode("utf-8", "replace")).hexdigest()[:10],
        "picture": figures.losses(rows, verdict["finding"]),
        "colour": figures.finding_colour(verdict["finding"]),
        "word": WORDS[verdict["finding"]],
        "rank": list(WORDS).index(verdict["finding"]),
        "labels": first["labels"],
        "facts": {k: first[k] for k in ("examples", "steps", "parameters", "moved_steps")},
        "memory": _most(rows, "memory"),
        "peak_memory": _most(rows, "peak_memory"),
        "padding": _most(rows, "padding"),
        "bars": _bars(verdict),
        "outputs": outputs,
        "example": next((o for split in SPLITS for o in outputs.get(split, ()) if o["fault"]), None),
        # One output of each held-out split is there without a click: a right one where most are right.
        "typical": [
            (split, min(outputs[split], key=lambda o: o["correct"] != (verdict["splits"][split]["mean"] > 0.5)))
            for split in SPLITS
            if outputs.get(split) and verdict["splits"].get(split)
        ],
        "sample_seed": sampled["seed"],
        "lead_seed": first["seed"],
        "trials": [(r["seed"], r["trial"], r["status"]) for r in rows],
        "config": json.dumps(parsed(rows[0], "config", dict), indent=1, ensure_ascii=False),
    }


def _most(rows: Sequence[Row], column: str) -> float | None:
    """The largest value of a column that older evidence lacks."""
    return max((v for r in rows if (v := number(r.get(column))) is not None), default=None)


_SHORT = 72  # characters of problem and output that stand on one line together


def _sample(output: Any) -> dict[str, Any]:
    """One sample output with every field as text, whatever a file says."""
    o = output if isinstance(output, dict) else {}
    unreadable = o.get("unreadable")
    problem, written, expected = (str(o.get(k, "")) for k in ("problem", "written", "expected"))
    answer = None if o.get("answer") is None else str(o["answer"])
    correct = o.get("correct") is True
    fault = None if correct else _fault(o.get("fault"), written)
    if fault and fault["kind"] == "answer" and answer and written.lstrip().startswith(answer):
        fault = None  # nothing but an answer was written, and that it is wrong is said already
    at = len(written) if fault is None else fault["at"]
    return {
        "problem": problem, "written": written, "expected": expected, "answer": answer, "correct": correct,
        "unreadable": [str(u) for u in unreadable] if isinstance(unreadable, list) else [],
        "fault": fault,
        "sound": written[:at],  # as it should be
        "rest": written[at:],  # from the fault on
        "long": "\n" in problem.strip() + written.strip() or len(problem) + len(written) > _SHORT,
    }  # fmt: skip


def _fault(fault: Any, written: str) -> dict[str, Any] | None:
    """Where an output first goes wrong, in words; None where the evidence does not say."""
    if not isinstance(fault, dict) or not fault.get("kind"):
        return None
    kind = str(fault["kind"])
    due, found = (str(fault.get(k, "")) for k in ("expected", "written"))
    lines = [t.split("\n")[0] for t in (due, found)]
    if not all(lines) or lines[0] == lines[1]:  # else what differs stands in the first line
        lines = [due, found]
    return {
        "kind": kind,
        "where": figures.FAULTS[kind][1] if kind in figures.FAULTS else kind,
        # A few tokens of each: dots where it goes on. Marks that end a text are written in angle brackets.
        "expected": lines[0] if lines[0].endswith(">") else lines[0] + "…",
        "written": lines[1] if written.endswith(lines[1]) else lines[1] + "…",
        "ends": not found,
        "at": _place_of(fault.get("token"), found, written),
    }


def _place_of(token: Any, found: str, written: str) -> int:
    """The character at which what was found begins; the end where that cannot be told for certain."""
    first = written.find(found)
    if found and first == written.rfind(found):
        return first if first >= 0 else len(written)
    if found and type(token) is int and token >= 0:  # tokens set apart by spaces, or of a character each
        for at in (len(" ".join(written.split(" ")[:token])) + (token > 0), token):
            if written.startswith(found, at):
                return at
    return len(written)


# --- where the traces break ----------------------------------------------------------------------------------------

Bar = tuple[str, float, dict[str, int]]  # split, share right, faults by kind


def _bars(verdict: dict[str, Any]) -> list[Bar]:
    """The splits of an arm of which the verdict says where outputs went wrong."""
    found = []
    for split in ("train", *SPLITS):
        score = verdict["train"] if split == "train" else verdict["splits"].get(split)
        kinds = verdict.get("faults", {}).get(split)
        if score is None or kinds is None:
            continue
        counts: dict[str, int] = {}
        for kind, n in kinds.items():
            known = kind if kind in figures.FAULTS else "other"
            counts[known] = counts.get(known, 0) + n
        found.append((split, min(max(float(score["mean"]), 0.0), 1.0), counts))
    return found


def _spelt_out(arms: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The arms that write steps: those of a format in which something else than an answer went wrong."""

    def form(arm: dict[str, Any]) -> str:
        return str(arm["format"]).split(":")[0]

    broken = {form(a) for a in arms for _, _, kinds in a["bars"] if any(n for k, n in kinds.items() if k != "answer")}
    return [a for a in arms if a["bars"] and form(a) in broken]


def _breaks(arms: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What the section says on top: one sentence, and how often each kind occurred. None without arms."""
    if not arms:
        return None
    sets: dict[bool, dict[str, int]] = {True: {}, False: {}}
    for split, _, kinds in (bar for a in arms for bar in a["bars"]):
        counts = sets[split != "train"]
        for kind, n in kinds.items():
            counts[kind] = counts.get(kind, 0) + n
    held_out = any(sets[True].values())
    counts = sets[held_out]
    total, top = sum(counts.values()), max(counts.values())
    first = [figures.FAULTS[k][1] for k in figures.FAULTS if counts.get(k) == top]
    traces = "held-out traces" if held_out else "training traces"
    if total == 1:
        sentence = f"The one {traces[:-1]} that went wrong broke at {first[0]}."
    elif len(first) > 1:
        sentence = f"Of the {total:,} {traces} that went wrong, {top:,} each broke at {' and at '.join(first)}."
    else:
        most = "all broke" if top == total else "most broke" if 2 * top > total else "the largest part broke"
        sentence = f"Of the {traces} that went wrong, {most} at {first[0]}: {top:,} of {total:,}."
    kinds = [k for k in figures.FAULTS if sets[True].get(k) or sets[False].get(k)]
    return {"sentence": sentence, "kinds": kinds}


def _tally(arms: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The four colours of the pictures: word and number of arms each."""
    words = {"rule": WORDS["rule"], "part": WORDS["part"], "memory": WORDS["memory"],
             "nothing": f"{WORDS['nothing']}, or {WORDS['diverged']}"}  # fmt: skip
    return [{"colour": c, "word": w, "arms": sum(a["colour"] == c for a in arms)} for c, w in words.items()]
