"""Weights that turn but do not grow."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from crevasse.rules.base import State, Step
from crevasse.rules.layout import Layout
from crevasse.rules.transform import Transform
from crevasse.spec import require


@dataclass(frozen=True)
class Sphere(Transform):
    """Each row ← row·(‖row at the start‖/‖row‖)^strength after the base's step: weights on spheres.

    Of every matrix, embedding and head; vectors are free. Rows on a sphere are what nGPT does, there of radius one
    (Loshchilov et al. 2024); weights held at the norm of their start are the control of Omnigrok, there all together
    (Liu et al. 2023). Below strength 1 the new norm is the geometric mean of where the base went and the start. Rows
    that are zero at the start are free, and so is everything at a rate of zero.

    Costs one look at the weights beyond its base. Not without a norm layer or a free scale after the head: cross
    entropy needs logits of some size, which the start may not give. The base's decay then does next to nothing.
    """

    name: ClassVar[str] = "sphere"

    strength: float = 1.0  # 0: norms are free; 1: they stay
    by: Literal["row", "part"] = "row"  # part: a whole matrix has one norm, its rows may exchange it

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.strength <= 1, f"strength of sphere must lie between 0 and 1, not {self.strength}")

    def spheres(self, weights: Tensor, layout: Layout) -> Iterator[Tensor]:
        """Of each part that is held a view of the weights with a row a sphere. (sphere, its weights)"""
        for part in layout.parts:
            if part.kind != "vector":
                yield part.matrix(weights) if self.by == "row" else part.matrix(weights).view(1, -1)

    def remember(self, weights: Tensor, layout: Layout) -> State:
        lengths = [torch.linalg.vector_norm(rows, dim=1) for rows in self.spheres(weights, layout)]
        return {"radius": torch.cat(lengths) if lengths else weights.new_zeros(0)}

    def after(self, moved: Tensor, weights: Tensor, own: State, step: Step) -> Tensor:
        if step.scale == 0 or self.strength == 0:
            return moved
        start = 0
        for rows in self.spheres(moved, step.layout):
            radius = own["radius"][start : (start := start + len(rows)), None]
            length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            ratio = torch.where((radius > 0) & (length > 0), radius / length, torch.ones_like(length))
            rows.mul_(ratio.pow_(self.strength))
        return moved
