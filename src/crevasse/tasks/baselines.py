"""Three learners that learn nothing: what a score has to beat before it means anything."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crevasse.tasks.base import BLANK, Ints
from crevasse.tasks.splits import Problems, numbered

NonLearner = Literal["majority", "lookup", "nearest"]
NON_LEARNERS: tuple[NonLearner, ...] = ("majority", "lookup", "nearest")


def non_learner_scores(train: Problems, test: Problems, limit: int = 500) -> dict[NonLearner, float]:
    """Exact match of the majority answer, of a table of the training set, and of the nearest training input.

    The table answers with the majority where an input is not in it. Nearest counts differing columns and,
    among equals, adds up distances. At most `limit` test problems are looked up.
    """
    answers, test_answers = _codes(train.solution.answers, test.solution.answers)
    x, queries, test_answers = train.x, test.x[:limit], test_answers[:limit]
    majority = np.bincount(answers).argmax()
    nearest, differing = _nearest(x, queries)
    looked_up = np.where(differing == 0, answers[nearest], majority)
    return {
        "majority": float((test_answers == majority).mean()),
        "lookup": float((test_answers == looked_up).mean()),
        "nearest": float((test_answers == answers[nearest]).mean()),
    }


def _codes(train: Ints, test: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    number = numbered(np.concatenate([train, test]))
    return number[: len(train)], number[len(train) :]


def _nearest(x: Ints, queries: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row of the nearest training input and the number of columns in which it differs, for each query."""
    width = max(x.shape[1], queries.shape[1])
    x, queries = (np.pad(v, ((0, 0), (0, width - v.shape[1])), constant_values=BLANK) for v in (x, queries))
    columns = np.ascontiguousarray(x.T)
    rows, differing = [], []
    for q in queries:
        count = np.zeros(len(x), np.int16)
        for column, value in zip(columns, q, strict=True):
            count += column != value
        near = np.flatnonzero(count == count.min())
        distance = np.abs((x[near] - q).astype(np.float64)).sum(1)
        rows.append(near[distance.argmin()])
        differing.append(count.min())
    return np.array(rows), np.array(differing)
