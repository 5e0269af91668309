"""A whole sweep: what is missing is run, what is there is read, and the results are written."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crevasse import store
from crevasse.config import TrialConfig
from crevasse.errors import UserError, unknown
from crevasse.processes import several
from crevasse.spec import describe, require
from crevasse.stats import score
from crevasse.sweep.engine import Engine, run_all
from crevasse.sweep.events import Event
from crevasse.sweep.grid import Fields, Sweep, setting_text
from crevasse.sweep.search import Found, parse_search, search_all
from crevasse.sweep.summary import over_seeds
from crevasse.tasks import TESTS

RESULTS, EVIDENCE = "sweep.json", "evidence.parquet"
ENGINES = ("local", "ray")

#: Hears how many trials there are to run, what the one is called to which something happened, and what that was.
Listener = Callable[[int, str, Event], None]


def make_engine(name: str, address: str | None = None) -> Engine | None:
    """The engine of that name; None: processes on this machine. Raises UserError."""
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    require(name == "ray" or address is None, "an address goes with the engine ray")
    if name == "local":
        return None
    from crevasse.sweep.cluster import RayEngine

    engine: Engine = RayEngine(address=address)
    return engine


def require_begun(out: Path) -> None:
    """Raises UserError for a folder in which no sweep was begun."""
    if not (out.is_dir() and store.trial_folders(out)):
        raise UserError(f"{out} holds no trials to go on with (without --resume a sweep begins there)")


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
    engine: Engine | None = None,
    workers: int | None = None,
    on_event: Listener | None = None,
) -> dict[str, Any]:
    """Run what is missing of a sweep in `out`, write sweep.json and evidence.parquet there. -> what sweep.json says.

    Raises UserError if the folder is in use or not writable, and, after the results of all others are written, if
    trials could not run.
    """
    if several():
        raise UserError("a sweep runs its trials side by side by itself; a launcher goes with `crevasse run`")
    began = time.perf_counter()
    search = None if sweep.search is None else parse_search(sweep)
    with store.owned(out):
        trials = _Trials(out, engine, workers, on_event)
        if search is None:
            trials.planned = len(sweep.configs)
            trials.run(sweep.configs, [_label(s, c) for s, c in zip(sweep.settings, sweep.configs, strict=True)])
            groups = [_Group(setting, configs) for setting, configs in sweep.groups()]
        else:
            trials.planned = len(sweep.configs) * search.tries
            found = search_all(search, sweep, trials.run, trials.records, out)
            groups = [_Group(f.setting, f.best.configs if f.best else [], f) for f in found]
        if not trials.records:  # nothing to tell, so nothing is left behind either
            raise UserError(trials.failure())
        result = {
            "sweep": sweep.name,
            "budget": sweep.budget,
            "trials": len(trials.records) + len(trials.errors),
            "ran": len(trials.records) - trials.read,
            "read": trials.read,
            "failed": len(trials.errors),
            "seconds": round(time.perf_counter() - began, 1),
            "settings": [g.summary(trials) for g in groups],
            "errors": [{"trial": i, "error": text} for i, text in trials.errors.items()],
            "notes": list(sweep.notes),
        }
        _write_evidence(out / EVIDENCE, [row for g in groups for row in g.rows(trials)])
        store.write_json(out / RESULTS, result)
    if trials.errors:
        raise UserError(f"{trials.failure()}; the others are in {out}")
    return result


class _Trials:
    """Trials that were asked for, by their ids: each is run once, whoever asks for it."""

    def __init__(self, out: Path, engine: Engine | None, workers: int | None, on_event: Listener | None) -> None:
        self.out, self.engine, self.workers, self.on_event = out, engine, workers, on_event
        self.records: dict[str, dict[str, Any]] = {}
        self.errors: dict[str, str] = {}
        self.planned = 0  # trials in all
        self.read = 0

    def run(self, configs: Sequence[TrialConfig], labels: Sequence[str]) -> None:
        """Complete these trials; afterwards each has a record or an error."""
        missing: dict[str, tuple[TrialConfig, str]] = {}
        for config, label in zip(configs, labels, strict=True):
            if config.id in self.records or config.id in self.errors or config.id in missing:
                self.planned -= 1  # a search came upon the same trial again
            elif not self._read(config):
                missing[config.id] = config, label
        if not missing:
            return
        offset = len(self.records) + len(self.errors)  # so that numbers are the sweep's, not this call's
        ids, names = list(missing), [label for _, label in missing.values()]

        def take(event: Event) -> None:
            if event.record is not None:
                self._keep(event.record)
            if event.error is not None:
                self.errors[ids[event.number]] = event.error
            if self.on_event is not None:
                moved = Event(event.number + offset, event.progress, event.record, event.error)
                self.on_event(self.planned - self.read, names[event.number], moved)

        # One trial needs no second process; a Ctrl-C then reaches it directly.
        workers = 1 if len(missing) == 1 else self.workers
        try:
            run_all([c for c, _ in missing.values()], self.out, on_event=take, workers=workers, engine=self.engine)
        except UserError:
            if any(i not in self.errors and i not in self.records for i in ids):
                raise  # not a trial's error: the engine itself cannot go on

    def failure(self) -> str:
        """One line about the trials that could not run."""
        count, total = len(self.errors), len(self.errors) + len(self.records)
        return f"{count} of {total} trials could not run: {next(iter(self.errors.values()))}"

    def _read(self, config: TrialConfig) -> bool:
        """Is the trial complete? Then keep its record. A damaged one is told by whoever tries to run it."""
        folder = self.out / "trials" / config.id
        if not (folder / store.TRIAL).exists():
            return False
        try:
            record = store.load_trial(folder)
        except UserError:
            return False
        if record["status"] not in store.COMPLETE:
            return False
        self._keep(record)
        self.read += 1
        return True

    def _keep(self, record: dict[str, Any]) -> None:
        """All but the long texts: a sweep may have very many trials."""
        result = {k: v for k, v in record["result"].items() if k not in ("outputs", "faults", "non_learners")}
        self.records[record["id"]] = {"id": record["id"], "status": record["status"], "result": result}


def _label(setting: Fields, config: TrialConfig) -> str:
    return " · ".join(filter(None, [setting_text(setting), f"seed {config.seed}"]))


class _Group:
    """A setting with its trials: what a line of the results is about. found: what a search found for it."""

    def __init__(self, setting: Fields, configs: Sequence[TrialConfig], found: Found | None = None) -> None:
        self.setting, self.configs, self.found = setting, configs, found

    def summary(self, trials: _Trials) -> dict[str, Any]:
        """A line of sweep.json. Test scores are those of the best try alone, which validation has chosen."""
        records = [trials.records[c.id] for c in self.configs if c.id in trials.records]
        line: dict[str, Any] = {"setting": self.setting}
        if self.found is not None:
            best = self.found.best
            line |= {
                "best": best.values if best else None,
                "validation": score(best.readings) if best else None,
                "tries": [
                    {"values": t.values, "validation": t.validation, "trials": [c.id for c in t.configs],
                     "status": t.status}
                    for t in self.found.tries
                ],
            }  # fmt: skip
        keys = ("train", "splits", "lockstep", "s_max", "learned", "passes", "seconds", "chance", "ceiling", "notes")
        whole = over_seeds(records) if records else {"splits": {}, "ceiling": {}, "notes": []}
        return {
            **line,
            "status": whole["status"] if records and len(records) == len(self.configs) else "failed",
            "seeds": len(self.configs),
            **{k: whole.get(k) for k in keys},
            "trials": [c.id for c in self.configs],
        }

    def rows(self, trials: _Trials) -> list[dict[str, Any]]:
        """Rows of the evidence: a row a trial."""
        if self.found is None:
            return [_row(self.setting, config, trials) for config in self.configs]
        return [
            _row(self.setting | t.values, config, trials, chosen=t is self.found.best)
            | {"try": number, "chosen": t is self.found.best, "validation": t.validation}
            for number, t in enumerate(self.found.tries)
            for config in t.configs
        ]


_MEASURED = ("train", "chance", "lockstep", "s_max", "memorising", "steps", "moved_steps", "passes", "samples",
             "parameters", "seconds")  # fmt: skip


def _row(varied: Fields, config: TrialConfig, trials: _Trials, chosen: bool = True) -> dict[str, Any]:
    """A trial as a row. chosen: False keeps its test scores closed."""
    record = trials.records.get(config.id)
    result = record["result"] if record else {}
    splits = result.get("splits", {}) if chosen else {}
    return {
        **{f"setting.{k}": v for k, v in varied.items()},
        "trial": config.id,
        "status": record["status"] if record else "failed",
        "error": trials.errors.get(config.id),
        "seed": config.seed,
        **{k: describe(getattr(config, k)) for k in ("task", "format", "model", "rule")},
        **{k: result.get(k) for k in _MEASURED},
        **{k: splits.get(k) for k in TESTS},
    }


def _write_evidence(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One Parquet file. Its columns do not depend on what came out: scores are numbers even where all are missing."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        kinds = {type(v) for v in values if v is not None}
        if name in (*_MEASURED, *TESTS, "validation") or kinds in ({float}, {int, float}):
            columns[name] = pa.array([None if v is None else float(v) for v in values], pa.float64())
        elif kinds in ({int}, {bool}) and all(v is None or abs(v) < 2**63 for v in values):
            columns[name] = pa.array(values)
        else:
            texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
            columns[name] = pa.array(texts, pa.string())
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    store.write_atomically(path, sink.getvalue().to_pybytes())
