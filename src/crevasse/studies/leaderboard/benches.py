"""What rules are measured on."""

import functools
import math
from dataclasses import dataclass, replace
from typing import Literal

import torch

from crevasse.config import TrialConfig
from crevasse.errors import UserError
from crevasse.formats import FORMATS
from crevasse.models import MODELS
from crevasse.rules import RULES, Layout
from crevasse.rules.race import Race
from crevasse.studies.leaderboard.costs import rows_a_step
from crevasse.tasks import parse_task
from crevasse.tasks.splits import Labels

#: Most training problems that steer, and the batch of narrow models.
STEER, RACE_BATCH = 250, 500

Section = Literal["cell", "tables", "recursive", "labels"]


@dataclass(frozen=True)
class Bench:
    """A problem, a model and a budget of passes: the same for every rule."""

    name: str  # short and stable: scripts select by it
    title: str  # for people
    section: Section
    task: str
    model: str
    rate: float  # the usual rate of adamw here
    steps: int  # of a rule that looks once at each row: what it may cost
    batch: int
    train: int | None = None  # training problems; none: all there are
    labels: Labels = "true"
    noise: float = 0.0
    form: str = "direct"
    tuned: str = ""  # the bench on which settings are picked; empty: this one
    probe_every: int = 20

    @property
    def rows(self) -> int:
        """Rows forward plus rows backward that a training may cost."""
        return 2 * self.steps * self.batch

    def config(self, setting: str, seed: int) -> TrialConfig:
        """One trial. setting: text of a rule. Raises UserError."""
        rule = RULES.parse(setting)
        whole = TrialConfig(
            parse_task(self.task), FORMATS.parse(self.form), MODELS.parse(self.model), RULES.parse("sgd"),
            train=self.train, labels=self.labels, noise=self.noise, batch=self.batch, rows=self.rows,
            probe_every=self.probe_every, seed=seed,
        )  # fmt: skip
        steer = min((self.train or STEER * 5) // 5, STEER) if rule.steers else 0
        if isinstance(rule, Race):
            # Its rounds have a schedule of their own. Steps cost less and less; few races still run after so many.
            batch = min(RACE_BATCH, (self.train or RACE_BATCH + steer) - steer)
            steps = math.ceil(self.rows / batch)
            return replace(whole, rule=rule, steer=steer, batch=batch, steps=steps, schedule="constant", warmup=0.0)
        batch = min(self.batch, self.train - steer) if self.train else self.batch
        steps = math.ceil(self.rows / rows_a_step(rule, batch, min(steer, batch)) - 1e-9)
        return replace(whole, rule=rule, steer=steer, steps=steps)

    def fits(self, setting: str) -> bool:
        """Can this rule train this model at all?"""
        try:
            RULES.parse(setting).require_model(_layout(self.model))
        except UserError:
            return False
        return True


@functools.cache
def _layout(model: str) -> Layout:
    """Of such a model with a small alphabet, which is not computed with."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return Layout.of(MODELS.parse(model).build(32, 32))


def _cell(train: int, tuned: str) -> Bench:
    return Bench(
        f"cell-{train}", f"the crevasse cell, N = {train:,}", "cell", "iterated-product", "bilinear", 0.003, 1500, 256,
        train, tuned=tuned,
    )  # fmt: skip


def _table(op: str, title: str) -> Bench:
    task = "modular:op=s5" if op == "s5" else f"modular:op={op},p=97"
    # Half of the table, as in the papers.
    return Bench(
        "S5" if op == "s5" else f"{op}-97", title, "tables", task, "transformer:width=128", 0.001, 1000, 512,
        7200 if op == "s5" else 4704, tuned="" if op == "add" else "add-97",
    )  # fmt: skip


CELL = _cell(2000, "")
ADD_59 = Bench(
    "add-59", "a + b mod 59, a small MLP", "tables", "modular:p=59", "mlp", 0.01, 600, 1740, 1740, probe_every=10
)
DIGITS = Bench("digits", "handwritten digits, a small convolutional net", "labels", "digits", "conv", 0.003, 600, 64)
RECURSIVE = Bench(
    "product-lengths", "products of 1–6 factors, held-out: a length between and longer ones", "recursive",
    "iterated-product:p=13,T=1-4+6,gap=5,beyond=7-8", "bilinear", 0.003, 1500, 256, 2000,
)  # fmt: skip


def noisy(bench: Bench, noise: float, tuned: str = "") -> Bench:
    """The same with a share of wrong training labels; 1: all of them at random."""
    random = noise == 1
    return replace(
        bench, name=f"{bench.name}-random" if random else f"{bench.name}-noisy-{round(100 * noise)}",
        title=f"{bench.title}, {'random labels' if random else f'{noise:.0%} wrong labels'}", section="labels",
        labels="random" if random else "noisy", noise=0.0 if random else noise, tuned=tuned,
    )  # fmt: skip


CURVE = (
    _cell(500, "cell-2000"), _cell(1000, "cell-2000"), _cell(5000, "cell-20000"), _cell(20_000, ""),
    _cell(50_000, "cell-20000"),
)  # fmt: skip
TABLES = (
    _table("add", "a + b mod 97, a transformer"), _table("s5", "composition in S5, a transformer"),
    _table("div", "a / b mod 97, a transformer"), _table("mul", "a · b mod 97, a transformer"),
)  # fmt: skip
