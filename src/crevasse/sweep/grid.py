"""A sweep's file: a trial in TOML, and what of it varies. See docs/sweep.md.

Fields of a higher level replace those of a lower one: the file < a case < the grid < a budget. Whole things (``rule =
"adamw:lr=0.1"``) come first and dotted names (``"rule.lr" = 0.1``) are applied to them, wherever both stand.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crevasse.config import TrialConfig
from crevasse.errors import UserError, unknown
from crevasse.formats import FORMATS
from crevasse.models import MODELS
from crevasse.rules import RULES
from crevasse.spec import Table, convert, require
from crevasse.tasks import TASKS

#: More trials than this are a slip of the pen.
MOST_TRIALS = 1_000_000

THINGS: dict[str, Table[Any]] = {"task": TASKS, "format": FORMATS, "model": MODELS, "rule": RULES}
DEFAULTS = {"format": "direct", "model": "transformer", "rule": "adamw"}
_HINTS = typing.get_type_hints(TrialConfig)
#: Fields of a trial that are one value. The share of noise is written with the labels.
PLAIN = tuple(f.name for f in dataclasses.fields(TrialConfig) if f.name not in (*THINGS, "noise"))
_SECTIONS = ("grid", "cases", "budgets", "search")
Fields = dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """Trials, setting by setting and within a setting seed by seed.

    `make_plan` decides in which order they run; this is the order of the tables.
    """

    name: str
    configs: tuple[TrialConfig, ...]
    settings: tuple[Fields, ...]  # of each config, what varies, for tables
    notes: tuple[str, ...] = ()
    budget: str | None = None
    search: Fields | None = None  # the section as it stands in the file; `search.parse_search` reads it

    def groups(self) -> list[tuple[Fields, list[TrialConfig]]]:
        """Each setting with its trials, which differ in their seeds."""
        pairs = zip(self.settings, self.configs, strict=True)
        found = (list(group) for _, group in itertools.groupby(pairs, key=lambda p: json.dumps(p[0])))
        return [(group[0][0], [config for _, config in group]) for group in found]


def read_sweep(path: Path, budget: str | None = None) -> Sweep:
    """The sweep in a TOML file, with the fields that a budget of it replaces.

    Raises UserError, which names the file and the key, for anything that cannot be.
    """
    with at(str(path)):
        data = _load(path)
        with at("budgets"):
            budgets = {k: _table(v, k) for k, v in _table(data.get("budgets", {}), "budgets").items()}
        if budget is not None and budget not in budgets:
            raise unknown("budget", budget, budgets or ["none"])
        return _sweep(path.stem, data, budgets, budget)


def setting_text(setting: Mapping[str, Any]) -> str:
    """What varies, in one line: ``narrow, train=2000``."""
    short = {k: f"{v:.4g}" if isinstance(v, float) and len(str(v)) > 8 else v for k, v in setting.items()}
    return ", ".join(str(v) if k == "case" else f"{k}={v}" for k, v in short.items())


def changed(config: TrialConfig, fields: Mapping[str, Any]) -> TrialConfig:
    """The config with other fields or options of its task, format, model and rule, by dotted names.

    Raises UserError, which names the thing that lacks an option.
    """
    plain: Fields = {}
    for key, value in fields.items():
        if "." not in key:
            plain |= _plain(key, value)
    things = {kind: _with_options(kind, getattr(config, kind), fields) for kind in THINGS}
    return dataclasses.replace(config, **things, **plain)


@contextlib.contextmanager
def at(where: str) -> Iterator[None]:
    """Errors say where they are."""
    try:
        yield
    except UserError as e:
        raise UserError(f"{where}: {e}") from None


# --- the file --------------------------------------------------------------------------------------------------


def _load(path: Path) -> Fields:
    try:
        text = path.read_bytes().decode("utf-8-sig")  # editors on Windows put a mark in front
    except OSError as e:
        raise UserError(f"cannot be read ({e.strerror})") from None
    except ValueError:
        raise UserError("not a TOML file: it is not UTF-8 text") from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as e:
        end = f"at end of document, line {text.count(chr(10)) + 1}"
        text = str(e).replace("at end of document", end)
        if "verwrite" in text or "mutate" in text:
            text += ' (a key stands there twice; a dotted name needs quotes: "rule.lr" = 0.1)'
        raise UserError(f"not a TOML file: {text}") from None


def _table(value: Any, where: str) -> Fields:
    require(isinstance(value, dict), f"{where} must be a table of names and values, not {value!r}")
    return dict(value)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Unquoted dotted names are tables in TOML: ``rule.lr = 0.1`` reads as ``{"rule": {"lr": 0.1}}``."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name.partition(".")[0] in THINGS:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _fields(table: Mapping[str, Any], kind: str, more: Sequence[str] = ()) -> Fields:
    """The fields of a table, dotted names flat. Raises UserError for one that a trial does not have."""
    allowed = [*THINGS, *PLAIN, "seeds", *more]
    found: Fields = {}
    for key, value in _flat(table):
        head, dot, _ = key.partition(".")
        require(key != "noise", 'noise is written with the labels: labels = "noisy=0.25"')
        if not (head in THINGS if dot else key in allowed):
            raise unknown(kind, key, [*allowed, '"rule.OPTION" and its like'])
        require(key not in found, f"{key} is given twice")
        found[key] = value
    return found


def _sweep(name: str, data: Fields, budgets: Mapping[str, Fields], budget: str | None) -> Sweep:
    base = _fields({k: v for k, v in data.items() if k not in _SECTIONS}, "field", _SECTIONS)
    grid = _grid(data.get("grid", {}), "grid")
    search = _table(data["search"], "search") if "search" in data else None
    over: Fields = {}
    for key, table in budgets.items():  # all of them are read, so that a slip is told before it is needed
        with at(f"budgets.{key}"):
            parts = ("grid", "search")
            fields = _fields({k: v for k, v in table.items() if k not in parts}, "field", parts)
            lists, its_search = _grid(table.get("grid", {}), "grid"), _table(table.get("search", {}), "search")
            require(not its_search or search is not None, "search replaces fields of [search], which is not there")
        if key == budget:
            over, grid = fields, {k: v for k, v in (grid | lists).items() if k not in fields}
            search = None if search is None else search | its_search
    cases = _cases(data["cases"]) if "cases" in data else [("", {})]

    seeds = {case: _seeds(base | fields | over) for case, fields in cases}
    count = sum(map(len, seeds.values())) * math.prod(map(len, grid.values()))
    require(count <= MOST_TRIALS, f"{count} trials are more than {MOST_TRIALS}: shorten a list of the grid")
    seen: dict[TrialConfig, str] = {}  # equal configs have the same id
    settings: list[Fields] = []
    twice: list[str] = []
    build = _Builder()
    for case, fields in cases:
        origin = {
            **{k: k for k in base},
            **{k: f"cases ({case}): {k}" for k in fields},
            **{k: f"grid.{k}" for k in grid},
            **{k: f"budgets.{budget}.{k}" for k in over},
        }
        for values in itertools.product(*grid.values()):
            varied = dict(zip(grid, values, strict=True))
            setting = ({"case": case} if case else {}) | varied
            config = build(base | fields | varied | over, origin)
            for seed in seeds[case]:
                trial = dataclasses.replace(config, seed=seed)
                if trial in seen:
                    twice.append(f"({setting_text(setting)}) and ({seen[trial]})")
                    continue
                seen[trial] = setting_text(setting)
                settings.append(setting)
    notes: tuple[str, ...] = ()
    if twice:
        notes = (f"{len(twice)} trials stand in this sweep twice and run once: {twice[0]} are the same",)
    return Sweep(name, tuple(seen), tuple(settings), notes, budget, search)


def _grid(table: Any, where: str) -> dict[str, list[Any]]:
    grid = _fields(_table(table, where), "field of the grid")
    for key, values in grid.items():
        with at(f"{where}.{key}"):
            if key in ("seed", "seeds"):
                raise UserError("seeds are no setting: write seeds = 5, or a list of them, above [grid]")
            check_list(values)
    return grid


def check_list(values: Any) -> None:
    """Raises UserError for what is no list of different values."""
    require(isinstance(values, list), f"must be a list of values, not {values!r}")
    require(len(values) > 0, "the list is empty")
    texts = [json.dumps(v, default=str) for v in values]
    for i, (value, text) in enumerate(zip(values, texts, strict=True)):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        same = text in texts[:i] or (number and any(value == v for v in values[:i] if not isinstance(v, bool)))
        require(not same, f"{value!r} stands in the list twice")


def _cases(tables: Any) -> list[tuple[str, Fields]]:
    require(isinstance(tables, list) and len(tables) > 0, "cases must be tables under [[cases]]")
    found: dict[str, Fields] = {}
    for number, table in enumerate(tables, 1):
        with at(f"cases ({number})"):
            fields = _fields(_table(table, "a case"), "field of a case", ("name",))
            name = fields.pop("name", None) or setting_text(fields) or f"case {number}"
            require(isinstance(name, str), f"name must be text, not {name!r}")
            require(name not in found, f"the name {name!r} is taken by another case")
            found[name] = fields
    return list(found.items())


def _seeds(fields: Fields) -> list[int]:
    """``seeds = 5`` counts from `seed` on; a list names them."""
    given, first = fields.get("seeds", 1), fields.get("seed", 0)
    if isinstance(given, list):
        require("seed" not in fields, "seed goes with a number of seeds, not with a list of them")
        with at("seeds"):
            check_list(given)
            for seed in given:
                _plain("seed", seed)
        return list(given)
    count, start = convert(given, int, "seeds"), convert(first, int, "seed")
    require(1 <= count <= 10_000, f"seeds must lie between 1 and 10000, or be a list, not {given}")
    return list(range(start, start + count))


# --- trials ----------------------------------------------------------------------------------------------------


class _Builder:
    """Configs from fields; a task, format, model or rule that many share is made once."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __call__(self, fields: Fields, origin: Mapping[str, str]) -> TrialConfig:
        things: dict[str, Any] = {}
        plain: Fields = {}
        for kind in THINGS:
            options = {k: v for k, v in fields.items() if k.startswith(f"{kind}.")}
            key = json.dumps([kind, fields.get(kind), options], default=str)
            if key not in self._made:
                self._made[key] = self._make(kind, fields, options, origin)
            things[kind] = self._made[key]
        for key, value in fields.items():
            if key in PLAIN and key != "seed":
                with at(origin[key]):
                    plain |= _plain(key, value)
        return TrialConfig(**things, **plain)

    def _make(self, kind: str, fields: Fields, options: Fields, origin: Mapping[str, str]) -> Any:
        text = fields.get(kind, DEFAULTS.get(kind))
        if text is None:
            raise UserError('task is missing, such as task = "iterated-product:T=1-6"')
        with at(origin.get(kind, kind)):
            one_value(text)
            require(isinstance(text, str), f"must be text such as {next(iter(THINGS[kind]))!r}, not {text!r}")
            made = THINGS[kind].parse(text)
        with at(", ".join(origin[k] for k in options)):
            return _with_options(kind, made, options)


