"""Somebody's own torch optimizer in the place of a rule's base."""

import dataclasses
import inspect
from typing import Any

import torch
from torch import Tensor

from crevasse.errors import UserError
from crevasse.integrations.vector import Vector
from crevasse.rules import BaseRule, Layout, Rule, State, Step


class Theirs(BaseRule):
    """Steps by a torch optimizer. What it remembers lies in the rule's state, so that a step can be tried and undone.

    Costs what the optimizer costs, and three copies of the weights. Not for optimizers that need a closure; nor, behind
    rules that try steps out, for those that count in their groups, or hooks that count steps: both see the tries.
    """

    name = "optimizer"

    def __init__(self, optimizer: torch.optim.Optimizer, vector: Vector) -> None:
        """Raises UserError for an optimizer that cannot be driven from outside or moves other parameters."""
        closure = inspect.signature(optimizer.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise UserError(f"{type(optimizer).__name__} needs a closure, so no rule can stand around it")
        self.optimizer, self.vector = optimizer, vector
        self._require_same_parameters()
        #: Entries that are no tensors outside of a state, and how to make them again.
        self._plain: dict[str, type] = {}
        #: What it remembered before the first try of a step.
        self._before: State | None = None

    def init(self, weights: Tensor, layout: Layout) -> State:
        return {}  # nothing yet: a rule that begins anew makes the optimizer forget

    def rate(self, step: Step) -> float | Tensor:
        rates = {id(p): group["lr"] for group in self.optimizer.param_groups for p in group["params"]}
        each = [float(rates[id(p)]) for p in self.vector.parameters]
        if len(set(each)) == 1:
            return each[0]
        sizes = [p.numel() for p in self.vector.parameters]
        return torch.repeat_interleave(torch.tensor(each), torch.tensor(sizes)).to(self.vector.device)

    def apply(self, gradient: Tensor, weights: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        if self._before is None:
            self._before = self.collect()
        self.vector.scatter(weights)
        self.vector.set_gradient(gradient)
        self.hand_back(state)
        self.optimizer.step()
        return self.vector.gather(), self.collect()

    def settle(self) -> None:
        """A step was made: what was remembered before it is not needed any more."""
        self._before = None

    def take_back(self) -> None:
        """No step was made: let the optimizer remember what it did before steps were tried."""
        if self._before is not None:
            self.hand_back(self._before)
            self._before = None

    def load(self, kept: dict[str, Any]) -> None:
        """The optimizer's own `load_state_dict`. Raises UserError, before anything is changed, for another kind's."""
        own, there = self.optimizer.param_groups, kept.get("param_groups", [])
        if len(own) != len(there) or any((set(a) ^ set(b)) - {"initial_lr"} for a, b in zip(own, there, strict=True)):
            raise UserError(f"this state is of another optimizer within than {type(self.optimizer).__name__}")
        try:
            self.optimizer.load_state_dict(kept)
        except (ValueError, KeyError, TypeError, RuntimeError) as e:
            raise UserError(f"the state of the optimizer within does not fit: {e}") from None

    def collect(self) -> State:
        """What the optimizer remembers, as tensors; empty before its first step. The tensors are its own."""
        found: State = {}
        for i, p in enumerate(self.vector.parameters):
            for key, value in self.optimizer.state.get(p, {}).items():
                name = f"{i}.{key}"
                if isinstance(value, Tensor):
                    self._plain.pop(name, None)
                    found[name] = value
                elif isinstance(value, bool | int | float):
                    self._plain[name] = type(value)
                    found[name] = torch.tensor(value, dtype=torch.float64)
                elif value is not None:
                    kind = type(value).__name__
                    raise UserError(
                        f"{type(self.optimizer).__name__} remembers a {kind} ({key}): rules stand around optimizers "
                        "that remember tensors and numbers"
                    )
        return found

    def hand_back(self, state: State) -> None:
        """Let the optimizer remember this and nothing else; the tensors become its own."""
        remembered: dict[int, dict[str, Any]] = {}
        for name, value in state.items():
            i, _, key = name.partition(".")
            made = self._plain.get(name)
            remembered.setdefault(int(i), {})[key] = value if made is None else made(value.item())
        for place, p in enumerate(self.vector.parameters):
            kept = {k: v for k, v in self.optimizer.state.get(p, {}).items() if v is None}
            if place in remembered:
                self.optimizer.state[p] = kept | remembered[place]
            else:
                self.optimizer.state.pop(p, None)

    def _require_same_parameters(self) -> None:
        """Raises UserError unless it moves exactly the model's trained parameters."""
        moved = {id(p) for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad}
        named = zip(self.vector.layout.parts, self.vector.parameters, strict=True)
        if left := [part.name for part, p in named if id(p) not in moved]:
            raise UserError(
                f"the optimizer does not move {', '.join(left[:3])}, which the model trains: freeze it or add it"
            )
        if len(moved) > len(self.vector.parameters):
            raise UserError("the optimizer moves parameters that the model does not have")


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


def names_its_base(rule: Rule) -> bool:
    """Is the innermost base another than it would be if nothing were said?"""
    inner = getattr(rule, "base", None)
    if inner is None:
        return False
    if depth(inner):
        return names_its_base(inner)
    usual: object = next(f.default for f in dataclasses.fields(rule) if f.name == "base")  # type: ignore[arg-type]
    return bool(inner != usual)
