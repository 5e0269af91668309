"""What is minimised: the loss at each target."""

import torch
from torch import Tensor
from torch.nn import functional as F

#: A target of this value carries no loss, as in torch.
IGNORED = -100


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """−log softmax at the target. logits (target, token), targets (target,) -> (target,), in nats"""
    return F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED)


def stablemax_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The same with s(x) = x + 1 for x ≥ 0 and 1/(1 − x) below in the place of exp (Prieto et al. 2025, StableMax).

    It grows no faster than its argument, so that float32 does not round the loss of a fitted example to zero.
    logits (target, token), targets (target,), IGNORED where there is no loss -> (target,), in nats
    """
    # Each branch is kept off the other's ground, or its infinite slope there would make NaN of a zero.
    grown = torch.where(logits >= 0, logits.clamp(min=0) + 1, 1 / (1 - logits.clamp(max=0)))
    wanted = targets != IGNORED
    right = grown.gather(1, torch.where(wanted, targets, 0)[:, None])[:, 0]
    return torch.where(wanted, grown.sum(1).log() - torch.where(wanted, right, 1).log(), 0)
