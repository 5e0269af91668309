"""The page of the claims: a line a claim with what came of it, and below a section each that shows why.

Nothing is taken from the verdict's claims: they are decided again from evidence and measures, which the study first
recognises as its own.
"""

from collections.abc import Sequence
from typing import Any

from crevasse.errors import UserError
from crevasse.report import claim_figures, figures, page
from crevasse.report.figures import Row, number
from crevasse.studies import STUDIES, VERDICT, decide
from crevasse.studies.claims.base import DECISIONS, Picture
from crevasse.studies.measures import Measure
from crevasse.tasks import TESTS

#: Decision -> the role that colours it.
COLOURS = {"supported": "rule", "half right": "part", "refuted": "memory", "undecided": "nothing"}
#: The claim whose matrix, the table of recursions, stands beside the verdicts.
TABLE = "C2"
#: Tables with more lines than this are folded up.
FOLDED = 12


def render(verdict: dict[str, Any], rows: Sequence[Row], measures: Sequence[Measure]) -> str:
    """The page as HTML. rows, measures: all of them. Raises UserError for evidence or measures of something else."""
    made = _decided(verdict, rows, measures)
    arms = {a["arm"]: a for a in made["arms"]}
    claims = [_claim(c, [arms[name] for name in c["arms"]]) for c in made["claims"]]
    pictures = {p["id"]: p.pop("figure") for c in claims for p in c["pictures"]}
    table = next((p for c in claims if c["claim"] == TABLE for p in c["pictures"] if p["kind"] == "matrix"), None)
    if table:  # plotly writes into what it draws, so that each place has a picture of its own
        pictures["table"] = pictures[table["id"]]
    return page.render(
        "claims.html",
        made,
        rows,
        pictures,
        claims=claims,
        table=table,
        table_of=TABLE,
        tally=[(d, COLOURS[d], sum(c["decision"] == d for c in claims)) for d in DECISIONS],
        trials=len(rows),
        measured=len(measures),
        seeds=sorted({a["seeds"] for a in made["arms"]}),
        notes=_notes(made["arms"]),
        folded=FOLDED,
    )


# --- are these the evidence and the measures of this verdict? ---------------------------------------------------------


def _decided(verdict: dict[str, Any], rows: Sequence[Row], measures: Sequence[Measure]) -> dict[str, Any]:
    """The verdict as its study gives it on this evidence. Raises UserError."""
    study = STUDIES.parse(verdict["study"])
    if not hasattr(study, "claims"):
        raise UserError(f"{VERDICT} has claims and is of a study that makes none ({verdict['study']})")
    return decide(study, verdict["budget"], rows, measures) | {"seconds": verdict.get("seconds")}


# --- what the page shows ---------------------------------------------------------------------------------------------


def _claim(claim: dict[str, Any], arms: Sequence[dict[str, Any]]) -> dict[str, Any]:
    name = claim["claim"].lower()
    return claim | {
        "id": name,
        "colour": COLOURS[claim["decision"]],
        "pictures": [_picture(p, f"{name}-{i}") for i, p in enumerate(claim["pictures"])],
        "effects": [
            {"name": e["name"], "n": e["n"], **{k: figure_text(e[k]) for k in ("value", "low", "high")}}
            for e in claim["effects"]
        ],
        "arms": [a | {"colour": figures.finding_colour(a["finding"])} for a in arms],
        "splits": [t for t in TESTS if any(t in a["splits"] for a in arms)],
    }


def _picture(picture: Picture, name: str) -> dict[str, Any]:
    figure = claim_figures.draw(picture)
    return {
        "id": name,
        "kind": picture["kind"],
        "caption": picture.get("caption", ""),
        "key": claim_figures.key(picture),
        "figure": figure,
        "height": figure["layout"]["height"],
    }


def figure_text(value: Any) -> str:
    """.97 where a share says enough, 16 or 1,240 for counts, 3.1e-05 for what two decimals would hide."""
    v = number(value)
    if v is None:
        return "–"
    if (v == int(v) and abs(v) > 1) or 1000 <= abs(v) < 1e6:
        return page.count_text(v)
    return page.score_text(v) if v == 0 or 0.005 <= abs(v) < 1000 else f"{v:.2g}"


def _notes(arms: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Each note of the trials, and the arms it is of."""
    found: dict[str, list[str]] = {}
    for arm in arms:
        for note in arm["notes"]:
            found.setdefault(note, []).append(arm["arm"])
    return list(found.items())
