"""Evidence and verdict of a study -> one HTML file that opens from disk, without a network, for good.

The file holds everything: plotly, pictures as JSON, style and script. It is written from ``evidence.parquet`` and
``verdict.json`` alone, so it can be built again wherever those two are, without the trials or torch.

Models write the sample outputs and users write task files, so all text is foreign: jinja2 escapes what becomes
HTML, `_embed` what becomes JSON, and a content security policy lets the browser run our scripts and no others.
"""

import base64
import hashlib
import json
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from crevasse import store
from crevasse.errors import UserError
from crevasse.probes import LEARNED
from crevasse.report import figures
from crevasse.report.figures import number
from crevasse.studies import EVIDENCE, REPORT, VERDICT, read_evidence

__all__ = ["build_report"]

Row = dict[str, Any]

SPLITS = ("random", "interpolation", "extrapolation")
#: Finding -> the word for it in the report. In this order findings sort.
WORDS = {
    "rule": "found the rule",
    "part": "in part",
    "memory": "memorised",
    "nothing": "did not learn",
    "diverged": "diverged",
}
_HERE = Path(__file__).parent


def build_report(folder: Path) -> Path:
    """Write index.html beside the evidence and verdict in a study's folder. -> its path.

    Raises UserError where either file is missing or damaged, where they do not belong together, and where the
    folder cannot be written to.
    """
    rows = read_evidence(folder / EVIDENCE)
    verdict = _read_verdict(folder / VERDICT)
    _match(verdict, rows, folder)
    page = _render(verdict, rows)
    # A lone surrogate can come out of somebody's JSON; it must not stop the report.
    store.write_atomically(folder / REPORT, page.encode("utf-8", "replace"))
    return folder / REPORT


# --- reading -----------------------------------------------------------------------------------------------------

_ARM: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("arm", "title", "group", "task", "format", "model", "rule"), (str,)),
    **dict.fromkeys(("seeds", "diverged"), (int,)),
    **dict.fromkeys(("chance", "passes", "seconds"), (int, float)),
    **dict.fromkeys(("ceiling", "majority", "splits", "rule_score"), (dict,)),
    **dict.fromkeys(("train", "lockstep", "s_max", "memorising"), (dict, type(None))),
    "main_split": (str, type(None)),
    "learned": (bool,),
    "notes": (list,),
}


def _read_verdict(path: Path) -> dict[str, Any]:
    """Raises UserError for a file that is missing or is not the verdict of a study."""
    try:
        verdict = store.read_json(path)
    except UserError:
        reason = "is damaged" if path.exists() else "is missing"
        raise UserError(f"{path} {reason}; run the study again (what it has already run is kept)") from None
    if not isinstance(verdict, dict) or not all(
        isinstance(verdict.get(k), str) for k in ("study", "question", "answer", "budget")
    ):
        raise UserError(f"{path} is not the verdict of a study; run the study again")
    arms = verdict.get("arms")
    if not isinstance(arms, list) or not all(isinstance(a, dict) for a in arms):
        raise UserError(f"{path} is not the verdict of a study (it has no list of arms); run the study again")
    for arm in arms:
        wrong = [k for k, kinds in _ARM.items() if k not in arm or not isinstance(arm[k], kinds)]
        scores = [arm.get(k) for k in ("train", "lockstep", "s_max", "memorising")]
        scores += [s for k in ("splits", "rule_score") if k not in wrong for s in arm[k].values()]
        if arm.get("finding") not in WORDS:
            wrong.append("finding")
        if not all(s is None or _is_score(s) for s in scores):
            wrong.append("scores")
        if wrong:
            raise UserError(f"{path} is damaged (arm {arm.get('arm')!r}: {', '.join(wrong)}); run the study again")
    return verdict


def _is_score(value: Any) -> bool:
    return isinstance(value, dict) and all(number(value.get(k)) is not None for k in ("mean", "low", "high", "n"))


def _match(verdict: dict[str, Any], rows: Sequence[Row], folder: Path) -> None:
    """Raises UserError unless verdict and evidence speak of the same arms with as many seeds."""
    said = {a["arm"]: a["seeds"] for a in verdict["arms"]}
    seen: dict[str, int] = {}
    for row in rows:
        seen[row["arm"]] = seen.get(row["arm"], 0) + 1
    if not rows:
        raise UserError(f"{folder / EVIDENCE} holds no trials; run the study again")
    if odd := sorted(str(k) for k in said.keys() | seen.keys() if said.get(k) != seen.get(k)):
        raise UserError(
            f"{folder / VERDICT} and {EVIDENCE} do not belong together (they differ in {', '.join(odd[:4])}); "
            "run the study again (what it has already run is kept)"
        )


def _parsed(row: Row, column: str, kind: type) -> Any:
    """A column that holds JSON. Raises UserError where it does not."""
    try:
        value = json.loads(row[column])
    except (TypeError, ValueError):
        value = None
    if not isinstance(value, kind):
        raise UserError(f"{EVIDENCE} is damaged (the {column} of {row['arm']}); run the study again")
    return value


# --- writing -----------------------------------------------------------------------------------------------------


