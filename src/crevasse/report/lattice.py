"""The scopes that hold the thesis' incident as a picture: how far a lesson reached that was to span each of them."""

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import Any

from crevasse.lessons.scopes import lattice
from crevasse.lessons.world import ROOT, Attribute, default_world
from crevasse.report import page
from crevasse.report.figures import Figure, axis, frame, label, rgb, safe
from crevasse.studies.claims.augmentation import SAME, WAYS, thesis_incident

#: How far a lesson reached -> its words.
REACHED = {"rule": "as far as its scope", "memory": "too far", "part": "not far enough"}
#: How far a block reaches beyond its outer nodes, and how far the next is, in steps between nodes.
_EDGE, _GAP = 0.48, 0.7
#: Characters of a line of a name, and diameters of the nodes in pixels.
_COLUMN, _SMALL, _LARGE = 10, 6, 15

Scope = dict[str, Any]


def reached(scopes: Sequence[Scope], way: str) -> list[str]:
    """The role that colours each scope."""
    world = max(s[way]["events"] for s in scopes)  # one of them holds all events
    return [
        "rule" if at["jaccard"] >= SAME else "memory" if at["changed"] * world >= at["events"] else "part"
        for at in (s[way] for s in scopes)
    ]


def tally(scopes: Sequence[Scope]) -> dict[str, list[tuple[str, str, int]]]:
    """For each way the colours, their words and how many scopes have them."""
    roles = {way: reached(scopes, way) for way in WAYS}
    return {way: [(role, words, of.count(role)) for role, words in REACHED.items()] for way, of in roles.items()}


def draw(scopes: Sequence[Scope], way: str) -> Figure:
    """All scopes, one step of generalising between neighbours.

    A block for each kind of place (to the right it narrows down) and of companion (downwards); in each block a node
    for each kind of day (to the right) and of hour (downwards). Larger nodes are lessons that reached further, on a
    logarithmic scale.
    """
    world = default_world()
    event = thesis_incident(world)
    places, days, hours, companions = lattice(world, event)
    wide, high = (n - 1 + 2 * _EDGE + _GAP for n in (days, hours))
    spots = [
        (p * wide + d, c * high + h)
        for p, d, h, c in itertools.product(*map(range, (places, days, hours, companions)))  # in the order of scopes
    ]
    blocks = [(p * wide, c * high) for p in range(places) for c in range(companions)]
    nodes = []
    for role in REACHED:
        of = zip(scopes, spots, reached(scopes, way), strict=True)
        mine = [(s, *spot) for s, spot, own in of if own == role]
        nodes.append({
            "type": "scatter", "mode": "markers", "showlegend": False,
            "x": [x for _, x, _ in mine], "y": [y for _, _, y in mine],
            "marker": {"color": rgb(role), "opacity": 1, "line": {"width": 0},
                       "size": [_size(s[way]["changed"] * world.size, world.size) for s, *_ in mine]},
            "customdata": [[safe(s["scope"]), page.count_text(s[way]["events"]), page.score_text(s[way]["jaccard"]),
                            page.count_text(s[way]["changed"] * world.size)] for s, *_ in mine],
            "hovertemplate": "<b>%{customdata[0]}</b><br>%{customdata[1]} events<br>newly avoided: %{customdata[3]}"
                             "<br>Jaccard index %{customdata[2]}<extra></extra>",
        })  # fmt: skip
    layout = frame(
        {"l": 74, "r": 4, "t": 8, "b": 58},
        height=440,
        xaxis=_side(world.attributes[0], event[0], wide, days) | {"tickangle": 0},
        yaxis=_side(world.attributes[-1], event[-1], high, hours),
        hovermode="closest",
        annotations=[
            label(f"<b>{s[way]['thesis']:.0f}</b>", x, y, "ink", size=12, xshift=9, yshift=9)
            for s, (x, y) in zip(scopes, spots, strict=True)
            if s[way]["thesis"]
        ],
        shapes=[
            {"type": "rect", "x0": x - _EDGE, "x1": x + days - 1 + _EDGE, "y0": y - _EDGE, "y1": y + hours - 1 + _EDGE,
             "layer": "below", "line": {"width": 0}, "fillcolor": rgb("faint"), "opacity": 0.5}
            for x, y in blocks
        ],
    )  # fmt: skip
    layout["yaxis"]["range"].reverse()
    return {"data": [_edges(blocks, days, hours), *nodes], "layout": layout}


def _edges(blocks: Sequence[tuple[float, float]], days: int, hours: int) -> Figure:
    """Lines between the nodes of a block, and one to the block at its right and to the one below."""
    lines = []
    for x, y in blocks:
        lines += [((x, y + h), (x + days - 1, y + h)) for h in range(hours)]
        lines += [((x + d, y), (x + d, y + hours - 1)) for d in range(days)]
        right, below = x + days - 1 + _EDGE, y + hours - 1 + _EDGE
        if x < max(x for x, _ in blocks):
            lines.append(((right, y + (hours - 1) / 2), (right + _GAP, y + (hours - 1) / 2)))
        if y < max(y for _, y in blocks):
            lines.append(((x + (days - 1) / 2, below), (x + (days - 1) / 2, below + _GAP)))
    return {
        "type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False,
        "x": [v for (x, _), (u, _) in lines for v in (x, u, None)],
        "y": [v for (_, y), (_, u) in lines for v in (y, u, None)],
        "line": {"color": rgb("nothing"), "width": 1}, "opacity": 0.8,
    }  # fmt: skip


def _side(attribute: Attribute, value: int, step: float, inner: int) -> Figure:
    """An axis with the kinds of a value below the middles of their blocks."""
    names = attribute.paths[value]
    words = [f"any {attribute.name}" if name == ROOT else name for name in names]
    return axis(
        "",
        range=[-_EDGE - 0.2, (len(names) - 1) * step + inner - 1 + _EDGE + 0.1],
        showgrid=False,
        tickvals=[i * step + (inner - 1) / 2 for i in range(len(names))],
        ticktext=["<br>".join(map(safe, textwrap.wrap(w, _COLUMN))) for w in words],
        tickfont={"size": 11},
    )


def _size(events: float, world: int) -> float:
    """The diameter of a node."""
    return round(_SMALL + (_LARGE - _SMALL) * math.log(max(events, 1)) / math.log(world), 1)
