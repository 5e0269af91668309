"""A trial: one training run, from its frozen config to what came of it.

Read it top to bottom: the ledger, the loop (update, measure, write), what is kept on disk. Its config stands in
`config`, its problems in `documents`, the opening of the test splits in `judgement`. A trial can be killed at any
moment; run again, it goes on from its last checkpoint and ends bitwise as if nothing had happened. Everything that is
random is drawn from the seed and the step, never from what ran before.
"""

import contextlib
import dataclasses
import json
import math
import os
import platform
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from crevasse import interrupts, memory, processes, store
from crevasse.config import REVISION, TrialConfig
from crevasse.documents import Data, Rows, head
from crevasse.errors import UserError
from crevasse.formats.generate import generate
from crevasse.judgement import judge
from crevasse.models import count_parameters
from crevasse.passes import Alone, Found, Look, Stack, stackable
from crevasse.probes import lockstep
from crevasse.processes import World
from crevasse.rules import Ask, Cost, Oracle, Seen, Step, Update, Weights
from crevasse.rules.changes import MOST_PLACES, Change
from crevasse.seeds import seed_for
from crevasse.spec import require

#: Seconds between checkpoints.
CHECKPOINT_SECONDS = 10.0


@dataclass(frozen=True)
class Progress:
    """What a trial says while it runs."""

    step: int
    steps: int
    train_loss: float
    held_out_loss: float
    held_out_exact: float | None  # the last reading
    seconds: float
    note: str | None = None  # something to tell once


_LEDGER = (
    "loss", "agreed", "train_loss", "held_out_loss", "train_token_accuracy", "held_out_token_accuracy",
    "train_exact", "held_out_exact", "passes", "samples",
)  # fmt: skip


class Ledger:
    """The per-step record: row t holds the training loss seen by step t, and what was read and had been paid before."""

    def __init__(self, steps: int) -> None:
        self.columns: dict[str, NDArray[np.float64]] = {name: np.full(steps + 1, np.nan) for name in _LEDGER}

    def note(self, step: int, **values: float | None) -> None:
        for name, value in values.items():
            self.columns[name][step] = np.nan if value is None else value

    def curve(self, name: str) -> NDArray[np.float64]:
        return self.columns[name]

    def probed(self) -> NDArray[np.int64]:
        """Steps at which both losses were read."""
        return np.flatnonzero(~np.isnan(self.columns["train_loss"]))

    def write(self, path: Path, rows: int) -> None:
        steps = {"step": np.arange(rows)}
        store.write_columns(path, {**steps, **{name: c[:rows] for name, c in self.columns.items()}})


def run_trial(
    config: TrialConfig,
    root: Path,
    *,
    progress: Callable[[Progress], None] | None = None,
    threads: int = 1,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    meter: bool = True,
) -> dict[str, Any]:
    """Run a trial in ``root/trials/<id>``, or go on with it, or read what it gave. -> the record in trial.json.

    threads: of torch; a trial that goes on keeps those it began with, as they decide the last bits. meter=False
    leaves out every reading before the end (for measuring what metering costs); such a trial is not kept.
    Raises UserError for data that cannot be made, and for a folder that is damaged, in use or not writable.
    """
    with interrupts.caught(), opened(config, root, progress, threads, checkpoint_seconds, meter) as trial:
        if not isinstance(trial, Trial):
            return trial
        if trial.stacked:  # with nobody beside it, which changes no bit
            stack = Stack([trial.model], [trial.weights])
            return run_to_end(trial.run(), lambda look: stack.look([look])[0])
        return run_to_end(trial.run(), trial.alone().look)


@contextlib.contextmanager
def opened(
    config: TrialConfig,
    root: Path,
    progress: Callable[[Progress], None] | None = None,
    threads: int = 1,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    meter: bool = True,
) -> Iterator["Trial | dict[str, Any]"]:
    """A trial ready to run, its folder held for this process; or the record of one that is complete."""
    memory.keep_pages()
    folder = store.make_folder(root) / "trials" / config.id
    world = processes.world()
    with contextlib.ExitStack() as stack:

        def found() -> dict[str, Any] | None:
            stack.enter_context(store.owned(folder))
            if (folder / store.TRIAL).exists():
                record = store.load_trial(folder)
                if record["status"] in store.COMPLETE:
                    store.remove_checkpoint(folder)  # it may have been killed just before it did so
                    return record
            return None

        yield world.agree(found) or Trial(config, folder, world, threads, checkpoint_seconds, progress, meter)


