"""What a worker does with a job, on whatever machine it is."""

from collections.abc import Callable, Sequence
from pathlib import Path

from crevasse.config import TrialConfig
from crevasse.errors import UserError
from crevasse.sweep.events import Event
from crevasse.sweep.plan import Job
from crevasse.trial import run_trial


def run_job(job: Job, configs: Sequence[TrialConfig], root: Path, say: Callable[[Event], None]) -> None:
    """Run a job's trials in ``root/trials``; each ends in an event that has a record or an error.

    configs: one a number of the job, in that order. KeyboardInterrupt goes through, after a checkpoint.
    """
    for number, config in zip(job.numbers, configs, strict=True):
        try:
            record = run_trial(config, root, progress=_teller(number, say), threads=job.threads)
            say(Event(number, record=record))
        except UserError as e:
            say(Event(number, error=str(e)))
        except MemoryError:
            say(Event(number, error=f"out of memory in {config.describe()}"))


def _teller(number: int, say: Callable[[Event], None]):  # type: ignore[no-untyped-def]
    return lambda progress: say(Event(number, progress=progress))
