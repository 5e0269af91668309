"""Who runs what, and in which order: trials become jobs, a job is what one process does at a time."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crevasse.config import TrialConfig


@dataclass(frozen=True)
class Job:
    """Trials that one process runs together."""

    numbers: tuple[int, ...]  # of the trials in the list
    threads: int = 1  # cores it takes

    def split(self) -> tuple["Job", ...]:
        """Each trial by itself: what is done after a job was lost, so that one bad trial takes no other with it."""
        return tuple(Job((n,), self.threads) for n in self.numbers)


@dataclass(frozen=True)
class Plan:
    """Jobs in the order in which they start, so many at a time."""

    jobs: tuple[Job, ...]
    workers: int


def make_plan(configs: Sequence[TrialConfig], root: Path, *, workers: int | None = None) -> Plan:
    """Jobs for the trials of a list. root: trials that are complete there cost nothing."""
    count = max(min(workers or available_cores(), len(configs)), 1)
    return Plan(tuple(Job((i,)) for i in range(len(configs))), count)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
