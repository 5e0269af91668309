"""The picture of the meter: one HTML file that holds everything and opens without a network.

Plotly writes colours into each element, so every colour of the curves is one of `COLOURS`, and the style sheet maps
each of them to the CSS variable of its name: dark mode recolours the picture without laying it out again.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from crevasse.integrations.meter import Finding, MeterResult, Reading
from crevasse.probes import step_ratios

Figure = dict[str, Any]

#: Role -> its colour in light and in dark surroundings. The hues are told apart with any kind of colour vision.
COLOURS = {
    "ink": ((33, 37, 43), (232, 230, 224)),
    "soft": ((91, 98, 109), (163, 168, 176)),
    "faint": ((222, 220, 213), (54, 58, 64)),
    "paper": ((253, 252, 249), (22, 24, 27)),
    "rule": ((0, 122, 135), (45, 184, 197)),
    "part": ((192, 132, 0), (230, 172, 50)),
    "memory": ((204, 76, 20), (255, 127, 77)),
    "nothing": ((128, 133, 141), (150, 156, 165)),
    "wash": ((236, 104, 66), (226, 92, 56)),  # behind the memorising steps
}
ROLES: dict[Finding, str] = {
    "learns": "rule", "in part": "part", "memorises": "memory", "too little to tell": "nothing",
}  # fmt: skip
#: The loss axis ends at so many times the larger first loss, and h at this depth: a held-out loss can rise for ever.
LOSS_TOP, H_FLOOR = 2.5, -1.2

_FONT = '-apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, system-ui, sans-serif'


def page(
    readings: Sequence[Reading],
    s: NDArray[np.float64],
    h: NDArray[np.float64],
    result: MeterResult,
    uniform: float | None,
) -> str:
    """The whole file. s, h: progress at each reading, NaN where nothing counts any more."""
    role = ROLES[result.finding]
    pictures = {"losses": _losses(readings, result, role, uniform), "way": _way(readings, s, h, role)}
    scripts = [get_plotlyjs().replace("\r\n", "\n"), _SCRIPT]
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {_sources(hashes)}"
    head, _, tail = result.verdict.partition(": ")
    headline = f'<b class="{role}">{escape(head)}:</b> {escape(tail)}'.replace("held-out", "<span>held-out</span>")
    facts = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in _facts(readings, result))
    begin = "its start" if uniform is None else "the uniform guess"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(head)} · lockstep meter</title>
<style>{_style()}</style>
</head>
<body>
<main>
<header>
<p class="what">Lockstep meter</p>
<h1>{headline}</h1>
<dl>{facts}</dl>
</header>
<section>
<h2>The losses</h2>
<p class="lead">Both are read on the same rows each time.
<span class="key"><i></i>Shaded</span>: training loss falls while held-out loss rises, so what is gained is memory.</p>
<div class="picture" data-picture="losses" role="img" aria-label="Training and held-out loss against steps"></div>
</section>
<section>
<h2>What carries over</h2>
<p class="lead">To the right training loss falls below {begin}, upwards held-out loss does. On the dashed line all that
is learnt carries over; at zero and below it is only remembered.</p>
<div class="picture" data-picture="way" role="img" aria-label="Held-out progress against training progress"></div>
</section>
<noscript><p class="lead">The pictures need JavaScript.</p></noscript>
</main>
<script type="application/json" id="pictures">{_embed(pictures)}</script>
<script>{scripts[0]}</script>
<script>{scripts[1]}</script>
</body>
</html>
"""


def _facts(readings: Sequence[Reading], result: MeterResult) -> list[tuple[str, str]]:
    """The numbers behind the verdict."""
    first, last = readings[0], readings[-1]
    return [
        ("training loss", f"{_loss(first.train_loss)} → {_loss(last.train_loss)}"),
        ("held-out loss", f"{_loss(first.held_out_loss)} → {_loss(last.held_out_loss)}"),
        ("lockstep score", _share(result.score)),
        ("carried over", _share(result.carried)),
        ("memorised", "–" if result.memorising is None else f"{100 * result.memorising:.0f}% of the fall"),
        ("readings", f"{len(readings)} in {last.step - first.step:,} steps"),
    ]


