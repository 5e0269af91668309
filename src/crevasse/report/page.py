"""What all pages share: the frame they stand in, how numbers are written, and that foreign text stays text.

Jinja2 escapes what becomes HTML, `embed` what becomes JSON, and a content security policy lets the browser run our
scripts and no others.
"""

import base64
import hashlib
import json
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from crevasse.errors import UserError
from crevasse.report import figures
from crevasse.report.figures import Row, number
from crevasse.studies import EVIDENCE

_HERE = Path(__file__).parent


def render(template: str, verdict: dict[str, Any], rows: Sequence[Row], pictures: dict[str, Any], **more: Any) -> str:
    """The page of a study. template: a file beside this one; more: what it shows besides study, run and pictures."""
    name = verdict["study"].removesuffix(":")
    return fill(
        template,
        pictures,
        question=verdict["question"],
        answer=verdict["answer"],
        command=f"crevasse study {shlex.quote(name)} --budget {shlex.quote(verdict['budget'])}",
        study=verdict | {"study": name},
        seconds=number(verdict.get("seconds")),
        environments=environments(rows),
        **more,
    )


def fill(template: str, pictures: dict[str, Any], *, question: str, answer: str, command: str, **more: Any) -> str:
    """A whole page. command: what makes it again; more: what else the template shows."""
    scripts = {"plotly": get_plotlyjs().replace("\r\n", "\n"), "report": (_HERE / "report.js").read_text("utf-8")}
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "score": score_text,
        "count": count_text,
        "time": time_text,
        "probability": probability_text,
        "plain": plain_text,
        "bytes": bytes_text,
        "line": line_text,
    }
    environment.globals["place"] = place
    return environment.get_template(template).render(
        question=question,
        answer=asides(answer),
        long=len(answer) > 130,
        command=command,
        policy=policy(scripts.values()),
        style=Markup((_HERE / "report.css").read_text("utf-8") + figures.colour_rules()),
        pictures=embed(pictures),
        **{name: Markup(text) for name, text in scripts.items()},
        **more,
    )


def asides(text: str) -> list[tuple[str, bool]]:
    """A sentence in parts, and whether each stands in brackets: lists of names are set quietly in the headline."""
    parts = re.split(r"(\([^()]*\))", text)
    return [(part, i % 2 == 1) for i, part in enumerate(parts) if part]


def environments(rows: Sequence[Row]) -> list[tuple[dict[str, Any], int]]:
    """The different surroundings in which trials ran, with the number of trials each."""
    counts: dict[str, int] = {}
    for row in rows:
        text = json.dumps(parsed(row, "environment", dict))
        counts[text] = counts.get(text, 0) + 1
    return [(json.loads(text), n) for text, n in counts.items()]


def parsed(row: Row, column: str, kind: type) -> Any:
    """A column that holds JSON. Raises UserError where it does not."""
    try:
        value = json.loads(row[column])
    except (TypeError, ValueError):
        value = None
    if not isinstance(value, kind):
        raise UserError(f"{EVIDENCE} is damaged (the {column} of {row['arm']}); run the study again")
    return value


def embed(data: Any) -> Markup:
    """JSON that may stand in a script element: nothing in it can end the element or start another."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for c in "<>&\u2028\u2029":
        text = text.replace(c, f"\\u{ord(c):04x}")
    return Markup(text)


def policy(scripts: Any) -> str:
    """No network at all, and no script but ours, each known by its hash."""
    hashes = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{h}'" for h in hashes)
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}"


# --- numbers as people read them ---------------------------------------------------------------------------------


def score_text(value: Any) -> str:
    """.08, 1.00, −.40; – for no value. The leading zero says nothing where all numbers are shares."""
    v = number(value)
    if v is None:
        return "–"
    text = f"{abs(v):.2f}"
    sign = "−" if v < 0 and float(text) else ""
    return sign + text.removeprefix("0")


def count_text(value: Any) -> str:
    v = number(value)
    return "–" if v is None else f"{v:,.0f}"


def time_text(value: Any) -> str:
    """Seconds up to two minutes, then minutes."""
    v = number(value)
    if v is None:
        return "–"
    if v < 9.95:
        return f"{v:.1f} s"
    return f"{v:.0f} s" if v < 120 else f"{v / 60:.0f} min" if v < 7200 else f"{v / 3600:.1f} h"


def probability_text(value: Any) -> str:
    """.06, 1, <.001"""
    v = number(value)
    if v is None:
        return "–"
    return "1" if v == 1 else "<.001" if v < 0.001 else f"{v:.2g}".removeprefix("0")


def bytes_text(value: Any) -> str:
    """1.4 GiB; 310 MiB for what is less than one."""
    v = number(value)
    if v is None:
        return "–"
    mebi = v / 2**20
    return f"{mebi:,.0f} MiB" if mebi < 1000 else f"{mebi / 1024:,.1f} GiB"


def line_text(value: Any) -> str:
    """A text on one line, its line breaks visible."""
    return str(value).replace("\r\n", "\n").replace("\n", "↵")


def plain_text(value: Any) -> str:
    """A number that scripts sort by; empty for none."""
    v = number(value)
    return "" if v is None else f"{v:.6g}"


def place(value: Any, low: float = 0.0, high: float = 1.0) -> float:
    """Where a value lies in a small drawing of 88 units with a margin of 4; outside values lie on its edge."""
    v = number(value)
    share = 0.0 if v is None else (min(max(v, low), high) - low) / (high - low)
    return round(4 + 80 * share, 1) if math.isfinite(share) else 4.0
