"""A model's trained parameters as one vector, and back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from crevasse.errors import UserError
from crevasse.rules import Layout


def finite(vector: Tensor) -> bool:
    """Is every entry a finite number? One pass; isfinite().all() makes four."""
    return bool(torch.stack(torch.aminmax(vector)).isfinite().all())


class Vector:
    """The parameters stay where they are; the vector is a copy. Raises UserError where they cannot be one vector."""

    def __init__(self, model: nn.Module) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise UserError("the model has no trained parameter")
        if len({(p.device, p.dtype) for _, p in named}) > 1:
            kinds = sorted({f"{p.dtype} on {p.device}".removeprefix("torch.") for _, p in named})
            raise UserError(f"the trained parameters must be of one kind on one device, not {', '.join(kinds)}")
        if empty := [name for name, p in named if p.numel() == 0]:
            raise UserError(f"{empty[0]} has no entries: freeze it (requires_grad_(False))")
        self.model, self.layout, self.parameters = model, Layout.of(model), [p for _, p in named]

    def empty(self, count: int) -> Tensor:
        """Room for so many vectors. (count, parameter)"""
        return torch.empty(count, self.layout.size, dtype=self.parameters[0].dtype, device=self.device)

    @property
    def device(self) -> torch.device:
        return self.parameters[0].device

    def gather(self) -> Tensor:
        """All parameters. (parameter,) Raises UserError if the model is not what it was."""
        self.require_same_model()
        return torch.cat([p.detach().reshape(-1) for p in self.parameters])

    @torch.no_grad()
    def scatter(self, weights: Tensor) -> None:
        """The inverse: the vector's values into the parameters. (parameter,)"""
        for part, p in zip(self.layout.parts, self.parameters, strict=True):
            p.copy_(part.of(weights))
        torch.clear_autocast_cache()  # a region around the user's loop would go on with the old weights

    def gradient(self, name: str, out: Tensor | None = None) -> Tensor:
        """The parameters' gradients. (parameter,) Raises UserError for one that is missing or sparse.

        out: where they are written, if not into a tensor of their own.
        """
        if all(p.grad is None for p in self.parameters):
            raise UserError(
                f"{name} is not there: loss.backward() comes before step(), and looks() makes the step itself"
            )
        for part, p in zip(self.layout.parts, self.parameters, strict=True):
            if p.grad is None:
                raise UserError(
                    f"{part.name} got no gradient: freeze it (requires_grad_(False)) before the RuleOptimizer is made"
                )
            if p.grad.layout != torch.strided:
                raise UserError(f"{part.name} got a sparse gradient: make it dense (sparse=False of the embedding)")
        return torch.cat([p.grad.reshape(-1) for p in self.parameters if p.grad is not None], out=out)

    def set_gradient(self, gradient: Tensor) -> None:
        """The inverse: views of a vector as the parameters' gradients. (parameter,)"""
        for part, p in zip(self.layout.parts, self.parameters, strict=True):
            p.grad = part.of(gradient).to(p.dtype)

    def forget_gradient(self) -> None:
        """No parameter has a gradient any more."""
        for p in self.parameters:
            p.grad = None

    def versions(self) -> list[int]:
        """Numbers that change where a parameter is changed in place."""
        return [p._version for p in self.parameters]

    def require_same_model(self) -> None:
        """Raises UserError if the model's trained parameters are not what they were."""
        now = [p for p in self.model.parameters() if p.requires_grad]
        if len(now) != len(self.parameters) or any(a is not b for a, b in zip(now, self.parameters, strict=True)):
            raise UserError(
                "the model's trained parameters are not those of the start (added, replaced, frozen or thawed): make a "
                "new RuleOptimizer"
            )
        for part, p in zip(self.layout.parts, now, strict=True):
            if tuple(p.shape) != part.shape:
                raise UserError(
                    f"{part.name} had the shape {part.shape}, now {tuple(p.shape)}: make a new RuleOptimizer"
                )

    @contextmanager
    def at(self, weights: Tensor | None) -> Iterator[None]:
        """The model at other weights; layers that keep statistics of what they see do not take these in."""
        if weights is None:
            yield
            return
        norms: list[Any] = [m for m in self.model.modules() if getattr(m, "track_running_stats", False)]
        before = self.gather()
        self.scatter(weights)
        for m in norms:
            m.track_running_stats = m.training is False  # in eval mode they are read, and must stay
        try:
            yield
        finally:
            for m in norms:
                m.track_running_stats = True
            self.scatter(before)

    def names(self) -> list[list[Any]]:
        """Name and shape of each parameter, by which a kept state is known; without what wraps the model."""
        clean = [part.name.replace("_orig_mod.", "").removeprefix("module.") for part in self.layout.parts]
        return [[name, list(part.shape)] for name, part in zip(clean, self.layout.parts, strict=True)]
