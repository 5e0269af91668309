"""Pictures of the claims: lines, dots beside their categories, and matrices of shares, drawn from plain data."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from crevasse.report.board_figures import apart
from crevasse.report.figures import COLOURS, Figure, axis, frame, label, number, plain, rgb, safe
from crevasse.studies.claims.base import Picture, Series, share

#: Series that mean the same in every picture -> their colour.
HUES = {
    "training": "ink", "held-out": "rule", "found the rule": "rule", "did not": "memory", "n = m": "nothing",
    "the paper": "ink", "ours": "rule",
}  # fmt: skip
#: Colours of the others, in turn.
_TURNS = ("rule", "memory", "fault-start", "part", "fault-operand", "fault-stopping", "ink")
#: Characters after which names and titles of axes go on in the next line, and pixels of such a line and character.
_NAME, _END, _COLUMN, _TITLE, _LINE, _CHARACTER = 28, 16, 12, 40, 14, 6.1
#: Lines with more points than this show them no more.
_MARKED = 24


def draw(picture: Picture) -> Figure:
    """A picture as a plotly spec; its height in pixels is that of its layout."""
    figure: Figure = {"lines": _lines, "dots": _dots, "matrix": _matrix}[picture["kind"]](picture)
    return figure


def key(picture: Picture) -> list[tuple[str, str]]:
    """Name and colour of the series that have no name within the picture: points, which end nowhere."""
    some = picture.get("series", [])
    drawn = [_points(picture, s) and any(number(v) is not None for v in s["x"]) for s in some]
    return [(s["name"], role) for s, role, d in zip(some, _roles(some), drawn, strict=True) if d]


def _points(picture: Picture, series: Series) -> bool:
    return picture["kind"] == "dots" or series.get("marks", False)


def _roles(some: Sequence[Series]) -> list[str]:
    """A colour for each series, none twice while they last."""
    told = {HUES.get(s["name"], "") for s in some}
    free = [r for r in _TURNS if r not in told] or list(_TURNS)
    turns = iter(free * len(some))
    return [HUES.get(s["name"]) or next(turns) for s in some]


# --- lines ---------------------------------------------------------------------------------------------------------


def _lines(picture: Picture) -> Figure:
    """y against x, a series a line with a band around it, or marks with bars; lines are named at their ends."""
    some = picture["series"]
    log_x, log_y = picture.get("log_x", False), picture.get("log_y", False)
    x_range = _range(_every(some, "x"), log_x)
    y_range = _range(_every(some, "y", "low", "high"), log_y)
    bands, traces, ends = [], [], []
    for s, role in zip(some, _roles(some), strict=True):
        x, y = _values(s["x"], log_x), _values(s["y"], log_y)
        points = _points(picture, s)
        trace = _trace(picture, s, role, x, y) | {"mode": "markers" if points else _mode(x)}
        if s.get("low") and s.get("high"):
            if points or len(x) < 2:
                trace |= {"error_y": _bars(s, s["y"], role)}
            else:
                bands.append(_band(x, _values(s["low"], log_y), _values(s["high"], log_y), role))
        traces.append(trace)
        last = next((v for v in reversed(y) if v is not None), None)
        if last is not None and not points:
            ends.append((_wrapped(s["name"], _END), math.log10(last) if log_y else last, role))
    gap = _LINE * max((len(lines) for lines, _, _ in ends), default=1)
    inner = max(270, round(1.15 * gap * len(ends)))
    places = apart([y for _, y, _ in ends], gap / inner * (y_range[1] - y_range[0]), *y_range)
    margin = {"l": 62, "r": _width([lines for lines, _, _ in ends]) if ends else 14, "t": 10, "b": 52}
    layout = frame(
        margin,
        height=inner + margin["t"] + margin["b"],
        xaxis=_scale(picture.get("x", ""), log_x, x_range, _values(_every(some, "x"), log_x)),
        yaxis=_scale(picture.get("y", ""), log_y, y_range, ()),
        hovermode="closest",
        annotations=[
            label(_broken(lines), 1, y, role, xref="paper", xanchor="left", xshift=5, align="left", size=11)
            for (lines, _, role), y in zip(ends, places, strict=True)
        ],
    )
    return {"data": bands + traces, "layout": layout}


def _mode(x: Sequence[Any]) -> str:
    return "lines+markers" if len(x) <= _MARKED else "lines"


def _band(x: Sequence[Any], low: Sequence[Any], high: Sequence[Any], role: str) -> Figure:
    """The interval around a line, where it is known."""
    known = [p for p in zip(x, low, high, strict=True) if None not in p]
    return {
        "type": "scatter", "mode": "lines", "fill": "toself", "hoverinfo": "skip", "showlegend": False,
        "x": plain([p[0] for p in known] + [p[0] for p in reversed(known)]),
        "y": plain([p[1] for p in known] + [p[2] for p in reversed(known)]),
        "line": {"width": 0}, "fillcolor": "rgba({}, {}, {}, 0.16)".format(*COLOURS[role]),
    }  # fmt: skip


def _scale(title: str, log: bool, limits: tuple[float, float], values: Sequence[float | None]) -> Figure:
    """An axis; whole numbers that are few get a tick each, and few decades ticks at 1, 2 and 5."""
    more: Figure = {"type": "log", "exponentformat": "power", "nticks": 7} if log else {"nticks": 7}
    if log and limits[1] - limits[0] < 3:
        ticks = [m * 10.0**e for e in range(math.floor(limits[0]), math.ceil(limits[1])) for m in (1, 2, 5)]
        more = {"type": "log", "tickvals": ticks, "ticktext": [f"{v:,.6g}" for v in ticks]}
    if not log and values and limits[1] - limits[0] < 9 and all(v is not None and v == int(v) for v in values):
        more = {"dtick": 1}
    return axis(_broken(_wrapped(title, _TITLE)), range=list(limits), **more)


# --- dots ----------------------------------------------------------------------------------------------------------


def _dots(picture: Picture) -> Figure:
    """Categories from top to bottom, beside each a dot a series with its interval."""
    some, log = picture["series"], picture.get("log_x", False)
    names = list(dict.fromkeys(str(v) for s in some for v in s["y"]))
    at = {name: i for i, name in enumerate(names)}
    apart = 0.44 / max(len(some), 2)  # so that dots at the same place do not hide each other
    traces = []
    for i, (s, role) in enumerate(zip(some, _roles(some), strict=True)):
        beside = apart * (i - (len(some) - 1) / 2)
        trace = _trace(picture, s, role, _values(s["x"], log), [at[str(v)] + beside for v in s["y"]])
        trace |= {"mode": "markers", "customdata": [[safe(str(v))] for v in s["y"]]}
        trace["hovertemplate"] = "<b>%{customdata[0]}</b><br>%{meta[0]}: %{x:.3~g}<extra></extra>"
        if s.get("low") and s.get("high"):
            trace |= {"error_x": _bars(s, s["x"], role)}
        traces.append(trace)
    labels = [_wrapped(name, _NAME) for name in names]
    limits = _range(_every(some, "x", "low", "high"), log)
    margin = {"l": _width(labels), "r": 16, "t": 4, "b": 46}
    row = max(_LINE * _most(labels) + 4, 10 * len(some) + 10)
    layout = frame(
        margin,
        height=row * len(names) + margin["t"] + margin["b"],
        xaxis=_scale(picture.get("x", ""), log, limits, ()),
        yaxis=axis("", range=[len(names) - 0.5, -0.5], tickvals=list(range(len(names))), ticksuffix="  ",
                   ticktext=[_broken(lines) for lines in labels]),
        hovermode="closest",
    )  # fmt: skip
    return {"data": traces, "layout": layout}


# --- matrices ------------------------------------------------------------------------------------------------------


def _matrix(picture: Picture) -> Figure:
    """Shares from 0 to 1: the more, the deeper the colour, and the number in every cell; empty cells are grey.

    The cells are shapes, not a heat map of plotly's, which is a bitmap that no style sheet recolours.
    """
    rows, columns = ([_wrapped(v, n) for v in picture[k]] for k, n in (("rows", _NAME), ("columns", _COLUMN)))  # type: ignore[literal-required]
    cells = [(i, j, number(v)) for i, line in enumerate(picture["values"]) for j, v in enumerate(line)]
    title = picture.get("x", "")
    # Columns that are narrow, as on a phone, have their names upright.
    margin = {"l": _width(rows), "r": 2, "t": _width(columns) + (22 if title else 0), "b": 4}
    layout = frame(
        margin,
        height=max(_LINE * _most(rows) + 8, 26) * len(rows) + margin["t"] + margin["b"],
        xaxis=axis(safe(title), range=[-0.5, len(columns) - 0.5], side="top", showgrid=False,
                   tickvals=list(range(len(columns))), ticktext=[_broken(lines) for lines in columns],
                   autotickangles=[0, -90]),
        yaxis=axis(safe(picture.get("y", "")), range=[len(rows) - 0.5, -0.5], showgrid=False, ticksuffix="  ",
                   tickvals=list(range(len(rows))), ticktext=[_broken(lines) for lines in rows]),
        hovermode="closest",
        shapes=[
            {"type": "rect", "x0": j - 0.5, "x1": j + 0.5, "y0": i - 0.5, "y1": i + 0.5, "layer": "below",
             "line": {"width": 1, "color": rgb("paper")}, "fillcolor": rgb("faint" if v is None else "rule"),
             # Ink stays legible on what is never opaque, in light and in dark surroundings.
             "opacity": 0.5 if v is None else round(0.03 + 0.54 * min(max(v, 0.0), 1.0), 3)}
            for i, j, v in cells
        ],
    )  # fmt: skip
    trace = {
        "type": "scatter", "mode": "text", "showlegend": False,
        "x": [j for _, j, _ in cells], "y": [i for i, _, _ in cells],
        "text": ["" if v is None else share(v) for *_, v in cells],
        "textfont": {"color": rgb("ink"), "size": 12},
        "customdata": [[safe(picture["rows"][i]), safe(picture["columns"][j])] for i, j, _ in cells],
        "hovertemplate": "<b>%{customdata[0]}</b><br>%{customdata[1]}: %{text}<extra></extra>",
    }  # fmt: skip
    return {"data": [trace], "layout": layout}


# --- what they share -----------------------------------------------------------------------------------------------


def _trace(picture: Picture, series: Series, role: str, x: Sequence[float | None], y: Sequence[float | None]) -> Figure:
    return {
        "type": "scatter", "showlegend": False, "x": x, "y": y, "meta": [safe(series["name"])],
        "line": {"color": rgb(role), "width": 2.2},
        "marker": {"color": rgb(role), "size": 8 if picture["kind"] == "dots" else 6, "line": {"width": 0}},
        "opacity": 0.65 if series.get("marks", False) else 1,
        "hovertemplate": "<b>%{meta[0]}</b><br>%{x:.4~g}: %{y:.3~g}<extra></extra>",
    }  # fmt: skip


def _bars(series: Series, middle: Sequence[Any], role: str) -> Figure:
    """The interval of each point, as far as it is known, as plotly wants it: as lengths."""
    sides = [
        [max(sign * (end - v), 0.0) if (v := number(m)) is not None and (end := number(e)) is not None else 0.0
         for m, e in zip(middle, series[name], strict=True)]  # type: ignore[literal-required]
        for sign, name in ((1, "high"), (-1, "low"))
    ]  # fmt: skip
    return {"type": "data", "symmetric": False, "color": rgb(role), "thickness": 1.3, "width": 3,
            "array": plain(sides[0]), "arrayminus": plain(sides[1])}  # fmt: skip


def _every(some: Sequence[Any], *keys: str) -> list[Any]:
    """What stands under these keys in any of some series."""
    return [v for s in some for k in keys for v in s.get(k) or ()]


def _values(values: Sequence[Any], log: bool) -> list[float | None]:
    """Numbers that can be drawn; on a logarithmic axis these are the positive ones."""
    found = [number(v) for v in values]
    return [None if v is None or (log and v <= 0) else float(f"{v:.5g}") for v in found]


def _range(values: Sequence[Any], log: bool) -> tuple[float, float]:
    """Of an axis, in its own units (decades where it is logarithmic). Shares that fill most of 0 to 1 get all of it."""
    known = [math.log10(v) if log else v for v in _values(values, log) if v is not None] or [0.0, 1.0]
    low, high = min(known), max(known)
    if not log and low >= 0 and 0.5 < high <= 1:
        return -0.03, 1.03
    edge = 0.05 * (high - low) or 0.5
    return low - edge, high + edge


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width) or [""]


def _broken(lines: Sequence[str]) -> str:
    return "<br>".join(map(safe, lines))


def _most(labels: Sequence[Sequence[str]]) -> int:
    """Lines of the longest label."""
    return max(map(len, labels), default=1)


def _width(labels: Sequence[Sequence[str]]) -> int:
    """Pixels that the widest label needs."""
    return 16 + round(_CHARACTER * max((len(line) for lines in labels for line in lines), default=0))
