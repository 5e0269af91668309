"""Tuning by validation: as many tries for every combination of a sweep, so that no rule is tuned better than another.

Each combination has an Optuna study of its own. Tries are asked for a few at a time, whatever the number of cores, so
that the same file tries the same values everywhere: a search that is repeated finds its trials complete, and one with
more tries begins with the same ones.
"""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from crevasse import store
from crevasse.config import TrialConfig
from crevasse.errors import UserError, unknown
from crevasse.rules import RULES
from crevasse.spec import convert, require
from crevasse.sweep.grid import Fields, Sweep, at, changed, check_list, one_value, setting_text

#: What a try is judged by, read on validation; is less better?
METRICS = {"held_out_loss": True, "held_out_exact": False, "held_out_token_accuracy": False}
SAMPLERS = ("tpe", "random")
#: Fields that may be searched beside options of model and rule: they leave the problems as they are.
SEARCHABLE = ("steps", "batch", "schedule", "warmup")
#: Tries of a combination that run side by side. Part of the method: another number gives other tries.
AT_ONCE = 4


@dataclass(frozen=True)
class Search:
    """The section [search] of a sweep's file."""

    tries: int  # for every combination
    metric: str
    sampler: str
    seed: int
    spaces: Mapping[str, Fields]  # by rule; "" for all that have none of their own

    def space(self, config: TrialConfig) -> Fields:
        """What is searched with this config's rule."""
        return self.spaces.get(config.rule.name, self.spaces[""])


@dataclass(eq=False)  # the same values may be tried twice
class Try:
    """Values that were tried, with all seeds."""

    values: Fields
    configs: list[TrialConfig]
    readings: list[float] = field(default_factory=list)  # a seed each, on validation
    status: str = "running"

    @property
    def validation(self) -> float | None:
        """The mean over the seeds; None for a try that diverged or could not run."""
        return float(np.mean(self.readings)) if self.status == "done" else None


@dataclass
class Found:
    """What the search found for a combination."""

    setting: Fields
    tries: list[Try]
    best: Try | None  # by validation, the first of equals; None if no try ended well


def parse_search(sweep: Sweep) -> Search:
    """The section [search]. Raises UserError, also for an option that a rule of the sweep lacks."""
    data = dict(sweep.search or {})
    with at("search"):
        for key in data:
            if key not in ("tries", "metric", "sampler", "seed", "space"):
                raise unknown("field", key, ("tries", "metric", "sampler", "seed", "space"))
        tries, seed = convert(data.get("tries", 20), int, "tries"), convert(data.get("seed", 0), int, "seed")
        require(1 <= tries <= 10_000, f"tries must lie between 1 and 10000, not {tries}")
        metric, sampler = data.get("metric", "held_out_loss"), data.get("sampler", "tpe")
        if metric not in METRICS:
            raise unknown("metric", str(metric), METRICS)
        if sampler not in SAMPLERS:
            raise unknown("sampler", str(sampler), SAMPLERS)
        with at("space"):
            spaces = _spaces(data.get("space", {}))
        search = Search(tries, metric, sampler, seed, spaces)
        for setting, configs in sweep.groups():
            _check(search, setting, configs[0])
    return search


def _spaces(table: Any) -> dict[str, Fields]:
    require(isinstance(table, dict), f"must be a table of names and values, not {table!r}")
    own = {k: v for k, v in table.items() if k in RULES}
    shared = {k: v for k, v in table.items() if k not in RULES}
    spaces = {"": _ranges(shared)} | {rule: _ranges(space) for rule, space in own.items()}
    require(any(spaces.values()), 'is empty: write what to search, "rule.lr" = { low = 1e-4, high = 0.1, log = true }')
    return spaces


def _ranges(table: Any, prefix: str = "") -> Fields:
    """Names with lists or ranges, dotted names flat (TOML reads unquoted ones as tables)."""
    require(isinstance(table, dict), f"{prefix or 'a space'} must be a table of names and values, not {table!r}")
    found: Fields = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and "low" not in value and "high" not in value:
            found |= _ranges(value, f"{name}.")
            continue
        if name not in SEARCHABLE and not name.startswith(("rule.", "model.")):
            raise unknown("field to search", name, ['"rule.OPTION"', '"model.OPTION"', *SEARCHABLE])
        with at(name):
            found[name] = _range(value)
    return found


def _range(value: Any) -> Any:
    if not isinstance(value, dict):
        check_list(value)
        for item in value:
            one_value(item)
        return value
    for key in value:
        if key not in ("low", "high", "log"):
            raise unknown("part of a range", key, ("low", "high", "log"))
    require({"low", "high"} <= set(value), "a range needs low and high")
    low, high, log = value["low"], value["high"], value.get("log", False)
    for end in (low, high):
        require(type(end) in (int, float) and math.isfinite(end), f"low and high must be numbers, not {end!r}")
    require(isinstance(log, bool), f"log must be true or false, not {log!r}")
    require(low < high, f"low must lie below high, not {low} and {high}")
    require(not log or low > 0, f"a logarithmic range begins above 0, not at {low}")
    return {"low": low, "high": high, "log": log}


