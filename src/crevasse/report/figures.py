"""Pictures as plotly specs: plain dictionaries, computed from the rows of the evidence alone.

Plotly writes colours into each element, where a style sheet cannot reach them by name. So every colour here is
one of `COLOURS`, and `colour_rules` maps each of them, wherever plotly wrote it, to the CSS variable of its name:
dark mode and print then recolour a picture without laying it out again.
"""

import html
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crevasse.probes import progress

Row = dict[str, Any]
Figure = dict[str, Any]
Points = NDArray[np.float64]

#: Role -> its colour in light surroundings. The hues are told apart with any kind of colour vision.
COLOURS = {
    "ink": (33, 37, 43),
    "soft": (91, 98, 109),
    "faint": (222, 220, 213),
    "paper": (253, 252, 249),
    "rule": (0, 122, 135),
    "part": (192, 132, 0),
    "memory": (204, 76, 20),
    "nothing": (128, 133, 141),
    "wash": (236, 104, 66),  # behind the memorising updates
    # Where traces break: blues for what is carried over, reds for the step, greens for its shape, grey for the end.
    "fault-start": (52, 66, 158),
    "fault-copying": (156, 178, 230),
    "fault-operand": (150, 36, 104),
    "fault-result": (236, 162, 190),
    "fault-stopping": (92, 98, 20),
    "fault-form": (204, 205, 128),
    "fault-answer": (96, 102, 112),
    "fault-other": (200, 202, 206),
}
#: Kind of fault -> its word on a bar, its words in a sentence, the colour of writing on it. In the order of a trace.
FAULTS = {
    "start": ("first value", "the first value", "paper"),
    "copying": ("copying", "copying a value", "ink"),
    "operand": ("operand", "the next operand", "paper"),
    "result": ("result", "the result of a step", "ink"),
    "stopping": ("stopping", "knowing when to stop", "paper"),
    "form": ("form", "the way steps are written", "ink"),
    "answer": ("answer", "the final answer", "paper"),
    "other": ("other", "something else", "ink"),  # a kind that this version does not know
}
#: The loss axis is logarithmic where the largest loss is more than so many times the smallest.
LOG_ABOVE = 20.0
#: Where the diagonal picture ends; held-out loss can rise without bound.
H_FLOOR, H_TOP, S_LEFT, S_RIGHT = -1.2, 1.05, -0.25, 1.04

_FONT = '-apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, system-ui, sans-serif'
_PICTURE_HEIGHT = 190  # of the plotting area of a loss picture, in pixels: what labels are spaced by


def rgb(role: str) -> str:
    """A colour as browsers write it into a style attribute, which is what `colour_rules` looks for."""
    return "rgb({}, {}, {})".format(*COLOURS[role])


def colour_rules() -> str:
    """The style sheet that gives each of `COLOURS`, where plotly wrote it, the value of its CSS variable."""
    return "\n".join(
        f'.js-plotly-plot [style*="{what}: {rgb(role)}"] {{ {what}: var(--{role}) !important; }}'
        for role in COLOURS
        for what in ("fill", "stroke")
    )


def finding_colour(finding: str) -> str:
    """The role that colours a finding; diverged shares the grey of nothing learnt."""
    return finding if finding in COLOURS else "nothing"


# --- the lockstep diagonal ---------------------------------------------------------------------------------------


def diagonal(rows: Sequence[Row], findings: dict[str, str]) -> Figure:
    """h against s, a line a trial, in the colour of its arm's finding. findings: arm -> finding.

    A line that would leave the picture runs on along its edge; the hover text always gives the true values.
    """
    traces, cut, seeds = [], False, {r["arm"]: r["seed"] for r in reversed(rows)}

    def order(row: Row) -> tuple[int, bool]:
        """What is rare and what is strong lies on top."""
        return _PAINT_ORDER.index(finding_colour(findings[row["arm"]])), row["seed"] == seeds[row["arm"]]

    for row in sorted(rows, key=order):
        points = path(row)
        if points is None:
            continue
        cut = cut or below(points)
        role = finding_colour(findings[row["arm"]])
        strong = row["seed"] == seeds[row["arm"]]
        traces.append(
            line(points, role, 2 if strong else 1, 9 if strong else 6)
            | {
                "opacity": 0.9 if strong else 0.45,
                "meta": [safe(row["title"]), safe(row["arm"]), row["seed"], role],
                "hovertemplate": "<b>%{meta[0]}</b> · %{meta[1]} · seed %{meta[2]}<br>" + READING,
            }
        )
    return {"data": traces, "layout": plane(cut)}


#: Of hover text: where on its way a trial was.
READING = "step %{customdata[0]:,}   s = %{customdata[1]:.3f}   h = %{customdata[2]:.3f}<extra></extra>"


