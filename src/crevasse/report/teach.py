"""The page of a lesson: which programs give a few examples, what they say next, and what to ask.

Made of what `crevasse.lessons.induce` found, alone.
"""

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from crevasse.lessons.consolidate import Consolidation
from crevasse.lessons.induce import PROGRAMS, SPREAD, Arguments, Found, Induction
from crevasse.programs.language import run, text
from crevasse.report import page
from crevasse.report.figures import Figure, axis, frame, label, rgb, safe

TEACH, PAGE = "teach.json", "index.html"
#: What is said where nothing was found, by whether all programs were tried.
NOTHING = {
    True: "No program of the language gives these examples, so nothing is said of other inputs.",
    False: "The time was up before all programs were tried: none that gives these examples was found.",
}
#: Longer numbers are cut. The number of their first digits that stay.
LONG, KEPT = 24, 12
#: Colours of the first programs, in the picture and in the list; the rest share the last.
COLOURS = ("rule", "memory", "fault-start", "part", "nothing")
#: The axis of values is logarithmic where the largest is more than so many times the smallest, and beyond floats.
LOG_ABOVE, FLOATS = 100, 10**300
#: Inputs in a picture, about, besides the examples and those that come next; its height in pixels.
BETWEEN, HEIGHT = 24, 420


def render(found: Induction, command: str, learnt: Consolidation | None = None) -> str:
    """The page as HTML. command: what makes it again. learnt: by a network, from what the shortest program imagines."""
    return page.fill(
        "teach.html",
        {"next": _picture(found)} if found.programs else {},
        question=f"What {'does' if len(found.pairs) == 1 else 'do'} {_examples(found)} teach?",
        answer=answer(found),
        command=command,
        found=found,
        learnt=learnt,
        programs=[
            {"colour": _colour(i), "text": shortened(text(f.program)), "bits": f.bits, "share": f.share}
            for i, f in enumerate(found.programs)
        ],
        next=[{"at": _call(at), "values": _said(found, at)} for at in found.next_inputs] if found.programs else [],
        telling=_call(found.telling) if found.telling is not None else None,
        answers=_said(found, found.telling) if found.telling is not None else [],
        most=PROGRAMS,
        spread=SPREAD,
        percent=percent,
        height=HEIGHT,
    )


def answer(found: Induction) -> str:
    """One sentence: the shortest program, what comes next, and how sure that is."""
    if not found.programs:
        return NOTHING[found.complete]
    best = found.programs[0].program
    next_, then, last = (_minus(value_text(run(best, *at))) for at in found.next_inputs)
    program = "The shortest program" if found.complete else "The shortest program found in time"
    which = "this example" if len(found.pairs) == 1 else f"these {len(found.pairs)} examples"
    return (
        f"{program} that gives {which} is {_minus(_in_words(text(best)))}; next come {next_}, {then} and "
        f"{last}, {percent(found.sure)} sure within this language."
    )


def _in_words(program: str) -> str:
    """``f(0) = 1; f(n) = n · f(n-1)`` -> ``f(n) = n · f(n-1) from f(0) = 1``."""
    parts = shortened(program).split("; ")
    first = [part for part in parts if re.match(r"[fg]\([0-9]", part)]
    rules = " and ".join(part for part in parts if part not in first)
    return f"{rules} from {' and '.join(first)}" if first else rules


def _examples(found: Induction) -> str:
    *some, last = (f"{_input(at)} = {_minus(value_text(v))}" for at, v in found.pairs.items())
    return f"{', '.join(some)} and {last}" if some else last


def _said(found: Induction, at: Arguments) -> list[dict[str, Any]]:
    """The different values that the programs give there, the most believed first, and which programs say so."""
    who: dict[int | None, list[int]] = defaultdict(list)
    for i, f in enumerate(found.programs):
        who[run(f.program, *at)].append(i)
    said = [
        {"value": _minus(value_text(v)), "share": math.fsum(found.programs[i].share for i in some),
         "programs": [(_colour(i), shortened(text(found.programs[i].program))) for i in some]}
        for v, some in who.items()
    ]  # fmt: skip
    return sorted(said, key=lambda one: -one["share"])


def _colour(place: int) -> str:
    return COLOURS[min(place, len(COLOURS) - 1)]


