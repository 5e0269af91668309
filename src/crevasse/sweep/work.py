"""What a worker does with a job, on whatever machine it is: run its trials, stacked where they are of one shape."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from crevasse import interrupts, memory
from crevasse.config import TrialConfig
from crevasse.errors import UserError
from crevasse.passes import Look, Stack
from crevasse.sweep.events import Event
from crevasse.sweep.plan import Job
from crevasse.trial import Progress, Running, Trial, opened, run_trial

Say = Callable[[Event], None]


def run_job(job: Job, configs: Sequence[TrialConfig], root: Path, say: Say) -> None:
    """Run a job's trials in ``root/trials``; each ends in an event that has a record or an error.

    configs: one a number of the job, in that order. KeyboardInterrupt goes through, after a checkpoint of each.
    """
    left = dict(zip(job.numbers, configs, strict=True))
    with interrupts.caught():
        if len(left) > 1:
            for number in _run_stacked(job, left, root, say):
                del left[number]
        for number, config in left.items():
            with _told(number, config, say):
                say(Event(number, record=run_trial(config, root, progress=_teller(number, say), threads=job.threads)))


@dataclass
class _Member:
    """A trial in a stack."""

    number: int
    trial: Trial
    running: Running
    folder: contextlib.ExitStack  # holds it for this process
    look: Look | None = None  # what it waits for

    def shape(self) -> tuple[object, ...]:
        """What has to be the same for all in a stack."""
        sizes = tuple(p.shape for p in self.trial.model.parameters())
        rows = self.trial.train.rows
        return (
            type(self.trial.model),
            sizes,
            self.trial.threads,
            self.trial.batch,
            rows.tokens.shape[1],
            rows.first,
            rows.columns,
        )


def _run_stacked(job: Job, configs: dict[int, TrialConfig], root: Path, say: Say) -> list[int]:
    """Run the trials that can stand in a stack. -> the numbers of all that ended"""
    ended: list[int] = []

    def tell(event: Event) -> None:
        if event.ended:
            ended.append(event.number)
        say(event)

    shapes: dict[tuple[object, ...], list[_Member]] = {}
    with contextlib.ExitStack() as everything:
        for number, config in configs.items():
            with _told(number, config, tell):
                folder = everything.enter_context(contextlib.ExitStack())
                trial = folder.enter_context(opened(config, root, _teller(number, tell), threads=job.threads))
                if not isinstance(trial, Trial):
                    tell(Event(number, record=trial))
                elif not trial.stacked:
                    folder.close()
                else:
                    member = _Member(number, trial, trial.run(), folder)
                    shapes.setdefault(member.shape(), []).append(member)
        for members in shapes.values():
            _run_together(members, tell)
    return ended


def _run_together(members: list[_Member], say: Say) -> None:
    """Run trials of one shape to their ends, each step of all in one pass.

    Where the memory does not suffice for all at once they stop at a checkpoint, and nothing is said of them.
    """
    try:
        torch.set_num_threads(members[0].trial.threads)
        stack = Stack([m.trial.model for m in members], [m.trial.weights for m in members])
        members = _advance(members, [None] * len(members), say)
        while members:
            stack.hold([m.trial.weights for m in members])
            staying = members
            while len(staying) == len(members):
                for m in members:
                    m.trial.part = 1 / len(members)
                found = stack.look([m.look for m in members if m.look is not None])
                staying = _advance(members, found, say)
            members = staying
    except BaseException as e:
        for m in members:
            with contextlib.suppress(KeyboardInterrupt, StopIteration, UserError):
                m.running.throw(KeyboardInterrupt())
            m.folder.close()
        if not memory.exhausted(e):
            raise


def _advance(members: Sequence[_Member], answers: Sequence[object], say: Say) -> list[_Member]:
    """Each trial goes on with its answer, to its next question or to its end. -> those that go on"""
    staying = []
    for m, answer in zip(members, answers, strict=True):
        with _told(m.number, m.trial.config, say):
            try:
                m.look = m.running.send(answer)  # type: ignore[arg-type]
                staying.append(m)
            except StopIteration as end:
                m.folder.close()
                say(Event(m.number, record=end.value))
    return staying


@contextlib.contextmanager
def _told(number: int, config: TrialConfig, say: Say) -> Iterator[None]:
    """A trial that cannot go on says so, and the others go on."""
    try:
        yield
    except UserError as e:
        say(Event(number, error=str(e)))
    except (MemoryError, RuntimeError) as e:
        if not memory.exhausted(e):
            raise
        say(Event(number, error=f"out of memory in {config.describe()}"))


def _teller(number: int, say: Say) -> Callable[[Progress], None]:
    return lambda progress: say(Event(number, progress=progress))
