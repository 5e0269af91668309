"""Jobs on a Ray cluster, whose machines need share nothing but the network.

The driver (the process that calls `RayEngine.run`) alone writes to the root. A worker gets a job with the checkpoints
that the root has, runs it in a temporary folder, and posts what comes of it as bytes to a mailbox on the driver's
machine: progress, new checkpoints, finished trials. So a lost worker, machine or driver costs what was done since the
last checkpoint, and nothing else.
"""

import contextlib
import itertools
import json
import logging
import os
import pickle
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from crevasse import store
from crevasse.config import REVISION, TrialConfig
from crevasse.errors import UserError
from crevasse.sweep.events import Event
from crevasse.sweep.plan import Job, Plan
from crevasse.sweep.work import run_job

#: Machines may come and go, but a trial that has lost so many under it is given up.
_LOSSES = 100
#: Seconds that workers get to write and post their checkpoints when all is stopped.
_PATIENCE = 30.0
#: Ray reads these when it is imported: no messages, no usage statistics, no upload of the folder under `uv run`.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_ENABLE_AUTO_CONNECT": "0"}


@dataclass(frozen=True)
class RayEngine:
    """Worker processes on all machines of a Ray cluster, as many as it has cores."""

    address: str | None = None  # HOST:PORT, ray://HOST:PORT or auto; none: a new one, here, of `workers` cores
    tries: int = 2  # of a trial whose worker dies

    def cores(self) -> int | None:
        """See `Engine`."""
        if self.address is None:
            return None
        ray = _import_ray()
        with _joined(self.address, 1):
            return int(ray.cluster_resources().get("CPU", 0)) or None

    def run(self, plan: Plan, configs: Sequence[TrialConfig], root: Path, take: Callable[[Event], None]) -> None:
        """See `Engine`. Raises UserError if the cluster does not answer, or has another crevasse than this machine."""
        ray = _import_ray()
        sweep = _Sweep(plan, configs, store.make_folder(root), take, self.tries)
        if sweep.left:
            with _joined(self.address, plan.workers * max(job.threads for job in plan.jobs)):
                try:
                    sweep.run()
                except ray.exceptions.RayError as e:
                    raise UserError(f"lost the Ray cluster ({_last_line(e)}): run it again to go on") from None


