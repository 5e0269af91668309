"""The lockstep score against closed forms and a fine numerical integral."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crevasse.probes import lockstep, memorising_share, progress, step_ratios
from crevasse.stats import score

L0 = 2.5


def losses_of(values):
    return [L0 * (1 - v) for v in values]


def test_in_step_is_one():
    s = np.linspace(0, 1, 7)
    assert lockstep(losses_of(s), losses_of(s), L0).score == pytest.approx(1.0)


def test_memory_alone_is_zero_and_worse_than_the_uniform_guess_is_negative():
    s = np.linspace(0, 1, 7)
    assert lockstep(losses_of(s), losses_of(0 * s), L0).score == pytest.approx(0.0)
    assert lockstep(losses_of(s), losses_of(-3 * s), L0).score == pytest.approx(-3.0)


def test_held_out_that_follows_late_scores_the_area_of_its_triangle():
    s, h = [0, 0.5, 1.0], [0, 0, 1.0]
    assert lockstep(losses_of(s), losses_of(h), L0).score == pytest.approx(2 * (0.5 * 0.5 * 1.0))


def test_grokking_after_training_has_ended_does_not_count():
    early = lockstep(losses_of([0, 1.0]), losses_of([0, 0.0]), L0).score
    late = lockstep(losses_of([0, 1.0, 1.0, 1.0]), losses_of([0, 0.0, 0.5, 1.0]), L0).score
    assert early == late == pytest.approx(0.0)


def test_going_back_and_coming_again_counts_once():
    s, h = [0, 0.6, 0.2, 0.6, 1.0], [0, 0.6, 0.1, 0.6, 1.0]
    assert lockstep(losses_of(s), losses_of(h), L0).score == pytest.approx(1.0)


def test_a_model_that_never_learns_has_no_score_and_a_small_one_is_marked():
    none = lockstep([L0, L0 + 1], [L0, L0], L0)
    assert none.score is None
    assert not none.learned
    assert none.memorising is None
    little = lockstep(losses_of([0, 0.3]), losses_of([0, 0.3]), L0)
    assert little.score == pytest.approx(1.0)
    assert little.s_max == pytest.approx(0.3)
    assert not little.learned


def test_what_comes_after_a_loss_that_is_no_number_is_left_out():
    assert lockstep([L0, L0 / 2, np.nan, 0], [L0, L0 / 2, 1, 9], L0).s_max == pytest.approx(0.5)


def test_curves_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="different lengths"):
        lockstep([1.0], [1.0, 2.0], L0)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-2, 1)), min_size=1, max_size=12))
def test_the_score_is_the_integral_over_new_progress(points):
    s, h = np.array([0, *(p[0] for p in points)]), np.array([0, *(p[1] for p in points)])
    if s.max() < 0.05:
        return
    # Walk the polyline in small steps; add h·ds wherever s exceeds all that was before.
    top, area = 0.0, 0.0
    for i in range(len(s) - 1):
        for part in range(400):
            a, b = part / 400, (part + 1) / 400
            lower, upper = s[i] + a * (s[i + 1] - s[i]), s[i] + b * (s[i + 1] - s[i])
            if upper > top:
                middle = h[i] + (a + b) / 2 * (h[i + 1] - h[i])
                area += (upper - max(top, lower)) * middle
                top = upper
    got = lockstep(losses_of(s), losses_of(h), L0).score
    assert got == pytest.approx(2 * area / s.max() ** 2, abs=0.05 / s.max())


def test_memorising_updates_are_the_share_of_the_fall_bought_while_held_out_rose():
    train, held = [4.0, 3.0, 2.5, 2.6, 2.1], [4.0, 3.5, 3.9, 3.8, 3.9]
    # Falls 1.0 (held-out fell), 0.5 (rose), then a rise, then 0.5 (rose): one half of two.
    assert memorising_share(train, held) == pytest.approx(0.5)
    assert memorising_share([1.0, 2.0], [1.0, 1.0]) is None
    np.testing.assert_allclose(step_ratios(train, held), [0.5, -0.8, np.nan, -0.2])
    np.testing.assert_allclose(progress([L0, 0.0, 2 * L0], L0), [0, 1, -1])


def test_an_interval_over_seeds_is_the_percentile_bootstrap():
    from scipy.stats import bootstrap

    values = [0.1, 0.4, 0.35, 0.8]
    ours = score(values)
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=60_000, random_state=0).confidence_interval
    assert ours["mean"] == pytest.approx(np.mean(values))
    assert ours["n"] == 4
    assert (ours["low"], ours["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    many = list(np.random.default_rng(0).normal(size=40))
    ours, theirs = score(many), bootstrap((many,), np.mean, method="percentile", random_state=1).confidence_interval
    assert (ours["low"], ours["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_intervals_of_few_equal_and_missing_values():
    assert score([]) is None
    assert score([None]) is None
    assert score([0.3, None]) == {"mean": 0.3, "low": 0.3, "high": 0.3, "n": 1}
    three = score([0.0, 0.5, 1.0])
    assert (three["low"], three["mean"], three["high"]) == (0.0, 0.5, 1.0)
    equal = score([0.1] * 5)
    assert equal["low"] <= equal["mean"] <= equal["high"]
    assert equal["high"] - equal["low"] < 1e-12