#: A trial under way: it stops at each question to its model and goes on with the answer.
Running = Generator[Look, Found, dict[str, Any]]


def run_to_end(running: Running, answer: Callable[[Look], Found]) -> dict[str, Any]:
    """Answer each question when it comes. -> the trial's record"""
    try:
        look = next(running)
        while True:
            try:
                found = answer(look)
            except BaseException as e:  # told inside, where a checkpoint can be written
                look = running.throw(e)
            else:
                look = running.send(found)
    except StopIteration as end:
        record: dict[str, Any] = end.value
        return record


class _Batches:
    """Which rows each step reads: each epoch is a permutation of its own; a last part batch is left out."""

    def __init__(self, rows: Rows, size: int, seed: int, purpose: str) -> None:
        self.rows, self.size = rows, min(size, len(rows.tokens))
        self._seed, self._purpose = seed, purpose
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def at(self, step: int) -> Tensor:
        """The rows of a step. (row,)"""
        count = len(self.rows.tokens)
        epoch, place = divmod(step, count // self.size)
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(seed_for(self._seed, f"{self._purpose} {epoch}"))
            self._order = (epoch, torch.randperm(count, generator=generator))
        return self._order[1][place * self.size : (place + 1) * self.size]


class Trial:
    """The moving parts of a trial, and the loop over them."""

    def __init__(
        self,
        config: TrialConfig,
        folder: Path,
        world: World,
        threads: int,
        checkpoint_seconds: float,
        progress: Callable[[Progress], None] | None,
        meter: bool,
    ) -> None:
        self.config, self.folder, self.world = config, folder, world
        self.checkpoint_seconds, self.report, self.meter = checkpoint_seconds, progress, meter
        resumed = world.agree(self._read_checkpoint)
        self.threads = int(resumed["threads"]) if resumed else threads
        torch.set_num_threads(self.threads)

        self.data = Data(config)
        self.train = _Batches(Rows.of(self.data.train), config.batch, config.seed, "epoch")
        self.batch = self.train.size
        require(
            self.batch >= config.rule.microbatches(),
            f"{config.rule.name} splits each batch into {config.rule.microbatches()} parts, "
            f"but a batch has {self.batch} examples",
        )
        #: What steers is read in batches of its own, for rules that ask about it.
        self.steer = None
        if config.rule.steers:
            steer = Rows.of(self.data.encode(self.data.splits.steer))
            self.steer = _Batches(steer, config.batch, config.seed, "steer epoch")
        limit = config.probe_rows
        self.train_probe, self.held_out_probe = (
            Rows.of(head(e, limit)) for e in (self.data.train, self.data.validation)
        )

        self.step, self.done, self.last_exact = 0, False, float("nan")
        #: Seconds that went into this trial, and the part of the time that is its own (a stack shares it out).
        self.seconds, self.part = 0.0, 1.0
        self._since = time.perf_counter()
        self.memory = self._count_memory()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(config.seed, "weights"))
            self.model = config.model.build(self.data.script.size, self.data.context, self.data.silent)
        if self.data.tokenizer is not None:
            self.model.introduce(self.data.tokenizer.pieces)
        self.notes = [*self.data.notes, *self.model.notes]
        self.weights = Weights(self.model)
        config.rule.require_model(self.weights.layout)
        self.places = self._places() if config.rule.changes else 0
        #: Its config alone decides how it is computed, not who happens to run beside it.
        self.stacked = world.size == 1 and stackable(config, self.batch, len(self.weights.flat))
        self.state = config.rule.init(self.weights.flat, self.weights.layout)
        self.ledger, self.cost = Ledger(config.steps), Cost()
        self.clock: list[tuple[int, float]] = []  # step, seconds
        self.tokens_read = self.tokens_padded = 0  # in training, without and with padding
        if resumed:
            self._restore(resumed)

    def alone(self) -> Alone:
        """Who answers it where it has the process to itself."""
        return Alone(self.model, self.weights, self.config.chunk, self.world, self.config.model.stacks)

    def run(self) -> Running:
        """Train and judge, from wherever the trial is. -> the record"""
        config = self.config
        self._since = time.perf_counter()
        if self.meter:
            self._write_record("running", None, {})
        saved, wait = time.perf_counter(), self.checkpoint_seconds
        status = "done"
        try:
            if self._lost_its_way():  # it was stopped right there
                status = "diverged"
            while not self.ended and status == "done":
                if self.meter:
                    yield from self._probe()
                yield from self._update()
                if self._lost_its_way():
                    status = "diverged"
                    break
                if self.meter and time.perf_counter() - saved > wait:
                    now = time.perf_counter()
                    self._write_checkpoint()
                    saved = time.perf_counter()
                    # A large model's checkpoint takes long to write: at most one part in twenty goes into it.
                    wait = max(self.checkpoint_seconds, 20 * (saved - now))
        except interrupts.Torn:  # the last checkpoint stays the last
            raise
        except KeyboardInterrupt:
            self._write_checkpoint()
            raise
        train_seconds = self._count_seconds()
        if not self.meter:
            return {"seconds": train_seconds}
        if status == "done":
            if not torch.isfinite(self.weights.flat).all():
                status = "diverged"
            else:
                yield from self._probe()
                self.weights.flat.copy_(config.rule.judged(self.weights.flat, self.state))
        result = self._judge(status)
        result |= {"seconds": round(self._count_seconds(), 2), "train_seconds": round(train_seconds, 2)}
        return self._finish(status, result)

    @property
    def ended(self) -> bool:
        """Have all its steps been made, or all that they may cost been spent, or has the rule nothing more to do?"""
        spent = self.cost.forward_rows + self.cost.backward_rows
        return self.done or self.step >= self.config.steps or 0 < self.config.rows <= spent

    def _lost_its_way(self) -> bool:
        """Was the loss of the last step no number?"""
        return self.step > 0 and not math.isfinite(self.ledger.curve("loss")[self.step - 1])

    def _update(self) -> Generator[Look, Found, None]:
        """One step of the rule; its questions become those of the trial.

        An interrupt comes before the step or after it, never between the rule's state and the weights.
        """
        rows, step = self.train.at(self.step), self.step
        before = dataclasses.replace(self.cost), self.tokens_read, self.tokens_padded
        steered = self.steer.at(step) if self.steer else rows[:0]
        now = Step(self.weights.layout, self._scale(), step, seed_for(self.config.seed, "rule"))
        asking = self.config.rule.update(
            Oracle(len(rows), len(steered), self.places), self.weights.flat, self.state, now
        )
        try:
            ask = next(asking)
            while self.step == step:
                tally = ask.tally if isinstance(ask, Ask) else None
                look = None if tally else self._look(ask, rows, steered)
                found = (yield look) if look else None
                with interrupts.held():
                    seen = self._seen(ask, look, found) if look and found else self._tally(tally)
                    try:
                        ask = asking.send(seen)
                    except StopIteration as end:
                        self._take(end.value)
        except BaseException:
            if self.step == step:
                self.cost, self.tokens_read, self.tokens_padded = before
            raise

    def _seen(self, ask: Ask, look: Look, found: Found) -> Seen:
        """The answer to a question, which is counted."""
        read = sum(map(len, look.parts))
        if ask.window is not None and ask.at is not None:
            share = ask.at.shape[1] / len(self.weights.flat)
            self.cost.count(ask, read * len(ask.at), share)
        else:
            self.cost.count(ask, read)
        self.tokens_read += found.tokens
        self.tokens_padded += found.padded
        return Seen(found.losses, found.gradients)

    def _look(self, ask: Ask, trained: Tensor, steered: Tensor) -> Look:
        """A rule's question as one about rows. Raises TypeError or ValueError for one that cannot be."""
        if not isinstance(ask, Ask):
            raise TypeError(f"{self.config.rule.name} asked {type(ask).__name__}, which is no Ask")
        size = len(self.weights.flat) if ask.window is None else len(self.weights.layout.window(ask.window))
        if ask.at is not None and (ask.at.shape[-1] != size or ask.at.dim() != (1 if ask.window is None else 2)):
            raise ValueError(f"{self.config.rule.name} asks at {tuple(ask.at.shape)} of {size} weights")
        batch = steered if ask.steer else trained
        size = len(batch) // ask.parts
        if size == 0:
            raise ValueError(f"{self.config.rule.name} asks for {ask.parts} parts of a batch of {len(batch)} rows")
        rows = self.steer.rows if ask.steer and self.steer else self.train.rows
        if ask.changes:
            self._require_changes()
            generator = torch.Generator().manual_seed(seed_for(self.config.seed, f"changes {self.step}"))
            rows, batch = rows.changed(batch, ask.changes, generator), torch.arange(len(batch))
        if ask.swapped:
            generator = torch.Generator().manual_seed(seed_for(self.config.seed, f"labels {self.step}"))
            rows, batch = rows.swapped(batch, ask.swapped, generator), torch.arange(len(batch))
        parts = tuple(batch[part * size : (part + 1) * size] for part in ask.asked)
        return Look(rows, parts, ask.slopes, ask.at, ask.stablemax, ask.window)

    def _places(self) -> int:
        """Values of the longest training problem. Raises UserError for documents that are no rows of values."""
        values = self.train.rows.values
        places = 0 if values is None else values.x.shape[1]
        require(
            0 < places <= MOST_PLACES,
            f"{self.config.rule.name} moves the values of an example: it needs problems of 1 to {MOST_PLACES} values "
            "and an answer of one, a token each (a task of residues in the format direct)",
        )
        return places

    def _tally(self, change: Change | None) -> Seen:
        """How a change compares with the training set, which costs no pass."""
        self._require_changes()
        values = self.train.rows.values
        assert change is not None and values is not None
        return Seen(torch.empty(0), tally=values.tally(change))

    def _require_changes(self) -> None:
        if not self.config.rule.changes:
            raise ValueError(
                f"{self.config.rule.name} asks for changed examples, and does not say that it `changes` them"
            )

    def _take(self, update: Update) -> None:
        """The step is made. A loss that is no number leaves the weights as they are."""
        loss = float(update.loss)
        self.ledger.note(self.step, loss=loss, agreed=update.agreed)
        if math.isfinite(loss):
            self.weights.flat.copy_(update.weights)
            self.state = update.state
        self.done = update.done
        self.step += 1

    def _count_seconds(self) -> float:
        """Seconds of this trial so far: of the time that passed, its part."""
        now = time.perf_counter()
        self.seconds += (now - self._since) * self.part
        self._since = now
        return self.seconds

    def _count_memory(self) -> memory.Estimate | None:
        """What training will take, told before it starts, for models that take much. Raises UserError."""
        rows = self.train.rows
        largest = rows.lengths.sort(descending=True).indices[: -(-self.batch // self.world.size)]
        group = max(rows.buckets(largest, self.config.chunk), key=lambda g: rows.padded([g]))
        needs = self.config.model.needs(rows.padded([group]), int(rows.targets[group].sum()))
        if needs is None or not self.config.steps:
            return None
        found, free = memory.estimate(needs, self.config.rule), memory.available()
        memory.require_memory(found, free)
        documents = f"{len(rows.tokens)} documents of {int(rows.lengths.sum())} tokens"
        self._say(f"{found}, {memory.gib(free)} GiB are free; {documents}")
        return found

    def _say(self, note: str) -> None:
        if self.report is not None:
            self.report(Progress(self.step, self.config.steps, math.nan, math.nan, None, self.seconds, note))

    def _scale(self) -> float:
        """The schedule's factor of the learning rate."""
        warm = round(self.config.warmup * self.config.steps)
        if self.step < warm:
            return (self.step + 1) / warm
        if self.config.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (self.step - warm) / max(self.config.steps - warm, 1)))

    # --- measuring: draws nothing at random, changes nothing that training reads ----------------------------

    def _probe(self) -> Generator[Look, Found, None]:
        every, steps = self.config.probe_every, self.config.steps
        early = self.step < every and self.step % max(every // 4, 1) == 0
        if not (early or self.step % every == 0 or self.ended):
            return
        train = yield from self._read(self.train_probe)
        held_out = yield from self._read(self.held_out_probe)
        self.ledger.note(
            self.step, train_loss=train[0], held_out_loss=held_out[0],
            train_token_accuracy=train[1], held_out_token_accuracy=held_out[1],
            passes=self.cost.passes(self.batch), samples=self.cost.samples,
        )  # fmt: skip
        if self.data.one_token:
            self.last_exact = held_out[1]
            self.ledger.note(self.step, train_exact=train[1], held_out_exact=held_out[1])
        elif self.step % (every * max(round(steps / every / 3), 1)) == 0 and self.step > 0 and not self.ended:
            train_exact, self.last_exact = (self._exact(s) for s in ("train", "validation"))
            self.ledger.note(self.step, train_exact=train_exact, held_out_exact=self.last_exact)
        self.clock.append((self.step, self._count_seconds()))
        if self.report is not None:
            exact = None if math.isnan(self.last_exact) else self.last_exact
            self.report(Progress(self.step, steps, train[0], held_out[0], exact, self.seconds))

    def _read(self, rows: Rows) -> Generator[Look, Found, tuple[float, float]]:
        """Mean loss and token accuracy, over the positions with loss, of a fixed batch."""
        judged = self.config.rule.judged(self.weights.flat, self.state)
        at = None if judged is self.weights.flat else judged
        found = yield Look(rows, (torch.arange(len(rows.tokens)),), at=at)
        assert found.accuracy is not None
        return float(found.losses[0]), float(found.accuracy[0])

    def _exact(self, split: str, limit: int = 32) -> float:
        """Exact match from free running on the first problems of train or validation."""
        encoded, problems = self.data.split(split)
        some = head(encoded, limit)
        with self.weights.at(self.config.rule.judged(self.weights.flat, self.state)):
            outputs = generate(self.model, self.data.form, self.data.script, some, problems.x[:limit])
        return float(np.mean([o.correct for o in outputs]))

    def _judge(self, status: str) -> dict[str, Any]:
        """The result: what the curves say, what it cost, and what the trained model answers."""
        ledger, data = self.ledger, self.data
        probed = ledger.probed()
        step = lockstep(ledger.curve("train_loss")[probed], ledger.curve("held_out_loss")[probed], data.uniform)
        moved = int((ledger.curve("agreed")[: self.step] > 0).sum())
        judged = judge(self.config, data, self.model if status == "done" else None)
        notes = [*self.notes, *self.config.rule.told(self.state)]
        if self.step and moved == 0:
            notes.append(f"nothing moved: all {self.step} steps were filtered out")
        if status != "done":
            notes.append(f"diverged at step {self.step}: the loss was not a number any more")
        if judged["unreadable_calls"]:
            notes.append("some tool calls could not be read; the outputs show them as they were written")
        count = self.config.task.answer_count
        return {
            **judged,
            "chance": 1 / count if count else 0.0,
            "symmetries": self.config.task.symmetries,
            "lockstep": step.score,
            "s_max": step.s_max,
            "learned": step.learned,
            "memorising": step.memorising,
            "uniform_loss": data.uniform,
            "steps": self.step,
            "moved_steps": moved,
            "passes": round(self.cost.passes(self.batch), 3),
            "samples": self.cost.samples,
            "parameters": count_parameters(self.model),
            "examples": {"train": len(data.train), "validation": len(data.validation)}
            | {name: len(e) for name, e in data.tests.items()},
            "padding": round(1 - self.tokens_read / self.tokens_padded, 4) if self.tokens_padded else 0.0,
            "memory": None if self.memory is None else self.memory.total,
            "peak_memory": None if self.memory is None else memory.peak(),
            "notes": notes,
        }

    # --- on disk -------------------------------------------------------------------------------------------

    def _finish(self, status: str, result: dict[str, Any]) -> dict[str, Any]:
        if not self.world.first:
            return self._record(status, result, {})
        folder = self.folder
        self.ledger.write(folder / store.LEDGER, self.step + (status == "done"))
        steps, seconds = zip(*self.clock, strict=True) if self.clock else ((), ())
        store.write_columns(
            folder / store.CLOCK,
            {"step": np.array(steps, dtype=np.int64), "seconds": np.array(seconds, dtype=float)},
        )
        store.write_atomically(folder / store.WEIGHTS, save({"weights": self.weights.flat}))
        files = {name: store.digest(folder / name) for name in (store.LEDGER, store.WEIGHTS, store.CLOCK)}
        record = self._write_record(status, result, files)
        store.remove_checkpoint(folder)
        return record

    def _write_record(self, status: str, result: dict[str, Any] | None, files: dict[str, str]) -> dict[str, Any]:
        record = self._record(status, result, files)
        if self.world.first:
            store.write_json(self.folder / store.TRIAL, record)
        return record

    def _record(self, status: str, result: dict[str, Any] | None, files: dict[str, str]) -> dict[str, Any]:
        return store.seal(
            {
                "id": self.config.id,
                "revision": REVISION,
                "status": status,
                "describe": self.config.describe(),
                "config": self.config.to_json(),
                "environment": environment(self.threads, self.world.size),
                "result": result,
                "files": files,
            }
        )

    def _write_checkpoint(self) -> None:
        self._count_seconds()
        if not self.world.first:
            return
        rows = self.step
        tensors = {
            "weights": self.weights.flat,
            **{f"state.{k}": v for k, v in self.state.items()},
            **{f"ledger.{k}": torch.from_numpy(c[:rows]) for k, c in self.ledger.columns.items()},
            "clock": torch.tensor(self.clock, dtype=torch.float64).reshape(-1, 2),
        }
        meta = {
            "id": self.config.id,
            "step": str(self.step),
            "done": str(int(self.done)),
            "seconds": repr(self.seconds),
            "threads": str(self.threads),
            "last_exact": repr(self.last_exact),
            "tokens_read": str(self.tokens_read),
            "tokens_padded": str(self.tokens_padded),
            "cost": json.dumps(dataclasses.astuple(self.cost)),
        }
        store.write_atomically(self.folder / store.CHECKPOINT, save(tensors, meta))

    def _read_checkpoint(self) -> dict[str, str] | None:
        path = self.folder / store.CHECKPOINT
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as f:
                meta: dict[str, str] = f.metadata() or {}
        except (SafetensorError, OSError):
            raise UserError(f"{path} is damaged; remove {self.folder} to run it again") from None
        if meta.get("id") != self.config.id:
            raise UserError(f"{path} belongs to another trial; remove {self.folder} to run it again")
        return meta

    def _restore(self, meta: dict[str, str]) -> None:
        try:
            tensors = load_file(self.folder / store.CHECKPOINT)
        except (SafetensorError, OSError):
            raise UserError(f"{self.folder / store.CHECKPOINT} is damaged; remove {self.folder}") from None
        self.step, self.seconds = int(meta["step"]), float(meta["seconds"])
        self.done = meta.get("done") == "1"
        self.last_exact = float(meta["last_exact"])
        self.tokens_read, self.tokens_padded = int(meta["tokens_read"]), int(meta["tokens_padded"])
        self.cost = Cost(*json.loads(meta["cost"]))
        self.weights.flat.copy_(tensors["weights"])
        self.state = {k: tensors[f"state.{k}"] for k in self.state}
        for name, column in self.ledger.columns.items():
            column[: self.step] = tensors[f"ledger.{name}"].numpy()
        # A reading at the very step at which it stopped is read again.
        self.clock = [(int(a), float(b)) for a, b in tensors["clock"].tolist() if a < self.step]


def environment(threads: int, processes: int = 1) -> dict[str, Any]:
    """What the numbers of a trial may depend on besides its config."""
    from importlib.metadata import version

    return {
        "crevasse": version("crevasse"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": threads,
        "processes": processes,
    }