def _with_options(kind: str, thing: Any, fields: Mapping[str, Any]) -> Any:
    """The task, format, model or rule with the options that stand under dotted names."""
    options = {k.partition(".")[2]: v for k, v in fields.items() if k.startswith(f"{kind}.")}
    if not options:
        return thing
    for value in options.values():
        for item in value if isinstance(value, list) else [value]:  # sizes may be a list
            one_value(item)
    given = {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing) if f.init}
    return THINGS[kind].build(thing.name, {**given, **options})


def one_value(value: Any) -> None:
    """Raises UserError for what is neither number, text nor truth value."""
    require(not isinstance(value, list), f"must be one value, not {value} (a list of values stands under [grid])")
    require(isinstance(value, str | int | float), f"must be a number, true, false or text, not {value}")
    require(not isinstance(value, float) or math.isfinite(value), f"must be a finite number, not {value}")


def _plain(key: str, value: Any) -> Fields:
    """A field of a trial, checked."""
    one_value(value)
    if key == "labels":
        return dict(zip(("labels", "noise"), parse_labels("true" if value is True else value), strict=True))
    if key == "data_seed" and value == "seed":
        return {key: None}
    found = convert(value, _HINTS[key], key)
    if key in ("seed", "data_seed") and found is not None:
        require(0 <= found < 2**31, f"{key} must lie between 0 and {2**31 - 1}, not {found}")
    return {key: found}


def parse_labels(text: Any) -> tuple[str, float]:
    """``"noisy=0.25"`` -> ("noisy", 0.25). Raises UserError."""
    labels, equals, noise = str(text).partition("=")
    convert(labels, _HINTS["labels"], "labels")
    try:
        return labels, float(noise) if equals else 0.0
    except ValueError:
        raise UserError(f"noise is a share, 0 to 1, not {noise!r} (write labels as noisy=0.25)") from None
