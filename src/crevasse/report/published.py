"""The page of the published results: the paper's figure beside ours for each, above what every study shows of its arms.

Nothing is taken from the verdict's comparisons: they are made again from evidence and measures, which the study first
recognises as its own.
"""

from collections.abc import Sequence
from typing import Any

from crevasse.errors import UserError
from crevasse.report import arms, claim_figures
from crevasse.report.claims import figure_text
from crevasse.report.figures import Row
from crevasse.studies import STUDIES, VERDICT, decide
from crevasse.studies.base import Arm, known_budget
from crevasse.studies.claims.base import Picture
from crevasse.studies.measures import Measure
from crevasse.studies.published.base import WORDS
from crevasse.studies.published.study import PublishedStudy

#: Word -> the role that colours it.
COLOURS = {"repeated": "rule", "in part": "part", "not repeated": "memory"}


def render(verdict: dict[str, Any], rows: Sequence[Row], measures: Sequence[Measure]) -> str:
    """The page as HTML. Raises UserError for evidence or measures of something else."""
    study = STUDIES.parse(verdict["study"])
    if not isinstance(study, PublishedStudy):
        raise UserError(f"{VERDICT} has published results and is of a study that repeats none ({verdict['study']})")
    rows = _named(rows, study.arms(known_budget(verdict["budget"])))
    made = decide(study, verdict["budget"], rows, measures) | {"seconds": verdict.get("seconds")}
    shares = _shares(made["published"])
    figure = claim_figures.draw(shares)
    return arms.render(
        made,
        [r for r in rows if r["phase"] == "test"],
        "published.html",
        {"shares": figure} if shares["series"][0]["x"] else {},
        results=[_result(r) for r in made["published"]],
        shares={"key": claim_figures.key(shares), "height": figure["layout"]["height"]},
        standing=[(w, COLOURS[w], sum(r["word"] == w for r in made["published"])) for w in WORDS],
    )


def _named(rows: Sequence[Row], asked: Sequence[Arm]) -> list[Row]:
    """The rows under the titles of now: those of older evidence quote other figures of the papers."""
    titles = {a.name: {"title": a.title, "group": a.group} for a in asked}
    return [r | titles.get(r["arm"], {}) for r in rows]


def _shares(results: Sequence[dict[str, Any]]) -> Picture:
    """Beside each figure of a paper that is a share: it and ours."""
    some = [(f"{r['result']}: {c['what']}", c) for r in results for c in r["checks"] if c["figure"] is not None]
    ours = [(name, c["ours"]) for name, c in some if c["ours"]]
    return {
        "kind": "dots",
        "x": "share",
        "series": [
            {"name": "the paper", "x": [c["figure"] for _, c in some], "y": [name for name, _ in some]},
            {
                "name": "ours",
                "x": [s["mean"] for _, s in ours],
                "y": [name for name, _ in ours],
                "low": [s["low"] for _, s in ours],
                "high": [s["high"] for _, s in ours],
            },
        ],
    }


def _result(result: dict[str, Any]) -> dict[str, Any]:
    checks = [
        c | {"ours": c["ours"] and {k: v if k == "n" else figure_text(v) for k, v in c["ours"].items()},
             "best": figure_text(c["best"])}
        for c in result["checks"]
    ]  # fmt: skip
    return result | {"colour": COLOURS[result["word"]], "checks": checks, "said": _said(checks)}


def _said(checks: Sequence[dict[str, Any]]) -> str:
    """``GRU on longer problems: 1.00 (paper: 100%); …``, what decides first."""
    return "; ".join(
        f"{c['what']}: {c['ours']['mean'] if c['ours'] else 'none'} (paper: {c['paper']})"
        for c in sorted(checks, key=lambda c: c["contrast"])
    )
