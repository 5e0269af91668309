"""Agreement across processes: the gradient of each is a microbatch, and they agree before anything is averaged.

`DistributedDataParallel` averages gradients as soon as they are there, which is what an agreement rule must prevent::

    model = DistributedDataParallel(model)
    agreement = AgreementHook("gaf", model)
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        if agreement.agreed:
            optimizer.step()
"""

import math
from dataclasses import dataclass, fields
from functools import reduce

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from crevasse.errors import UserError
from crevasse.rules import RULES, Layout, Part, Rule, Step
from crevasse.rules.agreement import Agreement
from crevasse.rules.transform import Around


@dataclass
class _Sent:
    """A bucket of gradients on its way to all processes."""

    pieces: list[tuple[Part, Tensor, int]]  # which parameter, and where in the bucket it begins
    mine: Tensor  # (number,) the bucket
    all: Tensor  # (process, number)
    work: dist.Work
    result: Future[Tensor]


class AgreementHook:
    """A communication hook: the gradient of every process becomes what the rule makes of all of them.

    rule: any that makes one gradient of several microbatches, as it is typed (``"gaf"``) or an object; k is the number
    of processes. Its base is left out, since the user's own optimizer moves the weights. model: the wrapped one; it
    can have one hook. seed: of what the rule draws, the same in all processes.

    Costs: the gradient is gathered, not summed: each process receives k − 1 vectors in the place of two, and keeps up
    to 2k of them, and nothing of that can be used while the backward pass still runs. Not for many processes with a
    large model: group them, or use `RuleOptimizer` within each.

    The mean loss of each process must be over as many rows: all gradients have the same say. Not within `model.join()`,
    and not with a gradient scaler: overflow of one process is an error here (bfloat16 needs no scaler).

    Raises UserError for a rule or a model that does not fit.
    """

    def __init__(self, rule: str | Rule, model: DistributedDataParallel, *, seed: int = 0) -> None:
        if not isinstance(model, DistributedDataParallel):
            raise UserError(f"an agreement hook needs a DistributedDataParallel, not a {type(model).__name__}")
        self.group = model.process_group
        self.processes = dist.get_world_size(self.group)
        if self.processes < 2:
            raise UserError("one process has nobody to agree with: use RuleOptimizer, which cuts the batch")
        self.rule = _agreement(rule, self.processes)
        named = [(name, p) for name, p in model.module.named_parameters() if p.requires_grad]
        if len({p.device for _, p in named}) > 1:
            raise UserError("the trained parameters of a process must be on one device")
        self.layout, self.seed = Layout.of(model.module), seed
        self.number = 0  # of the step, which counts for what is drawn; set it when you go on from a checkpoint
        self._parts = {id(p): part for part, (_, p) in zip(self.layout.parts, named, strict=True)}
        self._dtype = reduce(torch.promote_types, (p.dtype for _, p in named), torch.float32)
        self._agreed, self._error = math.nan, ""
        self._sent: list[_Sent] = []
        model.register_comm_hook(self, _receive)

    @property
    def agreed(self) -> float:
        """The share that the processes agreed on in the last backward pass, the same in all of them.

        At 0 the gradients are zero and no step should be made: an optimizer with momentum or decay would move all the
        same. Raises UserError, in all processes alike, if the gradient of one of them was not finite: gradients are
        zero then too, and where nobody asks, the next backward pass raises it.
        """
        self._complain()
        if math.isnan(self._agreed):
            raise UserError("nothing was agreed on yet: loss.backward(), outside of no_sync(), comes first")
        return self._agreed

    def send(self, bucket: GradBucket) -> Future[Tensor]:
        """Take a bucket of this process' gradients; the last one brings the decision."""
        self._complain()  # of the last pass, if nobody asked
        mine = bucket.buffer()
        starts = [int(g.storage_offset()) - int(mine.storage_offset()) for g in bucket.gradients()]
        pieces = [(self._parts[id(p)], p, start) for p, start in zip(bucket.parameters(), starts, strict=True)]
        gathered = mine.new_empty(self.processes, mine.numel())
        work = dist.all_gather(list(gathered), mine, group=self.group, async_op=True)
        result = _future(mine.device)
        self._sent.append(_Sent(pieces, mine, gathered, work, result))
        if bucket.is_last():
            self._decide()
        return result

    def _complain(self) -> None:
        """Raise what went wrong, once. In a backward pass itself it would leave the model unable to make another."""
        if self._error:
            said, self._error = self._error, ""
            raise UserError(said)

    @torch.no_grad()
    def _decide(self) -> None:
        """All buckets are on their way: wait for them, and let each go back with what was agreed on."""
        sent, self._sent = self._sent, []
        gradients = torch.zeros(
            self.processes, self.layout.size, dtype=self._dtype, device=sent[0].mine.device
        )  # zero: what no bucket holds
        for bucket in sent:
            bucket.work.wait()
            for part, p, start in bucket.pieces:
                for row, theirs in zip(gradients, bucket.all, strict=True):
                    part.of(row).copy_(_at(theirs, p, start))
            bucket.all = bucket.mine  # no longer needed: the memory is free for the next
        agreed = self._combined(gradients)
        for bucket in sent:
            decided = torch.zeros_like(bucket.mine)
            if agreed is not None:
                for part, p, start in bucket.pieces:
                    _at(decided, p, start).copy_(part.of(agreed))
            bucket.result.set_result(decided)

    def _combined(self, gradients: Tensor) -> Tensor | None:
        """What the rule makes of them; None where there is nothing. (process, parameter) -> (parameter,)"""
        step = Step(self.layout, number=self.number, seed=self.seed)
        self.number += 1
        finite = gradients.sum(1).isfinite()
        if not bool(finite.all()):
            finite = gradients.isfinite().all(1)  # a sum may overflow where no entry does
        if not bool(finite.all()):
            bad = ", ".join(str(i) for i, ok in enumerate(finite.tolist()) if not ok)
            self._error, self._agreed = f"the gradient of process {bad} is not finite: no step should be made", 0.0
            return None
        combined, self._agreed = self.rule.combine(gradients, step)
        return combined if self._agreed else None


