"""The page of a landscape: what lies between two or three solutions, and how sharp it is around each.

Made of what `crevasse.survey` found, alone.
"""

import json
from collections.abc import Sequence
from typing import Any

from crevasse.report import claim_figures, page
from crevasse.report.figures import Figure, axis, frame, label, number, plain, rgb, safe
from crevasse.studies.claims.base import Picture, Series
from crevasse.survey import written

LANDSCAPE, PAGE = "landscape.json", "index.html"
#: Letters of points -> their colour, in every picture.
COLOURS = dict(zip("ABC", ("rule", "memory", "fault-start"), strict=True))
#: Ways between two points, what they are called at the ends of their lines, and their colour.
WAYS = {"straight": "straight", "aligned": "straight, units in order", "bent": "bent path"}
WAY_COLOURS = {"straight": "nothing", "aligned": "ink", "bent": "part"}
#: Kind of change -> what it is a share of.
CHANGES = {"row": "of the length of each row of weights", "raw": "of the length of all weights"}
#: The plane has at most so many lines of equal loss; the highest have their loss beside them.
MOST, LABELLED = 6, 3


def render(found: dict[str, Any], command: str) -> str:
    """The page as HTML. found: of `survey`; command: what makes it again."""
    pictures = {"plane": _plane(found["plane"])}
    changes = [
        (f"{kind}-{what}", _change(found["points"], kind, what)) for kind in CHANGES for what in ("exact", "loss")
    ]
    ways = [(f"ways-{i}", _ways(pair)) for i, pair in enumerate(found["pairs"])]
    drawn = {name: _drawn(picture) for name, picture in changes}
    drawn |= {name: _recoloured(_drawn(picture)) for name, picture in ways}
    letters = [p["point"] for p in found["points"]]
    return page.fill(
        "landscape.html",
        pictures | drawn,
        question=f"What lies between {', '.join(letters[:-1])} and {letters[-1]}, and how sharp is it around each?",
        answer=found["answer"],
        command=command,
        found=found,
        colours=COLOURS,
        ways=_with_height(ways, drawn),
        changes=_with_height(changes, drawn),
        levels=[f"{v:g}" for v in _levels(found["plane"])],
        text=written,
    )


def _with_height(pictures: Sequence[tuple[str, Picture]], drawn: dict[str, Figure]) -> list[dict[str, Any]]:
    return [{"id": i, "caption": p["caption"], "height": drawn[i]["layout"]["height"]} for i, p in pictures]


def _ways(pair: dict[str, Any]) -> Picture:
    a, _, b = pair["pair"].partition("–")
    some: list[Series] = [{"name": text, "x": pair["t"], "y": pair[way]["losses"]} for way, text in WAYS.items()]
    return {"kind": "lines", "caption": f"From {a} to {b}", "x": f"way from {a} (0) to {b} (1)", "y": "loss",
            "series": some}  # fmt: skip


def _drawn(picture: Picture) -> Figure:
    figure = claim_figures.draw(picture)
    low, high = figure["layout"]["yaxis"]["range"]
    hair = 1e-6 * (high - low)  # a name at the very edge must not fall out by a rounding error
    figure["layout"]["yaxis"]["range"] = [low - hair, high + hair]
    return figure


def _recoloured(figure: Figure) -> Figure:
    """The first three lines in the colours of the ways, as those of the points stand for points."""
    text = json.dumps(figure)
    for point, way in zip(COLOURS.values(), WAY_COLOURS.values(), strict=True):
        text = text.replace(rgb(point), rgb(way))
    found: Figure = json.loads(text)
    return found


def _change(points: Sequence[dict[str, Any]], kind: str, what: str) -> Picture:
    some: list[Series] = [
        {"name": p["point"], "x": p["changes"][kind]["radius"], "y": p["changes"][kind][what]} for p in points
    ]
    return {
        "kind": "lines",
        "caption": f"{'Scale-invariant' if kind == 'row' else 'Raw'}: {'answers right' if what == 'exact' else 'loss'}",
        "x": f"random change, as a share {CHANGES[kind]}",
        "y": "share right" if what == "exact" else "loss",
        "series": some,
    }


def _levels(plane: dict[str, Any]) -> list[float]:
    """Losses with a line of their own: powers of ten, and 3 times these where so few lie in the plane."""
    known = [v for row in plane["losses"] for v in row if v is not None]
    inside = [m * 10.0**e for e in range(-4, 4) for m in (1, 3) if known and min(known) < m * 10.0**e < max(known)]
    return (inside if len(inside) <= MOST else [v for v in inside if f"{v:.0e}".startswith("1")])[-MOST:]


def _plane(plane: dict[str, Any]) -> Figure:
    """The loss from above: the lower, the deeper the grey. Points, and the path where it lies in the plane.

    The area below a level is a trace of its own, so that each has a colour that a style sheet knows; they lie on one
    another. (Plotly fills what is *not* as the constraint says.)
    """
    x, y = plain(plane["x"]), plain(plane["y"])
    rows = [[number(v) for v in row] for row in plane["losses"]]
    levels = _levels(plane)
    look: Figure = {
        "type": "contour", "x": x, "y": y, "z": rows, "showscale": False, "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip
    areas = [
        look | {"contours": {"type": "constraint", "operation": ">", "value": level}, "fillcolor": rgb("soft"),
                "opacity": round(0.8 / MOST, 2), "line": {"width": 0}}
        for level in levels
    ]  # fmt: skip
    lines = [
        look | {"contours": {"coloring": "none", "start": level, "end": level, "size": 1,
                             "showlabels": level in levels[-LABELLED:],
                             "labelfont": {"size": 11, "color": rgb("ink")}},
                "line": {"color": rgb("soft"), "width": 0.8}, "autocontour": False}
        for level in levels
    ]  # fmt: skip
    cells = [(u, v, z) for v, row in zip(y, rows, strict=True) for u, z in zip(x, row, strict=True) if z is not None]
    hover = {
        "type": "scatter", "mode": "markers", "x": [c[0] for c in cells], "y": [c[1] for c in cells],
        "customdata": plain(c[2] for c in cells), "marker": {"size": 14, "opacity": 0, "color": rgb("ink")},
        "hovertemplate": "loss %{customdata:.3~g}<extra></extra>", "showlegend": False,
    }  # fmt: skip
    way = {
        "type": "scatter", "mode": "lines", "x": plain(p[0] for p in plane["path"]), "hoverinfo": "skip",
        "y": plain(p[1] for p in plane["path"]), "line": {"color": rgb("part"), "width": 2.4}, "showlegend": False,
    }  # fmt: skip
    corners = list(zip(plane["corners"], plane["places"], strict=True))
    points = {
        "type": "scatter", "mode": "markers",
        "x": plain(p[0] for _, p in corners), "y": plain(p[1] for _, p in corners),
        "marker": {"size": 13, "color": [rgb(COLOURS.get(name, "part")) for name, _ in corners],
                   "line": {"width": 2, "color": rgb("paper")}},
        "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip
    layout = frame(
        {"l": 58, "r": 14, "t": 10, "b": 50},
        height=480,
        xaxis=axis("distance in the direction from A to B", range=[x[0], x[-1]], showgrid=False, nticks=7),
        yaxis=axis("distance across it", range=[y[0], y[-1]], showgrid=False, nticks=7),
        hovermode="closest",
        annotations=[
            label(safe(name), p[0], p[1], "ink", size=14, yshift=17, bgcolor=rgb("paper"), borderpad=1)
            for name, p in corners
        ],
    )
    return {"data": [*areas, *lines, hover, *([way] if plane["path"] else []), points], "layout": layout}
