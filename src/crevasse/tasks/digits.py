"""Real data: handwritten digits, whose rule nobody has written down.

The test set of Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI), as scikit-learn carries it.
Who wrote which image is not told there, so the same hand may stand on both sides of a split.
"""

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from crevasse.spec import Sizes
from crevasse.tasks.base import Bools, Facts, Input, Ints, Solution, Task

SIDE, SHADES = 8, 17


@dataclass(frozen=True)
class Digits(Task):
    """The digit in one of scikit-learn's 1797 handwritten images: 8 rows of 8 pixels, 0 for paper to 16 for ink."""

    name: ClassVar[str] = "digits"
    facts: ClassVar[Facts] = Facts(recursive=False, closed_form="none known", depth="not known", control="none")
    symmetries: ClassVar[str | None] = None
    splits: ClassVar[str] = "R"

    @property
    def train_sizes(self) -> Sizes:
        return Sizes((SIDE * SIDE,))

    @property
    def symbols(self) -> int:
        return SHADES

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Input("pixels", range(SHADES), sequence=True),)

    @property
    def answer_count(self) -> int | None:
        return 10

    def valid(self, x: Ints) -> Bools:
        return np.array([tuple(row) in _labels() for row in x.tolist()], bool)

    def count(self, sizes: Sizes) -> int:
        return len(_labels())

    def every(self, sizes: Sizes) -> Ints:
        return np.array(list(_labels()))

    def sample(self, rng: np.random.Generator, count: int, sizes: Sizes) -> Ints:
        return rng.choice(self.every(sizes), count)

    def solve(self, x: Ints, rounded: bool = False) -> Solution:
        """Raises KeyError for an image that is not in the set."""
        answers = np.array([_labels()[tuple(row)] for row in x.tolist()], np.int64)
        return Solution(answers[:, None], None, None)


@functools.cache
def _labels() -> dict[tuple[int, ...], int]:
    """Each image, row by row, and its digit."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    images, digits = load_digits(return_X_y=True)
    return dict(zip(map(tuple, images.astype(int).tolist()), digits.tolist(), strict=True))
