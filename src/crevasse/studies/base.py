"""What a study is: a question, a grid of trials, and a verdict computed from the evidence alone."""

import json
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crevasse import store
from crevasse.catalogue import CURVES, read_curves
from crevasse.config import TrialConfig
from crevasse.errors import UserError, unknown
from crevasse.formats import FORMATS
from crevasse.models import MODELS
from crevasse.probes import LEARNED
from crevasse.processes import several
from crevasse.rules import RULES
from crevasse.spec import Named, describe
from crevasse.stats import Score, score
from crevasse.studies.measures import MEASURES, Measure, fingerprint, write_measures
from crevasse.sweep import Event, run_all
from crevasse.tasks import TESTS, parse_task

Budget = Literal["smoke", "minutes", "full"]
BUDGETS: tuple[Budget, ...] = get_args(Budget)
EVIDENCE, VERDICT, REPORT = "evidence.parquet", "verdict.json", "index.html"

#: Trials whose validation picks the settings of others, and trials that are reported on their tests.
Phase = Literal["tuning", "test"]
Row = dict[str, Any]  # of the evidence

#: What came of an arm. The decision rule is `judge`, fixed before any trial runs.
Finding = Literal["rule", "part", "memory", "nothing", "diverged"]


@dataclass(frozen=True)
class Arm:
    """One learner of a study: a config that is run with several seeds."""

    name: str  # short and stable: scripts select by it
    title: str  # for people
    group: str  # the heading under which it stands
    config: TrialConfig
    seeds: int

    def trials(self) -> list[TrialConfig]:
        """One config a seed."""
        return [replace(self.config, seed=self.config.seed + i) for i in range(self.seeds)]


class Study(Named, ABC):
    """Base of all studies; one file each."""

    question: ClassVar[str]

    def tries(self, budget: Budget) -> list[Arm]:
        """Trials that run before the grid is known, on seeds of their own: their validation picks its settings."""
        return []

    @abstractmethod
    def arms(self, budget: Budget, tried: Sequence[Row] = ()) -> list[Arm]:
        """The grid, given the rows of the tries. Trials run in this order."""

    def measure(self, budget: Budget, out: Path, rows: Sequence[Row]) -> list[Measure]:
        """What is measured besides, on the trials that stand in `out` and whose rows these are, or without any."""
        return []

    def answer(self, arms: Sequence[dict[str, Any]]) -> str:
        """One sentence that a person understands, computed from the arms of the verdict; or `verdict` is defined."""
        raise NotImplementedError(f"{self.name} defines neither answer nor verdict")

    def verdict(
        self, budget: Budget, arms: Sequence[dict[str, Any]], rows: Sequence[Row], measures: Sequence[Measure]
    ) -> dict[str, Any]:
        """What the study says in all: its answer, and whatever else its report shows. Raises UserError for evidence
        that is not of this study."""
        return {"answer": self.answer(arms)}


def arm(
    name: str,
    title: str,
    group: str,
    task: str,
    form: str,
    model: str,
    rule: str,
    *,
    seeds: int,
    **fields: Any,
) -> Arm:
    """An arm from the short texts that the command line takes as well."""
    config = TrialConfig(parse_task(task), FORMATS.parse(form), MODELS.parse(model), RULES.parse(rule), **fields)
    return Arm(name, title, group, config, seeds)


def judge(train: float, held_out: float, chance: float, ceiling: float) -> Finding:
    """What an arm's mean scores say. chance: the better of uniform guess and majority answer.

    rule: held-out at least 0.9 of the ceiling. memory: training at least 0.9, held-out within 0.1 of chance.
    nothing: training below 0.9 and held-out within 0.1 of chance. part: anything between.
    """
    if held_out >= 0.9 * ceiling:
        return "rule"
    if held_out <= chance + 0.1:
        return "memory" if train >= 0.9 else "nothing"
    return "part"