def _check(search: Search, setting: Fields, config: TrialConfig) -> None:
    """Every value that may come up is one that the combination takes; raises UserError before anything runs."""
    task = config.task
    if "R" not in task.splits and getattr(task, "declared", None) is None:
        raise UserError(f"{task.name} has no validation problems but those of the test: there is nothing to tune by")
    require(config.steps > 0, "there is nothing to tune in trials of no steps")
    for key, choices in search.space(config).items():
        with at(f"space ({config.rule.name}): {key}"):
            require(key not in setting, "it stands in the grid too")
            for value in [choices["low"], choices["high"]] if isinstance(choices, dict) else choices:
                changed(config, {key: value})


# --- the search ------------------------------------------------------------------------------------------------


def search_all(
    search: Search,
    sweep: Sweep,
    run: Callable[[Sequence[TrialConfig], Sequence[str]], None],
    records: Mapping[str, dict[str, Any]],
    root: Path,
) -> list[Found]:
    """Search every combination of a sweep. -> what was found for each, in their order.

    run: completes the given trials (with their labels), of which `records` then has those that could run, by id.
    """
    found = [_Combination(search, setting, configs) for setting, configs in sweep.groups()]
    while len(found[0].tries) < search.tries:
        count = min(AT_ONCE, search.tries - len(found[0].tries))
        asked = [(c, c.ask()) for _ in range(count) for c in found]
        run(
            [config for _, t in asked for config in t.configs],
            [c.label(t, config) for c, t in asked for config in t.configs],
        )
        for c, t in asked:
            c.tell(t, records, root)
    return [Found(c.setting, c.tries, c.best()) for c in found]


class _Combination:
    """The Optuna study of one combination."""

    def __init__(self, search: Search, setting: Fields, configs: Sequence[TrialConfig]) -> None:
        optuna = _optuna()
        self.search, self.setting, self.configs = search, setting, configs
        self.tries: list[Try] = []
        self._trials: list[Any] = []  # Optuna's, one for each of ours
        # A seed of its own, so that a combination's tries do not change when another is added.
        seed = _seed(search.seed, setting)
        samplers = optuna.samplers
        with _quiet():
            sampler = (
                samplers.RandomSampler(seed=seed)
                if search.sampler == "random"
                else samplers.TPESampler(seed=seed, constant_liar=True)
            )
            self._study = optuna.create_study(sampler=sampler)
        make = optuna.distributions
        self._space: dict[str, Any] = {}
        for name, choices in search.space(configs[0]).items():
            if isinstance(choices, dict):
                # Low = 0, high = 1 of an option that is no whole number means all that lies between.
                whole = isinstance(attrgetter(name)(changed(configs[0], {name: choices["low"]})), int)
                kind, number = (make.IntDistribution, int) if whole else (make.FloatDistribution, float)
                self._space[name] = kind(number(choices["low"]), number(choices["high"]), log=choices["log"])
            else:
                self._space[name] = make.CategoricalDistribution(choices)

    def ask(self) -> Try:
        with _quiet():
            trial = self._study.ask(self._space)
        values = dict(trial.params)
        self._trials.append(trial)
        try:
            configs = [changed(c, values) for c in self.configs]
        except UserError:  # values that do not go together, such as a width that the heads do not divide: a failed try
            configs = []
        self.tries.append(Try(values, configs))
        return self.tries[-1]

    def label(self, t: Try, config: TrialConfig) -> str:
        return " · ".join(filter(None, [setting_text(self.setting), setting_text(t.values), f"seed {config.seed}"]))

    def tell(self, t: Try, records: Mapping[str, dict[str, Any]], root: Path) -> None:
        optuna = _optuna()
        trial = self._trials[self.tries.index(t)]
        ended = [records.get(c.id) for c in t.configs]
        if not ended or any(r is None for r in ended):
            t.status = "failed"
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        t.readings = [read_metric(root / "trials" / c.id, self.search.metric) for c in t.configs]
        good = all(r is not None and r["status"] == "done" for r in ended) and np.isfinite(t.readings).all()
        diverged = any(r is not None and r["status"] == "diverged" for r in ended)
        t.status = "done" if good else "diverged" if diverged else "failed"  # failed: nothing was ever read
        self._study.tell(trial, self._cost(t) if good else math.inf)

    def best(self) -> Try | None:
        return min((t for t in self.tries if t.status == "done"), key=self._cost, default=None)

    def _cost(self, t: Try) -> float:
        """What is made small."""
        mean = float(np.mean(t.readings))
        return mean if METRICS[self.search.metric] else -mean


def read_metric(folder: Path, metric: str) -> float:
    """The last reading in a trial's ledger; NaN where there is none."""
    column = store.read_columns(folder / store.LEDGER)[metric].astype(float)
    read = column[~np.isnan(column)]
    return float(read[-1]) if len(read) else math.nan


def _seed(seed: int, setting: Fields) -> int:
    text = json.dumps([seed, setting], sort_keys=True)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def _quiet() -> Any:
    """Optuna warns of what is new in it."""
    return warnings.catch_warnings(action="ignore")


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("search needs the extra hpo: pip install 'crevasse[hpo]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
