"""Several processes that train one trial together, as torchrun and `accelerate launch` start them.

Each has the whole model and a share of every batch; gradients are summed, so all take the same step. The first
process alone writes. With one process, which is the normal case, nothing here does anything.
"""

import atexit
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from crevasse.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Is this the one that writes and speaks?"""
        return self.rank == 0

    def share(self, rows: "Tensor") -> "Tensor":
        """This process' part of some rows."""
        return rows[self.rank :: self.size]

    def sum(self, x: "Tensor") -> "Tensor":
        """The sum over all processes; x is overwritten."""
        if self.size > 1:
            import torch.distributed

            torch.distributed.all_reduce(x)
        return x

    def agree(self, decide: Callable[[], T]) -> T:
        """What the first process decides, in all of them; a UserError there is one everywhere."""
        if self.size == 1:
            return decide()
        import torch.distributed

        box: list[object] = [None]
        if self.first:
            try:
                box = [decide()]
            except UserError as e:
                box = [e]
        torch.distributed.broadcast_object_list(box)
        if isinstance(box[0], UserError):
            raise box[0]
        return box[0]  # type: ignore[return-value]


def is_first() -> bool:
    """Is this the process that speaks? Known from the environment, before anything is imported or joined."""
    return not several() or os.environ.get("RANK", "0") == "0"


def several() -> bool:
    """Did a launcher start more than one process?"""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def world() -> World:
    """The processes that the launcher started, or this one alone. Raises UserError if they do not find each other.

    They join once and stay together to the end, whatever number of trials they train.
    """
    if not several():
        return World()
    import torch.distributed

    size = int(os.environ["WORLD_SIZE"])
    if not torch.distributed.is_initialized():
        on_gpu = torch.cuda.is_available()
        if on_gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        try:
            torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
        except (ValueError, RuntimeError) as e:
            raise UserError(f"the {size} processes did not find each other ({str(e).splitlines()[0]})") from None
        atexit.register(torch.distributed.destroy_process_group)
    return World(torch.distributed.get_rank(), size)
