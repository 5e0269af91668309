"""The lattice of scopes against sets of events."""

import itertools

import numpy as np
import pytest

from crevasse.errors import UserError
from crevasse.lessons.scopes import NOTHING, Scope, describe, draw, finer, mask, scope_at, scopes, thesis_scopes


def test_scopes_are_all_products_of_the_values_chains(restaurant, incident):
    found = scopes(restaurant, incident)
    chains = [a.paths[v] for a, v in zip(restaurant.attributes, incident, strict=True)]
    assert found[0] == NOTHING and {s.nodes for s in found[1:]} == {*itertools.product(*chains)}
    assert len(found) == 1 + 5 * 3 * 3 * 4


def test_a_scope_holds_the_events_whose_values_are_all_of_its_kinds(restaurant, incident):
    for scope in scopes(restaurant, incident)[1::7]:
        by_hand = [
            all(node in a.paths[v] for a, v, node in zip(restaurant.attributes, event, scope.nodes, strict=True))
            for event in restaurant.events[::11]
        ]
        assert (mask(restaurant, scope)[::11] == by_hand).all()
        assert mask(restaurant, scope)[restaurant.index(incident)]


def test_finer_is_an_order_and_goes_with_the_sets(tiny):
    found = {*itertools.chain(*(scopes(tiny, tiny.at(i)) for i in range(tiny.size)))}
    for a, b in itertools.product(found, repeat=2):
        if finer(tiny, a, b):
            assert not (mask(tiny, a) & ~mask(tiny, b)).any()
            assert a == b or not finer(tiny, b, a)
        # Every kind here has two members or more, so that the order is that of the sets.
        assert finer(tiny, a, b) == (not (mask(tiny, a) & ~mask(tiny, b)).any())
    for a, b, c in itertools.product(found, repeat=3):
        assert finer(tiny, a, c) or not (finer(tiny, a, b) and finer(tiny, b, c))


def test_two_scopes_of_an_event_have_one_that_is_just_above_and_one_just_below(restaurant, incident):
    """Levels taken apart by max and min: the intersection of the sets is the lower one's."""
    for x, y in [((4, 0, 2, 0), (2, 1, 0, 3)), ((0, 2, 0, 1), (3, 0, 0, 3))]:
        low = scope_at(restaurant, incident, tuple(map(max, x, y)))
        high = scope_at(restaurant, incident, tuple(map(min, x, y)))
        a, b = (scope_at(restaurant, incident, shape) for shape in (x, y))
        assert (mask(restaurant, low) == (mask(restaurant, a) & mask(restaurant, b))).all()
        assert all(finer(restaurant, s, high) and finer(restaurant, low, s) for s in (a, b))


def test_the_ten_scopes_of_the_thesis(restaurant, incident):
    ten = thesis_scopes(restaurant, incident)
    assert [describe(restaurant, scope) for scope in ten] == [
        "no lesson",
        "IHOP on Main Street, Saturday, 1 pm, Francois",
        "IHOP, Saturday, 1 pm, Francois",
        "IHOP, always and with anybody",
        "pancake restaurant, always and with anybody",
        "restaurant, always and with anybody",
        "Saturday, 1 pm, Francois, everywhere",
        "Francois, always and everywhere",
        "tennis club, always and everywhere",
        "person, always and everywhere",
    ]
    chains = [(1, 2, 3, 4, 5), (1, 6, 7, 8, 9)]  # each within the next
    for chain in chains:
        assert all(finer(restaurant, ten[i], ten[j]) for i, j in itertools.pairwise(chain))
    assert not finer(restaurant, ten[7], ten[5]) and not finer(restaurant, ten[5], ten[7])
    alone = ten[9].nodes[3]
    assert not mask(
        restaurant, Scope(("any", "any", "any", alone))
    ).all()  # all people are not all there is: one may be alone


def test_augmentation_reaches_the_whole_scope_and_nothing_else(restaurant, incident):
    scope = thesis_scopes(restaurant, incident)[6]
    drawn = draw(restaurant, scope, 4000, np.random.default_rng(0))
    counts = np.bincount(drawn, minlength=restaurant.size)
    held = mask(restaurant, scope)
    assert counts[~held].sum() == 0
    # Uniform: 16 events, 250 each, six standard deviations.
    assert np.abs(counts[held] - 250).max() < 6 * np.sqrt(250)
    with pytest.raises(UserError, match="no events"):
        draw(restaurant, NOTHING, 1, np.random.default_rng(0))


def test_a_world_of_other_attributes_has_no_thesis_scopes(tiny):
    with pytest.raises(UserError, match="no attribute 'day'"):
        thesis_scopes(tiny, (0, 0))
    assert describe(tiny, Scope(("cafe", "any"))) == "cafe, with anybody"