def path(row: Row) -> list[Points] | None:
    """A trial's way through the plane of s and h, as `clip` draws it; None where its losses were not read."""
    step, train, held_out = curves(row)
    uniform = number(row["uniform_loss"])
    if not len(step) or uniform is None or uniform <= 0:
        return None
    return clip(np.stack([progress(train, uniform), progress(held_out, uniform), step], axis=1))


def below(points: Sequence[Points]) -> bool:
    """Does a path leave the picture at the bottom?"""
    return any(p[4] < H_FLOOR for p in points)


def line(points: Sequence[Points], role: str, width: float, mark: float) -> Figure:
    """A path as a trace. Only its end is marked, with a dot of `mark` pixels: where the trial came to rest."""
    last = max((i for i, p in enumerate(points) if np.isfinite(p[0])), default=0)
    return {
        "type": "scatter", "mode": "lines+markers",
        "x": plain(p[0] for p in points), "y": plain(p[1] for p in points),
        "customdata": [plain(p[2:]) for p in points],
        "line": {"color": rgb(role), "width": width},
        "marker": {"color": rgb(role), "size": [mark * (i == last) for i in range(len(points))], "line": {"width": 0}},
        "showlegend": False,
    }  # fmt: skip


def plane(cut: bool, right: int = 14) -> Figure:
    """The layout of a picture of h against s. cut: is a path held at its bottom edge? right: the margin, in pixels."""
    over: Figure = {"size": 13, "bgcolor": rgb("paper"), "borderpad": 1}  # legible over any number of lines
    notes = [
        label("in step", 0.8, 0.8, "ink", xanchor="right", yshift=12, xshift=-6, **over),
        label("only memory", 0.8, 0, "ink", xanchor="right", yshift=12, xshift=-6, **over),
    ]
    if cut:
        corner = {"xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom", "yshift": 6}
        notes.append(
            label(
                f"▾ the bottom edge stands for all below −{-H_FLOOR:g}", 0.01, 0, "soft", **over | corner | {"size": 11}
            )
        )
    return frame(
        {"l": 52, "r": right, "t": 8, "b": 46},
        xaxis=axis("s: training loss fallen, as a share", range=[S_LEFT, S_RIGHT], dtick=0.25, tickformat=".2~f"),
        yaxis=axis("h: held-out loss fallen, as a share", range=[H_FLOOR - 0.03, H_TOP], dtick=0.5, tickformat=".1~f"),
        hovermode="closest",
        annotations=notes,
        shapes=[
            {"type": "line", "x0": S_LEFT, "y0": S_LEFT, "x1": S_RIGHT, "y1": S_RIGHT, "layer": "between",
             "line": {"color": rgb("ink"), "width": 1.2, "dash": "dash"}},
            {"type": "line", "x0": S_LEFT, "y0": 0, "x1": S_RIGHT, "y1": 0, "layer": "between",
             "line": {"color": rgb("ink"), "width": 1}},
        ],
    )  # fmt: skip


_PAINT_ORDER = ("nothing", "memory", "part", "rule")


def clip(points: Points) -> list[Points]:
    """A line (point, (s, h, step)) held inside the picture -> (s, h) to draw, then step and true (s, h).

    A line that leaves runs on along the edge. Where a segment crosses an edge a point is put in, so that the part
    inside keeps its slope. A gap stays a point of NaN.
    """
    whole = [points[0]]
    for a, b in itertools.pairwise(points):
        move = b - a
        with np.errstate(invalid="ignore", divide="ignore"):
            at = [(S_LEFT - a[0]) / move[0], (S_RIGHT - a[0]) / move[0],
                  (H_FLOOR - a[1]) / move[1], (H_TOP - a[1]) / move[1]]  # fmt: skip
        whole += [a + t * move for t in sorted(t for t in at if 0 < t < 1)] + [b]
    return [
        np.array([np.clip(s, S_LEFT, S_RIGHT), np.clip(h, H_FLOOR, H_TOP), np.rint(step), s, h]) for s, h, step in whole
    ]


# --- the losses of an arm ----------------------------------------------------------------------------------------


