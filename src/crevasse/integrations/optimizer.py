"""Any update rule in anyone's PyTorch loop, around their own optimizer or by itself.

A rule that turns one gradient into one step is a torch optimizer like any other: ``backward()``, ``step()``. A rule
that looks more than once - at microbatches, at other weights, at problems that steer - asks its questions in a loop,
whose body answers one::

    optimizer = RuleOptimizer("gaf:k=4", model, torch.optim.AdamW(model.parameters(), 1e-3))
    for batch in loader:
        for look in optimizer.looks(batch):
            x, y = look.batch
            look.backward(criterion(model(x), y))

The loop makes the step at its end: what the user's optimizer remembers and the weights are touched only then, when
all answers are there and are numbers.
"""

import dataclasses
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from crevasse.errors import UserError
from crevasse.integrations.batches import contents, pieces, rows_of, swapped, tensors
from crevasse.integrations.looks import Look, Loop, NotFiniteError, Scaled, answer
from crevasse.integrations.theirs import Theirs, around, depth, names_its_base
from crevasse.integrations.vector import Vector, finite
from crevasse.rules import RULES, BaseRule, Cost, Oracle, Rule, State, Step, Update
from crevasse.rules.clip import Clip
from crevasse.seeds import seed_for
from crevasse.spec import describe

#: What a kept state consists of.
KEPT = ("rule", "layout", "number", "cost", "seed", "initial", "lr", "state", "optimizer")