def _render(verdict: dict[str, Any], rows: Sequence[Row]) -> str:
    arms = [_arm(a, [r for r in rows if r["arm"] == a["arm"]]) for a in verdict["arms"]]
    groups = list(dict.fromkeys(a["group"] for a in arms))
    pictures = {
        "lockstep": figures.diagonal(rows, {a["arm"]: a["finding"] for a in verdict["arms"]}),
        **{a["id"]: a["picture"] for a in arms},
    }
    scripts = {"plotly": get_plotlyjs().replace("\r\n", "\n"), "report": (_HERE / "report.js").read_text("utf-8")}
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"score": _score_text, "count": _count_text, "time": _time_text, "plain": _plain_text}
    environment.globals["place"] = _place
    return environment.get_template("template.html").render(
        study=verdict,
        answer=_asides(verdict["answer"]),
        seconds=number(verdict.get("seconds")),
        command=f"crevasse study {shlex.quote(verdict['study'])} --budget {shlex.quote(verdict['budget'])}",
        groups=[(name, [a for a in arms if a["group"] == name]) for name in groups],
        arms=arms,
        trials=len(rows),
        seeds=sorted({a["seeds"] for a in arms}),
        tally=_tally(arms),
        environments=_environments(rows),
        splits=SPLITS,
        words=WORDS,
        learned=LEARNED,
        policy=_policy(scripts.values()),
        style=Markup((_HERE / "report.css").read_text("utf-8") + figures.colour_rules()),
        pictures=_embed(pictures),
        **{name: Markup(text) for name, text in scripts.items()},
    )


def _arm(verdict: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """What the page shows of an arm: its verdict, and what only the rows know."""
    first = figures.leading(rows)
    sampled = next((r for r in rows if r["status"] == "done"), first)
    outputs = _parsed(sampled, "outputs", dict)
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
        "outputs": {split: [_sample(o) for o in some] for split, some in outputs.items() if isinstance(some, list)},
        "sample_seed": sampled["seed"],
        "lead_seed": first["seed"],
        "trials": [(r["seed"], r["trial"], r["status"]) for r in rows],
        "config": json.dumps(_parsed(rows[0], "config", dict), indent=1, ensure_ascii=False),
    }


def _sample(output: Any) -> dict[str, Any]:
    """One sample output with every field as text, whatever a file says."""
    o = output if isinstance(output, dict) else {}
    unreadable = o.get("unreadable")
    return {
        **{k: str(o.get(k, "")) for k in ("problem", "written", "expected")},
        "answer": None if o.get("answer") is None else str(o["answer"]),
        "correct": o.get("correct") is True,
        "unreadable": [str(u) for u in unreadable] if isinstance(unreadable, list) else [],
    }


def _asides(text: str) -> list[tuple[str, bool]]:
    """A sentence in parts, and whether each stands in brackets: lists of names are set quietly in the headline."""
    parts = re.split(r"(\([^()]*\))", text)
    return [(part, i % 2 == 1) for i, part in enumerate(parts) if part]


def _tally(arms: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The four colours of the pictures: word and number of arms each."""
    words = {"rule": WORDS["rule"], "part": WORDS["part"], "memory": WORDS["memory"],
             "nothing": f"{WORDS['nothing']}, or {WORDS['diverged']}"}  # fmt: skip
    return [{"colour": c, "word": w, "arms": sum(a["colour"] == c for a in arms)} for c, w in words.items()]


def _environments(rows: Sequence[Row]) -> list[tuple[dict[str, Any], int]]:
    """The different surroundings in which trials ran, with the number of trials each."""
    counts: dict[str, int] = {}
    for row in rows:
        text = json.dumps(_parsed(row, "environment", dict))
        counts[text] = counts.get(text, 0) + 1
    return [(json.loads(text), n) for text, n in counts.items()]


def _embed(data: Any) -> Markup:
    """JSON that may stand in a script element: nothing in it can end the element or start another."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for c in "<>&\u2028\u2029":
        text = text.replace(c, f"\\u{ord(c):04x}")
    return Markup(text)


def _policy(scripts: Any) -> str:
    """No network at all, and no script but ours, each known by its hash."""
    hashes = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{h}'" for h in hashes)
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}"


# --- numbers as people read them ---------------------------------------------------------------------------------


def _score_text(value: Any) -> str:
    """.08, 1.00, −.40; – for no value. The leading zero says nothing where all numbers are shares."""
    v = number(value)
    if v is None:
        return "–"
    text = f"{abs(v):.2f}"
    sign = "−" if v < 0 and float(text) else ""
    return sign + text.removeprefix("0")


def _count_text(value: Any) -> str:
    v = number(value)
    return "–" if v is None else f"{v:,.0f}"


def _time_text(value: Any) -> str:
    """Seconds up to two minutes, then minutes."""
    v = number(value)
    if v is None:
        return "–"
    if v < 9.95:
        return f"{v:.1f} s"
    return f"{v:.0f} s" if v < 120 else f"{v / 60:.0f} min" if v < 7200 else f"{v / 3600:.1f} h"


def _plain_text(value: Any) -> str:
    """A number that scripts sort by; empty for none."""
    v = number(value)
    return "" if v is None else f"{v:.6g}"


def _place(value: Any, low: float = 0.0, high: float = 1.0) -> float:
    """Where a value lies in a small drawing of 88 units with a margin of 4; outside values lie on its edge."""
    v = number(value)
    share = 0.0 if v is None else (min(max(v, low), high) - low) / (high - low)
    return round(4 + 80 * share, 1) if math.isfinite(share) else 4.0
