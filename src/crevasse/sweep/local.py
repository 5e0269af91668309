"""Trials side by side in worker processes of one thread each: two such beat one process with two threads.

A worker that dies (killed, out of memory) costs its own trial one try; the others go on.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from crevasse.config import TrialConfig
from crevasse.errors import UserError
from crevasse.processes import several
from crevasse.trial import Progress, run_trial


@dataclass(frozen=True)
class Event:
    """Something that happened to a trial: it moved (progress), it ended (record), or it could not run (error)."""

    number: int  # of the trial in the list
    progress: Progress | None = None
    record: dict[str, Any] | None = None
    error: str | None = None


def run_all(
    configs: Sequence[TrialConfig],
    root: Path,
    *,
    on_event: Callable[[Event], None] | None = None,
    workers: int | None = None,
    tries: int = 2,
) -> list[dict[str, Any]]:
    """Run trials in the given order, as many at a time as there are cores. -> their records, in that order.

    Trials that are complete in `root` are read, not run. Raises UserError for the first trial that cannot run,
    after the others have ended; KeyboardInterrupt stops all of them at a checkpoint.
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

    count = min(workers or available_cores(), len(configs))
    if (count == 1 and workers == 1) or several():  # processes that train together run trials one after another
        for number, config in enumerate(configs):
            _run_one(number, config, root, take)
    elif configs:
        _Pool(configs, root, take, count, tries).run()
    if errors:
        number, text = min(errors.items())
        more = f" (and {len(errors) - 1} more trials could not run)" if len(errors) > 1 else ""
        raise UserError(text + more)
    return [found[i] for i in range(len(configs))]


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_one(number: int, config: TrialConfig, root: Path, say: Callable[[Event], None]) -> None:
    try:
        record = run_trial(config, root, progress=lambda p: say(Event(number, progress=p)))
        say(Event(number, record=record))
    except UserError as e:
        say(Event(number, error=str(e)))
    except MemoryError:
        say(Event(number, error=f"out of memory in {config.describe()}"))


class _Pool:
    """Worker processes, each with one trial at a time."""

    def __init__(
        self,
        configs: Sequence[TrialConfig],
        root: Path,
        take: Callable[[Event], None],
        count: int,
        tries: int,
    ) -> None:
        self.configs, self.root, self.take, self.tries = configs, root, take, tries
        self.count = count
        # A fork server imports torch once; its children start in milliseconds and share its memory.
        self.context: ForkServerContext = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["crevasse.sweep.local"])
        self.events: multiprocessing.Queue[Event] = self.context.Queue()
        self.waiting = list(range(len(configs)))
        self.tried = [0] * len(configs)
        self.running: dict[int, ForkServerProcess] = {}

    def run(self) -> None:
        try:
            while self.waiting or self.running:
                while self.waiting and len(self.running) < self.count:
                    self._start(self.waiting.pop(0))
                self._listen()
        except BaseException:
            self._stop()
            raise

    def _start(self, number: int) -> None:
        self.tried[number] += 1
        process = self.context.Process(
            target=_work, args=(number, self.configs[number], self.root, self.events), daemon=True
        )
        process.start()
        self.running[number] = process

    def _listen(self) -> None:
        """Take events until a worker is free again."""
        try:
            event = self.events.get(timeout=0.2)
        except queue.Empty:
            for number, process in list(self.running.items()):
                if process.exitcode is not None:
                    self._lost(number, process.exitcode)
            return
        ended = event.record is not None or event.error is not None
        if ended and event.number in self.running:
            self.running.pop(event.number).join()
        self.take(event)

    def _lost(self, number: int, code: int) -> None:
        """A worker went without a word: its trial resumes from its checkpoint, at most so many times."""
        del self.running[number]
        if self.tried[number] < self.tries:
            self.waiting.insert(0, number)
            return
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        self.take(Event(number, error=f"the process of trial {self.configs[number].id} {how}, {self.tries} times"))

    def _stop(self) -> None:
        """Ask the workers to write a checkpoint, and wait for them."""
        for process in self.running.values():
            if process.is_alive() and process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGINT)
        deadline = time.monotonic() + 10
        for process in self.running.values():
            process.join(max(deadline - time.monotonic(), 0.1))
            if process.is_alive():
                process.kill()


def _work(number: int, config: TrialConfig, root: Path, events: "multiprocessing.Queue[Event]") -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    last = 0.0

    def say(event: Event) -> None:
        nonlocal last
        # A person reads a few lines a second; more would only keep the parent busy.
        if event.progress is not None and event.progress.note is None:
            if time.monotonic() - last < 0.25:
                return
            last = time.monotonic()
        events.put(event)

    with contextlib.suppress(KeyboardInterrupt):
        _run_one(number, config, root, say)
    events.close()
    events.join_thread()