def losses(rows: Sequence[Row], finding: str) -> Figure:
    """Train and held-out loss of an arm's trials against steps; memorising updates of the first are shaded."""
    role = finding_colour(finding)
    first = leading(rows)
    step, train, held_out = curves(first)
    uniform = number(first["uniform_loss"])
    seen = [v for r in rows for c in curves(r)[1:] for v in c if np.isfinite(v) and v > 0]
    seen += [uniform] if uniform else []
    low, high = (min(seen), max(seen)) if seen else (0.1, 1.0)
    log = high > LOG_ABOVE * low
    scale = (lambda v: math.log10(v)) if log else (lambda v: v)
    bottom, top = (scale(low), scale(high)) if log else (0.0, high)
    span = (top - bottom) or 1.0
    bottom, top = bottom - (0.05 * span if log else 0), top + 0.05 * span

    traces = []
    for row in [*(r for r in rows if r is not first), first]:
        x, *ys = curves(row)
        for name, y, colour in zip(("train", "held-out"), ys, ("ink", role), strict=True):
            strong = row is first
            trace: Figure = {
                "type": "scatter", "mode": "lines" if len(x) > 1 else "markers", "x": plain(x), "y": plain(y),
                "line": {"color": rgb(colour), "width": 2.2 if strong else 1}, "opacity": 1 if strong else 0.4,
                "marker": {"color": rgb(colour)}, "name": name, "showlegend": False,
                "hovertemplate": f"{name} %{{y:.3g}}<extra></extra>",
            }  # fmt: skip
            traces.append(trace if strong else trace | {"hoverinfo": "skip", "hovertemplate": None})

    shapes = [
        {"type": "rect", "x0": a, "x1": b, "y0": 0, "y1": 1, "yref": "paper", "layer": "below",
         "line": {"width": 0}, "fillcolor": rgb("wash"), "opacity": 0.2}
        for a, b in memorising_spans(step, train, held_out)
    ]  # fmt: skip
    ends = [("train", _last(train), "ink"), ("held-out", _last(held_out), role), ("guess", uniform, "soft")]
    if uniform:
        shapes.append({"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": uniform, "y1": uniform,
                       "line": {"color": rgb("soft"), "width": 1.4, "dash": "dot"}})  # fmt: skip
    shown = [(name, scale(v), c) for name, v, c in ends if v is not None and v > 0]
    pixels = spread([(v - bottom) / (top - bottom) * _PICTURE_HEIGHT for _, v, _ in shown], 12.5)
    notes = [
        label(name, 1, y / _PICTURE_HEIGHT, c, xref="paper", yref="paper", xanchor="left", xshift=4, size=11)
        for (name, _, c), y in zip(shown, pixels, strict=True)
    ]
    if _last(train) is None:
        notes.append(label("no loss was read", 0.5, 0.5, "soft", xref="paper", yref="paper"))
    y_axis: Figure = {"type": "log", "dtick": 1 if top - bottom < 5 else 2, "exponentformat": "power"} if log else {}
    longest = max((float(curves(r)[0][-1]) for r in rows if len(curves(r)[0])), default=1.0)
    layout = frame(
        {"l": 40, "r": 58, "t": 6, "b": 38},
        xaxis=axis("step", range=[0, longest or 1.0], hoverformat=",d", tickformat=",d",
                    spikethickness=1, spikecolor=rgb("soft"), spikedash="solid",
                    **({"nticks": 5} if longest > 4 else {"dtick": 1}),
                    unifiedhovertitle={"text": "step %{x}"}),
        yaxis=axis("", range=[bottom, top], **y_axis),
        hovermode="x unified",
        annotations=notes,
        shapes=shapes,
    )  # fmt: skip
    return {"data": traces, "layout": layout}


def leading(rows: Sequence[Row]) -> Row:
    """The trial that stands for an arm: the first seed, or the first that was read at all."""
    return next((r for r in rows if r["curve_step"]), rows[0])


def memorising_spans(step: Points, train: Points, held_out: Points) -> list[tuple[float, float]]:
    """The steps between neighbouring probes where training loss fell and held-out rose, neighbours merged."""
    spans: list[tuple[float, float]] = []
    with np.errstate(invalid="ignore"):
        for i in np.flatnonzero((np.diff(train) < 0) & (np.diff(held_out) > 0)):
            a, b = float(step[i]), float(step[i + 1])
            spans = [*spans[:-1], (spans[-1][0], b)] if spans and spans[-1][1] == a else [*spans, (a, b)]
    return spans


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Positions moved as little as need be until neighbours are `gap` apart; the order stays."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    # Blocks of touching labels, each centred on the mean of what its members wanted.
    blocks: list[tuple[float, list[int]]] = []
    for i in order:
        blocks.append((positions[i], [i]))
        while len(blocks) > 1:
            (a, first), (b, second) = blocks[-2:]
            if b - a >= gap * (len(first) + len(second)) / 2:
                break
            n = len(first) + len(second)
            blocks[-2:] = [((a * len(first) + b * len(second)) / n, first + second)]
    placed = [0.0] * len(positions)
    for centre, members in blocks:
        for place, i in enumerate(members):
            placed[i] = centre + gap * (place - (len(members) - 1) / 2)
    return placed


# --- where traces break -------------------------------------------------------------------------------------------


