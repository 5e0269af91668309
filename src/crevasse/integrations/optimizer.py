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

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from crevasse.errors import UserError
from crevasse.integrations.batches import contents, pieces, rows_of, swapped, tensors
from crevasse.integrations.theirs import Theirs, around, depth
from crevasse.rules import RULES, Ask, BaseRule, Cost, Layout, Oracle, Rule, Seen, State, Step, Update
from crevasse.rules.clip import Clip
from crevasse.seeds import seed_for
from crevasse.spec import describe


@dataclass
class Look:
    """One question: the loss of these rows, at the weights that the model has now."""

    batch: Any  # the rows, in the form of the batch that they come from
    slopes: bool  # with a gradient: else no backward pass is made, and torch.no_grad() around the body saves memory
    part: int  # which of the microbatches
    parts: int
    steer: bool = False  # of the problems that steer
    weight: float = 1.0  # share of the rows of its part
    scaler: Any = None  # a gradient scaler in use
    losses: list[Tensor] = field(default_factory=list)

    def backward(self, loss: Tensor) -> None:
        """Answer with the mean loss of the rows; several calls add up, as parts of one mean do."""
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise UserError("look.backward takes the mean loss, one number in a tensor")
        self.losses.append(loss.detach().reshape(()).float() * self.weight)
        if self.slopes:
            if not loss.requires_grad:
                raise UserError("this loss has no gradient: compute it with the model, and not within torch.no_grad()")
            loss = loss * self.weight
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()


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
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise UserError("the model has no trained parameter")
        if len({(p.device, p.dtype) for _, p in named}) > 1:
            kinds = sorted({f"{p.dtype} on {p.device}".removeprefix("torch.") for _, p in named})
            raise UserError(f"the trained parameters must be of one kind on one device, not {', '.join(kinds)}")
        if optimizer is not None and depth(rule) == 0:
            raise UserError(f"{rule.name} is itself what moves the weights: leave the other optimizer out")
        self.model, self.layout, self.seed = model, Layout.of(model), seed
        self.parameters = [p for _, p in named]
        self._theirs = None
        if optimizer is not None:
            _require_same_parameters(optimizer, named)
            self._theirs = Theirs(optimizer, list(self.parameters), self.layout)
        if clip is not None:
            rule = around(rule, Clip(base=_innermost(rule), norm=clip))
        self.text = describe(rule)
        self.rule = rule if self._theirs is None else around(rule, self._theirs)
        own_rate = _innermost(rule).rate(Step(self.layout))
        super().__init__(self.parameters, {"lr": own_rate if isinstance(own_rate, float) else 1.0})
        if optimizer is not None:
            self.param_groups = optimizer.param_groups
        group = self.param_groups[0]
        self._initial = float(group.get("initial_lr", group["lr"]))  # a scheduler made before may have begun at zero
        weights = self._gather()
        self._state: State = self.rule.init(weights, self.layout)
        self.number, self.agreed, self.loss, self.cost = 0, 1.0, float("nan"), Cost()
        self._found: Update | None = None
        self._steering: tuple[list[Any], dict[bytes, int]] = ([], {})  # the last steer batch and its contents

    # --- a step ---

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of a rule of one gradient, with the gradient that lies in the parameters.

        Raises UserError for a rule that asks more than that (`looks`), and for gradients that are not there.
        """
        if self._found is not None:  # the end of `looks`
            self._take(self._found)
            return None
        if not isinstance(self.rule, BaseRule):
            raise UserError(
                f"{self.rule.name} looks more than once: write `for look in optimizer.looks(batch):` and answer "
                "with look.backward(loss) in its body"
            )
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradient, weights = self._gradient("the gradient"), self._gather()
        if not bool(gradient.isfinite().all()):
            raise UserError("the gradient is not finite: no step was made")
        self.loss, self.agreed = float("nan") if loss is None else float(loss), 1.0
        with self._untouched_on_error(weights):
            moved, self._state = self.rule.apply(gradient, weights, self._current(), self._now())
        self._scatter(moved)
        self.number += 1
        return loss

    def looks(self, *batches: Any, steer: Any = None, scaler: Any = None) -> Iterator[Look]:
        """The rule's questions about a batch, each answered in the loop's body by ``look.backward(loss)``.

        batches: one, which is cut where the rule asks for microbatches; or several of one step, which are dealt out
        to them (gradient accumulation). steer: a batch of problems that steer, which must share no row with the
        others. scaler: a gradient scaler in use; its `update` stays in the user's own loop. Leaving the loop early
        makes no step. Raises UserError, before anything has moved, for whatever is no number and for what a body of
        the loop must not do.
        """
        rows, steering = sum(map(rows_of, batches)), 0 if steer is None else rows_of(steer)
        if self.rule.steers:
            if steer is None:
                raise UserError(f"{self.rule.name} needs problems that steer: looks(batch, steer=...)")
            self._refuse_overlap(batches, steer)
        if len(batches) == 1:
            pieces(batches, self.rule.microbatches())  # told before the first forward pass
        weights = self._gather()
        asking = self.rule.update(Oracle(rows, steering), weights, self._current(), self._now())
        try:
            ask = next(asking)
            while self._found is None:
                look_at = (steer,) if ask.steer else batches
                seen = yield from self._answer(ask, look_at, weights, scaler)
                if seen is None:  # an overflow of scaled gradients: the scaler is told, no step is made
                    assert scaler is not None
                    self._tell(scaler, overflow=True)
                    return
                with torch.no_grad(), self._untouched_on_error(weights):
                    try:
                        ask = asking.send(seen)
                    except StopIteration as end:
                        self._found = end.value
            if scaler is not None:
                self._tell(scaler, overflow=False)
            self.step()  # so that schedulers and hooks see that one was made
        finally:
            asking.close()
            self._found = None
            self.zero_grad(set_to_none=True)

    def _answer(
        self, ask: Ask, batches: tuple[Any, ...], weights: Tensor, scaler: Any
    ) -> "Iterator[Look] | Any":  # a generator that returns Seen, or None for an overflow
        """Ask the body of the loop about each part."""
        if ask.swapped:
            generator = torch.Generator().manual_seed(seed_for(self.seed, f"labels {self.number}"))
            batches = tuple(swapped(b, ask.swapped, generator) for b in batches)
        dealt = pieces(batches, ask.parts)
        losses, gradients = [], []
        with self._at(ask.at, weights):
            for part in ask.asked:
                loss, gradient = yield from self._part(ask, part, dealt[part], scaler)
                if gradient is not None and not bool(gradient.isfinite().all()):
                    if scaler is not None:
                        return None
                    raise UserError(
                        f"microbatch {part + 1} of {ask.parts} has a gradient that is not finite: no step was made"
                    )
                losses.append(loss)
                gradients.append(gradient)
        return Seen(torch.stack(losses), torch.stack(gradients) if ask.slopes else None)

    def _part(self, ask: Ask, part: int, batches: list[Any], scaler: Any) -> Any:
        """The loss and the gradient of one part, added up over its batches. -> (), (parameter,) or None"""
        rows = [rows_of(batch) for batch in batches]
        total, name = torch.zeros((), device=self.parameters[0].device), f"microbatch {part + 1} of {ask.parts}"
        self.zero_grad(set_to_none=True)
        for batch, count in zip(batches, rows, strict=True):
            look = Look(batch, ask.slopes, part, ask.parts, ask.steer, count / sum(rows), scaler)
            versions = [p._version for p in self.parameters]
            yield look
            self._require_same_model()
            if versions != [p._version for p in self.parameters]:
                raise UserError(
                    "the weights moved within the loop's body: the rule makes the step, at the end of the loop"
                )
            if not look.losses:
                raise UserError("the body of the loop has to call look.backward(loss)")
            total = total + torch.stack(look.losses).sum().to(total)
        self.cost.count(ask, sum(rows))
        if not bool(total.isfinite()) and scaler is None:
            raise UserError(f"{name} has a loss that is not a number: no step was made")
        if not ask.slopes:
            return total, None
        gradient = self._gradient(name)
        return total, gradient if scaler is None else gradient / scaler.get_scale()

    def _take(self, update: Update) -> None:
        """The step is made."""
        self._scatter(update.weights)
        self._state, self.agreed, self.loss = update.state, update.agreed, float(update.loss)
        self.number += 1

    # --- what stands for the model ---

    @contextmanager
    def judged(self) -> Iterator[None]:
        """The model with the weights that stand for it: the average, of a rule that keeps one. Evaluate it within."""
        before = self._gather()
        self._scatter(self.rule.judged(before, self._state))
        try:
            yield
        finally:
            self._scatter(before)

    # --- kept and restored ---

    def state_dict(self) -> dict[str, Any]:
        """All that the rule and the optimizer within remember: tensors and plain values."""
        theirs = None if self._theirs is None else self._theirs.optimizer.state_dict()
        return {
            "rule": self.text,
            "layout": [[part.name, list(part.shape)] for part in self.layout.parts],
            "number": self.number,
            "cost": [self.cost.forward_rows, self.cost.backward_rows],
            "seed": self.seed,
            "initial": self._initial,
            "lr": [group["lr"] for group in self.param_groups],
            "state": dict(self._own()),
            "optimizer": theirs,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`. Raises UserError, before anything is changed, for one of another rule or model."""
        missing = {"rule", "layout", "number", "cost", "seed", "initial", "lr", "state", "optimizer"} - set(state_dict)
        if missing:
            raise UserError(f"this is no state of a RuleOptimizer: {', '.join(sorted(missing))} is missing")
        if state_dict["rule"] != self.text:
            raise UserError(f"this state is of the rule {state_dict['rule']}, not of {self.text}")
        ours = [[part.name, list(part.shape)] for part in self.layout.parts]
        for kept, here in zip(state_dict["layout"], ours, strict=False):
            if list(kept) != here:
                raise UserError(
                    f"this state is of another model: it has {_shown(kept)} where this one has {_shown(here)}"
                )
        if len(state_dict["layout"]) != len(ours):
            raise UserError(
                f"this state is of another model, of {len(state_dict['layout'])} parameters, not {len(ours)}"
            )
        if (state_dict["optimizer"] is None) != (self._theirs is None):
            raise UserError("this state was kept with another optimizer within, or without one")
        if self._theirs is not None:
            self._theirs.optimizer.load_state_dict(state_dict["optimizer"])
            self.param_groups = self._theirs.optimizer.param_groups
        device = self.parameters[0].device
        kept_state = {k: v.detach().clone().to(device) for k, v in state_dict["state"].items()}
        self._state = kept_state | {k: v for k, v in self._state.items() if self._is_theirs(k)}
        for group, lr in zip(self.param_groups, state_dict["lr"], strict=True):
            group["lr"] = lr
        self.number, self.seed, self._initial = state_dict["number"], state_dict["seed"], state_dict["initial"]
        self.cost = Cost(*state_dict["cost"])

    # --- vectors and parameters ---

    def _now(self) -> Step:
        lr = self.param_groups[0]["lr"]
        return Step(self.layout, float(lr) / self._initial if self._initial else 1.0, self.number, self.seed)

    @property
    def _prefix(self) -> str:
        return "base." * depth(self.rule)

    def _is_theirs(self, name: str) -> bool:
        return self._theirs is not None and name.startswith(self._prefix)

    def _own(self) -> State:
        """The rule's state without what the user's optimizer remembers."""
        return {k: v for k, v in self._state.items() if not self._is_theirs(k)}

    def _current(self) -> State:
        """The state with what the user's optimizer remembers now, wherever that came from."""
        if self._theirs is None:
            return self._state
        return self._own() | {self._prefix + k: v for k, v in self._theirs.collect().items()}

    def _gather(self) -> Tensor:
        """All trained parameters as one vector of its own. (parameter,)"""
        self._require_same_model()
        return torch.cat([p.detach().reshape(-1) for p in self.parameters])

    def _require_same_model(self) -> None:
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

    @torch.no_grad()
    def _scatter(self, weights: Tensor) -> None:
        for part, p in zip(self.layout.parts, self.parameters, strict=True):
            p.copy_(part.of(weights))

    def _gradient(self, name: str) -> Tensor:
        """The parameters' gradients as one vector. Raises UserError for one that is missing or sparse."""
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
        return torch.cat([p.grad.reshape(-1) for p in self.parameters if p.grad is not None])

    @contextmanager
    def _at(self, at: Tensor | None, weights: Tensor) -> Iterator[None]:
        """The model at other weights; layers that keep statistics of what they see do not take these in."""
        if at is None:
            yield
            return
        norms: list[Any] = [m for m in self.model.modules() if getattr(m, "track_running_stats", False) and m.training]
        self._scatter(at)
        for m in norms:
            m.track_running_stats = False
        try:
            yield
        finally:
            for m in norms:
                m.track_running_stats = True
            self._scatter(weights)

    def _refuse_overlap(self, batches: tuple[Any, ...], steer: Any) -> None:
        """Raises UserError where a row steers that is also trained on."""
        now = [(t, t._version) for t in tensors(steer)]
        kept, steering = self._steering
        if len(kept) != len(now) or any(a[0] is not b[0] or a[1] != b[1] for a, b in zip(kept, now, strict=True)):
            steering = contents(steer)
            self._steering = (now, steering)
        for batch in batches:
            for digest, row in contents(batch).items():
                if digest in steering:
                    raise UserError(
                        f"row {steering[digest]} of the steer set is row {row} of the batch: what steers is not trained on"
                    )

    @contextmanager
    def _untouched_on_error(self, weights: Tensor) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._scatter(weights)
            raise

    def _tell(self, scaler: Any, overflow: bool) -> None:
        """Let a gradient scaler know whether gradients were finite, by what it looks at itself."""
        for p in self.parameters:
            p.grad = torch.zeros_like(p)
        if overflow:
            self.parameters[0].grad.fill_(torch.inf)  # type: ignore[union-attr]
        scaler.unscale_(self)


def _innermost(rule: Rule) -> BaseRule:
    inner = getattr(rule, "base", None)
    if inner is not None:
        return _innermost(inner)
    assert isinstance(rule, BaseRule)
    return rule


def _refuse_stablemax(rule: Rule) -> None:
    """The loss is the user's own."""
    if getattr(rule, "stablemax", False):
        raise UserError(
            f"stablemax of {rule.name} is a loss, and yours to choose: use crevasse.objectives.stablemax_cross_entropy"
        )
    if getattr(rule, "base", None) is not None:
        _refuse_stablemax(rule.base)  # type: ignore[attr-defined]


def _require_same_parameters(optimizer: torch.optim.Optimizer, named: Sequence[tuple[str, Tensor]]) -> None:
    """Raises UserError unless an optimizer moves exactly the model's trained parameters."""
    moved = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
    if left := [name for name, p in named if id(p) not in moved]:
        raise UserError(
            f"the optimizer does not move {', '.join(left[:3])}, which the model trains: freeze it or add it"
        )
    if len(moved) > len(named):
        raise UserError("the optimizer moves parameters that the model does not have")


def _shown(part: Any) -> str:
    return f"{part[0]} {tuple(part[1])}"
