"""The loss around trained and constructed weights: where it is read, how sharp it is there, and what lies between.

The probes know a loss of a flat vector and nothing else (`probes/sharpness.py`, `probes/landscape.py`). Here that loss
is made of a trial: its model, its problems.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.func import functional_call

from crevasse import store
from crevasse.config import TrialConfig
from crevasse.documents import Data, Rows, head
from crevasse.errors import UserError
from crevasse.models.base import losses
from crevasse.models.transformer import twice_differentiable
from crevasse.probes.landscape import Units
from crevasse.probes.sharpness import Segment, segments
from crevasse.seeds import seed_for
from crevasse.spec import require

#: Problems over which a loss is taken.
PROBLEMS = 512


@dataclass(frozen=True)
class Place:
    """Weights, and the trial they are of."""

    name: str
    config: TrialConfig
    weights: Tensor  # (weight,)


def read_place(folder: Path) -> Place:
    """The weights that a trial ended with. Raises UserError for one that is missing, damaged or did not end well."""
    record = store.load_trial(folder)
    if record["status"] != "done":
        raise UserError(f"{folder} has no trained weights: the trial is {record['status']}")
    try:
        weights = load_file(folder / store.WEIGHTS)["weights"]
    except (SafetensorError, OSError, KeyError):
        raise UserError(f"{folder / store.WEIGHTS} is damaged; remove {folder} to run it again") from None
    return Place(record["id"], TrialConfig.from_json(record["config"]), weights)


class Ground:
    """The problems on which a loss is read, and the architecture that reads them."""

    def __init__(self, config: TrialConfig, split: str = "train", problems: int = PROBLEMS) -> None:
        """split: train, validation, or a test split. Raises UserError for a split that the task does not have."""
        require(config.model.tokenizer() is None, "landscapes are drawn of models with an alphabet of their own")
        data = Data(config)
        known = ("train", "validation", *data.tests)
        require(split in known, f"{config.task.name} has no split {split}; it has {', '.join(known)}")
        self.config, self.data = config, data
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(config.seed, "weights"))
            self.model = config.model.build(data.script.size, data.context, data.silent)
        self.model.requires_grad_(False)
        rows = Rows.of(head(data.split(split)[0], problems))
        require(len(rows.tokens) > 0, f"there are no {split} problems on which a loss could be read")
        self.split, self.problems = split, len(rows.tokens)
        self._picked = rows.pick(torch.arange(len(rows.tokens)))

    @cached_property
    def shapes(self) -> dict[str, torch.Size]:
        """Of all parameters, by name, in the order in which they lie in the vector."""
        return {name: p.shape for name, p in self.model.named_parameters()}

    @property
    def rows(self) -> list[Segment]:
        """Rows of weights, for directions that are as long as they are."""
        return segments(self.shapes.values())

    @property
    def units(self) -> Sequence[Units]:
        """What can change places without changing the function."""
        return self.model.units()

    def holds(self, weights: Tensor) -> bool:
        """Are there as many weights as this architecture has?"""
        return len(weights) == sum(s.numel() for s in self.shapes.values())

    def loss(self, weights: Tensor) -> Tensor:
        """Mean loss at the targets. (weight,) -> ()"""
        return self._run(weights)[0].mean()

    @torch.no_grad()
    def with_loss(self, weights: Tensor, wanted: float) -> Tensor:
        """The weights with the head scaled so that the loss is as wanted: the same answers, another sureness. (weight,)

        By bisection of the factor, from 1/1000 to 1000: where the loss can't be had, the nearest that it comes to.
        """
        offset, head = 0, torch.zeros(len(weights), dtype=torch.bool)
        for name, shape in self.shapes.items():
            head[offset : offset + shape.numel()] = name.startswith("head.")
            offset += shape.numel()
        low, high = -3.0, 3.0  # powers of ten; the surer right answers are, the lower the loss
        for _ in range(40):
            middle = (low + high) / 2
            above = float(self.loss(torch.where(head, weights * 10**middle, weights))) > wanted
            low, high = (middle, high) if above else (low, middle)
        return torch.where(head, weights * 10 ** ((low + high) / 2), weights)

    def exact(self, weights: Tensor) -> float:
        """Share of problems all of whose targets are the most likely token, each given those before."""
        return self.read(weights)[1]

    @torch.no_grad()
    def read(self, weights: Tensor) -> tuple[float, float]:
        """`loss` and `exact`, in one pass."""
        each, logits, targets = self._run(weights)
        right = logits.argmax(-1) == targets
        loss = self._picked[1][:, self._picked[3] + 1 :]
        wrong = torch.zeros(loss.shape, dtype=torch.bool)
        wrong[loss] = ~right
        return float(each.mean()), float((~wrong.any(1)).double().mean())

    def _run(self, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sizes = [s.numel() for s in self.shapes.values()]
        parts = zip(self.shapes.items(), torch.split(weights, sizes), strict=True)
        state = {f"inner.{name}": part.view(shape) for (name, shape), part in parts}
        with twice_differentiable():
            found: tuple[Tensor, Tensor, Tensor] = functional_call(_Losses(self.model), state, self._picked)
        return found


class _Losses(torch.nn.Module):
    """`losses` as the call of a module, whose parameters can then be exchanged for a call."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *picked: object) -> tuple[Tensor, Tensor, Tensor]:
        return losses(self.inner, *picked)  # type: ignore[arg-type]


def same_ground(places: Sequence[Place]) -> None:
    """Raises UserError unless all places are of one architecture, with one alphabet."""
    first = Ground(places[0].config)
    for place in places[1:]:
        other = Ground(place.config)
        if other.shapes != first.shapes or place.config.model != first.config.model:
            raise UserError(
                f"a landscape lies between weights of one architecture: {places[0].name} is "
                f"{places[0].config.describe()}, {place.name} is {place.config.describe()}"
            )
