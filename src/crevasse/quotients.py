"""How much of a product in a group a model has found: perhaps not the product, but which coset it lies in.

A homomorphism onto a quotient of the group is a rule too, a coarser one. A model that answers each product with any
element of the right coset has found that quotient and nothing within the coset.
"""

import functools
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from crevasse.config import TrialConfig
from crevasse.documents import Data
from crevasse.judgement import Judge
from crevasse.solutions import product_of

Ints = NDArray[np.int64]


def quotients(table: Ints) -> dict[int, Ints]:
    """The proper quotients of a finite group: order -> the number of the coset of each element, (element,).

    table: (element, element) left times right. Normal subgroups are looked for among those that one or two classes of
    conjugates generate; of several quotients of one order the first is kept.
    """
    size = len(table)
    identity = int(np.flatnonzero((table == np.arange(size)).all(1))[0])
    inverse = np.argwhere(table == identity)[:, 1]
    classes = {frozenset(table[table[np.arange(size), x], inverse].tolist()) for x in range(size)}
    pairs = [a | b for a, b in combinations(sorted(classes, key=sorted), 2)]
    found: dict[int, Ints] = {}
    for kernel in {_generated(table, some | {identity}) for some in (*classes, *pairs)}:
        order = size // len(kernel)
        if 1 < order < size:
            cosets = np.sort(table[:, sorted(kernel)], axis=1)  # (element, element of the kernel)
            found.setdefault(order, np.unique(cosets, axis=0, return_inverse=True)[1].reshape(-1))
    return dict(sorted(found.items()))


def _generated(table: Ints, some: frozenset[int]) -> frozenset[int]:
    """The closure under the product."""
    while True:
        more = frozenset(np.unique(table[np.ix_(sorted(some), sorted(some))]).tolist())
        if more <= some:
            return some
        some |= more


def quotient_scores(config: TrialConfig, weights: Tensor, split: str = "random") -> dict[int, float]:
    """Of each proper quotient, by its order, the share of a split's answers that lie in the right coset.

    weights: (weight,) of the config's model. What guessing reaches is one over the order. Raises UserError for a task
    that is no product in a group.
    """
    table, numbers = product_of(config.task)
    data = Data(config)
    with torch.random.fork_rng(devices=[]):
        model = config.model.build(data.script.size, data.context, data.silent)
    vector_to_parameters(weights, model.parameters())
    said = Judge(config, data, model).answers(split)
    element = {int(number): i for i, number in enumerate(numbers)}
    truth = [element[int(a)] for a in data.split(split)[1].solution.answers[:, 0]]
    answered = [element.get(a[0]) if a is not None and len(a) == 1 else None for a in said]
    pairs = list(zip(answered, truth, strict=True))
    return {
        order: float(np.mean([a is not None and coset[a] == coset[t] for a, t in pairs]))
        for order, coset in _of(table.tobytes(), len(table)).items()
    }


@functools.cache
def _of(table: bytes, size: int) -> dict[int, Ints]:
    return quotients(np.frombuffer(table, dtype=np.int64).reshape(size, size))