def _import_ray() -> Any:
    """Ray, told to be quiet."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UserError("the Ray engine needs the extra ray: pip install 'crevasse[ray]'") from None
    return ray


class _Sweep:
    """The driver's side: jobs that wait, jobs that were handed to Ray, and what came back."""

    def __init__(
        self,
        plan: Plan,
        configs: Sequence[TrialConfig],
        root: Path,
        take: Callable[[Event], None],
        tries: int,
    ) -> None:
        self.configs, self.root, self.take, self.tries = configs, root, take, tries
        self.waiting = deque(plan.jobs)
        self.left = {number for job in plan.jobs for number in job.numbers}  # trials that have not ended
        self.running: dict[Any, Job] = {}  # by Ray's reference to the task
        self.died: Counter[int] = Counter()  # how often the worker of a trial died
        self.lost: Counter[int] = Counter()  # and how often it was lost in whatever way
        self.read: list[str] = []  # letters that the mailbox need not keep
        for number in sorted(self.left):
            self._find(number)

    def run(self) -> None:
        import ray

        self.mailbox, self.work = _remote()
        try:
            while self.waiting or self.running:
                self._submit()
                tasks = list(self.running)
                ready, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0.2) if tasks else ([], tasks)
                self._receive()  # before the ends: all that an ended worker had to say lies in the mailbox
                for task in ready:
                    self._end(task)
        except BaseException:
            self._stop()
            raise

    def _folder(self, number: int) -> Path:
        return self.root / "trials" / self.configs[number].id

    def _find(self, number: int) -> None:
        """A trial that is complete is read, not run."""
        try:
            with store.owned(self._folder(number)):
                record = _complete(self._folder(number))
        except UserError as e:
            self._tell(Event(number, error=str(e)))
        else:
            if record is not None:
                self._tell(Event(number, record=record))

    def _tell(self, event: Event) -> None:
        """Each trial ends once, even if a worker that was given up for lost had sent it after all."""
        if event.number in self.left:
            if event.ended:
                self.left.discard(event.number)
            self.take(event)

    def _submit(self) -> None:
        """Hand jobs to Ray: enough that no core waits, few enough that the first run first."""
        import ray

        if not self.waiting:
            return
        listed: Any = ray.nodes  # Ray forgot its type
        nodes = [node["Resources"] for node in listed() if node["Alive"]]
        cores = sum(node.get("CPU", 0.0) for node in nodes)
        while self.waiting and len(self.running) < 2 * max(cores, 1):
            job = self.waiting.popleft()
            job = replace(job, numbers=tuple(n for n in job.numbers if n in self.left))
            if not job.numbers:
                continue
            checkpoints: dict[int, bytes] = {}
            for n in job.numbers:
                with contextlib.suppress(FileNotFoundError):
                    checkpoints[n] = (self._folder(n) / store.CHECKPOINT).read_bytes()
            parcel = pickle.dumps((job, [self.configs[n] for n in job.numbers], checkpoints, str(self.root)))
            task = self.work.options(**_needs(job, nodes)).remote(self.mailbox, _ours(), parcel)
            self.running[task] = job

    def _receive(self) -> None:
        """Empty the mailbox. Letters stay there until the next look, in case a Ctrl-C comes before they are read."""
        import ray

        while letters := ray.get(self.mailbox.take.remote(self.read)):
            self.read = []
            for key, letter in letters.items():
                self._open(*pickle.loads(letter))
                self.read.append(key)

    def _open(self, event: Event, files: Mapping[str, bytes]) -> None:
        if event.number not in self.left:
            return
        try:
            self._keep(self._folder(event.number), files, event.record is not None)
        except UserError as e:  # a full disk: the end of a trial whose result it was, but not over a checkpoint
            if event.record is not None:
                event = Event(event.number, error=str(e))
        if event.progress is not None or event.ended:
            self._tell(event)

    @staticmethod
    def _keep(folder: Path, files: Mapping[str, bytes], done: bool) -> None:
        """Write a trial's files, the one that vouches for the others last."""
        if not files:
            return
        with store.owned(folder):
            if _complete(folder) is not None:
                return
            for name in sorted(files, key=lambda name: name == store.TRIAL):
                store.write_atomically(folder / name, files[name])
            if done:
                store.remove_checkpoint(folder)

    def _end(self, task: Any) -> None:
        """A job has ended, one way or another."""
        import ray
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, WorkerCrashedError

        job = self.running.pop(task)
        try:
            refusal = ray.get(task)
        except NodeDiedError:
            self._retry(job, "was on a machine that went away", counts=False)
        except OutOfMemoryError:
            self._retry(job, "ran out of memory")
        except WorkerCrashedError:
            self._retry(job, "was killed (out of memory?)")
        except RayError as e:  # an error of ours, not of a user
            self._retry(job, f"failed ({_last_line(e)})")
        else:
            if refusal is not None:  # on this machine no job can run: each would fail there, and fast
                raise UserError(refusal)
            # Nothing is left to do, unless the mailbox died with letters in it; Ray has started it again.
            self._retry(job, "was not heard of again", counts=False)

    def _retry(self, job: Job, how: str, *, counts: bool = True) -> None:
        """Trials of a lost job resume from their checkpoints, each by itself, so that the one that killed the worker
        takes no other with it."""
        for one in reversed(job.split()):
            number = one.numbers[0]
            if number not in self.left:
                continue
            self.lost[number] += 1
            self.died[number] += counts
            if self.died[number] < self.tries and self.lost[number] < _LOSSES:
                self.waiting.appendleft(one)
                continue
            config, times = self.configs[number], self.died[number] if counts else self.lost[number]
            text = f"the process of trial {config.id} {how}, {times} times: {config.describe()}"
            self._tell(Event(number, error=text))

    def _stop(self) -> None:
        """Ask the workers for a checkpoint, and keep what they send. A second Ctrl-C ends the wait."""
        import ray
        from ray.exceptions import RayError

        self.take = lambda event: None
        with contextlib.suppress(RayError):  # nor does it matter any more what else has died
            for task in self.running:
                ray.cancel(task, recursive=False)  # not the letters that it has under way
            deadline = time.monotonic() + _PATIENCE
            waiting = list(self.running)
            while waiting and time.monotonic() < deadline:
                _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=0.2)
                self._receive()