def _losses(readings: Sequence[Reading], result: MeterResult, role: str, uniform: float | None) -> Figure:
    """Training and held-out loss against steps; what was memorised is shaded."""
    step = [r.step for r in readings]
    train, held_out = (np.array(losses) for losses in list(zip(*readings, strict=True))[1:])
    seen = np.concatenate([train, held_out, [uniform or 0.0]])
    start = max([v for v in (train[0], held_out[0], uniform or 0.0) if np.isfinite(v)], default=1.0) or 1.0
    highest = float(seen[np.isfinite(seen)].max(initial=start))
    top = 1.06 * min(highest, LOSS_TOP * start)
    shapes: list[Figure] = [
        {"type": "rect", "x0": a, "x1": b, "y0": 0, "y1": 1, "yref": "paper", "layer": "below",
         "line": {"width": 0}, "fillcolor": rgb("wash"), "opacity": 0.2}
        for a, b in spans(step, step_ratios(train, held_out))
    ]  # fmt: skip
    notes, ends = [], [("training", _last(train), "ink"), ("held-out", _last(held_out), role)]
    if uniform is not None:
        shapes.append(_line(0, 1, uniform, uniform, xref="paper", color="soft", dash="dot"))
        ends.append(("guess", uniform, "soft"))
    if result.best_step is not None and step[0] < result.best_step < step[-1]:
        shapes.append(_line(result.best_step, result.best_step, 0, 1, yref="paper", color="soft", dash="dot"))
        right = result.best_step > (step[0] + step[-1]) / 2
        notes.append(
            _label(
                f"lowest held-out: step {result.best_step:,}", result.best_step, 1, "soft", yref="paper", size=11,
                xanchor="right" if right else "left", yanchor="top", xshift=-4 if right else 4,
                bgcolor=rgb("paper"), borderpad=1,
            )
        )  # fmt: skip
    # Names stand at the ends of the lines, apart by at least a line of text.
    place = -1.0
    for name, value, colour in sorted((e for e in ends if e[1] is not None), key=lambda e: e[1] or 0.0):
        place = max(min((value or 0.0) / top, 0.98), place + 0.06)
        notes.append(
            _label(name, 1, place, colour, xref="paper", yref="paper", xanchor="left", yanchor="middle", xshift=6)
        )
    traces = [
        {"type": "scatter", "mode": "lines+markers", "x": step, "y": _plain(y), "name": name,
         "line": {"color": rgb(colour), "width": 2.4}, "marker": {"color": rgb(colour), "size": 4},
         "hovertemplate": f"{name} %{{y:.3g}}<extra></extra>", "showlegend": False}
        for name, y, colour in (("training", train, "ink"), ("held-out", held_out, role))
    ]  # fmt: skip
    return {"data": traces, "layout": _layout(
        {"l": 44, "r": 66, "t": 8, "b": 44},
        xaxis=_axis("optimizer step", range=[step[0], step[-1]], nticks=6, tickformat=",d",
                    unifiedhovertitle={"text": "step %{x:,}"}),
        yaxis=_axis("loss a token", range=[0, top], nticks=6),
        hovermode="x unified", annotations=notes, shapes=shapes,
    )}  # fmt: skip


