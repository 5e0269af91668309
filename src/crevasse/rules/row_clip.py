"""Weights whose rows stay short."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from crevasse.rules.base import State, Step
from crevasse.rules.layout import Part
from crevasse.rules.transform import Transform
from crevasse.spec import require


@dataclass(frozen=True)
class RowClip(Transform):
    """Each row of weights ← row·min(1, limit/‖row‖) after the base's step (NiftyliuS 2026, "Clip to Grok").

    A row is what belongs to one unit; a vector (a bias, the gains of a norm) is one row. As published embeddings and
    the head are free, so that logits may grow. Rows that are longer from the start are pulled in by the first step
    whose rate is not zero; the published training starts with every row at the limit, which is up to the model.
    Published with ``base=lion`` without decay, limit 1 to 2.

    Costs one look at the weights beyond its base. Not with gains of a norm that start at one and a width over limit²:
    they are cut to the limit at once (``parts=matrices`` leaves vectors alone and takes embeddings and head in).
    """

    name: ClassVar[str] = "row-clip"

    limit: float = 2.0  # longest row
    parts: Literal["inner", "matrices", "all"] = "inner"  # inner: all but embeddings and head; matrices: no vectors

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.limit > 0, f"limit of row-clip must be positive, not {self.limit}")

    def holds(self, part: Part) -> bool:
        """Does it clip this part?"""
        free = {"inner": ("embedding", "head"), "matrices": ("vector",), "all": ()}[self.parts]
        return part.kind not in free

    def after(self, moved: Tensor, weights: Tensor, own: State, step: Step) -> Tensor:
        if step.scale == 0:
            return moved
        for part in filter(self.holds, step.layout.parts):
            rows = part.matrix(moved)
            length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            if (length > self.limit).any():
                rows.mul_((self.limit / length).clamp_(max=1.0))
        return moved
