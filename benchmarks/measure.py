"""Timing in pairs: what is compared runs in turn, A B A B …, so that a drifting machine touches both alike."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratios(a: Callable[[], object], b: Callable[[], object], rounds: int = 9, inner: int = 1) -> list[float]:
    """Time of a over time of b, pair by pair, after one warm-up of each."""
    a()
    b()
    found = []
    for _ in range(rounds):
        first = sum(seconds(a) for _ in range(inner))
        found.append(first / sum(seconds(b) for _ in range(inner)))
    return found


@dataclass(frozen=True)
class Figure:
    """One line of a benchmark: name, median, spread (lowest and highest), and the goal if there is one."""

    name: str
    values: list[float]
    goal: str | None

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        goal = f"goal {self.goal}" if self.goal else ""
        return f"{self.name:<64} {self.value:8.2f}  [{min(self.values):.2f}–{max(self.values):.2f}]  {goal}".rstrip()


def product_rate(size: int = 512, times: int = 40) -> float:
    """Multiplications and additions a second of this machine's own float32 matrix product, now."""
    a = torch.randn(size, size)
    a @ a
    return times * 2 * size**3 / seconds(lambda: [a @ a for _ in range(times)])
