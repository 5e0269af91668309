"""What a sweep would do, and about how long it would take: measured on a few real steps, not guessed."""

import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crevasse import store
from crevasse.config import TrialConfig
from crevasse.errors import UserError
from crevasse.spec import describe
from crevasse.sweep.grid import Sweep
from crevasse.sweep.plan import make_plan
from crevasse.sweep.search import parse_search
from crevasse.trial import run_trial

#: So many kinds of trials are measured, the most frequent ones.
MEASURED = 8
#: A measurement takes about so many seconds of steps, and at most so many steps.
SECONDS, STEPS = 0.3, 50

Kind = tuple[str, str, str, str, int]  # task, format, model, name of the rule, batch


@dataclass(frozen=True)
class Speed:
    """How fast a kind of trial is."""

    around: float  # seconds for data, weights and judging
    step: float  # seconds a step, without the meter

    def seconds(self, config: TrialConfig) -> float:
        """Of a whole trial. A reading goes forward only, a third of a step an example, over two probe batches."""
        probes = config.steps / config.probe_every * 2 * config.probe_rows / config.batch / 3
        return self.around + (config.steps + probes) * self.step


def estimate(sweep: Sweep, root: Path, *, workers: int | None = None) -> dict[str, Any]:
    """Trials, jobs and the time that a sweep in `root` would take. Nothing is written there.

    How many tries of a search are there already is known only as it goes on: all of them are counted.
    """
    search = None if sweep.search is None else parse_search(sweep)
    tries = 1 if search is None else search.tries
    missing = [c for c in sweep.configs if search is not None or not _complete(root, c)]
    plan = make_plan(missing, root, workers=workers)
    notes = list(sweep.notes)
    kinds = Counter(_kind(c) for c in missing)
    speeds: dict[Kind, Speed] = {}
    for kind, _ in kinds.most_common(MEASURED):
        try:
            speeds[kind] = _measure(next(c for c in missing if _kind(c) == kind))
        except UserError as e:
            notes.append(f"not measured: {e}")
    seconds = sum(_nearest(speeds, c).seconds(c) for c in missing) * tries if speeds else 0.0
    groups = sweep.groups()
    return {
        "sweep": sweep.name,
        "budget": sweep.budget,
        "settings": len(groups),
        "tries": None if search is None else tries,
        "seeds": sorted({len(configs) for _, configs in groups}),
        "trials": len(sweep.configs) * tries,
        "complete": None if search is not None else len(sweep.configs) - len(missing),
        "jobs": len(plan.jobs) * tries if missing else 0,
        "stacks": sum(len(job.numbers) > 1 for job in plan.jobs) * tries,
        "workers": plan.workers,
        "seconds": round(seconds / plan.workers, 1) if speeds or not missing else None,
        "step_ms": [round(1000 * s.step, 3) for s in speeds.values()],
        "notes": notes,
    }


def _complete(root: Path, config: TrialConfig) -> bool:
    folder = root / "trials" / config.id
    try:
        return store.load_trial(folder, verify=False)["status"] in store.COMPLETE
    except UserError:  # none there, or damaged: the sweep itself tells
        return False


def _kind(config: TrialConfig) -> Kind:
    return describe(config.task), describe(config.format), describe(config.model), config.rule.name, config.batch


def _measure(config: TrialConfig) -> Speed:
    """Run a few steps, and judge, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        began = time.perf_counter()
        run_trial(replace(config, steps=0), root)
        around = time.perf_counter() - began
        if not config.steps:
            return Speed(around, 0.0)
        steps = 2
        first = run_trial(replace(config, steps=steps), root, meter=False)["seconds"] / steps
        steps = max(2, min(STEPS, round(SECONDS / max(first, 1e-6))))
        return Speed(around, run_trial(replace(config, steps=steps), root, meter=False)["seconds"] / steps)


def _nearest(speeds: dict[Kind, Speed], config: TrialConfig) -> Speed:
    """The speed of the kind that shares most with the config's, at the config's batch."""
    kind = _kind(config)
    near = max(speeds, key=lambda k: sum(a == b for a, b in zip(k, kind, strict=True)))
    return replace(speeds[near], step=speeds[near].step * config.batch / near[-1])
