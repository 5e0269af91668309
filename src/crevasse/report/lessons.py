"""The page of the lessons: what each way to learn is worth, how far one example reaches, and three lives as stories.

Nothing is taken from the verdict's figures: they are worked out again from the measures, which the study first
recognises as its own.
"""

from collections.abc import Sequence
from typing import Any

from crevasse.errors import UserError
from crevasse.lessons.regret import FALSE
from crevasse.report import claim_figures, lattice, page
from crevasse.report.claims import COLOURS
from crevasse.report.figures import Figure, Row, plain, rgb, safe
from crevasse.stats import Score
from crevasse.studies import STUDIES, VERDICT, decide
from crevasse.studies.claims.augmentation import SAME, WAYS
from crevasse.studies.claims.base import Picture, Series
from crevasse.studies.lessons.figures import GOAL_AFTER, GOAL_FALSE
from crevasse.studies.lessons.lives import BINS
from crevasse.studies.lessons.stories import NEAR
from crevasse.studies.lessons.study import SAID, WORDS, LessonsStudy
from crevasse.studies.measures import Measure

#: Methods in words, in the order in which pictures give out their colours; the fixed augmentations come besides.
NAMES = {
    "common-sense": "common-sense gradient",
    "sgd": "SGD on the incidents",
    "map": "most probable scope alone",
    "sgd+replay": "SGD with replay",
    "nothing": "nothing learnt",
    "oracle": "oracle",
}
#: Whether a goal is met -> its colour.
MET = {True: "rule", False: "memory", None: "nothing"}
#: Bins of the calibration with less than this share of all weight are not drawn.
DRAWN = 0.0005
#: Pixels of a line of a name.
_LINE = 14


def render(verdict: dict[str, Any], rows: Sequence[Row], measures: Sequence[Measure]) -> str:
    """The page as HTML. Raises UserError for measures of something else."""
    study = STUDIES.parse(verdict["study"])
    if not isinstance(study, LessonsStudy):
        raise UserError(f"{VERDICT} has lessons and is of a study that teaches none ({verdict['study']})")
    made = decide(study, verdict["budget"], rows, measures) | {"seconds": verdict.get("seconds")}
    found = made["lessons"]
    n = GOAL_AFTER
    simple = {"errors": _errors(found, n), "false": _false(found), "calibration": _calibration(found)}
    drawn = {
        "regret": _regret(found, n),
        **{name: claim_figures.draw(picture) for name, picture in simple.items()},
        **{f"lattice-{way}": lattice.draw(found["reach"]["scopes"], way) for way in WAYS},
    }
    return page.render(
        "lessons.html",
        made,
        rows,
        drawn,
        found=found,
        n=n,
        height={name: figure["layout"]["height"] for name, figure in drawn.items()},
        keys={name: claim_figures.key(picture) for name, picture in simple.items()},
        goals=[g | {"word": WORDS[g["met"]], "colour": MET[g["met"]]} for g in found["goals"]],
        reached=lattice.tally(found["reach"]["scopes"]),
        ways=WAYS,
        same=SAME,
        decision=COLOURS[found["reach"]["decision"]],
        tables=[(at, _table(found, at)) for at in sorted(found["after"], key=lambda a: (a != n, a))],
        sure=[(c["n"], sum(b["weight"] for b in c["bins"] if b["bin"] in (0, BINS - 1))) for c in found["calibration"]],
        stories=[_story(s) for s in found["stories"]],
        goal_false=GOAL_FALSE,
        judge=study.judge,
        least=DRAWN,
        limit=FALSE,
        percent=percent,
    )


def name_of(method: str) -> str:
    return NAMES.get(method) or f"scope {method.removeprefix('augment-')} of the thesis"


def percent(value: float | None) -> str:
    """72%, 5%, 1.3%, 0.02%; 0% only for what is nothing at all."""
    if value is None:
        return "–"
    if 0 < abs(value) < 0.0001:
        return "<0.01%"
    digits = 0 if abs(value) >= 0.0995 else 1 if abs(value) >= 0.00995 else 2
    text = f"{100 * value + 0.0:.{digits}f}".replace("-", "−")
    return (text.rstrip("0").rstrip(".") if digits else text) + "%"


# --- what methods are worth ------------------------------------------------------------------------------------------


def _named(found: dict[str, Any], n: int) -> dict[str, str]:
    """The methods that pictures name: all but the fixed augmentations, and the best of these."""
    there = [m["method"] for m in found["methods"]]
    named = {m: name for m, name in NAMES.items() if m in there}
    best = found["best_fixed"][str(n)]
    return named | ({best: f"best fixed augmentation (scope {best.removeprefix('augment-')})"} if best else {})


def _scores(found: dict[str, Any], method: str, figure: str) -> list[Score | None]:
    """A figure of a method after each number of incidents."""
    return next([a[figure] for a in m["after"]] for m in found["methods"] if m["method"] == method)


def _middle(scores: Sequence[Score | None]) -> list[float | None]:
    return [s["mean"] if s else None for s in scores]


