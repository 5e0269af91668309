"""Who runs what, and in which order: trials become jobs, a job is what one process does at a time."""

import functools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from crevasse import memory, store
from crevasse.config import TrialConfig
from crevasse.models import ModelConfig, count_parameters
from crevasse.passes import stackable

#: Trials in a stack at most; with more, activations leave the cache and nothing is gained (benchmarks/stacking.py).
STACK = 16
#: Parameters times examples a step from which a second core is worth having where it would be idle.
LARGE = 20_000_000
#: Complete trials that are read together.
READ = 256
#: Bytes that a worker takes before it does anything, and those that an example in a step takes for each of the
#: square roots of the model's size; both by measurement, rounded up.
PROCESS, EXAMPLE = 400 * 2**20, 10_000


@dataclass(frozen=True)
class Job:
    """Trials that one process runs together."""

    numbers: tuple[int, ...]  # of the trials in the list
    threads: int = 1  # cores it takes
    memory: int = 0  # bytes that it will take, about

    def split(self) -> tuple["Job", ...]:
        """Each trial by itself: what is done after a job was lost, so that one bad trial takes no other with it."""
        return tuple(Job((n,), self.threads, self.memory) for n in self.numbers)


@dataclass(frozen=True)
class Plan:
    """Jobs in the order in which they start, so many at a time, and no more than the memory holds."""

    jobs: tuple[Job, ...]
    workers: int
    memory: int

    def fits(self, job: Job, running: Sequence[Job]) -> bool:
        """May it start beside these? A job may always run by itself."""
        return not running or (
            len(running) < self.workers and job.memory + sum(j.memory for j in running) <= self.memory
        )


def make_plan(
    configs: Sequence[TrialConfig], root: Path, *, workers: int | None = None, free: int | None = None
) -> Plan:
    """Jobs for the trials of a list. root: where complete trials lie, which are only read.

    workers: processes at a time (as many as there are cores). free: bytes to be had (what the machine has left).
    Trials that differ in numbers alone are stacked where that is faster. Jobs start in the order of the list, so that
    first results come early, but one that takes long in comparison with all starts at once.
    """
    cores = max(workers or available_cores(), 1)
    done = [i for i, c in enumerate(configs) if (root / "trials" / c.id / store.WEIGHTS).exists()]
    complete = set(done)
    groups: dict[object, list[int]] = {}
    for i, config in enumerate(configs):
        if i not in complete:
            groups.setdefault(_stack_key(config) or i, []).append(i)
    jobs: list[tuple[float, Job]] = []
    whole = sum(map(_effort, (configs[i] for i in range(len(configs)) if i not in complete)))
    for numbers in groups.values():
        # A group gets cores by its share of the work, and its jobs are as equal as they can be.
        share = math.ceil(cores * sum(_effort(configs[i]) for i in numbers) / whole)
        count = min(max(-(-len(numbers) // STACK), share), len(numbers))
        for k in range(count):
            part = numbers[k * len(numbers) // count : (k + 1) * len(numbers) // count]
            effort = sum(_effort(configs[i]) for i in part)
            jobs.append((effort, Job(tuple(part), memory=PROCESS + sum(_memory(configs[i]) for i in part))))
    long = sum(effort for effort, _ in jobs) / cores * 0.75
    jobs.sort(key=lambda j: (-j[0] if j[0] > long else 0, j[1].numbers[0]))
    waiting = [_with_threads(job, configs, cores, len(jobs)) for _, job in jobs]
    reading = [Job(tuple(done[k : k + READ]), memory=PROCESS) for k in range(0, len(done), READ)]
    found = reading + waiting
    return Plan(tuple(found), max(min(cores, len(found)), 1), memory.available() if free is None else free)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _stack_key(config: TrialConfig) -> object:
    """Trials with the same key can be stacked; None: this one runs by itself."""
    batch = _batch(config)
    if not config.steps or not stackable(config, batch, parameters(config.model)):
        return None
    return (config.task, config.format, config.model, batch, config.steps, config.probe_every, config.probe_rows)


@functools.lru_cache(maxsize=256)
def parameters(model: ModelConfig) -> int:
    """Numbers that are trained, about (a small alphabet is assumed); 0 for a pretrained model, which is not built."""
    if model.tokenizer() is not None:
        return 0
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return count_parameters(model.build(32, 32))


def _batch(config: TrialConfig) -> int:
    return min(config.batch, config.train or config.batch)


def _effort(config: TrialConfig) -> float:
    """How long a trial takes, in comparison with others."""
    return config.steps * _batch(config) * (parameters(config.model) or 10**8) + 1


def _memory(config: TrialConfig) -> int:
    """Bytes that a trial takes, about."""
    batch = _batch(config)
    needs = config.model.needs(config.chunk or 128 * batch, 32 * batch)
    if needs is not None:
        return memory.estimate(needs, config.rule).total
    size = parameters(config.model)
    vectors = 4 * size * (4 + 2 * config.rule.microbatches()) + memory.state_of(config.rule, size)
    # The probes are read forward only, but all at once.
    return vectors + int(EXAMPLE * (batch + config.probe_rows / 2) * size**0.5 / 4)


def _with_threads(job: Job, configs: Sequence[TrialConfig], cores: int, jobs: int) -> Job:
    """Cores that would be idle help where a trial is large; never more threads than cores."""
    config = configs[job.numbers[0]]
    large = config.model.tokenizer() is not None or _batch(config) * parameters(config.model) > LARGE
    return Job(job.numbers, max(cores // jobs, 1) if large else 1, job.memory)