def breaks(title: str, splits: Sequence[tuple[str, float, dict[str, int]]]) -> Figure:
    """A bar a split: the share that is right, and the rest divided as first faults are. splits: name, right, counts.

    An output can be right although its steps are not the document's, so counts need not add up to what is wrong.
    """
    names = [name for name, _, _ in splits]
    used = [k for k in FAULTS if any(counts.get(k) for _, _, counts in splits)]
    totals = [sum(counts.values()) for _, _, counts in splits]
    look: Figure = {"type": "bar", "orientation": "h", "y": names, "showlegend": False, "textposition": "inside",
                    "insidetextanchor": "middle", "textangle": 0, "constraintext": "inside"}  # fmt: skip

    def font(role: str) -> Figure:
        return {"insidetextfont": {"color": rgb(role), "size": 11}}

    def edge(role: str) -> Figure:
        return {"color": rgb(role), "line": {"color": rgb("paper"), "width": 1}}

    traces = [
        look | font("paper") | {
            "x": plain(right for _, right, _ in splits), "marker": edge("rule"),
            "text": [f"right {min(right, 0.99 if right < 1 else 1):.0%}" for _, right, _ in splits],
            "meta": [safe(title)],
            "hovertemplate": "<b>%{meta[0]}</b> · %{y}<br>right: %{x:.1%}<extra></extra>",
        }
    ]  # fmt: skip
    for kind in used:
        word, phrase, role = FAULTS[kind]
        counts = [c.get(kind, 0) for _, _, c in splits]
        traces.append(
            look | font(role) | {
                "x": plain((1 - s[1]) * n / t if t else 0 for s, n, t in zip(splits, counts, totals, strict=True)),
                "marker": edge(f"fault-{kind}"), "text": [f"{word} {n:,}" if n else "" for n in counts],
                "meta": [safe(title), phrase], "customdata": [[n, t] for n, t in zip(counts, totals, strict=True)],
                "hovertemplate": "<b>%{meta[0]}</b> · %{y}<br>first wrong at %{meta[1]}: %{customdata[0]:,} of"
                                 " %{customdata[1]:,}<extra></extra>",
            }
        )  # fmt: skip
    layout = frame(
        {"l": 86, "r": 2, "t": 0, "b": 0},
        barmode="stack", bargap=0.22, hovermode="closest",
        # Writing that does not fit on its piece of a bar is left out.
        uniformtext={"minsize": 11, "mode": "hide"},
        xaxis=axis("", range=[0, 1], visible=False),
        yaxis=axis("", autorange="reversed", showgrid=False, showline=False, ticksuffix="  ",
                    tickfont={"size": 12}),
        shapes=[{"type": "rect", "xref": "x", "yref": "y", "x0": 0, "x1": 1, "y0": i - 0.39, "y1": i + 0.39,
                 "layer": "below", "line": {"width": 0}, "fillcolor": rgb("faint"), "opacity": 0.5}
                for i in range(len(names))],
    )  # fmt: skip
    return {"data": traces, "layout": layout}


# --- numbers and the look that all pictures share -----------------------------------------------------------------


def curves(row: Row) -> tuple[Points, Points, Points]:
    """Steps, train and held-out loss of a trial, equally long; what is missing is NaN."""
    step, train, held_out = (
        np.array([np.nan if v is None else v for v in row[f"curve_{name}"] or ()], dtype=np.float64)
        for name in ("step", "train", "held_out")
    )
    n = min(len(step), len(train), len(held_out))
    return step[:n], train[:n], held_out[:n]


def number(value: Any) -> float | None:
    """A finite number, or None."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _last(values: Points) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else None


def plain(values: Iterable[float]) -> list[float | None]:
    """Five figures are more than a picture shows; NaN and infinity are not JSON."""
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in values]


def safe(text: str) -> str:
    """Plotly reads a few tags in hover text; text of others must not contain any."""
    return html.escape(text, quote=False)


def label(text: str, x: float, y: float, role: str, *, size: int = 12, **more: Any) -> Figure:
    return {"text": text, "x": x, "y": y, "showarrow": False, "font": {"color": rgb(role), "size": size}, **more}


def axis(title: str, **more: Any) -> Figure:
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 12}}, "gridcolor": rgb("faint"), "zeroline": False,
        "linecolor": rgb("soft"), "fixedrange": True, "ticks": "", **more,
    }  # fmt: skip


def frame(margin: dict[str, int], **more: Any) -> Figure:
    clear = "rgba(0, 0, 0, 0)"
    return {
        "margin": margin, "paper_bgcolor": clear, "plot_bgcolor": clear, "dragmode": False, "autosize": True,
        "font": {"family": _FONT, "size": 11, "color": rgb("soft")},
        "hoverlabel": {"bgcolor": rgb("paper"), "bordercolor": rgb("soft"), "align": "left",
                       "font": {"family": _FONT, "size": 12, "color": rgb("ink")}},
        **more,
    }  # fmt: skip