def _needs(job: Job, nodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What Ray keeps free for a job: where it is larger than every machine, all of the one that comes nearest, as Ray
    would wait for a larger one."""
    best = max(nodes, key=lambda node: (min(node.get("CPU", 0.0), job.threads), node.get("memory", 0.0)), default={})
    if not best.get("CPU"):  # no machine yet: the cluster may grow when jobs wait
        return {"num_cpus": job.threads, "memory": job.memory}
    return {"num_cpus": min(job.threads, best["CPU"]), "memory": min(job.memory, int(best.get("memory", 0)))}


def _complete(folder: Path) -> dict[str, Any] | None:
    """The record of a trial that has ended. Raises UserError if its files are damaged."""
    if not (folder / store.TRIAL).exists():
        return None
    record = store.load_trial(folder)
    return record if record["status"] in store.COMPLETE else None


def _last_line(e: Exception) -> str:
    """What happened: Ray writes tracebacks above it."""
    return (str(e).strip() or type(e).__name__).splitlines()[-1]


def _ours() -> tuple[str, int]:
    """What a worker must have too, or its numbers are not ours."""
    return version("crevasse"), REVISION


# --- the cluster ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _joined(address: str | None, cores: int) -> Iterator[None]:
    """Ray, connected; one that was started here ends here, and one that was connected before stays so."""
    import ray

    if ray.is_initialized():
        yield
        return
    how: dict[str, Any] = {"address": "local", "num_cpus": cores, "include_dashboard": False}
    if address is not None:
        how = {"address": _check(address)}
    try:
        _init(how, address or "of this machine")
        # log_to_driver does not cover reports of lost workers: a thread prints them, and to stdout.
        ray._private.worker._worker_logs_enabled = False
        yield
    finally:
        ray.shutdown()
        ray._private.worker._worker_logs_enabled = True


def _init(how: Mapping[str, Any], name: str) -> None:
    """ray.init, which leaves the signals as they are."""
    import ray
    from ray.exceptions import RayError

    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**how, log_to_driver=False, logging_level=logging.ERROR, runtime_env={})
    except (RayError, OSError, RuntimeError, ValueError, ImportError) as e:  # OSError: ConnectionError is one
        hint = "" if os.environ.get("RAY_AUTH_MODE") else " (if it asks for a token: export RAY_AUTH_MODE=token)"
        raise UserError(f"cannot join the Ray cluster {name}: {e}{hint}") from None
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _check(address: str, seconds: float = 5.0) -> str:
    """The address, if something like Ray answers there: Ray itself would wait for it for minutes."""
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address

        try:
            address = canonicalize_bootstrap_address("auto") or ""
        except ConnectionError:
            raise UserError("no Ray cluster runs on this machine: start one with `ray start --head`") from None
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port or (10001 if parts.scheme else None)
    except ValueError:
        host, port = None, None
    if not host or not port or parts.scheme not in ("", "ray"):
        raise UserError(f"a Ray address is HOST:PORT, ray://HOST:PORT or auto, not {address!r}")
    try:
        with socket.create_connection((host, port), seconds) as s:
            s.settimeout(seconds)
            # Ray speaks gRPC, thus HTTP/2: both sides begin with their settings (frame type 4).
            s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            if s.recv(9)[3:4] != b"\4":
                raise UserError(f"what answers at {address} is not Ray")
    except OSError as e:
        raise UserError(f"no Ray cluster answers at {address} ({e.strerror or e})") from None
    return address


def _remote() -> tuple[Any, Any]:
    """The mailbox, on this machine, and the function that Ray runs with each job.

    Both are defined in here so that they travel by value: they must start on a machine without crevasse too, and one
    of them says so.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Mailbox:
        def __init__(self) -> None:
            self.letters: dict[str, bytes] = {}

        def put(self, letter: bytes) -> None:
            self.letters[uuid.uuid4().hex] = letter

        def take(self, read: list[str]) -> dict[str, bytes]:
            """The oldest letters, not more than can be carried, once those that were read are gone."""
            for key in read:
                self.letters.pop(key, None)
            sizes = itertools.accumulate(map(len, self.letters.values()), initial=0)
            return {k: letter for (k, letter), size in zip(self.letters.items(), sizes, strict=False) if size < 1e8}

    def work(mailbox: Any, theirs: tuple[str, int], parcel: bytes) -> str | None:
        import platform

        try:
            from importlib.metadata import version

            from crevasse.config import REVISION
        except ImportError as e:
            return f"a worker of the cluster ({platform.node()}) cannot import crevasse: {e}"
        ours = (version("crevasse"), REVISION)
        if ours != theirs:
            said = [f"{name} (revision {revision})" for name, revision in (ours, theirs)]
            return f"a worker of the cluster ({platform.node()}) has crevasse {said[0]}, this machine {said[1]}"
        from crevasse.sweep.cluster import serve

        return serve(mailbox, parcel)

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox = ray.remote(Mailbox).options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
    return mailbox.remote(), ray.remote(max_retries=0)(work)


# --- a worker ------------------------------------------------------------------------------------------------------


def serve(mailbox: Any, parcel: bytes) -> str | None:
    """Run a job in a temporary folder and post what comes of it. -> why no job can run on this machine, or None."""
    try:
        job, configs, checkpoints, root = pickle.loads(parcel)
    except (ImportError, AttributeError) as e:  # a task, model or rule of the user's own
        return f"a worker of the cluster cannot read the trials: {e}"
    with tempfile.TemporaryDirectory(prefix="crevasse-") as name:
        sender = _Sender(mailbox, job, configs, Path(name), root)
        for number, data in checkpoints.items():
            sender.receive_checkpoint(number, data)
        over = threading.Event()
        watcher = threading.Thread(target=sender.watch, args=(over,), daemon=True)
        watcher.start()
        try:
            run_job(job, configs, Path(name), sender.say)
        except KeyboardInterrupt:  # Ray cancels a task as a Ctrl-C does
            pass
        finally:
            over.set()
            watcher.join()
            sender.send_checkpoints()
    return None


class _Sender:
    """A worker's way to the mailbox."""

    def __init__(self, mailbox: Any, job: Job, configs: Sequence[TrialConfig], here: Path, root: str) -> None:
        self.mailbox, self.here, self.root = mailbox, here, root
        self.folders = {n: here / "trials" / c.id for n, c in zip(job.numbers, configs, strict=True)}
        self.told: dict[int, float] = {}  # when each trial was last heard of
        self.sent: dict[int, int] = {}  # the time of change of the checkpoint that the driver has

    def post(self, event: Event, files: Mapping[str, bytes], *, wait: bool) -> None:
        import ray

        reference = self.mailbox.put.remote(pickle.dumps((event, files)))
        if wait:
            ray.get(reference)

    def say(self, event: Event) -> None:
        """What `run_job` says; a finished trial goes with its files, and is then forgotten here."""
        if event.progress is not None and event.progress.note is None:
            if time.monotonic() - self.told.get(event.number, 0.0) < 0.25:
                return
            self.told[event.number] = time.monotonic()
        if event.error is not None:  # it may name a folder: ours is gone when the message is read
            event = Event(event.number, error=event.error.replace(str(self.here), self.root))
        files: dict[str, bytes] = {}
        if event.record is not None:
            folder = self.folders[event.number]
            files = {
                p.name: p.read_bytes() for p in folder.iterdir() if p.name[0] != "." and p.name != store.CHECKPOINT
            }
        self.post(event, files, wait=event.ended)
        for name in files:
            (self.folders[event.number] / name).unlink()

    def receive_checkpoint(self, number: int, data: bytes) -> None:
        path = store.make_folder(self.folders[number]) / store.CHECKPOINT
        path.write_bytes(data)
        self.sent[number] = path.stat().st_mtime_ns

    def send_checkpoints(self) -> None:
        """Those that have changed since they were sent, with the record that says that the trial is running."""
        for number, folder in self.folders.items():
            with contextlib.suppress(FileNotFoundError):  # the trial may end at any moment
                changed = (folder / store.CHECKPOINT).stat().st_mtime_ns
                if changed == self.sent.get(number):
                    continue
                files = {name: (folder / name).read_bytes() for name in (store.TRIAL, store.CHECKPOINT)}
                if json.loads(files[store.TRIAL])["status"] == "running":
                    self.post(Event(number), files, wait=True)
                    self.sent[number] = changed

    def watch(self, over: threading.Event) -> None:
        """Send checkpoints while the trials run. Large ones take long: at most one part in twenty goes into it."""
        seconds = 0.0
        while not over.wait(max(2.0, 20 * seconds)):
            began = time.monotonic()
            self.send_checkpoints()
            seconds = time.monotonic() - began
