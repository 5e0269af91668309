"""What people see in a terminal: live progress on stderr, results as tables on stdout."""

import dataclasses
import inspect
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live as RichLive
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from crevasse.spec import Named, format_sizes

if TYPE_CHECKING:
    from crevasse.config import TrialConfig
    from crevasse.spec import Table
    from crevasse.studies.base import Arm
    from crevasse.sweep import Event
    from crevasse.trial import Progress

#: Trials that `ls` lists on a terminal.
SHOWN = 200
#: Rules of a bench of which the leaderboard's result tells, besides the baseline.
FIRST = 5
FINDINGS = {
    "rule": ("found the rule", "blue"),
    "part": ("in part", "yellow"),
    "memory": ("memorised", "red"),
    "nothing": ("did not learn", "bright_black"),
    "diverged": ("diverged", "magenta"),
}


class Live:
    """Progress on stderr: a small table that redraws itself, or a line a trial where stderr is no terminal."""

    def __init__(self, quiet: bool) -> None:
        self._console = Console(stderr=True)
        self._quiet = quiet
        self._live: RichLive | None = None
        self._running: dict[Any, tuple[str, Progress]] = {}
        self._ended = self._failed = 0
        self._total = 0  # of a sweep
        self._began = time.monotonic()

    def __enter__(self) -> "Live":
        if not self._quiet and self._console.is_terminal:
            self._live = RichLive(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def study_event(self, arm: "Arm", config: "TrialConfig", event: "Event") -> None:
        """One event of a study's trial."""
        self._take(event, f"{arm.name} · seed {config.seed}")

    def trial_event(self, event: "Event") -> None:
        """One event of a single trial, or of one of several seeds."""
        self._take(event, f"trial {event.number + 1}")

    def sweep_event(self, total: int, label: str, event: "Event") -> None:
        """One event of a sweep's trial. total: how many there are to run."""
        self._total = total
        self._failed += event.error is not None
        self._take(event, label)

    def progress(self, progress: "Progress") -> None:
        """Of one trial after another that are no study, run or sweep."""
        self._running[0] = ("consolidating", progress)
        if self._live is not None:
            self._live.update(self._picture())

    def note(self, text: str) -> None:
        """A line of something that is no trial."""
        self._note(text)

    def _take(self, event: "Event", label: str) -> None:
        if event.progress is not None and event.progress.note is not None:
            self._note(f"{label}: {event.progress.note}")
        elif event.progress is not None:
            self._running[event.number] = (label, event.progress)
        else:
            self._running.pop(event.number, None)
            self._ended += 1
            if event.record is not None:  # an error is told once, at the end
                self._note(f"{label}: {_result_line(event.record)}")
        if self._live is not None:
            self._live.update(self._picture())

    def _note(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(escape(text), highlight=False)
        elif not self._quiet:
            self._console.print(escape(text), highlight=False, soft_wrap=True)

    def _picture(self) -> Group:
        table = RichTable.grid(padding=(0, 2))
        for label, p in self._running.values():
            left = p.seconds / max(p.step, 1) * (p.steps - p.step)
            exact = "" if p.held_out_exact is None else f"held-out exact {_two(p.held_out_exact)}"
            table.add_row(
                escape(label), _bar(p.step / max(p.steps, 1)), f"{p.step}/{p.steps}", f"train loss {p.train_loss:.3f}",
                f"held-out loss {p.held_out_loss:.3f}", exact, f"{left:.0f} s left",
            )  # fmt: skip
        return Group(table, Text(self._footer(time.monotonic() - self._began), style="dim"))

    def _footer(self, elapsed: float) -> str:
        """Time, and of a sweep how far it is."""
        if not self._total:
            return f"{elapsed:.0f} s"
        done = self._ended + sum(p.step / max(p.steps, 1) for _, p in self._running.values())
        left = f", about {duration(elapsed / done * (self._total - done))} left" if done > 0 else ""
        return f"{self._ended}/{self._total} trials, {self._failed} failed, {elapsed:.0f} s{left}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _bar(share: float, width: int = 16) -> str:
    full = round(share * width)
    return "━" * full + "╌" * (width - full)


def _two(value: float | None) -> str:
    """.08, 1.00, –"""
    if value is None:
        return "–"
    return f"{value:.2f}".removeprefix("0") if 0 <= value < 1 else f"{value:.2f}"


def _result_line(record: dict[str, Any]) -> str:
    result = record["result"]
    splits = ", ".join(f"{k} {_two(v)}" for k, v in result["splits"].items())
    status = "" if record["status"] == "done" else f"{record['status']}; "
    return f"{status}train {_two(result['train'])}; {splits or 'not judged'} ({result['seconds']:.0f} s)"


def _score(s: Any) -> str:
    """A number, or a mean with its interval."""
    if not isinstance(s, dict):
        return _two(s)
    return f"{_two(s['mean'])} [{_two(s['low'])}–{_two(s['high'])}]"


def _mean(s: Any) -> str:
    """The mean alone."""
    return _two(s["mean"] if s else None)


def print_verdict(verdict: dict[str, Any], folder: Path) -> None:
    """A study's answer, its table, and where the report lies."""
    console = Console()
    console.print(f"\n[bold]{escape(verdict['answer'])}[/bold]\n", highlight=False)
    wide = console.width >= 140 or not console.is_terminal
    shown = _score if wide else _mean  # a narrow window has no room for intervals
    if "claims" in verdict:
        console.print(_claims(verdict["claims"]), highlight=False)
    elif "lessons" in verdict:
        console.print(_lessons(verdict["lessons"]), highlight=False)
    elif "published" in verdict:
        console.print(_published(verdict["published"]), highlight=False)
    else:
        table = _board(verdict["board"], shown) if "board" in verdict else _arms(verdict["arms"], shown)
        (Console(width=160) if wide else console).print(table, highlight=False)
    notes: dict[str, list[str]] = {}
    for a in verdict["arms"]:
        for n in a["notes"]:
            notes.setdefault(n, []).append(a["arm"])
    for n, names in notes.items():
        console.print(f"{', '.join(names)}: {escape(n)}", style="dim", highlight=False)
    if verdict["budget"] == "smoke":
        console.print("This was the smoke budget: fewer arms, one seed; `--budget minutes` is the real thing.")
    took = f"{verdict['seconds']} s · " if verdict["seconds"] is not None else ""
    console.print(f"\n{took}report: {folder / 'index.html'}", highlight=False, soft_wrap=True)


def _claims(claims: list[dict[str, Any]]) -> RichTable:
    """A line a claim, and the figures that decide it."""
    colours = {"supported": "green", "half right": "yellow", "refuted": "red", "undecided": "dim"}
    table = RichTable(box=None, pad_edge=False, header_style="dim")
    for head in ("claim", "", "verdict", "because"):
        table.add_column(head, no_wrap=head in ("claim", "verdict"), overflow="fold")
    for c in claims:
        word = f"[{colours[c['decision']]}]{c['decision']}[/]"
        table.add_row(c["claim"], escape(c["title"]), word, escape(c["key"]))
    return table


def _lessons(lessons: dict[str, Any]) -> RichTable:
    """A line a way to learn: what it closes of the gap to the oracle, and how often it learns from pure chance."""
    table = RichTable(box=None, pad_edge=False, header_style="dim")
    for head in ("gap closed after", *map(str, lessons["after"]), "false lessons, at worst"):
        table.add_column(head, no_wrap=True)
    for m in lessons["methods"]:
        false = max((a["false"]["mean"] for a in m["after"] if a["false"]), default=None)
        table.add_row(escape(m["method"]), *(_mean(a["gap"]) for a in m["after"]), _two(false))
    return table


def _published(results: list[dict[str, Any]]) -> RichTable:
    """A line a figure of a paper, under the heading of its result: the paper's, ours, and whether they agree."""
    colours = {"repeated": "green", "in part": "yellow", "not repeated": "red"}
    table = RichTable(box=None, pad_edge=False, header_style="dim")
    for head in ("figure", "paper", "ours", "agrees"):
        table.add_column(head, no_wrap=head != "figure", overflow="fold")
    for r in results:
        table.add_row(f"[bold]{escape(r['title'])}[/bold]", "", "", f"[{colours[r['word']]}]{r['word']}[/]")
        for c in r["checks"]:
            ours = "none" if c["ours"] is None else _plain(c["ours"]["mean"])
            table.add_row(f"  {escape(c['what'])}", escape(c["paper"]), ours, "yes" if c["agrees"] else "no")
    return table


def _plain(value: float) -> str:
    """.97 for a share, 1,727 for a count."""
    return f"{value:,.0f}" if value > 1 else _two(value)


def _arms(arms: list[dict[str, Any]], shown: Callable[[Any], str]) -> RichTable:
    """A line an arm, under the heading of its group."""
    table = RichTable(box=None, pad_edge=False, header_style="dim")
    for head in ("arm", "finding", "train", "random", "interpolation", "extrapolation", "chance", "lockstep", "s_max"):
        table.add_column(head, no_wrap=True)
    group = None
    for a in arms:
        if a["group"] != group:
            group = a["group"]
            table.add_row(f"[dim]{escape(re.split('[:,]', group)[0])}[/]")
        word, colour = FINDINGS[a["finding"]]
        table.add_row(
            escape(a["arm"]), f"[{colour}]{word}[/]", shown(a["train"]),
            *(shown(a["splits"].get(t)) for t in ("random", "interpolation", "extrapolation")),
            _two(a["chance"]), _mean(a["lockstep"]) if a["learned"] else "–", _mean(a["s_max"]),
        )  # fmt: skip
    return table


def _board(board: dict[str, Any], shown: Callable[[Any], str]) -> RichTable:
    """Of each bench the first rules of a leaderboard, the baseline, and a rule of one's own."""
    from crevasse.studies.leaderboard import BASELINE

    table = RichTable(box=None, pad_edge=False, header_style="dim")
    for head in ("rule", "held-out", "train", "found", "passes to 95%", "lockstep", "s_max"):
        table.add_column(head, no_wrap=head != "rule", overflow="fold")
    for bench in board["benches"]:
        table.add_row(f"[dim]{escape(bench['title'])}[/]")
        entries = bench["entries"]
        for place, e in enumerate(entries, 1):
            if place > FIRST and e["rule"] != BASELINE and not e["rule"].startswith("file:"):
                continue
            # In steps of a rule that looks once at each row of a batch.
            plain = "–" if e["rows_to"] is None else f"{e['rows_to'] / (2 * bench['batch']):,.0f}"
            table.add_row(
                f"{place:>3} {escape(e['rule'])}", shown(e["held_out"]), _mean(e["train"]),
                f"{e['reached']}/{e['seeds']}", plain,
                _mean(e["lockstep"]) if e["learned"] else "–", _mean(e["s_max"]),
            )  # fmt: skip
        if len(entries) > FIRST:
            table.add_row(f"[dim]    … of {len(entries)} rules[/]")
    return table


def print_result(result: dict[str, Any], folder: Path) -> None:
    """What `crevasse run` found."""
    console = Console()
    ids = result["trial"] if isinstance(result["trial"], list) else [result["trial"]]
    lines = [("status", result["status"]), ("train", _score(result["train"]))]
    lines += [(k, f"{_score(v)}   ceiling {_two(result['ceiling'].get(k))}") for k, v in result["splits"].items()]
    lines += [(f"rule score, {k}", _score(v)) for k, v in result["rule_score"].items() if v is not None]
    lockstep = _score(result["lockstep"]) if result["learned"] else "did not learn"
    lines += [
        ("chance", _two(result["chance"])),
        ("lockstep", f"{lockstep}   s_max {_score(result['s_max'])}"),
        ("memorising", f"{_score(result['memorising'])} of the fall of training loss came while held-out loss rose"),
        ("cost", f"{result['steps']} steps, {result['passes']:.0f} passes, {result['samples']} samples, "
                 f"{result['seconds']:.1f} s"),
    ]  # fmt: skip
    for name, value in lines:
        console.print(f"[dim]{name:>26}[/]  {escape(value)}", highlight=False)
    for note in result["notes"]:
        console.print(f"{'note':>26}  {escape(note)}", style="dim", highlight=False)
    console.print(f"{'trial':>26}  {folder / 'trials' / ids[0]}", style="dim", highlight=False, soft_wrap=True)


def print_sweep(result: dict[str, Any], folder: Path) -> None:
    """What `crevasse sweep` found: a line a setting."""
    from crevasse.sweep.grid import setting_text

    console = Console()
    lines = result["settings"]
    searched = any("tries" in line for line in lines)
    times = [_count(len(lines), "setting")]
    if searched:
        times.append(f"{len(lines[0]['tries'])} tries")
    seeds = {line["seeds"] for line in lines}
    times.append(_count(seeds.pop(), "seed") if len(seeds) == 1 else "several seeds")
    read = f", {result['read']} of them read" if result["read"] else ""
    console.print(
        f"\n[bold]{' × '.join(times)}: {_count(result['trials'], 'trial')}{read}, {result['failed']} failed, "
        f"{duration(result['seconds'])}[/bold]\n",
        highlight=False,
    )
    shown = _score if console.width >= 140 or not console.is_terminal else _mean
    table = RichTable(box=None, pad_edge=False, header_style="dim")
    tests = [t for t in ("random", "interpolation", "extrapolation") if any(t in line["splits"] for line in lines)]
    best = ["best by validation", "validation"] if searched else []
    for head in ("setting", *best, "status", "train", *tests, "lockstep", "s_max"):
        table.add_column(head, no_wrap=head not in ("setting", *best), overflow="fold")
    for line in lines:
        found = [setting_text(line["best"] or {}), shown(line["validation"])] if searched else []
        table.add_row(
            escape(setting_text(line["setting"]) or result["sweep"]), *map(escape, found), line["status"],
            shown(line["train"]), *(shown(line["splits"].get(t)) for t in tests),
            _mean(line["lockstep"]) if line["learned"] else "–", _mean(line["s_max"]),
        )  # fmt: skip
    (console if console.is_terminal else Console(width=200)).print(table, highlight=False)
    for note in result["notes"]:
        console.print(f"note: {escape(note)}", style="dim", highlight=False, soft_wrap=True)
    console.print(f"\nresults: {folder / 'sweep.json'}, {folder / 'evidence.parquet'}", highlight=False, soft_wrap=True)


def print_plan(plan: dict[str, Any]) -> None:
    """What `crevasse sweep --dry-run` tells."""
    times = [_count(plan["settings"], "setting")]
    if plan["tries"]:
        times.append(f"{plan['tries']} tries")
    times.append(_count(plan["seeds"][0], "seed") if len(plan["seeds"]) == 1 else "several seeds")
    complete = "" if plan["complete"] is None else f", {plan['complete']} complete already"
    lines = [f"{' × '.join(times)}: {_count(plan['trials'], 'trial')}{complete}"]
    processes = _count(plan["workers"], "process", "processes")
    if plan["jobs"]:
        stacks = f", {plan['stacks']} of them stacks of trials" if plan["stacks"] else ""
        lines.append(f"{_count(plan['jobs'], 'job')} on {processes}{stacks}")
    if plan["seconds"] is not None and plan["jobs"]:
        steps = sorted(plan["step_ms"])
        span = f"{steps[0]:.1f}" + (f" to {steps[-1]:.1f}" if len(steps) > 1 else "")
        less = "; stacks take less" if plan["stacks"] else ""
        lines.append(f"about {duration(plan['seconds'])} on {processes} (measured: {span} ms a step{less})")
    console = Console()
    for text in (*lines, *(f"note: {n}" for n in plan["notes"])):
        console.print(escape(text), highlight=False, soft_wrap=True)


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


def print_trials(trials: list[dict[str, Any]], damaged: list[str], limited: bool = False) -> None:
    """A line a trial of the catalogue: all of them to a pipe, the first ones on a terminal unless `limited` by hand."""
    console = Console()
    heads = ("id", "status", "train", "random", "interp.", "extrap.", "what")
    shown = trials if limited or not console.is_terminal else trials[:SHOWN]
    scores = ("train", "random", "interpolation", "extrapolation")
    lines = [(r["id"], r["status"], *(_two(r[s]) for s in scores), r["describe"]) for r in shown]
    if console.is_terminal:
        table = RichTable(box=None, pad_edge=False, header_style="dim")
        for head in heads:
            table.add_column(head, no_wrap=head != "what", overflow="fold")
        for cells in lines:
            table.add_row(*map(escape, cells))
        console.print(table, highlight=False)
    else:  # plain text: ten thousand lines take a blink, and none is folded
        widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
        print("\n".join("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in (heads, *lines)))
    for line in damaged:
        console.print(escape(line), style="red", highlight=False, soft_wrap=True)
    if len(shown) < len(trials):
        more = f"… and {len(trials) - len(shown)} more: --where narrows, --limit shows as many as you say"
        console.print(more, highlight=False)
    console.print(f"{len(trials)} trials" + (f", {len(damaged)} damaged" if damaged else ""), style="dim")


def print_trial(record: dict[str, Any]) -> None:
    """One trial in full, with some of its outputs."""
    console = Console()
    console.print(f"[bold]{record['id']}[/]  {record['status']}  {escape(record['describe'])}", highlight=False)
    result = record["result"]
    if result is None:
        console.print("not finished: the command that began it goes on with it")
        return
    lines = [("train", _two(result["train"]))]
    for name, value in result["splits"].items():
        others = ", ".join(f"{k} {_two(v)}" for k, v in result["non_learners"][name].items())
        lines.append((name, f"{_two(value)}   ceiling {_two(result['ceiling'][name])}   non-learners: {others}"))
        if result["rule_score"][name] is not None:
            lines.append((f"rule score, {name}", _two(result["rule_score"][name])))
    lockstep = _two(result["lockstep"]) if result["learned"] else "did not learn"
    lines += [
        ("chance", _two(result["chance"])),
        ("lockstep", f"{lockstep}   s_max {_two(result['s_max'])}   memorising {_two(result['memorising'])}"),
        ("cost", f"{result['steps']} steps ({result['moved_steps']} moved), {result['passes']:.0f} passes, "
                 f"{result['samples']} samples, {result['seconds']} s"),
        ("parameters", str(result["parameters"])),
        ("symmetries", result["symmetries"] or "not known: held out by content alone"),
    ]  # fmt: skip
    for name, text in lines:
        console.print(f"[dim]{name:>26}[/]  {escape(text)}", highlight=False)
    for note in result["notes"]:
        console.print(f"{'note':>26}  {escape(note)}", style="dim", highlight=False)
    for split, outputs in result["outputs"].items():
        for o in outputs:
            mark = "[blue]right[/]" if o["correct"] else "[red]wrong[/]"
            text = f"{o['problem']} ▸ {o['written']}" + ("" if o["correct"] else f"   (expected {o['expected']})")
            console.print(f"{mark}  [dim]{split}[/]  {escape(text)}", highlight=False)
            for call in o["unreadable"]:
                console.print(f"       unreadable tool call: {escape(call)}", highlight=False)


def print_comparison(records: list[dict[str, Any]], differing: dict[str, list[Any]]) -> None:
    """Trials as columns."""
    console = Console()
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for r in records:
        table.add_column(r["id"])
    for name, values in differing.items():
        table.add_row(f"[dim]{escape(name)}[/]", *(escape(str(v)) for v in values))
    results = [r.get("result") or {} for r in records]
    table.add_row("status", *(r["status"] for r in records))
    table.add_row("train", *(_two(r.get("train")) for r in results))
    for split in dict.fromkeys(s for r in results for s in r.get("splits", {})):
        table.add_row(split, *(_two(r.get("splits", {}).get(split)) for r in results))
    for name in ("lockstep", "s_max", "memorising"):
        table.add_row(name, *(_two(r.get(name)) for r in results))
    for name in ("steps", "passes", "seconds"):
        table.add_row(name, *(str(r.get(name, "–")) for r in results))
    console.print(table, highlight=False)


def print_landscape(found: dict[str, Any], folder: Path) -> None:
    """How sharp it is around each point, and the barriers between them."""
    from crevasse.survey import written

    console = Console()
    console.print(f"\n[bold]{escape(found['answer'])}[/bold]\n", highlight=False)
    points = RichTable(box=None, pad_edge=False, header_style="dim")
    for head in ("point", "loss", "exact", "tolerance", "adaptive", "eigenvalue", "trace"):
        points.add_column(head, overflow="fold")
    for p in found["points"]:
        numbers = (written(p[k]) for k in ("tolerance", "adaptive", "eigenvalue"))
        trace = f"{written(p['trace']['value'])} ± {written(p['trace']['error'])}"
        points.add_row(f"{p['point']} {p['trial']}", written(p["loss"]), _two(p["exact"]), *numbers, trace)
    pairs = RichTable(box=None, pad_edge=False, header_style="dim")
    for head in ("barrier", "straight line", "units in the same order", "bent path"):
        pairs.add_column(head, overflow="fold")
    for p in found["pairs"]:
        pairs.add_row(p["pair"], *(written(p[way]["barrier"]) for way in ("straight", "aligned", "bent")))
    for table in (points, pairs):
        console.print(table, highlight=False)
        console.print()
    console.print(f"page: {folder / 'index.html'}", highlight=False, soft_wrap=True)


def print_lesson(lesson: dict[str, Any], folder: Path, most: int = 4) -> None:
    """What a few examples teach, in words, and where its page lies."""
    _print_programs(lesson, most)
    if (learnt := lesson["consolidated"]) is not None:
        from crevasse.lessons.consolidate import Consolidation

        print(f"A network that was trained on what it imagines: {Consolidation(**learnt)}")
    print(f"page: {folder / 'index.html'}")


def _print_programs(lesson: dict[str, Any], most: int) -> None:
    from crevasse.report.teach import NOTHING

    programs, found, complete = lesson["programs"], len(lesson["programs"]), lesson["complete"]
    if not found:
        print(NOTHING[complete] + ("" if complete else " --seconds sets how long it may take."))
        return
    examples = _count(len(lesson["examples"]), "example")
    print(f"The shortest program that gives {'this' if len(lesson['examples']) == 1 else 'the'} {examples}:")
    for i, p in enumerate(programs[:most]):
        if i == 1:
            print("\nOthers that do, by how far each is believed:")
        text = p["program"].replace("\n", "; ")
        print(f"  {text}    ({p['bits']} bits, {p['share']:.0%})")
    if found > most:
        print(f"  and {found - most} more")
    print("\nNext: " + "; ".join(_prediction(p) for p in lesson["next"]))
    print(f"Sure of that: {lesson['sure']:.0%}, within this language")
    if (telling := lesson["telling"]) is not None:
        print(f"The example that would tell them apart best: {_prediction(telling)}?")
    if not complete:
        print("The time was up before all programs were tried: the best so far.")


def _prediction(p: dict[str, Any]) -> str:
    """``7 = 13 (84%) or 8 (16%)``; a long number is cut."""
    from crevasse.report.teach import value_text

    some = p["values"][:3]
    values = [value_text(v["value"]) + (f" ({v['share']:.0%})" if v["share"] < 0.995 else "") for v in some]
    return f"{','.join(map(str, p['input']))} = {' or '.join(values)}"


def option_lines(table: "Table[Any]", name: str) -> list[tuple[str, str, str]]:
    """(option, default, what it is) of a table's entry, the last from the comment that stands beside the field."""
    cls = table.cls(name)
    comments: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        with_source = base.__module__.startswith("crevasse.") and base is not Named
        for line in inspect.getsource(base).splitlines() if with_source else ():
            head, colon, rest = line.strip().partition(":")
            if colon and head.isidentifier():
                comments[head] = rest.partition("  # ")[2]
    lines = []
    for field in dataclasses.fields(cls):
        default = field.default
        if default is dataclasses.MISSING:
            shown = "…"
        elif isinstance(default, Named):
            shown = default.name
        else:
            shown = format_sizes(default) if isinstance(default, tuple) else str(default)
        lines.append((field.name, shown, comments.get(field.name, "")))
    return lines
