"""Middles, tests and corrections over seeds, against scipy and closed forms (`score`: probes/test_lockstep.py)."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, permutation_test, trim_mean

from crevasse.errors import UserError
from crevasse.stats import holm, iqm, iqm_score, paired

values = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30)


@given(values)
def test_the_interquartile_mean_is_the_trimmed_mean_of_each_value_four_times(x):
    """Written four times each, the values have whole quarters: scipy then cuts off exactly these."""
    assert iqm(x) == pytest.approx(trim_mean(np.repeat(x, 4), 0.25), abs=1e-9)
    if len(x) % 4 == 0:
        assert iqm(x) == pytest.approx(trim_mean(x, 0.25), abs=1e-9)


def test_the_outer_quarters_do_not_count():
    assert iqm([-1e9, 1.0, 2.0, 1e9]) == 1.5
    assert iqm([1e9, 1.0, 0.0]) == pytest.approx((0.25 * 0 + 1 + 0.25 * 1e9) / 1.5)
    assert iqm([3.0]) == 3.0
    with pytest.raises(UserError, match="at least one"):
        iqm([])


def test_its_interval_is_the_percentile_bootstrap():
    assert iqm_score([None]) is None
    assert iqm_score([0.3, None]) == {"mean": 0.3, "low": 0.3, "high": 0.3, "n": 1}
    many = np.random.default_rng(0).normal(size=40)
    ours = iqm_score([*many, None])
    theirs = bootstrap(
        (many,), lambda x, axis: trim_mean(x, 0.25, axis=axis), method="percentile", random_state=1
    ).confidence_interval
    assert (ours["mean"], ours["n"]) == (pytest.approx(trim_mean(many, 0.25)), 40)
    assert (ours["low"], ours["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.03)
    few = [0.1, 0.4, 0.35, 0.8]  # all 256 resamples, each its own trimmed mean
    means = np.sort([trim_mean(c, 0.25) for c in itertools.product(few, repeat=4)])
    assert (iqm_score(few)["low"], iqm_score(few)["high"]) == pytest.approx((means[6], means[249]))


@pytest.mark.parametrize("n", [2, 3, 5, 9, 12])
@pytest.mark.parametrize("shift", [0.0, 0.4, -2.0])
def test_pairs_are_compared_as_scipy_does_by_all_sign_flips(n, shift):
    a, b = np.random.default_rng(n).normal(size=(2, n))
    ours = paired(a + shift, b)
    theirs = permutation_test(
        (a + shift, b), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", vectorized=True,
        n_resamples=2**n,
    )  # fmt: skip
    assert ours == {"difference": pytest.approx(theirs.statistic), "p": pytest.approx(theirs.pvalue), "n": n}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=1, max_size=8))
def test_ties_are_counted_as_on_paper(pairs):
    """Tenths, whose sums in floating point differ in their last bits, against fractions."""
    d = [Fraction(x - y, 10) for x, y in pairs]
    flips = [
        abs(sum(s * v for s, v in zip(signs, d, strict=True))) for signs in itertools.product((1, -1), repeat=len(d))
    ]
    found = paired([x / 10 for x, _ in pairs], [y / 10 for _, y in pairs])
    assert found["p"] == sum(f >= abs(sum(d)) for f in flips) / len(flips)


def test_five_seeds_cannot_reach_a_twentieth_and_six_can():
    assert paired([9.0, 8.0, 9.5, 7.0, 8.0], [0.0] * 5)["p"] == 2 / 32
    assert paired([9.0, 8.0, 9.5, 7.0, 8.0, 9.0], [0.0] * 6)["p"] == 2 / 64
    assert paired([1.0, 2.0], [1.0, 2.0]) == {"difference": 0.0, "p": 1.0, "n": 2}


def test_many_pairs_are_drawn_and_never_give_nothing():
    a, b = np.random.default_rng(0).normal(size=(2, 17))
    flips = np.array(list(itertools.product((1.0, -1.0), repeat=17))) @ (a - b)
    exact = (np.abs(flips) >= abs((a - b).sum()) - 1e-12).mean()
    assert paired(a, b)["p"] == pytest.approx(exact, abs=5 * (exact * (1 - exact) / 10_000) ** 0.5)
    assert paired(a, b) == paired(a, b)
    assert paired(np.arange(1, 60), np.zeros(59))["p"] == 1e-4


@pytest.mark.parametrize("pair", [([1.0], [1.0, 2.0]), ([], []), ([float("nan")], [1.0])])
def test_what_is_no_pairs_is_refused(pair):
    with pytest.raises(UserError):
        paired(*pair)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1) | st.sampled_from([0.01, 0.02, 0.5]), max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p):
    """A hypothesis falls where every set of hypotheses that holds it falls, by the smallest p times the set's size."""
    sets = [s for k in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), k)]
    closed = [max(min(1, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(len(p))]
    assert holm(p) == pytest.approx(closed)


@pytest.mark.parametrize("p", [[1.1], [-0.1, 0.5], [float("nan")]])
def test_what_is_no_p_value_is_refused(p):
    with pytest.raises(UserError, match="between 0 and 1"):
        holm(p)
