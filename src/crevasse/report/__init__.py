"""Evidence and verdict of a study -> one HTML file that opens from disk, without a network, for good.

The file holds everything: plotly, pictures as JSON, style and script. It is written from ``evidence.parquet``,
``verdict.json`` and, where a study measures more, ``measures.parquet`` alone, so it can be built again wherever those
are, without the trials.

Models write the sample outputs and users write task files, so all text is foreign: `page` keeps it text. Leaderboard,
claims, lessons and published results have pages of their own, known by what only their verdicts hold.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crevasse import store
from crevasse.errors import UserError
from crevasse.report import arms, claims, leaderboard, lessons, published
from crevasse.report.arms import WORDS
from crevasse.report.figures import Row, number
from crevasse.report.page import parsed
from crevasse.studies import EVIDENCE, REPORT, VERDICT, read_evidence
from crevasse.studies.measures import MEASURES, fingerprint, read_measures
from crevasse.tasks import TESTS

__all__ = ["build_report"]

#: What only the verdict of such a study has -> its page, for which it is decided anew from rows and measures.
_MEASURING = {"claims": claims.render, "lessons": lessons.render, "published": published.render}


def build_report(folder: Path) -> Path:
    """Write index.html beside evidence, measures and verdict in a study's folder. -> its path.

    Raises UserError where a file is missing or damaged, where they do not belong together, and where the
    folder cannot be written to.
    """
    rows = read_evidence(folder / EVIDENCE)
    verdict = _read_verdict(folder / VERDICT)
    tested = [r for r in rows if r["phase"] == "test"]
    _match(verdict, tested, folder)
    measuring = next((p for key, p in _MEASURING.items() if key in verdict), None)
    if measuring is not None:
        _require_whole(rows)
        text = measuring(verdict, rows, read_measures(folder / MEASURES, fingerprint([r["trial"] for r in rows])))
    elif "board" in verdict:
        text = leaderboard.render(verdict, rows)
    else:
        text = arms.render(verdict, tested)
    # A lone surrogate can come out of somebody's JSON; it must not stop the report.
    store.write_atomically(folder / REPORT, text.encode("utf-8", "replace"))
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
    listed = verdict.get("arms")
    if not isinstance(listed, list) or not all(isinstance(a, dict) for a in listed):
        raise UserError(f"{path} is not the verdict of a study (it has no list of arms); run the study again")
    for arm in listed:
        wrong = [k for k, kinds in _ARM.items() if k not in arm or not isinstance(arm[k], kinds)]
        scores = [arm.get(k) for k in ("train", "lockstep", "s_max", "memorising")]
        scores += [s for k in ("splits", "rule_score") if k not in wrong for s in arm[k].values()]
        if arm.get("finding") not in WORDS:
            wrong.append("finding")
        if not all(s is None or _is_score(s) for s in scores):
            wrong.append("scores")
        if not _are_faults(arm.get("faults", {})):  # older verdicts have none
            wrong.append("faults")
        if wrong:
            raise UserError(f"{path} is damaged (arm {arm.get('arm')!r}: {', '.join(wrong)}); run the study again")
    return verdict


def _is_score(value: Any) -> bool:
    return isinstance(value, dict) and all(number(value.get(k)) is not None for k in ("mean", "low", "high", "n"))


def _are_faults(value: Any) -> bool:
    """split -> kind -> count."""
    return isinstance(value, dict) and all(
        isinstance(kinds, dict) and all(type(n) is int and n >= 0 for n in kinds.values()) for kinds in value.values()
    )


def _require_whole(rows: Sequence[Row]) -> None:
    """Raises UserError where rows lack what a verdict is made of; somebody may have written them."""
    for row in rows:
        parsed(row, "config", dict), parsed(row, "notes", list)
        lacking = [k for k in ("chance", "s_max", "passes", "samples", "seconds") if row[k] is None]
        if row["status"] == "done":
            scored = [t for t in TESTS if row[t] is not None]
            lacking += [f"{k}_{t}" for k in ("ceiling", "majority") for t in scored if row[f"{k}_{t}"] is None]
        if not _are_faults(parsed(row, "faults", dict)):
            lacking.append("faults")
        if lacking:
            raise UserError(f"{EVIDENCE} is damaged (the {lacking[0]} of {row['arm']}); run the study again")


def _match(verdict: dict[str, Any], rows: Sequence[Row], folder: Path) -> None:
    """Raises UserError unless verdict and evidence speak of the same arms with as many seeds."""
    said = {a["arm"]: a["seeds"] for a in verdict["arms"]}
    seen: dict[str, int] = {}
    for row in rows:
        seen[row["arm"]] = seen.get(row["arm"], 0) + 1
    if not rows and not (verdict.get("claims") or verdict.get("lessons")):  # which may be decided without any
        raise UserError(f"{folder / EVIDENCE} holds no trials; run the study again")
    if odd := sorted(str(k) for k in said.keys() | seen.keys() if said.get(k) != seen.get(k)):
        raise UserError(
            f"{folder / VERDICT} and {EVIDENCE} do not belong together (they differ in {', '.join(odd[:4])}); "
            "run the study again (what it has already run is kept)"
        )
