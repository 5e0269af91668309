"""Many trials: planned once, run by one engine or another."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from crevasse import store
from crevasse.config import TrialConfig
from crevasse.errors import UserError
from crevasse.processes import several
from crevasse.sweep.events import Event
from crevasse.sweep.local import LocalEngine
from crevasse.sweep.plan import Plan, make_plan
from crevasse.sweep.work import run_job


class Engine(Protocol):
    """Runs the jobs of a plan somewhere."""

    def cores(self) -> int | None:
        """How many there are to share out; None: those of this machine. Raises UserError if nobody answers."""

    def run(self, plan: Plan, configs: Sequence[TrialConfig], root: Path, take: Callable[[Event], None]) -> None:
        """Run every job, in order, `plan.workers` at a time; at the end each trial's folder lies complete in
        ``root/trials`` and `take` has got exactly one event for it that has a record or an error.

        configs: the whole list, to which the jobs' numbers refer. `take` is called in this process and thread.
        KeyboardInterrupt stops all workers at a checkpoint. Raises UserError if it cannot run anything.
        """


def run_all(
    configs: Sequence[TrialConfig],
    root: Path,
    *,
    on_event: Callable[[Event], None] | None = None,
    workers: int | None = None,
    engine: Engine | None = None,
    plan: Plan | None = None,
) -> list[dict[str, Any]]:
    """Run trials, as many at a time as there are cores. -> their records, in the order given.

    Trials that are complete in `root` are read, not run. engine: where (on this machine). plan: how (`make_plan`).
    Raises UserError for the first trial that cannot run, after the others have ended; KeyboardInterrupt stops all
    of them at a checkpoint.
    """
    found: dict[int, dict[str, Any]] = {}
    errors: dict[int, str] = {}

    def take(event: Event) -> None:
        if event.record is not None:
            found[event.number] = event.record
        if event.error is not None:
            errors[event.number] = event.error
        if on_event is not None:
            on_event(event)

    if plan is None:
        missing = any(not (root / "trials" / c.id / store.WEIGHTS).exists() for c in configs)
        # What is complete is read without a cluster.
        cores = workers or (engine.cores() if engine and missing else None)
        plan = make_plan(configs, root, workers=cores)
    if engine is None and (workers == 1 or several()):  # here; processes that train together run one after another
        for job in plan.jobs:
            run_job(job, [configs[i] for i in job.numbers], root, take)
    else:
        (engine or LocalEngine()).run(plan, configs, root, take)
    if errors:
        _, text = min(errors.items())
        more = f" (and {len(errors) - 1} more trials could not run)" if len(errors) > 1 else ""
        raise UserError(text + more)
    return [found[i] for i in range(len(configs))]
