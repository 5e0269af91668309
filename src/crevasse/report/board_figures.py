"""Pictures of the leaderboard: how each rule moves through the plane of s and h, and how much data it needs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from crevasse.report.figures import (
    H_FLOOR,
    H_TOP,
    READING,
    Figure,
    Row,
    axis,
    below,
    frame,
    label,
    line,
    number,
    path,
    plain,
    plane,
    rgb,
    safe,
    spread,
)
from crevasse.studies.leaderboard.board import BASELINE, curve

#: Rules that keep a colour of their own on every bench.
HUES = {BASELINE: "ink", "race": "fault-start", "starve": "fault-operand"}
#: Colours of the others in the data curve, in turn.
_TURNS = ("rule", "memory", "part", "fault-stopping", "soft")
#: Labels that stand one below the other: how far apart, in h and in shares of right answers.
_GAP_H, _GAP_EXACT = 0.11, 0.05


def coloured(bench: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """The few rules that are told apart on a bench -> colour, and what they are here. All others are grey."""
    order = [e["rule"] for e in bench["entries"]]
    found = {rule: (role, "the baseline" if rule == BASELINE else "") for rule, role in HUES.items() if rule in order}
    found |= {rule: ("part", "yours") for rule in order if rule.startswith("file:")}
    for rule, role, place in ((order[0], "rule", "first"), (order[-1], "memory", "last")):
        role, said = found.get(rule, (role, ""))
        found[rule] = role, f"{said}, {place}" if said else place
    return found


def short(rule: str) -> str:
    """A rule's name where there is little room; of a file its own name."""
    name = rule.rpartition("/")[2] if rule.startswith("file:") else rule
    return name if len(name) <= 20 else name[:19] + "…"


def middle(rows: Sequence[Row]) -> Row:
    """The trial with the median lockstep score; of an even number the lower one."""
    ranked = sorted(rows, key=lambda r: -math.inf if (v := number(r["lockstep"])) is None else v)
    return ranked[(len(ranked) - 1) // 2]


def paths(bench: dict[str, Any], rows: Mapping[str, Sequence[Row]]) -> Figure:
    """h against s, a line a rule of a bench: its `middle` seed. rows: rule -> its trials there."""
    told = coloured(bench)
    traces, ends, cut = [], [], False
    names = sorted((e["rule"] for e in bench["entries"]), key=lambda rule: (rule in told, rule == BASELINE))
    for rule in names:
        row = middle(rows[rule])
        points = path(row)
        if points is None:
            continue
        cut = cut or below(points)
        role = told[rule][0] if rule in told else "nothing"
        traces.append(
            line(points, role, 2.6 if rule in told else 1, 9 if rule in told else 4)
            | {
                "opacity": 1 if rule in told else 0.5,
                "meta": [safe(rule), row["seed"], f"{row['lockstep']:.2f}" if row["lockstep"] is not None else "–"],
                "hovertemplate": "<b>%{meta[0]}</b> · seed %{meta[1]}, lockstep %{meta[2]}<br>" + READING,
            }
        )
        last = next((p for p in reversed(points) if math.isfinite(p[0]) and math.isfinite(p[1])), None)
        if rule in told and last is not None:
            ends.append((short(rule), float(last[0]), float(last[1]), role))
    # Who came far is named in the margin, the others where they stopped.
    far, near = [e for e in ends if e[1] >= 0.7], [e for e in ends if e[1] < 0.7]
    layout = plane(cut, _margin([e[0] for e in far]))
    for some, more in ((far, {"x": 1, "xref": "paper", "xshift": 5}), (near, {"xshift": 8, "bgcolor": rgb("paper")})):
        places = apart([h for _, _, h, _ in some], _GAP_H, H_FLOOR, H_TOP)
        for (name, s, _, role), y in zip(some, places, strict=True):
            layout["annotations"].append(label(safe(name), s, y, role, xanchor="left") | more)
    return {"data": traces, "layout": layout}


def data_curve(benches: Sequence[dict[str, Any]]) -> Figure | None:
    """Held-out exact match on the cell against N, a line a rule with two sizes or more; None: there is no such rule."""
    cells = [b for b in benches if b["section"] == "cell"]
    lines = {e["rule"]: curve(benches, e["rule"]) for b in cells for e in b["entries"]}
    lines = {rule: points for rule, points in lines.items() if len(points) > 1}
    if not lines:
        return None
    turns = iter(_TURNS * len(lines))
    roles = {rule: HUES.get(rule) or ("part" if rule.startswith("file:") else next(turns)) for rule in lines}
    chance = cells[0]["entries"][0]["chance"]
    sizes = sorted({n for points in lines.values() for n, _ in points})
    traces = []
    for i, (rule, points) in enumerate(lines.items()):
        means = [s["mean"] for _, s in points]
        beside = 1.025 ** (i - (len(lines) - 1) / 2)  # so that intervals do not hide each other
        traces.append({
            "type": "scatter", "mode": "lines+markers", "showlegend": False,
            "x": plain(n * beside for n, _ in points), "y": plain(means),
            "error_y": {"type": "data", "symmetric": False, "color": rgb(roles[rule]), "thickness": 1.3, "width": 3,
                        "array": plain(s["high"] - s["mean"] for _, s in points),
                        "arrayminus": plain(s["mean"] - s["low"] for _, s in points)},
            "line": {"color": rgb(roles[rule]), "width": 2.2},
            "marker": {"color": rgb(roles[rule]), "size": 7, "line": {"width": 0}},
            "customdata": [[n, *plain([s["low"], s["high"]]), s["n"]] for n, s in points],
            "meta": [safe(rule)],
            "hovertemplate": "<b>%{meta[0]}</b> · N = %{customdata[0]:,}<br>held-out exact %{y:.3f} "
                             "[%{customdata[1]:.3f}–%{customdata[2]:.3f}], %{customdata[3]} seeds<extra></extra>",
        })  # fmt: skip
    ends = [(short(rule), points[-1][1]["mean"], roles[rule]) for rule, points in lines.items()]
    ends.append(("chance", chance, "soft"))
    places = apart([y for _, y, _ in ends], _GAP_EXACT, 0, 1)
    layout = frame(
        {"l": 52, "r": _margin([e[0] for e in ends]), "t": 8, "b": 46},
        xaxis=axis("N: training problems", type="log", tickvals=sizes, ticktext=[f"{n:,}" for n in sizes],
                   range=[math.log10(sizes[0]) - 0.1, math.log10(sizes[-1]) + 0.1]),
        yaxis=axis("held-out problems answered right", range=[-0.02, 1.03], dtick=0.25, tickformat=".2~f"),
        hovermode="closest",
        shapes=[{"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": chance, "y1": chance, "layer": "below",
                 "line": {"color": rgb("soft"), "width": 1.4, "dash": "dot"}}],
        annotations=[label(safe(name), 1, y, role, xref="paper", xanchor="left", xshift=5)
                     for (name, _, role), y in zip(ends, places, strict=True)],
    )  # fmt: skip
    return {"data": traces, "layout": layout}


def _margin(names: Sequence[str]) -> int:
    """Pixels that the longest of some labels needs."""
    return 16 + round(7.4 * max(map(len, names), default=0))


def apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Labels moved apart as `spread` does it, and none out of the picture."""
    found = spread(places, gap)
    order = sorted(range(len(found)), key=lambda i: found[i])
    for some, sign, edge in ((order, 1, low), (order[::-1], -1, high)):
        for i in some:
            found[i] = sign * max(sign * found[i], sign * edge)
            edge = found[i] + sign * gap
    return found
