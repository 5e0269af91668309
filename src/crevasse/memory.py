"""How much memory a trial needs, counted before it starts."""

from dataclasses import dataclass
from pathlib import Path

import torch

from crevasse.errors import UserError
from crevasse.models.base import Needs
from crevasse.rules import Layout, Rule

_GIB = 2**30


@dataclass(frozen=True)
class Estimate:
    """Bytes, by what they hold."""

    weights: int
    gradients: int
    state: int  # the rule's, and the new weights before they replace the old
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.state + self.activations

    def __str__(self) -> str:
        parts = (("weights", self.weights), ("gradients", self.gradients), ("update rule", self.state),
                 ("activations", self.activations))  # fmt: skip
        shares = ", ".join(f"{name} {gib(size)}" for name, size in parts)
        return f"needs about {gib(self.total)} GiB of memory ({shares})"


def gib(size: int) -> str:
    """Bytes as GiB with one digit."""
    return f"{size / _GIB:.1f}"


def state_of(rule: Rule, size: int) -> int:
    """Bytes that a rule remembers about so many weights. It is asked with weights that have a shape but no storage."""
    state = rule.init(torch.empty(size, device="meta"), Layout.flat(size))
    return sum(t.numel() * t.element_size() for t in state.values())


def estimate(needs: Needs, rule: Rule) -> Estimate:
    """What training needs."""
    trained, held = 4 * needs.trained, state_of(rule, needs.trained)
    k = rule.microbatches()
    # One is added up and one is handed out; k of them are there one by one and stacked.
    gradients = trained * (2 if k == 1 else 2 * k + 1)
    return Estimate(4 * needs.weights, gradients, held + 2 * trained, needs.activations)


def available() -> int:
    """Bytes that this process may still take: what the machine has left, or its group of processes."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):
            continue  # no such group, or no limit
    return free


def keep_pages() -> None:
    """Tell glibc to keep freed blocks of up to 32 MB, the largest that it can keep, for the next step.

    Otherwise every activation is memory that the kernel has to clear first; in a fine-tune of 135 M parameters half of
    the time went into that, in a stack of small cells a sixth. Elsewhere than on glibc nothing happens.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_threshold = -1, -3  # as in malloc.h
    mallopt(mmap_threshold, 32 * 2**20)
    mallopt(trim_threshold, 2 * 2**30 - 1)


def exhausted(error: BaseException) -> bool:
    """Does an error say that there was no memory left? torch has no type of its own for that on a CPU."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in said or "out of memory" in said)
    )


def peak() -> int:
    """The most bytes that this process has held so far."""
    import resource
    import sys

    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else 1024 * found


def require_memory(found: Estimate, free: int) -> None:
    """Raises UserError where there is less memory than a trial needs."""
    if found.total > free:
        raise UserError(
            f"this trial {found}, but {gib(free)} GiB are free; less memory: a smaller chunk, checkpointing=true or "
            "lora=16 of the model, a rule with less state"
        )
