"""A Hugging Face Trainer whose weights move by any update rule::

    trainer = RuleTrainer(model, args, rule="sam:rho=0.05", train_dataset=rows)
    trainer.train()

The rule stands around the optimizer that the Trainer makes of its arguments. A base that the rule names moves by
itself: ``"muon"``, ``"gaf:base=lion"``; so do those whose base is not adamw anyway (``"sgld"``).

The learning rate is always that of the arguments, with their schedule, and all else of a named base is the rule's own.
Where the arguments and the rule say different things, that is an error.
"""

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from crevasse.errors import UserError
from crevasse.integrations.batches import pieces
from crevasse.integrations.looks import Look
from crevasse.integrations.optimizer import RuleOptimizer
from crevasse.integrations.trainer import _refuse_overlap
from crevasse.rules import RULES, BaseRule, Rule
from crevasse.rules.adamw import AdamW
from crevasse.rules.transform import Around
from crevasse.seeds import seed_for

try:
    from transformers import Trainer
except ImportError as e:
    raise ImportError(
        f"rules in a Trainer need transformers and accelerate (pip install 'crevasse[llm]'): {e}"
    ) from None


class _Optimizer(RuleOptimizer):
    """One whose step was already made, at the end of `looks`, when the Trainer calls for it."""

    made = False

    def step(self, closure: Any = None) -> Any:
        if self.made:
            self.made = False
            return None
        return super().step(closure)

    def start_at(self, rate: float, own: float) -> None:
        """Take the learning rate from outside, in the place of the base's own one."""
        self.initial, self.param_groups[0]["lr"] = [own], rate