def _input(at: Arguments) -> str:
    return ",".join(map(str, at))


def _call(at: Arguments) -> str:
    return f"f({', '.join(map(str, at))})"


def _minus(text: str) -> str:
    """A minus sign in the place of the hyphen, at which a browser would break a line."""
    return text.replace("-", "−")


def value_text(value: int | None) -> str:
    """A value as people read it: a long one is cut."""
    return "undefined" if value is None else shortened(str(value))


def shortened(text: str) -> str:
    """A text whose long numbers are cut."""

    def cut(match: re.Match[str]) -> str:
        whole = match[0]
        return whole if len(whole) <= LONG else f"{whole[:KEPT]}… ({len(whole)} digits)"

    return re.sub("[0-9]+", cut, text)


def percent(share: float) -> str:
    """``57%``; never 0 or 100 for what is not."""
    return "under 1%" if 0 < share < 0.005 else "over 99%" if 0.995 <= share < 1 - 1e-9 else f"{share:.0%}"


# --- the picture ---------------------------------------------------------------------------------------------------


class _Heights:
    """How high values stand: as they are, or, where they explode, by log10(1 + |v|) to both sides of 0, which has room
    for numbers beyond all floats. What is undefined has a line of its own below them."""

    def __init__(self, values: Sequence[int | None]) -> None:
        known = [v for v in values if v is not None]
        smallest = min((abs(v) for v in known if v), default=1)
        self.log = max(map(abs, known)) > min(FLOATS, LOG_ABOVE * smallest)
        at = [self.of(v) for v in known]
        self.low, self.high = min(at), max(at)
        if self.log:
            self.low, self.high = math.floor(self.low), math.ceil(self.high)
        self.span = (self.high - self.low) or 1.0
        self.undefined = self.low - 0.14 * self.span
        self.limits = [
            (self.undefined if None in values else self.low) - 0.08 * self.span,
            self.high + 0.12 * self.span,
        ]

    def of(self, value: int) -> float:
        return float(value) if not self.log else (-1 if value < 0 else 1) * math.log10(1 + abs(value))

    def ticks(self) -> list[int]:
        """A few round values."""
        if self.log:
            step = math.ceil(self.span / 6)
            powers = range(0 if step == 1 else step, math.ceil(max(abs(self.low), abs(self.high))) + 1, step)
            found = [0, *(sign * 10**e for e in powers for sign in (1, -1))]
        else:
            unit = 10 ** max(0, math.floor(math.log10(self.span / 4)))
            step = next(m * unit for m in (1, 2, 5, 10, 20) if self.span <= 6 * m * unit)
            found = [k * step for k in range(math.ceil(self.low / step), math.ceil(self.high / step) + 1)]
        return sorted(v for v in found if self.low <= self.of(v) <= self.limits[1])


