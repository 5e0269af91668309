"""Jobs side by side in worker processes: two of one thread each beat one with two threads.

A worker that dies (killed, out of memory) costs its own trials one try; the others go on.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from crevasse.config import TrialConfig
from crevasse.sweep.events import Event
from crevasse.sweep.plan import Job, Plan
from crevasse.sweep.work import run_job


@dataclass(frozen=True)
class LocalEngine:
    """Worker processes on this machine."""

    tries: int = 2  # of a trial whose worker dies

    def cores(self) -> None:
        """See `Engine`."""

    def run(self, plan: Plan, configs: Sequence[TrialConfig], root: Path, take: Callable[[Event], None]) -> None:
        """See `Engine`."""
        if plan.jobs:
            _Pool(plan, configs, root, take, self.tries).run()


@dataclass
class _Worker:
    """A process with one job, and what it has still to tell."""

    process: ForkServerProcess
    job: Job
    left: set[int]  # trials that have not ended
    # A channel of its own: a queue that workers share has a lock, and one that is killed while it holds the lock
    # silences all others for ever.
    events: Connection


class _Pool:
    """Worker processes, each with one job at a time."""

    def __init__(
        self,
        plan: Plan,
        configs: Sequence[TrialConfig],
        root: Path,
        take: Callable[[Event], None],
        tries: int,
    ) -> None:
        self.configs, self.root, self.take, self.tries = configs, root, take, tries
        self.plan = plan
        # A fork server imports torch once; its children start in milliseconds and share its memory.
        self.context: ForkServerContext = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["crevasse.sweep.local"])
        self.waiting = deque(plan.jobs)
        self.tried = [0] * len(configs)
        self.running: list[_Worker] = []

    def run(self) -> None:
        try:
            while self.waiting or self.running:
                while self.waiting and self.plan.fits(self.waiting[0], [w.job for w in self.running]):
                    self._start(self.waiting.popleft())
                heard = wait([worker.events for worker in self.running])
                for worker in [w for w in self.running if w.events in heard]:
                    self._listen(worker)
        except BaseException:
            self._stop()
            raise

    def _start(self, job: Job) -> None:
        for number in job.numbers:
            self.tried[number] += 1
        configs = [self.configs[i] for i in job.numbers]
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_work, args=(job, configs, self.root, theirs), daemon=True)
        process.start()
        theirs.close()  # so that the end of the worker, however it comes, is the end of the channel
        self.running.append(_Worker(process, job, set(job.numbers), ours))

    def _listen(self, worker: _Worker) -> None:
        """Take one event, or the end of a worker."""
        try:
            event: Event = worker.events.recv()
        except (EOFError, OSError):  # OSError: killed in the middle of a message
            worker.events.close()
            worker.process.join()
            self.running.remove(worker)
            if worker.left:
                self._lost(worker)
            return
        if event.ended:
            worker.left.discard(event.number)
        self.take(event)

    def _lost(self, worker: _Worker) -> None:
        """A worker went without a word: its trials resume from their checkpoints, at most so many times, and each
        by itself, so that the one that killed it takes no other with it."""
        code = worker.process.exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        for one in reversed(worker.job.split()):
            number = one.numbers[0]
            if number not in worker.left:
                continue
            if self.tried[number] < self.tries:
                self.waiting.appendleft(one)
                continue
            config = self.configs[number]
            text = f"the process of trial {config.id} {how}, {self.tried[number]} times"
            if code == -signal.SIGKILL:
                text += f" (out of memory?): {config.describe()}"
            self.take(Event(number, error=text))

    def _stop(self) -> None:
        """Ask the workers to write a checkpoint, and wait for them."""
        processes = [worker.process for worker in self.running]
        for process in processes:
            if process.is_alive() and process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGINT)
        deadline = time.monotonic() + 10
        for process in processes:
            process.join(max(deadline - time.monotonic(), 0.1))
            if process.is_alive():
                process.kill()


def _work(job: Job, configs: Sequence[TrialConfig], root: Path, events: Connection) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    last: dict[int, float] = {}

    def say(event: Event) -> None:
        # A person reads a few lines a second; more would only keep the parent busy.
        if event.progress is not None and event.progress.note is None:
            if time.monotonic() - last.get(event.number, 0.0) < 0.25:
                return
            last[event.number] = time.monotonic()
        try:
            events.send(event)
        except BrokenPipeError:  # the parent was killed: leave a checkpoint for whoever takes up its work
            raise KeyboardInterrupt from None

    with contextlib.suppress(KeyboardInterrupt):
        run_job(job, configs, root, say)