class RuleOptimizer(torch.optim.Optimizer):
    """A rule as a torch optimizer, around another one or by itself.

    rule: as it is typed (``"sam:rho=0.05"``), or an object. model: whose trained parameters move. optimizer: the user's
    own, which has exactly these parameters; it takes the place of the rule's innermost base, and its groups are those
    of this optimizer, so that schedulers may be given either. Without it the rule's own base moves; the one group's
    `lr` is then the base's rate (1 where the parts have rates of their own), for schedulers. clip: bound on the norm
    of the gradient that the base is given. seed: of what the rule draws.

    `agreed` and `loss` are those of the last step, `cost` counts rows. Raises UserError for what does not fit.
    """

    def __init__(
        self,
        rule: str | Rule,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        clip: float | None = None,
        seed: int = 0,
    ) -> None:
        rule = RULES.parse(rule) if isinstance(rule, str) else rule
        _refuse_stablemax(rule)
        if rule.changes:
            raise UserError(f"{rule.name} moves the values of examples, which only a trial can: crevasse run")
        if not isinstance(model, nn.Module):
            raise UserError(f"RuleOptimizer(rule, model, optimizer) takes a torch Module, not {type(model).__name__}")
        vector = Vector(model)
        if optimizer is not None and depth(rule) == 0:
            raise UserError(f"{rule.name} is itself what moves the weights: leave the other optimizer out")
        if optimizer is not None and names_its_base(rule):
            raise UserError(
                f"{describe(_innermost(rule))}, the base that the rule names, would be replaced by your "
                f"{type(optimizer).__name__}: leave one of them out"
            )
        innermost = _innermost(rule)
        if clip is not None:
            if not isinstance(innermost, BaseRule):
                raise UserError(f"{rule.name} does not end in a step of one gradient that could be clipped")
            rule = around(rule, Clip(base=innermost, norm=clip))
        rate = innermost.rate(Step(vector.layout)) if isinstance(innermost, BaseRule) else 1.0
        self._theirs: Theirs | None = None
        super().__init__(vector.parameters, {"lr": rate if isinstance(rate, float) else 1.0})
        self.text, self.rule, self.vector, self.seed = describe(rule), rule, vector, seed
        if optimizer is not None:
            self._theirs = Theirs(optimizer, vector)
            self.defaults = dict(optimizer.defaults)  # schedulers look there for what they cycle
            self.rule = around(rule, self._theirs)
        # A scheduler that was made before may have begun at zero.
        self.initial = [float(group.get("initial_lr", group["lr"])) for group in self.param_groups]
        self.rule.require_model(vector.layout)
        self._state: State = self.rule.init(vector.gather(), vector.layout)
        self.number, self.agreed, self.loss, self.cost = 0, 1.0, float("nan"), Cost()
        #: The last loop, for as long as somebody has hold of it.
        self._loop: Callable[[], Loop | None] = lambda: None
        self._found: Update | None = None
        self._steering: tuple[list[Any], dict[bytes, int]] = ([], {})  # the last steer batch and its contents

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the optimizer within, whatever it makes of them; else its own."""
        return self._groups if self._theirs is None else self._theirs.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self._groups = groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raises UserError once it is made: a rule's vector has the length that it has."""
        if hasattr(self, "vector"):
            raise UserError("a RuleOptimizer moves the parameters of its start: make a new one")
        super().add_param_group(param_group)

    # --- a step ---

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of a rule of one gradient, with the gradient that lies in the parameters.

        Raises UserError for a rule that asks more than that (`looks`), and for gradients that are not there.
        """
        if self._found is not None:  # the end of `looks`
            self._take(self._found)
            return None
        if not isinstance(self.rule, BaseRule) and self.number:
            raise UserError("the loop over looks makes the step itself: take optimizer.step() out")
        if not isinstance(self.rule, BaseRule):
            raise UserError(
                f"{self.rule.name} looks more than once: write `for look in optimizer.looks(batch):` and answer "
                "with look.backward(loss) in its body"
            )
        loop = self._loop()
        if loop is not None and loop.open:
            raise UserError("a loop over looks is under way, and makes the step at its end")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradient, weights = self.vector.gradient("the gradient"), self.vector.gather()
        if not finite(gradient):
            raise UserError("the gradient is not finite: no step was made")
        grads = [p.grad for p in self.vector.parameters]
        seen = torch.tensor(float("nan") if loss is None else float(loss))
        with self._back_on_error(weights):
            moved, state = self.rule.apply(gradient, weights, self._current(), self._now())
            self._take(Update(moved, state, seen))
        for p, grad in zip(self.vector.parameters, grads, strict=True):
            p.grad = grad  # the user's, not what the rule made of it
        return loss

    def looks(self, *batches: Any, steer: Any = None, scaler: Any = None) -> Iterator[Look]:
        """The rule's questions about a batch, each answered in the loop's body by ``look.backward(loss)``.

        batches: one, which is cut where the rule asks for microbatches; or several of one step, which are dealt out
        to them (gradient accumulation). steer: a batch of problems that steer, which must share no row with the
        others. scaler: a gradient scaler in use; its `update` stays in the user's own loop. A loop that is left early
        makes no step. Raises UserError for whatever is no number and for what the body must not do; the weights are
        then those before the loop, and what the optimizer remembers is untouched.
        """
        self._leave_loop()
        rows, steering = sum(map(rows_of, batches)), 0 if steer is None else rows_of(steer)
        if not batches:
            raise UserError("looks() needs a batch")
        if self.rule.steers:
            if steer is None:
                raise UserError(f"{self.rule.name} needs problems that steer: looks(batch, steer=...)")
            self._refuse_overlap(batches, steer)
        pieces(batches, self.rule.microbatches())  # told before the first forward pass
        oracle = Oracle(rows, steering)
        loop = Loop(self._looks(oracle, batches, steer, scaler if scaler and scaler.is_enabled() else None))
        self._loop = weakref.ref(loop)
        return loop

    def _looks(self, oracle: Oracle, batches: tuple[Any, ...], steer: Any, scaler: Any) -> Generator[Look, None, None]:
        weights = self.vector.gather()
        scaled = None if scaler is None else Scaled(scaler, self, self.vector)
        asking = self.rule.update(oracle, weights, self._current(), self._now())
        made = False
        try:
            ask = next(asking)
            while True:
                seen = yield from answer(ask, self._asked(ask, batches, steer), self.vector, self.cost, scaled)
                # The rule's own arithmetic is not for a region of mixed precision around the user's loop.
                with torch.no_grad(), torch.autocast(self.vector.device.type, enabled=False):
                    ask = asking.send(seen)
        except StopIteration as end:
            self._found = end.value
            self.step()  # so that schedulers and hooks see that one was made
            made = True
        except NotFiniteError:  # the scaler knows, and will lower its scale
            pass
        finally:
            asking.close()
            if not made:
                self._back(weights)
            self._found = None
            self.vector.forget_gradient()

    def _asked(self, ask: Any, batches: tuple[Any, ...], steer: Any) -> tuple[Any, ...]:
        """The batches that a question is about, with other labels where it asks for that."""
        asked = (steer,) if ask.steer else batches
        if not ask.swapped:
            return asked
        generator = torch.Generator().manual_seed(seed_for(self.seed, f"labels {self.number}"))
        return tuple(swapped(batch, ask.swapped, generator) for batch in asked)

    def _take(self, update: Update) -> None:
        """The step is made."""
        if not finite(update.weights):
            raise UserError(f"the step of {self.text} led to weights that are not finite: it was not made")
        self.vector.scatter(update.weights)
        self._state, self.agreed, self.loss = update.state, update.agreed, float(update.loss)
        self.number += 1
        if self._theirs is not None:
            self._theirs.settle()

    # --- what stands for the model ---

    @contextmanager
    def judged(self) -> Iterator[None]:
        """The model with the weights that stand for it: the average, of a rule that keeps one. Evaluate it within."""
        self._leave_loop()
        before = self.vector.gather()
        self.vector.scatter(self.rule.judged(before, self._state))
        try:
            yield
        finally:
            self.vector.scatter(before)

    # --- kept and restored ---

    def state_dict(self) -> dict[str, Any]:
        """All that the rule and the optimizer within remember: tensors and plain values."""
        self._leave_loop()
        return {
            "rule": self.text,
            "layout": self.vector.names(),
            "number": self.number,
            "cost": list(dataclasses.astuple(self.cost)),
            "seed": self.seed,
            "initial": list(self.initial),
            "lr": [float(group["lr"]) for group in self.param_groups],
            "state": self._own(),
            "optimizer": None if self._theirs is None else self._theirs.optimizer.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`. Raises UserError, before anything is changed, for one of another rule or model."""
        self._leave_loop()
        self._require_fit(state_dict)
        if self._theirs is not None:
            self._theirs.load(state_dict["optimizer"])
        self._state = {k: self._placed(k, v) for k, v in state_dict["state"].items()}
        for group, lr in zip(self.param_groups, state_dict["lr"], strict=True):
            group["lr"] = lr
        self.number, self.seed, self.initial = state_dict["number"], state_dict["seed"], list(state_dict["initial"])
        self.cost = Cost(*state_dict["cost"])

    def _require_fit(self, kept: dict[str, Any]) -> None:
        if missing := [name for name in KEPT if name not in kept]:
            raise UserError(f"this is no state of a RuleOptimizer: {', '.join(missing)} is missing")
        if kept["rule"] != self.text:
            raise UserError(f"this state is of the rule {kept['rule']}, not of {self.text}")
        ours = self.vector.names()
        for there, here in zip(kept["layout"], ours, strict=False):
            if list(there) != here:
                raise UserError(
                    f"this state is of another model: it has {_shown(there)} where this one has {_shown(here)}"
                )
        if len(kept["layout"]) != len(ours):
            raise UserError(f"this state is of another model, of {len(kept['layout'])} parameters, not {len(ours)}")
        if (kept["optimizer"] is None) != (self._theirs is None):
            raise UserError("this state was kept with another optimizer within, or without one")
        if len(kept["lr"]) != len(self.param_groups):
            raise UserError(f"this state is of {len(kept['lr'])} parameter groups, not of {len(self.param_groups)}")
        fresh = {
            k: v for k, v in self.rule.init(self.vector.gather(), self.vector.layout).items() if not self._inner(k)
        }
        for name, value in fresh.items():
            if name not in kept["state"] or kept["state"][name].shape != value.shape:
                raise UserError(f"this state does not fit {self.text}: {name} is missing or of another size")

    def _placed(self, name: str, value: Tensor) -> Tensor:
        """A tensor of a kept state on the model's device; counters of an optimizer stay where it keeps them."""
        counter = value.dim() == 0 and self._theirs is not None and name.startswith(("kept.", "best."))
        return value.detach().clone().to(value.device if counter else self.vector.device)

    def __getstate__(self) -> Any:
        raise UserError("a RuleOptimizer is not copied or pickled: keep its state_dict()")

    # --- how it works ---

    def _leave_loop(self) -> None:
        """A loop that was left may still be held by somebody, with the model at other weights."""
        if (loop := self._loop()) is not None:
            loop.leave()

    def _now(self) -> Step:
        pairs = zip(self.param_groups, self.initial, strict=True)
        scale = max((float(group["lr"]) / first for group, first in pairs if first), default=1.0)
        return Step(self.vector.layout, scale, self.number, self.seed)

    @property
    def _prefix(self) -> str:
        return "base." * depth(self.rule)

    def _inner(self, name: str) -> bool:
        """Is it what the user's optimizer remembers?"""
        return self._theirs is not None and name.startswith(self._prefix)

    def _own(self) -> State:
        """The rule's state without what the user's optimizer remembers."""
        return {k: v for k, v in self._state.items() if not self._inner(k)}

    def _current(self) -> State:
        """The state with what the user's optimizer remembers now, wherever that came from."""
        if self._theirs is None:
            return self._state
        return self._own() | {self._prefix + k: v for k, v in self._theirs.collect().items()}

    def _back(self, weights: Tensor) -> None:
        """No step: the weights are those before, and the optimizer's memory is what it was before it was tried."""
        self.vector.scatter(weights)
        if self._theirs is not None:
            self._theirs.take_back()

    @contextmanager
    def _back_on_error(self, weights: Tensor) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._back(weights)
            raise

    def _refuse_overlap(self, batches: tuple[Any, ...], steer: Any) -> None:
        """Raises UserError where a row steers that this step trains on."""
        now = [(t, t._version) for t in tensors(steer)]
        kept, steering = self._steering
        if len(kept) != len(now) or any(a[0] is not b[0] or a[1] != b[1] for a, b in zip(kept, now, strict=True)):
            steering = contents(steer)
            self._steering = (now, steering)
        for batch in batches:
            for digest, row in contents(batch).items():
                if digest in steering:
                    place = steering[digest]
                    raise UserError(
                        f"row {place} of the steer set is row {row} of the batch: what steers is not trained on"
                    )


def _innermost(rule: Rule) -> Rule:
    inner = getattr(rule, "base", None)
    return rule if inner is None else _innermost(inner)


def _refuse_stablemax(rule: Rule) -> None:
    """The loss is the user's own."""
    if getattr(rule, "stablemax", False):
        raise UserError(
            f"stablemax of {rule.name} is a loss, and yours to choose: use crevasse.objectives.stablemax_cross_entropy"
        )
    if getattr(rule, "base", None) is not None:
        _refuse_stablemax(rule.base)  # type: ignore[attr-defined]


def _shown(part: Any) -> str:
    return f"{part[0]} {tuple(part[1])}"
