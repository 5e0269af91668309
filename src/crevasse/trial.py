"""A trial: one training run, from its frozen config to what came of it.

Read it top to bottom: the config, the data, the loop (update, measure, write), the verdict at the end. A trial
can be killed at any moment; run again, it goes on from its last checkpoint and ends bitwise as if nothing had
happened. Everything that is random is drawn from the seed and the step, never from what ran before.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from crevasse import memory, processes, store
from crevasse.errors import UserError
from crevasse.formats import FORMATS, Encoded, Format, Script
from crevasse.formats.faults import Fault, first_fault
from crevasse.formats.generate import Output, generate, token_limit
from crevasse.formats.script import MARKS
from crevasse.formats.text import TextScript
from crevasse.models import MODELS, ModelConfig, count_parameters, losses
from crevasse.probes import lockstep
from crevasse.processes import World
from crevasse.rules import RULES, Cost, Oracle, Rule, Weights
from crevasse.spec import Named, describe, require, to_json
from crevasse.tasks import BLANK, TASKS, Problems, Task, make_splits
from crevasse.tasks.baselines import non_learner_scores
from crevasse.tasks.splits import Labels

#: Part of every id: raised when the same config would give other numbers than before.
REVISION = 2
#: Seconds between checkpoints.
CHECKPOINT_SECONDS = 10.0
#: A pass reads all weights and adds up a gradient for each; that costs about as much as so many tokens.
PASS_TOKENS = 64


@dataclass(frozen=True)
class TrialConfig:
    """Everything that decides the numbers of a trial."""

    task: Task
    format: Format
    model: ModelConfig
    rule: Rule
    train: int | None = None  # training problems; none: all there are, at most 2000 of a sampled domain
    steer: int = 0  # of those, kept out of the gradient
    held_out: int = 1000  # at most so many problems in each held-out split
    labels: Labels = "true"  # true, random (answers shuffled) or noisy (a share of them wrong)
    noise: float = 0.0  # that share
    steps: int = 1000  # 0: the model is judged as it is
    batch: int = 128  # examples a step; at most the training set
    chunk: int = 0  # tokens (padding included) that go through the model at once; 0: the whole batch
    schedule: Literal["cosine", "constant"] = "cosine"  # of the learning rate, after the warm-up
    warmup: float = 0.05  # share of the steps in which the rate rises from 0
    probe_every: int = 20  # steps between readings of both losses; closer at the start
    probe_rows: int = 256  # problems in each of the two fixed probe batches
    seed: int = 0  # of weights and batches
    data_seed: int | None = None  # of the problems; none: the same as seed

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 0, 10**9), ("batch", 1, 10**7), ("probe_every", 1, 10**9), ("probe_rows", 1, 10**6),
            ("held_out", 1, 10**6), ("chunk", 0, 10**9), ("seed", 0, 2**31 - 1),
        ):  # fmt: skip
            value = getattr(self, name)
            require(low <= value <= high, f"{name} must lie between {low} and {high}, not {value}")
        require(0 <= self.warmup <= 1, f"warmup is a share of the steps, 0 to 1, not {self.warmup}")
        require(
            self.labels in ("true", "random", "noisy"),
            f"labels must be true, random or noisy, not {self.labels}",
        )
        require(0 <= self.noise <= 1, f"noise is a share, 0 to 1, not {self.noise}")
        require(self.noise == 0 or self.labels == "noisy", "noise goes with labels=noisy")
        if getattr(self.format, "arithmetic", "exact") == "rounded" and self.labels != "true":
            raise UserError("rounded arithmetic computes its own traces, so it goes with true labels only")
        if self.format.shots and self.steps:
            raise UserError("shots show training problems to a model as it is: they go with steps=0")

    def to_json(self) -> dict[str, Any]:
        """Every field, written out; `from_json` is the inverse."""
        data: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            data[field.name] = to_json(value) if isinstance(value, Named) else value
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "TrialConfig":
        """Raises UserError for a config that this version does not know."""
        tables: dict[str, Any] = {"task": TASKS, "format": FORMATS, "model": MODELS, "rule": RULES}
        try:
            return cls(**{k: tables[k].load(v) if k in tables else v for k, v in data.items()})
        except TypeError as e:
            raise UserError(f"this config does not fit this version of crevasse ({e})") from None

    @cached_property
    def id(self) -> str:
        """The hash of the config, which names the trial's folder."""
        text = json.dumps([REVISION, self.to_json()], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def describe(self) -> str:
        """One line for a person."""
        parts = [describe(self.task), describe(self.format), describe(self.model), describe(self.rule)]
        labels = {"true": "", "random": " random labels", "noisy": f" noisy labels {self.noise}"}[self.labels]
        return " · ".join(parts) + f"{labels} · {self.train or 'all'} examples · {self.steps} steps · seed {self.seed}"


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


# --- data ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Documents as tensors."""

    tokens: Tensor  # (row, position) int32
    loss: Tensor  # (row, position) bool
    steps: Tensor  # (row,)
    lengths: Tensor  # (row,)
    first: int  # no column up to this one carries loss in any row

    @classmethod
    def of(cls, encoded: Encoded) -> "Rows":
        targets = encoded.loss.any(0)
        return cls(
            torch.from_numpy(encoded.tokens),
            torch.from_numpy(encoded.loss),
            torch.from_numpy(encoded.steps),
            torch.from_numpy(encoded.lengths),
            int(targets.argmax()) - 1,
        )

    @cached_property
    def ragged(self) -> bool:
        return bool((self.lengths != self.tokens.shape[1]).any())

    @cached_property
    def targets(self) -> Tensor:
        """(row,) positions with loss"""
        return self.loss.sum(1)

    def pick(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        """The arguments of `losses` after the model: padding that no picked row needs is cut off."""
        tokens, loss, steps = self.tokens[rows], self.loss[rows], self.steps[rows]
        if self.ragged:
            end = int(self.lengths[rows].max())
            tokens, loss = tokens[:, :end], loss[:, :end]
        return tokens.long(), loss, steps, self.first

    def buckets(self, rows: Tensor, chunk: int = 0) -> list[Tensor]:
        """The rows in groups of similar length, none of more than `chunk` tokens (0: no limit) where it can be split.

        A group costs a pass of its own over all weights, as much as some tokens do: splitting one has to save more
        than that, and a quarter of what the group costs.
        """
        if len(rows) < 2:
            return [rows]
        width = int(self.lengths[rows].max())
        at, saved = 0, 0
        if self.ragged:
            lengths, order = self.lengths[rows].sort()
            rows = rows[order]
            count = torch.arange(1, len(rows))
            sizes = count * lengths[:-1] + (len(rows) - count) * lengths[-1]
            at, saved = int(sizes.argmin()) + 1, len(rows) * width - int(sizes.min())
        if saved < PASS_TOKENS or 4 * saved < len(rows) * width:
            if not chunk or len(rows) * width <= chunk:
                return [rows]
            at = len(rows) // 2
        return self.buckets(rows[:at], chunk) + self.buckets(rows[at:], chunk)

    def padded(self, groups: Sequence[Tensor]) -> int:
        """Tokens that go through the model for these groups, padding included."""
        return sum(len(g) * int(self.lengths[g].max()) for g in groups if len(g))


class Data:
    """A config's problems, encoded."""

    def __init__(self, config: TrialConfig) -> None:
        self.tokenizer = config.model.tokenizer()
        self.form, self.script = config.format, config.format.script(config.task, self.tokenizer)
        data_seed = config.seed if config.data_seed is None else config.data_seed
        self.splits = make_splits(
            config.task, config.train, steer=config.steer, held_out=config.held_out, seed=data_seed,
            labels=config.labels, noise=config.noise,
        )  # fmt: skip
        self.preamble = self.form.preamble(self.script, self.splits.train)
        self.train = self.encode(self.splits.train)
        self.validation = self.encode(self.splits.validation)
        self.tests = {name: self.encode(p) for name, p in self.splits.tests.items()}
        #: Loss of guessing uniformly among the tokens that a learner is ever asked to write.
        self.uniform = math.log(max(len(np.unique(self.train.tokens[self.train.loss])), 2))
        #: An answer of fixed width contains no mark, so none is ever written.
        self.silent = len(MARKS) if self.form.fixed_width(self.script) else 0
        self.notes = [*self.splits.notes, *_notes(self.script, self.form)]
        fixed = self.form.fixed_width(self.script)
        self.context = max(token_limit(e, fixed) for e in (self.train, self.validation, *self.tests.values()))
        #: One token an answer: reading it off with the true prompt is the same as running freely.
        self.one_token = self.form.fixed_width(self.script) and self.train.answers.shape[1] == 1

    def encode(self, problems: Problems) -> Encoded:
        return self.form.encode(self.script, problems, self.preamble)


def _notes(script: Script, form: Format) -> list[str]:
    """What a reader should know about how the documents are written."""
    notes = []
    if isinstance(script, TextScript) and (merged := script.merged_digits):
        notes.append(
            f"the tokenizer merges digits ({merged} is one token): numbers are words to it, and copying and counting "
            "have to be learnt for each of them"
        )
    if form.shots:
        notes.append(
            f"{form.shots} solved training problems stand before each problem, so the training score counts them"
        )
    return notes


# --- the loop ------------------------------------------------------------------------------------------------

_LEDGER = (
    "loss", "agreed", "train_loss", "held_out_loss", "train_token_accuracy", "held_out_token_accuracy",
    "train_exact", "held_out_exact",
)  # fmt: skip


class Ledger:
    """The per-step record: row t holds the training loss seen by step t, and what was read before it."""

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
    folder = store.make_folder(root) / "trials" / config.id
    with processes.joined() as world, contextlib.ExitStack() as stack:

        def found() -> dict[str, Any] | None:
            stack.enter_context(store.owned(folder))
            if (folder / store.TRIAL).exists():
                record = store.load_trial(folder)
                if record["status"] in ("done", "diverged"):
                    return record
            return None

        return world.agree(found) or _Run(config, folder, world, threads, checkpoint_seconds, progress, meter).run()


class _Run:
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
        self.rows = Rows.of(self.data.train)
        self.batch = min(config.batch, len(self.data.train))
        require(
            self.batch >= config.rule.microbatches(),
            f"{config.rule.name} splits each batch into {config.rule.microbatches()} parts, "
            f"but a batch has {self.batch} examples",
        )
        limit = config.probe_rows
        self.train_probe, self.held_out_probe = (
            Rows.of(_head(e, limit)) for e in (self.data.train, self.data.validation)
        )

        self.step, self.seconds, self.last_exact = 0, 0.0, float("nan")
        self.memory = self._count_memory()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(config.seed, "weights"))
            self.model = config.model.build(self.data.script.size, self.data.context, self.data.silent)
        if self.data.tokenizer is not None:
            self.model.introduce(self.data.tokenizer.pieces)
        self.notes = [*self.data.notes, *self.model.notes]
        self.weights = Weights(self.model)
        self.state = config.rule.init(self.weights.flat)
        self.ledger, self.cost = Ledger(config.steps), Cost()
        self.clock: list[tuple[int, float]] = []
        self.tokens_read = self.tokens_padded = 0  # in training, without and with padding
        if resumed:
            self._restore(resumed)
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))
        #: What the trained model answered to each problem that it was asked, as numbers.
        self.answers: dict[tuple[int, ...], list[int] | None] = {}

    def run(self) -> dict[str, Any]:
        config, ledger = self.config, self.ledger
        if self.meter:
            self._write_record("running", None, {})
        began = time.perf_counter() - self.seconds
        saved, wait = time.perf_counter(), self.checkpoint_seconds
        status = "done"
        try:
            while self.step < config.steps:
                if self.meter:
                    self._probe(began)
                oracle = Oracle(self._objective, self.weights, self._batch_rows(), self.cost, self.world.sum)
                update = config.rule.update(oracle, self.weights.flat, self.state, self._scale())
                loss = float(update.loss)
                ledger.note(self.step, loss=loss, agreed=update.agreed)
                self.step += 1
                if not math.isfinite(loss):
                    status = "diverged"
                    break
                self.weights.flat.copy_(update.weights)
                self.state = update.state
                if self.meter and time.perf_counter() - saved > wait:
                    self.seconds = time.perf_counter() - began
                    now = time.perf_counter()
                    self._write_checkpoint()
                    saved = time.perf_counter()
                    # A large model's checkpoint takes long to write: at most one part in twenty goes into it.
                    wait = max(self.checkpoint_seconds, 20 * (saved - now))
        except KeyboardInterrupt:
            self.seconds = time.perf_counter() - began
            self._write_checkpoint()
            raise
        train_seconds = time.perf_counter() - began
        if not self.meter:
            return {"seconds": train_seconds}
        if status == "done":
            if not torch.isfinite(self.weights.flat).all():
                status = "diverged"
            else:
                self._probe(began)
        result = self._judge(status)
        self.seconds = time.perf_counter() - began
        result |= {"seconds": round(self.seconds, 2), "train_seconds": round(train_seconds, 2)}
        return self._finish(status, result)

    def _objective(self, rows: Tensor) -> Iterator[Tensor]:
        """The mean loss of these rows over all their targets, in parts; of several processes, this one's share."""
        targets, share = int(self.rows.targets[rows].sum()), self.world.share(rows)
        groups = self._groups(self.rows, share)
        self.tokens_read += int(self.rows.lengths[share].sum())
        self.tokens_padded += self.rows.padded(groups)
        for group in groups:
            yield losses(self.model, *self.rows.pick(group))[0].sum() / targets

    def _groups(self, rows: Rows, chosen: Tensor) -> list[Tensor]:
        return rows.buckets(chosen, self.config.chunk) if len(chosen) else []

    def _count_memory(self) -> memory.Estimate | None:
        """What training will take, told before it starts, for models that take much. Raises UserError."""
        rows = self.rows
        largest = rows.lengths.sort(descending=True).indices[: -(-self.batch // self.world.size)]
        group = max(self._groups(rows, largest), key=lambda g: rows.padded([g]))
        needs = self.config.model.needs(rows.padded([group]), int(rows.targets[group].sum()))
        if needs is None or not self.config.steps:
            return None
        found, free = memory.estimate(needs, self.config.rule), memory.available()
        memory.require_memory(found, free)
        documents = f"{len(rows.tokens)} documents of {int(rows.lengths.sum())} tokens"
        memory.keep_pages()
        self._say(f"{found}, {memory.gib(free)} GiB are free; {documents}")
        return found

    def _say(self, note: str) -> None:
        if self.report is not None:
            self.report(Progress(self.step, self.config.steps, math.nan, math.nan, None, self.seconds, note))

    def _batch_rows(self) -> Tensor:
        """Rows of this step's batch: each epoch is a permutation of its own; a last part batch is left out."""
        count = len(self.rows.tokens)
        epoch, place = divmod(self.step, count // self.batch)
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(_seed(self.config.seed, f"epoch {epoch}"))
            self._order = (epoch, torch.randperm(count, generator=generator))
        return self._order[1][place * self.batch : (place + 1) * self.batch]

    def _scale(self) -> float:
        """The schedule's factor of the learning rate."""
        warm = round(self.config.warmup * self.config.steps)
        if self.step < warm:
            return (self.step + 1) / warm
        if self.config.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (self.step - warm) / max(self.config.steps - warm, 1)))

    # --- measuring: draws nothing at random, changes nothing that training reads ----------------------------

    def _probe(self, began: float) -> None:
        every, steps = self.config.probe_every, self.config.steps
        early = self.step < every and self.step % max(every // 4, 1) == 0
        if not (early or self.step % every == 0 or self.step == steps):
            return
        train, held_out = self._read(self.train_probe), self._read(self.held_out_probe)
        self.ledger.note(
            self.step, train_loss=train[0], held_out_loss=held_out[0],
            train_token_accuracy=train[1], held_out_token_accuracy=held_out[1],
        )  # fmt: skip
        if self.data.one_token:
            self.last_exact = held_out[1]
            self.ledger.note(self.step, train_exact=train[1], held_out_exact=held_out[1])
        elif self.step % (every * max(round(steps / every / 3), 1)) == 0 and 0 < self.step < steps:
            train_exact, self.last_exact = (self._exact(s) for s in ("train", "validation"))
            self.ledger.note(self.step, train_exact=train_exact, held_out_exact=self.last_exact)
        seconds = time.perf_counter() - began
        self.clock.append((self.step, seconds))
        if self.report is not None:
            exact = None if math.isnan(self.last_exact) else self.last_exact
            self.report(Progress(self.step, steps, train[0], held_out[0], exact, seconds))

    @torch.no_grad()
    def _read(self, rows: Rows) -> tuple[float, float]:
        """Mean loss and token accuracy, over the positions with loss, of a fixed batch."""
        total, right = 0.0, 0
        for group in self._groups(rows, torch.arange(len(rows.tokens))):
            tokens, loss, steps, first = rows.pick(group)
            each, logits = losses(self.model, tokens, loss, steps, first)
            targets = tokens[:, first + 1 :][loss[:, first + 1 :]].to(logits.device)
            total += float(each.sum())
            right += int((logits.argmax(1) == targets).sum())
        count = int(rows.targets.sum())
        return total / count, right / count

    def _exact(self, split: str, limit: int = 32) -> float:
        """Exact match from free running on the first problems of train or validation."""
        encoded, problems = self._split(split)
        some = _head(encoded, limit)
        outputs = generate(self.model, self.data.form, self.data.script, some, problems.x[:limit])
        return float(np.mean([o.correct for o in outputs]))

    def _split(self, name: str) -> tuple[Encoded, Problems]:
        if name in self.data.tests:
            return self.data.tests[name], self.data.splits.tests[name]
        if name == "train":
            return self.data.train, self.data.splits.train
        return self.data.validation, self.data.splits.validation

    # --- the end: the test splits are opened ---------------------------------------------------------------

    def _judge(self, status: str) -> dict[str, Any]:
        config, ledger, data = self.config, self.ledger, self.data
        probed = ledger.probed()
        step = lockstep(ledger.curve("train_loss")[probed], ledger.curve("held_out_loss")[probed], data.uniform)
        agreed = ledger.curve("agreed")[: self.step]
        moved = int((agreed > 0).sum())
        notes = list(self.notes)
        if self.step and moved == 0:
            notes.append(f"nothing moved: all {self.step} steps were filtered out")
        judged: dict[str, Any] = {
            "train": None,
            "splits": {},
            "rule_score": {},
            "ceiling": {},
            "non_learners": {},
        }
        outputs: dict[str, list[dict[str, Any]]] = {}
        faults: dict[str, dict[str, int]] = {}
        unreadable = 0
        for name in ("train", *data.tests) if status == "done" else ():
            encoded, problems = self._split(name)
            if name == "train":
                encoded, problems = (
                    _head(encoded, config.held_out),
                    problems.take(np.arange(len(problems))[: config.held_out]),
                )
            written = generate(self.model, data.form, data.script, encoded, problems.x)
            self.answers |= {key: self._numbers(o) for key, o in zip(_keys(problems.x), written, strict=True)}
            exact = float(np.mean([o.correct for o in written]))
            unreadable += sum(len(o.unreadable) for o in written)
            broken = [first_fault(data.script, encoded, i, o) for i, o in enumerate(written)]
            faults[name] = dict(sorted(Counter(f.kind for f in broken if f is not None).items()))
            outputs[name] = self._samples(encoded, written, broken)
            judged["ceiling"][name] = data.form.ceiling(data.script, problems)
            if name == "train":
                judged["train"] = exact
            else:
                judged["splits"][name] = exact
                scores = non_learner_scores(data.splits.train, problems)
                if config.task.kind == "text":
                    scores.pop("nearest")  # it would compare row numbers of a file
                judged["non_learners"][name] = scores
        for name in judged["splits"]:
            judged["rule_score"][name] = self._rule_score(data.splits.tests[name])
        if status != "done":
            notes.append(f"diverged at step {self.step}: the loss was not a number any more")
        if unreadable:
            notes.append("some tool calls could not be read; the outputs show them as they were written")
        count = config.task.answer_count
        return {
            **judged,
            "chance": 1 / count if count else 0.0,
            "symmetries": config.task.symmetries,
            "lockstep": step.score,
            "s_max": step.s_max,
            "learned": step.learned,
            "memorising": step.memorising,
            "uniform_loss": data.uniform,
            "steps": self.step,
            "moved_steps": moved,
            "passes": round(self.cost.passes(self.batch), 3),
            "samples": self.cost.backward_rows,
            "parameters": count_parameters(self.model),
            "examples": {"train": len(data.train), "validation": len(data.validation)}
            | {name: len(e) for name, e in data.tests.items()},
            "unreadable_calls": unreadable,
            "faults": faults,
            "padding": round(1 - self.tokens_read / self.tokens_padded, 4) if self.tokens_padded else 0.0,
            "memory": None if self.memory is None else self.memory.total,
            "peak_memory": None if self.memory is None else memory.peak(),
            "notes": notes,
            "outputs": outputs,
        }

    def _samples(
        self, encoded: Encoded, written: list[Output], broken: list[Fault | None], each: int = 5
    ) -> list[dict[str, Any]]:
        """The first right and the first wrong outputs of a split, as text."""
        right = [i for i, o in enumerate(written) if o.correct][:each]
        wrong = [i for i, o in enumerate(written) if not o.correct][:each]
        text, skip = self.data.script.text, len(self.data.preamble)
        return [
            {
                "problem": text(encoded.tokens[i, skip : encoded.prompt[i]].tolist()),
                "written": text(written[i].tokens),
                "answer": None if (answer := written[i].answer) is None else text(answer),
                "expected": text(encoded.answers[i].tolist()),
                "correct": written[i].correct,
                "unreadable": list(written[i].unreadable),
                "fault": None if (fault := broken[i]) is None else dataclasses.asdict(fault),
            }
            for i in (*right, *wrong)
        ]

    def _rule_score(self, problems: Problems, limit: int = 200) -> float | None:
        """Share of the learner's outputs over consecutive problems that satisfy the recursion; None without one."""
        task, data = self.config.task, self.data
        links = task.consecutive(problems.x[:limit])
        if links is None:
            return None
        missing = {key: x for xs in links.problems for key, x in zip(_keys(xs), xs, strict=True)}
        missing = {key: x for key, x in missing.items() if key not in self.answers}
        if missing:
            x = np.stack(list(missing.values()))
            written = generate(self.model, data.form, data.script, data.encode(Problems(x, task.solve(x))), x)
            self.answers |= {key: self._numbers(o) for key, o in zip(missing, written, strict=True)}
        read = [[self.answers[key] for key in _keys(x)] for x in links.problems]
        widths = task.solve(links.problems[0][:1]).answers.shape[1]
        whole = [all(v is not None and len(v) == widths for v in row) for row in zip(*read, strict=True)]
        if not any(whole):
            return 0.0
        values = [np.array([v for v, ok in zip(r, whole, strict=True) if ok], dtype=object) for r in read]
        kept = dataclasses.replace(links, problems=tuple(x[np.array(whole)] for x in links.problems))
        return float(task.obeys(kept, values).sum() / len(whole))

    def _numbers(self, output: Output) -> list[int] | None:
        return None if output.answer is None else self.data.script.numbers(output.answer)

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
        return {
            "id": self.config.id,
            "revision": REVISION,
            "status": status,
            "describe": self.config.describe(),
            "config": self.config.to_json(),
            "environment": environment(self.threads, self.world.size),
            "result": result,
            "files": files,
        }

    def _write_checkpoint(self) -> None:
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
            "seconds": repr(self.seconds),
            "threads": str(self.threads),
            "last_exact": repr(self.last_exact),
            "tokens_read": str(self.tokens_read),
            "tokens_padded": str(self.tokens_padded),
            "forward_rows": str(self.cost.forward_rows),
            "backward_rows": str(self.cost.backward_rows),
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
        self.last_exact = float(meta["last_exact"])
        self.tokens_read, self.tokens_padded = int(meta["tokens_read"]), int(meta["tokens_padded"])
        self.cost = Cost(int(meta["forward_rows"]), int(meta["backward_rows"]))
        self.weights.flat.copy_(tensors["weights"])
        self.state = {k: tensors[f"state.{k}"] for k in self.state}
        for name, column in self.ledger.columns.items():
            column[: self.step] = tensors[f"ledger.{name}"].numpy()
        self.clock = [(int(a), float(b)) for a, b in tensors["clock"].tolist()]


def _seed(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose: seed + i would make neighbours share their draws."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {purpose}".encode(), digest_size=7).digest(), "big")


def _keys(x: Any) -> list[tuple[int, ...]]:
    """Problems as what a dictionary takes, without what fills rows up."""
    return [tuple(v for v in row if v != BLANK) for row in x.tolist()]


def _head(encoded: Encoded, rows: int) -> Encoded:
    """The first rows."""
    return Encoded(*(getattr(encoded, f.name)[:rows] for f in dataclasses.fields(encoded)))


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