def _receive(hook: AgreementHook, bucket: GradBucket) -> Future[Tensor]:
    return hook.send(bucket)


def _agreement(rule: str | Rule, processes: int) -> Agreement:
    """The rule for so many processes. Raises UserError for one that cannot be decided here."""
    if isinstance(rule, str):
        name = rule.partition(":")[0].strip()
        rule = RULES.parse(rule, k=processes) if issubclass(RULES.cls(name), Agreement) else RULES.parse(rule)
    if not isinstance(rule, Agreement):
        raise UserError(f"{rule.name} does not make one gradient of several: processes can agree by gaf and its like")
    if type(rule).update is not Agreement.update or type(rule).remember is not Around.remember:
        raise UserError(f"{rule.name} does more than make one gradient of several: use RuleOptimizer in one process")
    if rule.k != processes:
        raise UserError(f"k of {rule.name} is the number of processes, {processes}, not {rule.k}: leave it out")
    if rule.base != next(f.default for f in fields(rule) if f.name == "base"):
        raise UserError(f"{rule.name} has no base here, since your own optimizer moves the weights: leave it out")
    return rule


def _at(bucket: Tensor, p: Tensor, start: int) -> Tensor:
    """A parameter's share of a bucket, as a view: its entries lie there in the order in which its own lie in memory."""
    strides, size = p.stride(), 1
    for step, length in sorted((s, n) for s, n in zip(strides, p.shape, strict=True) if n > 1):
        if step != size:  # with gaps or overlaps: then they lie in the usual order
            strides = torch.empty(p.shape, device="meta").stride()
            break
        size *= length
    return bucket.as_strided(p.shape, strides, bucket.storage_offset() + start)


def _future(device: torch.device) -> Future[Tensor]:
    return Future(devices=None if device.type == "cpu" else [device])