def _way(readings: Sequence[Reading], s: NDArray[np.float64], h: NDArray[np.float64], role: str) -> Figure:
    """h against s, with the diagonal on which both go in step."""
    ok = np.isfinite(s) & np.isfinite(h)
    floor = max(min(float(h[ok].min(initial=0.0)) - 0.08, -0.25), H_FLOOR)
    left = max(min(float(s[ok].min(initial=0.0)) - 0.03, -0.03), -0.3)
    right = 1.03
    sizes = np.full(len(s), 4.0)
    if ok.any():
        sizes[np.flatnonzero(ok)[-1]] = 11
    over: Figure = {"size": 13, "bgcolor": rgb("paper"), "borderpad": 1, "xanchor": "right", "yshift": 12}
    notes = [
        _label("in step", 0.5, 0.5, "ink", xshift=-14, **over),
        _label("only memory", 0.98, 0, "ink", **over),
    ]
    if ok.any() and h[ok].min() < floor:
        notes.append(
            _label("▾ the line goes on below", 0.01, 0, "soft", size=11, xref="paper", yref="paper", xanchor="left",
                   yanchor="bottom", yshift=4)
        )  # fmt: skip
    trace = {
        "type": "scatter", "mode": "lines+markers", "x": _plain(s), "y": _plain(h), "showlegend": False,
        "line": {"color": rgb(role), "width": 2.6}, "cliponaxis": True,
        "marker": {"color": rgb(role), "size": sizes.tolist(), "opacity": 1, "line": {"width": 0}},
        "customdata": [r.step for r in readings],
        "hovertemplate": "step %{customdata:,}   s = %{x:.2f}   h = %{y:.2f}<extra></extra>",
    }  # fmt: skip
    return {"data": [trace], "layout": _layout(
        {"l": 52, "r": 14, "t": 8, "b": 44},
        xaxis=_axis("s: training loss fallen, as a share", range=[left, right], dtick=0.25, tickformat=".2~f"),
        yaxis=_axis("h: held-out loss fallen, as a share", range=[floor, 1.05], dtick=0.25 if floor > -0.6 else 0.5,
                    tickformat=".2~f"),
        hovermode="closest", annotations=notes,
        shapes=[_line(0, right, 0, right, color="ink", dash="dash"), _line(left, right, 0, 0, color="ink")],
    )}  # fmt: skip


def spans(steps: Sequence[int], ratios: NDArray[np.float64]) -> list[tuple[int, int]]:
    """From step to step where held-out rose while training fell (a negative ratio), neighbours merged."""
    found: list[tuple[int, int]] = []
    for i in np.flatnonzero(ratios < 0).tolist():
        a, b = steps[i], steps[i + 1]
        found = [*found[:-1], (found[-1][0], b)] if found and found[-1][1] == a else [*found, (a, b)]
    return found


# --- what both pictures share ------------------------------------------------------------------------------------


def rgb(role: str, dark: bool = False) -> str:
    """A colour as browsers write it into a style attribute, which is what the style sheet looks for."""
    return "rgb({}, {}, {})".format(*COLOURS[role][dark])


def _style() -> str:
    light, dark = (" ".join(f"--{role}: {rgb(role, d)};" for role in COLOURS) for d in (False, True))
    mapped = "\n".join(
        f'.js-plotly-plot [style*="{what}: {rgb(role)}"] {{ {what}: var(--{role}) !important; }}'
        for role in COLOURS
        for what in ("fill", "stroke")
    )
    return f"""
:root {{ color-scheme: light; {light} --rule-text: #00626d; --part-text: #7a5200; --memory-text: #a63a0b;
  --nothing-text: #575d66; }}
@media screen and (prefers-color-scheme: dark) {{
  :root {{ color-scheme: dark; {dark} --rule-text: #6fd5df; --part-text: #f0c566; --memory-text: #ffa27c;
    --nothing-text: #b4b9c1; }}
}}
{_STYLE}{mapped}
"""


