"""Somebody's own torch optimizer in the place of a rule's base."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from crevasse.rules import BaseRule, Layout, Rule, State, Step


class Theirs(BaseRule):
    """Steps by a torch optimizer. What it remembers lies in the rule's state, so that a step can be tried and undone.

    Costs what the optimizer costs, and three copies of the weights. Not for optimizers that need a closure.
    """

    name = "optimizer"

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: list[Tensor], layout: Layout) -> None:
        self.optimizer, self.parameters, self.layout = optimizer, parameters, layout
        #: Entries that are no tensors outside of a state, and how to make them again.
        self._plain: dict[str, type] = {}

    def init(self, weights: Tensor, layout: Layout) -> State:
        return {}  # nothing yet: a rule that begins anew makes the optimizer forget

    def rate(self, step: Step) -> float | Tensor:
        rates = {id(p): group["lr"] for group in self.optimizer.param_groups for p in group["params"]}
        each = [float(rates[id(p)]) for p in self.parameters]
        if len(set(each)) == 1:
            return each[0]
        sizes = [p.numel() for p in self.parameters]
        return torch.repeat_interleave(torch.tensor(each), torch.tensor(sizes)).to(self.parameters[0].device)

    def apply(self, gradient: Tensor, weights: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        self.scatter(weights)
        for part, p in zip(self.layout.parts, self.parameters, strict=True):
            p.grad = part.of(gradient).to(p.dtype)
        self._hand_back(state)
        self.optimizer.step()
        return self.gather(), self.collect()

    def gather(self) -> Tensor:
        """The parameters as one vector of its own. (parameter,)"""
        return torch.cat([p.detach().reshape(-1) for p in self.parameters])

    @torch.no_grad()
    def scatter(self, weights: Tensor) -> None:
        """The inverse: the vector's values into the parameters. (parameter,)"""
        for part, p in zip(self.layout.parts, self.parameters, strict=True):
            p.copy_(part.of(weights))

    def collect(self) -> State:
        """What the optimizer remembers, as tensors; empty before its first step. The tensors are its own."""
        found: State = {}
        for i, p in enumerate(self.parameters):
            for key, value in self.optimizer.state.get(p, {}).items():
                if isinstance(value, Tensor):
                    found[f"{i}.{key}"] = value
                elif value is not None:
                    self._plain[f"{i}.{key}"] = type(value)
                    found[f"{i}.{key}"] = torch.tensor(value, dtype=torch.float64)
        return found

    def _hand_back(self, state: State) -> None:
        """Let the optimizer remember this and nothing else; the tensors become its own."""
        remembered: dict[int, dict[str, Any]] = {}
        for name, value in state.items():
            i, _, key = name.partition(".")
            made = self._plain.get(name)
            remembered.setdefault(int(i), {})[key] = value if made is None else made(value.item())
        for place, p in enumerate(self.parameters):
            kept = {k: v for k, v in self.optimizer.state.get(p, {}).items() if v is None}
            if place in remembered:
                self.optimizer.state[p] = kept | remembered[place]
            else:
                self.optimizer.state.pop(p, None)


def around(rule: Rule, base: BaseRule) -> Rule:
    """The same rule with another innermost base."""
    inner = getattr(rule, "base", None)
    if inner is None:
        return base
    return dataclasses.replace(rule, base=around(inner, base))  # type: ignore[type-var]


def depth(rule: Rule) -> int:
    """How many bases lie within a rule."""
    inner = getattr(rule, "base", None)
    return 0 if inner is None else 1 + depth(inner)