def _ends(scores: Sequence[Score | None]) -> Series:
    """The intervals of a series."""
    return {"low": [s["low"] if s else None for s in scores], "high": [s["high"] if s else None for s in scores]}


def _regret(found: dict[str, Any], n: int) -> Figure:
    """A line a method with its interval over lives; the fixed augmentations that are not the best are thin."""
    named, x = _named(found, n), found["after"]
    scores = {m["method"]: _scores(found, m["method"], "regret") for m in found["methods"]}
    some: list[Series] = [{"name": name, "x": x, "y": _middle(scores[m]), **_ends(scores[m])}
                          for m, name in named.items()]  # fmt: skip
    figure = claim_figures.draw({"kind": "lines", "x": "incidents", "y": "regret of a meeting", "log_y": True,
                                 "series": some})  # fmt: skip
    for method in [m for m in scores if m not in named]:
        y = [s["mean"] for s in scores[method] if s]
        figure["data"].insert(0, {
            "type": "scatter", "mode": "lines", "x": x, "y": plain(y), "showlegend": False, "opacity": 0.7,
            "line": {"color": rgb("nothing"), "width": 1}, "meta": [safe(name_of(method))],
            "hovertemplate": "<b>%{meta[0]}</b><br>%{x}: %{y:.3~g}<extra></extra>",
        })  # fmt: skip
    figure["layout"]["margin"]["t"] += _LINE  # room for a name of two lines at the top
    figure["layout"]["height"] += _LINE
    figure["layout"]["xaxis"] |= {"tickvals": x, "dtick": None, "range": [x[0] - 0.4, x[-1] + 0.3]}
    return figure


def _at(found: dict[str, Any], method: str, figure: str, n: int) -> Score | None:
    after: list[int] = found["after"]
    return _scores(found, method, figure)[after.index(n)]


def _dots(found: dict[str, Any], methods: Sequence[str], figures: dict[str, tuple[str, int]]) -> list[Series]:
    """figures: what a series is called -> which figure, after how many incidents."""
    some: list[Series] = []
    for name, (figure, n) in figures.items():
        scores = [_at(found, m, figure, n) for m in methods]
        some.append({"name": name, "y": [name_of(m) for m in methods], "x": _middle(scores), **_ends(scores)})
    return some


def _errors(found: dict[str, Any], n: int) -> Picture:
    methods = [m["method"] for m in found["methods"]]
    figures = {"avoided without a cause": ("over", n), "approached although bad": ("under", n)}
    return {"kind": "dots", "x": "share of what is met", "y": "", "series": _dots(found, methods, figures)}


def _false(found: dict[str, Any]) -> Picture:
    methods = [m["method"] for m in found["methods"] if m["method"] != "nothing"]
    some = {f"after {n}": ("false", n) for n in found["after"] if n in SAID}
    return {"kind": "dots", "x": "share of these lives", "y": "", "series": _dots(found, methods, some)}


def _calibration(found: dict[str, Any]) -> Picture:
    series: list[Series] = []
    for c in found["calibration"]:
        bins = [b for b in c["bins"] if b["weight"] >= DRAWN]
        if c["n"] in SAID:
            series.append({
                "name": f"after {c['n']}", "x": [b["said"] for b in bins], "y": [b["true"] for b in bins],
                "low": [b["low"] for b in bins], "high": [b["high"] for b in bins], "marks": True,
            })  # fmt: skip
    series.append({"name": "as said", "x": [0, 1], "y": [0, 1]})
    return {"kind": "lines", "x": "probability that the lesson holds an event", "y": "how often it does",
            "series": series}  # fmt: skip


def _table(found: dict[str, Any], n: int) -> list[dict[str, Any]]:
    """A line a method, the least regret first."""
    at = found["after"].index(n)
    lines = [
        {"method": m["method"], "name": name_of(m["method"]), "what": m["what"], **m["after"][at]}
        for m in found["methods"]
    ]
    return sorted(lines, key=lambda line: line["regret"]["mean"])


# --- the stories -----------------------------------------------------------------------------------------------------


def _story(story: dict[str, Any]) -> dict[str, Any]:
    """What the page tells of a life: the few methods that are told first, the fixed augmentations apart."""
    steps = []
    for step in story["steps"]:
        ends = [e | {"name": name_of(e["method"]), "avoids": _avoids(e)} for e in step["ends"]]
        steps.append(step | {
            "ends": [e for e in ends if e["method"] in NAMES],
            "fixed": [e for e in ends if e["method"] not in NAMES],
            "right": [e["name"] for e in ends if e["over"] + e["under"] <= FALSE],
        })  # fmt: skip
    return story | {"steps": steps}


def _avoids(end: dict[str, Any]) -> str:
    """What is avoided, in words."""
    if not end["newly"] and not end["no_longer"]:
        return "what it avoided before"
    if not end["avoided"]:
        return "nothing"
    count = f"{end['avoided']:,} event{'s' * (end['avoided'] > 1)}"
    if end["near"] >= NEAR:
        return f"{end['nearest']} ({count})"
    shared = page.score_text(end["near"])
    return f"{count}, {end['newly']:,} of them newly; nearest scope: {end['nearest']} (Jaccard {shared})"