_STYLE = (
    """* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: break-word;
  font: 17px/1.5 Charter, "Iowan Old Style", "Palatino Linotype", "Source Serif 4", "Liberation Serif", Georgia,
  serif; }
main { max-width: 1180px; margin: 0 auto; padding: 0 24px 40px; display: grid; gap: 30px 44px;
  grid-template-columns: repeat(2, minmax(0, 1fr)); }
header, noscript { grid-column: 1 / -1; }
.what { margin: 0; padding: 16px 0 9px; border-bottom: 1px solid var(--ink); font-weight: 650; }
h1 { margin: 26px 0 20px; max-width: 34em; font-size: clamp(1.4rem, 1rem + 1.6vw, 2rem); line-height: 1.25;
  font-weight: 400; letter-spacing: -.01em; text-wrap: pretty; }
h1 b { font-weight: 650; } h1 span { white-space: nowrap; }
.rule { color: var(--rule-text); } .part { color: var(--part-text); }
.memory { color: var(--memory-text); } .nothing { color: var(--nothing-text); }
dl { margin: 0; display: flex; flex-wrap: wrap; gap: 10px 34px; font: 15px/1.35 """
    + _FONT
    + """;
  font-variant-numeric: tabular-nums; }
dt { font-size: 12px; color: var(--soft); } dd { margin: 0; font-weight: 600; white-space: nowrap; }
section { display: grid; grid-template-rows: subgrid; grid-row: span 3; gap: 0; min-width: 0; }
h2 { margin: 0 0 4px; font-size: 1.25rem; line-height: 1.25; font-weight: 600; }
.lead { margin: 0 0 12px; font-size: 15px; line-height: 1.45; color: var(--soft); text-wrap: pretty; }
.key { color: var(--ink); white-space: nowrap; }
.key i { display: inline-block; width: 15px; height: 12px; margin-right: 5px; background: var(--wash); opacity: .3; }
.picture { height: 390px; margin: 0 -8px; min-width: 0; }
.picture .nsewdrag { touch-action: pan-y; }
@media (max-width: 760px) {
  main { grid-template-columns: minmax(0, 1fr); padding: 0 16px 32px; }
  section { display: block; }
  dl { display: grid; grid-template-columns: 1fr 1fr; gap: 10px 20px; }
  .picture { height: 330px; }
}
@media print { main { display: block; } section { break-inside: avoid; } .picture { max-width: 640px; } }
"""
)

_SCRIPT = """"use strict";
const pictures = JSON.parse(document.getElementById("pictures").textContent);
for (const holder of document.querySelectorAll("[data-picture]")) {
  const { data, layout } = pictures[holder.dataset.picture];
  Plotly.newPlot(holder, data, layout, { displayModeBar: false, responsive: true, scrollZoom: false });
}
"""


def _sources(hashes: Iterable[str]) -> str:
    return " ".join(f"'sha256-{h}'" for h in hashes)


def _embed(data: Any) -> str:
    """JSON that may stand in a script element: nothing in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in values]


def _last(values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else None


def _loss(value: float) -> str:
    return f"{value:#.3g}".rstrip(".") if np.isfinite(value) else "not a number"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def _line(x0: float, x1: float, y0: float, y1: float, *, color: str, dash: str = "solid", **more: str) -> Figure:
    return {"type": "line", "x0": x0, "x1": x1, "y0": y0, "y1": y1, "layer": "below",
            "line": {"color": rgb(color), "width": 1.2, "dash": dash}, **more}  # fmt: skip


def _label(text: str, x: float, y: float, role: str, *, size: int = 12, **more: Any) -> Figure:
    return {"text": text, "x": x, "y": y, "showarrow": False, "font": {"color": rgb(role), "size": size}, **more}


def _axis(title: str, **more: Any) -> Figure:
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 12}}, "gridcolor": rgb("faint"), "zeroline": False,
        "linecolor": rgb("soft"), "fixedrange": True, "ticks": "", **more,
    }  # fmt: skip


def _layout(margin: dict[str, int], **more: Any) -> Figure:
    clear = "rgba(0, 0, 0, 0)"
    return {
        "margin": margin, "paper_bgcolor": clear, "plot_bgcolor": clear, "dragmode": False, "autosize": True,
        "font": {"family": _FONT, "size": 11, "color": rgb("soft")},
        "hoverlabel": {"bgcolor": rgb("paper"), "bordercolor": rgb("soft"), "align": "left",
                       "font": {"family": _FONT, "size": 12, "color": rgb("ink")}},
        **more,
    }  # fmt: skip
