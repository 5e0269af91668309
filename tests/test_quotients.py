"""How much of a product was found: quotients of groups, and models that answer the right coset and no more."""

import numpy as np
import pytest
import torch
from sympy.combinatorics.named_groups import AlternatingGroup, DihedralGroup, SymmetricGroup

from crevasse.api import make_config
from crevasse.errors import UserError
from crevasse.quotients import quotient_scores, quotients
from crevasse.solutions import constructed, product_of
from crevasse.tasks import parse_task


def table_of(group):
    """Multiplication of a group of sympy's."""
    elements = list(group.elements)
    place = {e: i for i, e in enumerate(elements)}
    return np.array([[place[a * b] for b in elements] for a in elements])


@pytest.mark.parametrize(
    ("group", "orders"),
    [
        (SymmetricGroup(3), [2]),
        (SymmetricGroup(4), [2, 6]),
        (SymmetricGroup(5), [2]),
        (AlternatingGroup(4), [3]),
        (AlternatingGroup(5), []),
        (DihedralGroup(6), [2, 4, 6]),
    ],
)
def test_the_quotients_are_those_of_the_normal_subgroups(group, orders):
    table = table_of(group)
    found = quotients(table)
    assert list(found) == orders
    for order, coset in found.items():
        assert sorted(set(coset)) == list(range(order))
        assert np.bincount(coset).tolist() == [len(table) // order] * order
        # A homomorphism: the coset of a product is told by the cosets.
        product = {}
        for a in range(len(table)):
            for b in range(len(table)):
                assert product.setdefault((coset[a], coset[b]), coset[table[a, b]]) == coset[table[a, b]]


def test_residues_have_a_quotient_for_each_divisor():
    table, numbers = product_of(parse_task("iterated-product:p=13"))
    assert list(quotients(table)) == [2, 3, 4, 6]
    squares = {x * x % 13 for x in range(1, 13)}
    sign = quotients(table)[2]
    assert {frozenset(numbers[sign == s].tolist()) for s in (0, 1)} == {
        frozenset(squares), frozenset(range(1, 13)) - frozenset(squares)
    }  # fmt: skip


def test_a_model_is_scored_by_the_cosets_of_its_answers(monkeypatch):
    config = make_config("iterated-product:p=7,T=1-3,beyond=4", "direct", "bilinear", "adamw", train=50, held_out=99)
    assert quotient_scores(config, constructed(config)) == {2: 1.0, 3: 1.0}
    table, numbers = product_of(config.task)
    coset = dict(zip(numbers.tolist(), quotients(table)[3].tolist(), strict=True))
    draw = np.random.default_rng(0)

    def within(judge, split):
        """Answers of the right coset of two, and nothing within it."""
        truth = judge.data.split(split)[1].solution.answers[:, 0].astype(int)
        return [[int(draw.choice([v for v in coset if coset[v] == coset[t]]))] for t in truth]

    monkeypatch.setattr("crevasse.quotients.Judge.answers", within)
    scores = quotient_scores(config, constructed(config))
    assert scores[3] == 1.0 and 0.3 < scores[2] < 0.7

    def silent(judge, split):
        return [None] * len(judge.data.split(split)[1])

    monkeypatch.setattr("crevasse.quotients.Judge.answers", silent)
    assert quotient_scores(config, constructed(config)) == {2: 0.0, 3: 0.0}


def test_what_is_no_product_is_refused():
    config = make_config("factorial-mod", "direct", "bilinear", "adamw")
    with pytest.raises(UserError, match="no weights are known by formula"):
        quotient_scores(config, torch.zeros(1))