def _picture(found: Induction) -> Figure:
    """The examples as points, and a line for each program, the broader the more it is believed.

    With two inputs there is no line from the examples on: they and what comes next stand side by side.
    """
    single = len(found.next_inputs[0]) == 1
    inputs = _inputs(found) if single else found.next_inputs
    shown = inputs if single else [*found.pairs, *inputs]
    x = {at: at[0] if single else i for i, at in enumerate(shown)}
    says = [[run(f.program, *at) for at in inputs] for f in found.programs]
    heights = _Heights([*itertools.chain(found.pairs.values(), *says)])
    traces: list[Figure] = []
    for i in reversed(range(len(says))):  # what is believed most lies on top
        traces += _line(found.programs[i], _colour(i), [x[at] for at in inputs], inputs, says[i], heights)
    named = found.pairs | {at: v for at, v in zip(inputs, says[0], strict=True) if at in found.next_inputs}
    traces.append({
        "type": "scatter", "mode": "markers", "x": [x[at] for at in found.pairs], "showlegend": False,
        "y": [heights.of(v) for v in found.pairs.values()],
        "marker": {"color": rgb("ink"), "size": 11, "line": {"width": 2, "color": rgb("paper")}},
        "customdata": [f"{_call(at)} = {value_text(v)}" for at, v in found.pairs.items()],
        "hovertemplate": "%{customdata}: an example<extra></extra>",
    })  # fmt: skip
    left, right, begin = min(x.values()), max(x.values()), x[found.next_inputs[0]] - 0.5
    edge = max(0.5, 0.03 * (right - left))
    shapes: list[Figure] = [
        {"type": "rect", "x0": begin, "x1": right + edge, "y0": 0, "y1": 1, "yref": "paper", "layer": "below",
         "line": {"width": 0}, "fillcolor": rgb("faint"), "opacity": 0.45},
    ]  # fmt: skip
    notes = [label("next", begin, 1, "soft", yref="paper", xanchor="left", yanchor="top", xshift=5)]
    notes += [
        label(_short(v), x[at], heights.of(v), "ink" if at in found.pairs else "rule", yshift=-18 if v < 0 else 18,
              bgcolor=rgb("paper"), borderpad=1)
        for at, v in named.items()
        if v is not None
    ]  # fmt: skip
    if any(None in values for values in says):
        notes.append(
            label("undefined", 0, heights.undefined, "soft", size=11, xref="paper", xanchor="right", xshift=-4)
        )
    if found.telling in x:
        at = x[found.telling]
        shapes.append({"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper", "layer": "below",
                       "line": {"color": rgb("soft"), "width": 1.2, "dash": "dot"}})  # fmt: skip
        notes.append(label("ask here", at, 0, "soft", yref="paper", xanchor="left", yanchor="bottom", xshift=4))
    ticks = heights.ticks()
    few: Figure = {"dtick": 1} if right - left <= 12 else {"nticks": 8}
    names: Figure = {"tickvals": [*x.values()], "ticktext": [_input(at) for at in x]}
    layout = frame(
        {"l": 66, "r": 10, "t": 8, "b": 46},
        height=HEIGHT,
        xaxis=axis("n" if single else "a, b", range=[left - edge, right + edge], showgrid=False,
                   **(few if single else names)),
        yaxis=axis("", range=heights.limits, tickvals=[heights.of(v) for v in ticks], ticktext=[*map(_short, ticks)]),
        hovermode="closest",
        annotations=notes,
        shapes=shapes,
    )  # fmt: skip
    return {"data": traces, "layout": layout}


def _inputs(found: Induction) -> list[Arguments]:
    """From the smallest example to the last of what comes next; of many only some that lie between."""
    low, high = min(found.pairs)[0], found.next_inputs[-1][0]
    some = range(low, high + 1, max(1, (high - low) // BETWEEN))
    return sorted({*found.pairs, *found.next_inputs, *((n,) for n in some)})


def _line(
    one: Found, role: str, x: Sequence[int], inputs: Sequence[Arguments], says: Sequence[int | None], heights: _Heights
) -> list[Figure]:
    """What a program says; crosses where it is undefined."""
    name = safe(shortened(text(one.program)))
    opacity = round(0.35 + 0.65 * one.share, 2)
    look: Figure = {"type": "scatter", "showlegend": False, "x": x, "opacity": opacity, "meta": [name],
                    "customdata": [f"{_call(at)} = {value_text(v)}" for at, v in zip(inputs, says, strict=True)],
                    "hovertemplate": "<b>%{meta[0]}</b><br>%{customdata}<extra></extra>"}  # fmt: skip
    size = round(5 + 4 * one.share, 1)
    lines = look | {
        "mode": "lines+markers", "y": [None if v is None else heights.of(v) for v in says],
        "line": {"color": rgb(role), "width": round(1 + 4 * one.share, 1)},
        "marker": {"color": rgb(role), "size": size, "line": {"width": 0}},
    }  # fmt: skip
    crosses = look | {
        "mode": "markers", "y": [heights.undefined if v is None else None for v in says],
        "marker": {"color": rgb(role), "size": size + 2, "symbol": "x", "line": {"width": 0}},
    }  # fmt: skip
    return [lines, crosses] if None in says else [lines]


def _short(value: int) -> str:
    """A number beside a point: 40,320; 2.58·10²²."""
    digits, sign = str(abs(value)), "−" if value < 0 else ""
    if len(digits) <= 6:
        return f"{sign}{abs(value):,}"
    first = f"{digits[0]}.{digits[1:3]}".rstrip("0").rstrip(".")
    return f"{sign}{'' if first == '1' else f'{first}·'}10<sup>{len(digits) - 1}</sup>"
