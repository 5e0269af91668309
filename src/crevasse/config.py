"""The config of a trial: everything that decides its numbers."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from crevasse.errors import UserError
from crevasse.formats import FORMATS, Format
from crevasse.models import MODELS, ModelConfig
from crevasse.rules import RULES, Rule
from crevasse.spec import Named, describe, require, to_json
from crevasse.tasks import TASKS, Task
from crevasse.tasks.splits import Labels

#: Part of every id: raised when the same config would give other numbers than before.
REVISION = 3
#: Fields that joined after trials of this revision had been made.
LATER = ("rows",)


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
    rows: int = 0  # forward plus backward, after which training ends before its steps do; 0: never
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
            ("steps", 0, 10**9), ("rows", 0, 10**15), ("batch", 1, 10**7), ("probe_every", 1, 10**9),
            ("probe_rows", 1, 10**6), ("held_out", 1, 10**6), ("chunk", 0, 10**9), ("seed", 0, 2**31 - 1),
        ):  # fmt: skip
            value = getattr(self, name)
            require(low <= value <= high, f"{name} must lie between {low} and {high}, not {value}")
        require(self.schedule in ("cosine", "constant"), f"schedule must be cosine or constant, not {self.schedule}")
        require(0 <= self.warmup <= 1, f"warmup is a share of the steps, 0 to 1, not {self.warmup}")
        require(
            self.labels in ("true", "random", "noisy"),
            f"labels must be true, random or noisy, not {self.labels}",
        )
        require(0 <= self.noise <= 1, f"noise is a share, 0 to 1, not {self.noise}")
        require(self.noise == 0 or self.labels == "noisy", "noise goes with labels=noisy")
        if getattr(self.format, "arithmetic", "exact") == "rounded" and self.labels != "true":
            raise UserError("rounded arithmetic computes its own traces, so it goes with true labels only")
        if self.rule.steers and not self.steer:
            raise UserError(
                f"{self.rule.name} needs problems that steer: keep some of the training problems for it (--steer 200)"
            )
        if self.format.shots and self.steps:
            raise UserError("shots show training problems to a model as it is: they go with steps=0")

    def to_json(self) -> dict[str, Any]:
        """Every field, written out; `from_json` is the inverse.

        A field that joined later is left out where it changes nothing, so that trials keep their ids.
        """
        data: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in LATER and value == field.default:
                continue
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
        return config_id(self.to_json())

    def describe(self) -> str:
        """One line for a person."""
        parts = [describe(self.task), describe(self.format), describe(self.model), describe(self.rule)]
        labels = {"true": "", "random": " random labels", "noisy": f" noisy labels {self.noise}"}[self.labels]
        return " · ".join(parts) + f"{labels} · {self.train or 'all'} examples · {self.steps} steps · seed {self.seed}"


def config_id(data: dict[str, Any]) -> str:
    """The id of the config that was written as `data`."""
    text = json.dumps([REVISION, data], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