def run_study(
    study: Study,
    budget: Budget,
    out: Path,
    *,
    on_event: Callable[[Arm, TrialConfig, Event], None] | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Run what is missing of a study in `out`, write evidence and verdict there. -> the verdict, which says how long
    it took where nothing was there before.

    Raises UserError if the folder is damaged, in use or not writable.
    """
    budget = known_budget(budget)
    if several():
        raise UserError(
            "a study runs its trials side by side by itself; a launcher of processes goes with `crevasse run`"
        )
    began = time.perf_counter()
    tries = study.tries(budget)  # what is wrong with it is told before anything is made
    with store.owned(out):
        anew = not any(out.glob("[!.]*"))  # what is gone on with took longer than this run

        def run(arms: Sequence[Arm], phase: Phase) -> list[Row]:
            owners = [(a, c) for a in arms for c in a.trials()]
            # Two arms may ask for the same trial; it is run once.
            first = {c.id: i for i, (_, c) in reversed(list(enumerate(owners)))}
            once = sorted(first.values())

            def hand_on(event: Event) -> None:
                if on_event is not None:
                    on_event(*owners[once[event.number]], event)

            found = run_all([owners[i][1] for i in once], out, on_event=hand_on, workers=workers)
            by_id = {owners[i][1].id: record for i, record in zip(once, found, strict=True)}
            records = [by_id[c.id] for _, c in owners]
            curves = read_curves([out / "trials" / c.id for _, c in owners])
            return [{"phase": phase, **_row(a, r, c)} for (a, _), r, c in zip(owners, records, curves, strict=True)]

        tried = run(tries, "tuning")
        write_evidence(out / EVIDENCE, tried + run(study.arms(budget, tried), "test"))
        rows = read_evidence(out / EVIDENCE)
        measures: list[Measure] = []
        if type(study).measure is not Study.measure:
            measures = study.measure(budget, out, rows)
            write_measures(out / MEASURES, measures, fingerprint([r["trial"] for r in rows]))
        verdict = decide(study, budget, rows, measures)
        if anew:
            verdict["seconds"] = round(time.perf_counter() - began, 1)
        store.write_json(out / VERDICT, verdict)
        return verdict


def known_budget(name: str) -> Budget:
    """Raises UserError for one that there is not."""
    for budget in BUDGETS:
        if budget == name:
            return budget
    raise unknown("budget", name, BUDGETS)


def decide(
    study: Study, budget: str, rows: Sequence[dict[str, Any]], measures: Sequence[Measure] = ()
) -> dict[str, Any]:
    """The verdict that the evidence gives, arm by arm; groups and arms in the order of their first rows.

    Raises UserError for a budget that there is not.
    """
    budget = known_budget(budget)
    tested: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if row["phase"] == "test":
            tested.setdefault(row["group"], {}).setdefault(row["arm"], []).append(row)
    arms = [_arm_verdict(of_arm) for group in tested.values() for of_arm in group.values()]
    return {
        "study": describe(study),
        "question": study.question,
        **study.verdict(budget, arms, rows, measures),
        "budget": budget,
        "seconds": None,
        "arms": arms,
    }


def _arm_verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    first = rows[0]
    done = [r for r in rows if r["status"] == "done"]
    splits = {t: score([r[t] for r in done]) for t in TESTS}
    splits = {t: s for t, s in splits.items() if s is not None}
    train = score([r["train"] for r in done])
    main = next(iter(splits), None)
    finding: Finding = "diverged"
    if train is not None and main is not None:
        guess = max([first["chance"], *(r[f"majority_{main}"] for r in done)])
        ceiling = float(np.mean([r[f"ceiling_{main}"] for r in done]))
        finding = judge(train["mean"], _mean(splits[main]), guess, ceiling)
    return {
        "arm": first["arm"],
        "title": first["title"],
        "group": first["group"],
        "task": first["task"],
        "format": first["format"],
        "model": first["model"],
        "rule": first["rule"],
        "seeds": len(rows),
        "diverged": len(rows) - len(done),
        "finding": finding,
        "main_split": main,
        "chance": first["chance"],
        "ceiling": {t: float(np.mean([r[f"ceiling_{t}"] for r in done])) for t in splits},
        "majority": {t: float(np.mean([r[f"majority_{t}"] for r in done])) for t in splits},
        "train": train,
        "splits": splits,
        "rule_score": {
            t: score([r[f"rule_score_{t}"] for r in done if r[f"rule_score_{t}"] is not None]) for t in splits
        },
        "lockstep": score([r["lockstep"] for r in rows]),
        "s_max": score([r["s_max"] for r in rows]),
        "learned": bool(np.mean([r["s_max"] for r in rows]) >= LEARNED),
        "memorising": score([r["memorising"] for r in rows]),
        "passes": float(np.mean([r["passes"] for r in rows])),
        "samples": float(np.mean([r["samples"] for r in rows])),
        "seconds": float(np.mean([r["seconds"] for r in rows])),
        "faults": _faults(done),
        "notes": sorted({n for r in rows for n in json.loads(r["notes"])}),
    }


def _faults(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """By split, how many outputs of all seeds first went wrong at what; splits without any are there, and empty."""
    total: dict[str, Counter[str]] = {}
    for row in rows:
        for split, kinds in json.loads(row["faults"]).items():
            total.setdefault(split, Counter()).update(kinds)
    return {split: dict(counter.most_common()) for split, counter in total.items()}


def _mean(s: Score | None) -> float:
    return s["mean"] if s else 0.0


# --- evidence --------------------------------------------------------------------------------------------------

_BY_SPLIT = ("ceiling", "majority", "lookup", "nearest", "rule_score")
_NUMBERS = ("train", *TESTS, *(f"{k}_{t}" for k in _BY_SPLIT for t in TESTS),
            "chance", "lockstep", "s_max", "memorising", "uniform_loss", "passes", "seconds", "padding", "memory",
            "peak_memory")  # fmt: skip
_COUNTS = ("seed", "steps", "moved_steps", "samples", "parameters", "examples", "unreadable_calls")
_TEXTS = ("phase", "arm", "title", "group", "trial", "status", "task", "format", "model", "rule", "labels", "config",
          "environment", "notes", "outputs", "faults")  # fmt: skip
SCHEMA = pa.schema(
    [(n, pa.string()) for n in _TEXTS]
    + [(n, pa.int64()) for n in _COUNTS]
    + [(n, pa.float64()) for n in _NUMBERS]
    + [(n, pa.list_(pa.int32() if n == "curve_step" else pa.float32())) for n in CURVES]
)  # fmt: skip
#: What evidence of before has no column for, and what stands for it.
_LATER = {"phase": "test", **dict.fromkeys(tuple(CURVES)[3:])}


def _row(a: Arm, record: dict[str, Any], curves: dict[str, Any]) -> dict[str, Any]:
    """A trial as a row of the evidence: all that verdict and report need, and the config that repeats it."""
    result, config = record["result"], record["config"]
    row: dict[str, Any] = {
        "arm": a.name, "title": a.title, "group": a.group, "trial": record["id"], "status": record["status"],
        "task": describe(a.config.task), "format": describe(a.config.format), "model": describe(a.config.model),
        "rule": describe(a.config.rule), "labels": config["labels"], "seed": config["seed"],
        "config": json.dumps(config, ensure_ascii=False), "environment": json.dumps(record["environment"]),
        "notes": json.dumps(result["notes"], ensure_ascii=False),
        "outputs": json.dumps(result["outputs"], ensure_ascii=False), "faults": json.dumps(result["faults"]),
        "examples": result["examples"]["train"], "train": result["train"],
        **curves,
    }  # fmt: skip
    for name in ("steps", "moved_steps", "samples", "parameters", "unreadable_calls", "chance", "lockstep", "s_max",
                 "memorising", "uniform_loss", "passes", "seconds", "padding", "memory", "peak_memory"):  # fmt: skip
        row[name] = result[name]
    for test in TESTS:
        row[test] = result["splits"].get(test)
        row[f"ceiling_{test}"] = result["ceiling"].get(test)
        row[f"rule_score_{test}"] = result["rule_score"].get(test)
        for name in ("majority", "lookup", "nearest"):
            row[f"{name}_{test}"] = result["non_learners"].get(test, {}).get(name)
    return row


def write_evidence(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One Parquet file, a row a trial."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), sink, compression="zstd")
    store.write_atomically(path, sink.getvalue().to_pybytes())


def read_evidence(path: Path) -> list[dict[str, Any]]:
    """The inverse of `write_evidence`. Raises UserError for a file that is missing, damaged or something else."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (`crevasse study NAME` makes one)") from None
    except (OSError, pa.ArrowException):
        raise UserError(f"{path} is damaged; run the study again (what it has already run is kept)") from None
    missing = set(SCHEMA.names) - set(table.column_names) - set(_LATER)
    if missing:
        raise UserError(f"{path} is not the evidence of a study (it lacks {', '.join(sorted(missing)[:4])})")
    rows: list[Row] = [{**_LATER, **row} for row in table.to_pylist()]
    return rows