class RuleTrainer(Trainer):
    """A Trainer with an update rule.

    rule: as it is typed, or an object. steer_dataset: rows that steer, for rules that ask for them; they are training
    data, but share no row with train_dataset, and of other rows you judge. Each step draws as many of them as the
    batch on the device has. All other arguments are the Trainer's.

    A rule that looks more than once is given the batches of a whole step (gradient accumulation) at once, dealt out
    to its microbatches in order, or cut where their numbers do not fit. `max_grad_norm` then bounds the gradient that
    the optimizer within is given. `evaluate` and `predict` look at the weights that stand for the model: the average,
    of a rule that keeps one. `rule_optimizer` has the figures of the last step.

    Raises UserError for what does not fit, as far as can be seen before the first step.
    """

    rule_optimizer: _Optimizer | None = None

    def __init__(self, *args: Any, rule: str | Rule, steer_dataset: Any = None, **kwargs: Any) -> None:
        self.rule: Rule = RULES.parse(rule) if isinstance(rule, str) else rule
        chain = _chain(self.rule)
        own = chain[-1]
        options = rule.partition(":")[2].split(",") if isinstance(rule, str) else []
        typed = "base." * (len(chain) - 1) + "lr" in [o.partition("=")[0].strip() for o in options]
        super().__init__(*args, **kwargs)
        self._by_itself = len(chain) == 1 or (own != AdamW() and self.optimizer is None)
        self._waiting: list[Any] = []
        self._steer, self._steer_loader = steer_dataset, None  # type: Any, Any
        self._refuse(chain)
        self._refuse_what_is_said_twice(chain, typed)

    # --- what the Trainer calls ---

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The rule around the optimizer of the arguments, or by itself."""
        if self.optimizer is not None and self.rule_optimizer is not None:  # of a training before
            return self.optimizer
        moved: Any = self.model if model is None else model
        within = None if self._by_itself else super().create_optimizer(model)
        clip = self.args.max_grad_norm if self._looks and self.args.max_grad_norm > 0 else None
        self.rule_optimizer = _Optimizer(self.rule, moved, within, clip=clip, seed=self.args.seed)
        own = getattr(_chain(self.rule)[-1], "lr", None)
        if self._by_itself and own is not None:
            self.rule_optimizer.start_at(self.args.learning_rate, own)
        self.optimizer = self.rule_optimizer
        return self.optimizer

    def get_train_dataloader(self) -> Any:
        """The Trainer's own. Raises UserError where the end of an epoch cannot be cut into the rule's microbatches."""
        self._require_parts()
        return super().get_train_dataloader()

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> Any:
        """The Trainer's own: a step begins."""
        self._waiting = []
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Batches wait for the last one of their step, which answers all that the rule asks."""
        if not self._looks:
            loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
            return loss
        model.train()
        self._waiting.append(self._prepare_inputs(inputs))
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        optimizer = self.rule_optimizer
        assert optimizer is not None
        batches, self._waiting = tuple(self._waiting), []
        steer = self._steer_batch(optimizer.number) if self.rule.steers else None
        for look in optimizer.looks(*batches, steer=steer):
            with self.compute_loss_context_manager():
                loss = self._loss(model, look, (steer,) if look.steer else batches)
            look.backward(loss)
        optimizer.made = True
        return torch.tensor(optimizer.loss, device=self.args.device)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's own, of the weights that stand for the model."""
        if self.rule_optimizer is None:
            return super().evaluation_loop(*args, **kwargs)
        with self.rule_optimizer.judged():
            return super().evaluation_loop(*args, **kwargs)

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """Of rules that look more than once there is no one gradient whose norm could be reported."""
        return None if self._looks else super()._get_grad_norm(*args, **kwargs)  # type: ignore[no-untyped-call]

    # --- how it works ---

    @property
    def _looks(self) -> bool:
        return not isinstance(self.rule, BaseRule)

    def _loss(self, model: nn.Module, look: Look, batches: tuple[Any, ...]) -> Tensor:
        """The mean over all targets of the look's part, of which this look is one batch."""
        together = pieces(batches, look.parts)[look.part]
        _, targets = super().get_batch_samples(iter(together), len(together), self.args.device)
        loss: Any = self.compute_loss(model, dict(look.batch), num_items_in_batch=targets)
        scaled = getattr(self, "loss_is_scaled_for_ga", None)
        if scaled is None:
            scaled = (self.model_accepts_loss_kwargs and targets is not None) or self.compute_loss_func is not None
        mean: Tensor = loss / look.weight if scaled else loss  # else it is the mean of these rows, not a share of it
        return mean

    def _steer_batch(self, number: int) -> Any:
        """Rows that steer, drawn by the number of the step alone, so that a resumed training draws the same."""
        if self._steer_loader is None:
            self._steer_loader = self.get_eval_dataloader(self._steer)
        data, collate = self._steer_loader.dataset, self._steer_loader.collate_fn
        generator = torch.Generator().manual_seed(seed_for(self.args.seed, f"steer {number}"))
        drawn = torch.randperm(len(data), generator=generator)[: self.args.train_batch_size]
        return self._prepare_inputs(collate([data[i] for i in sorted(drawn.tolist())]))

    # --- what is refused ---

    def _refuse(self, chain: list[Rule]) -> None:
        args, name = self.args, self.rule.name
        if args.fp16:
            raise UserError("fp16 needs a gradient scaler, which rules in a Trainer do not know: use bf16=True")
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise UserError("rules need all weights in each process: no DeepSpeed or FSDP, but LoRA or a smaller model")
        if self._looks and (args.world_size > 1 or args.n_gpu > 1):
            raise UserError(
                f"{name} looks more than once, which needs one process with one device; several can agree by "
                "crevasse.integrations.ddp.AgreementHook in a loop of yours"
            )
        averages = [r.name for r in chain if type(r).judged not in (Rule.judged, Around.judged)]
        if averages and args.load_best_model_at_end:
            raise UserError(
                f"{averages[0]} is judged by other weights than those that move and are saved: no "
                "load_best_model_at_end"
            )
        if self.rule.steers != (self._steer is not None):
            given = "needs rows that steer: steer_dataset=" if self.rule.steers else "asks for no steer_dataset"
            raise UserError(f"{name} {given}")
        if self._steer is not None:
            if not (hasattr(self._steer, "__len__") and hasattr(self._steer, "__getitem__") and len(self._steer)):
                raise UserError("steer_dataset must have rows and a length: a dataset, not a stream")
            if hasattr(self.train_dataset, "__len__"):
                try:
                    _refuse_overlap(self.train_dataset, self._steer, self.processing_class)
                except UserError as e:
                    raise UserError(str(e).replace("held-out rows", "rows of steer_dataset")) from None

    def _refuse_what_is_said_twice(self, chain: list[Rule], typed: bool) -> None:
        """typed: the rate stands in the text of the rule, be it the default."""
        args, own, usual = self.args, chain[-1], _default_base(chain)
        rate, decay = getattr(own, "lr", None), getattr(own, "decay", 0.0)
        if self.optimizer is not None and len(chain) == 1:
            raise UserError(f"{own.name} is itself what moves the weights: leave optimizers= out")
        if self.optimizer is not None and (typed or own not in (usual, AdamW())):
            raise UserError(
                f"the base of {self.rule.name} is your own optimizer: leave {own.name} and its settings out"
            )
        said = typed or rate not in (getattr(type(own)(), "lr", None), getattr(usual, "lr", rate))
        if said and rate != args.learning_rate:
            raise UserError(
                f"the learning rate is {rate:g} in the rule and {args.learning_rate:g} in the arguments: say it in "
                "the arguments, where the schedule is"
            )
        if self._by_itself and args.weight_decay and args.weight_decay != decay:
            raise UserError(
                f"weight_decay of the arguments is {args.weight_decay:g}, but {own.name} moves by itself with "
                f"decay {decay:g}: say it in the rule"
            )

    def _require_parts(self) -> None:
        args, parts = self.args, self.rule.microbatches()
        if parts == 1 or not hasattr(self.train_dataset, "__len__"):
            return
        rows, size = len(self.train_dataset), args.train_batch_size  # type: ignore[arg-type]
        batches = rows // size if args.dataloader_drop_last else math.ceil(rows / size)
        if 0 < args.max_steps < math.ceil(batches / args.gradient_accumulation_steps):
            return  # the end of an epoch is never seen
        cut = parts // math.gcd(batches % args.gradient_accumulation_steps or args.gradient_accumulation_steps, parts)
        last = size if args.dataloader_drop_last else rows % size or size
        if last < cut:
            raise UserError(
                f"the last batch of an epoch has {last} rows, which {self.rule.name} would have to cut into {cut}: "
                "set dataloader_drop_last=True"
            )


def _chain(rule: Rule) -> list[Rule]:
    """A rule, its base, and so on."""
    base = getattr(rule, "base", None)
    return [rule] if base is None else [rule, *_chain(base)]


def _default_base(chain: list[Rule]) -> Rule | None:
    """What would be innermost if nothing were said; None for a rule that has no base."""
    if len(chain) == 1:
        return None
    return next((f.default for f in fields(chain[-2]) if f.name == "base"), None)  # type: ignore[arg-type, return-value]
