"""What makes one gradient of several: by properties, and against other implementations."""

import itertools

import numpy as np
import pytest
import torch
from gradient_agreement_filtering import step_GAF
from problem import Problem
from torch import nn
from torch.utils.data import Subset, TensorDataset
from torchjd._linalg import QuadprogProjector
from torchjd.aggregation import PCGrad, UPGrad

from crevasse.errors import UserError
from crevasse.rules import RULES, Layout, Step
from crevasse.rules.gaf import agreeing
from crevasse.rules.layout import Part

LAYOUT = Layout((Part("a.weight", 0, (3, 4), "matrix"), Part("a.bias", 12, (3,), "vector")))
SIZE = 15
UNORDERED = ["gaf:threshold=1.2", "gaf-sign", "and-mask", "and-mask:rescale=false", "median", "snr", "snr:per=entry",
             "upgrad"]  # fmt: skip
EVERY_AGREEMENT = [*UNORDERED, "pcgrad"]


def rule(text, k):
    return RULES.parse(f"{text}{',' if ':' in text else ':'}k={k}")


def combined(text, gradients, number=0):
    """What a rule makes of the gradients, by itself."""
    return rule(text, len(gradients)).combine(gradients, Step(LAYOUT, number=number, seed=3))


def gradients_of(k, seed, size=SIZE):
    return torch.randn(k, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("text", UNORDERED)
@pytest.mark.parametrize("k", [2, 3, 5, 8])
def test_the_order_of_the_microbatches_makes_no_difference(text, k):
    for seed in range(10):
        gradients = gradients_of(k, seed)
        order = torch.randperm(k, generator=torch.Generator().manual_seed(seed))
        (one, agreed), (other, same) = combined(text, gradients), combined(text, gradients[order])
        assert agreed == pytest.approx(same, abs=1e-5)
        if agreed:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_in_another_order_surgery_has_the_same_outcomes():
    """In random order a single outcome may be another, but not what can come out."""
    gradients = gradients_of(3, 1)
    gradients -= gradients.mean(0)  # each conflicts with the sum of the others

    def outcomes(given):
        return torch.stack([combined("pcgrad", given, number)[0] for number in range(60)])

    one = outcomes(gradients)
    assert (one - one[0]).abs().max() > 0.01
    for order in itertools.permutations(range(3)):
        apart = torch.cdist(outcomes(gradients[list(order)]), one)
        assert apart.amin(0).max() < 1e-3 and apart.amin(1).max() < 1e-3


@pytest.mark.parametrize("text", EVERY_AGREEMENT)
@pytest.mark.parametrize("k", [2, 3, 4, 8])
def test_where_all_microbatches_say_the_same_that_is_the_gradient(text, k):
    one = gradients_of(1, 5)
    gradient, agreed = combined(text, one.expand(k, -1))
    torch.testing.assert_close(gradient, one[0], rtol=1e-4, atol=1e-5)
    assert agreed == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("text", EVERY_AGREEMENT)
@pytest.mark.parametrize("k", [2, 3, 8])
def test_gradients_are_not_changed_and_zeros_are_no_trouble(text, k):
    gradients = gradients_of(k, 6)
    gradients[0] = 0
    gradients[:, 4:8] = 0
    before = gradients.clone()
    gradient, _ = combined(text, gradients)
    assert torch.equal(gradients, before)
    assert gradient.isfinite().all()
    assert combined(text, torch.zeros(k, SIZE))[0].tolist() == [0.0] * SIZE


@pytest.mark.parametrize("k", [2, 3, 4, 5, 16])
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.6, 1.0])
def test_the_and_mask_is_the_published_formula(k, threshold):
    """Written out entry by entry: the mean where enough signs agree, over the share that is kept in the parameter."""
    for seed in range(5):
        gradients = gradients_of(k, seed)
        expected = [0.0] * SIZE
        for part in LAYOUT.parts:
            kept = []
            for j in range(part.start, part.start + part.size):
                column = gradients[:, j].tolist()
                if abs(sum((v > 0) - (v < 0) for v in column)) * 10 >= round(threshold * 10) * k:
                    kept.append(j)
            for j in kept:
                expected[j] = sum(gradients[:, j].tolist()) / k * part.size / len(kept)
        gradient, agreed = combined(f"and-mask:threshold={threshold}", gradients)
        torch.testing.assert_close(gradient, torch.tensor(expected), rtol=1e-4, atol=1e-5)
        assert agreed == pytest.approx(sum(v != 0 for v in expected) / SIZE)


@pytest.mark.parametrize("k", [2, 4])
def test_the_and_mask_that_asks_for_every_sign_is_the_sign_filter(k):
    gradients = gradients_of(k, 3)
    ours, theirs = combined("and-mask:threshold=1,rescale=false", gradients), combined("gaf-sign", gradients)
    torch.testing.assert_close(ours[0], theirs[0])
    assert ours[1] == pytest.approx(theirs[1])


def test_no_sign_that_is_shared_no_step():
    pair = gradients_of(1, 0)
    assert combined("and-mask", torch.cat([pair, -pair]))[1] == 0.0


@pytest.mark.parametrize("k", [2, 3, 4, 5, 8, 15, 16, 17, 20])
def test_the_median_is_numpys(k):
    gradients = gradients_of(k, k)
    np.testing.assert_allclose(combined("median", gradients)[0], np.median(gradients.numpy(), 0), rtol=1e-6)


def test_the_median_of_three_is_the_one_in_the_middle():
    gradients = gradients_of(3, 1)
    assert combined("median", gradients)[0].tolist() == [sorted(column)[1] for column in gradients.T.tolist()]


@pytest.mark.parametrize("k", [3, 4, 5, 8, 21])
def test_fewer_than_half_cannot_move_the_median_out_of_the_range_of_the_others(k):
    for seed in range(20):
        gradients, outliers = gradients_of(k, seed), (k - 1) // 2
        gradients[:outliers] = 1e6 * gradients_of(outliers, seed + 100)
        others = gradients[outliers:]
        middle = combined("median", gradients)[0]
        assert ((others.amin(0) <= middle) & (middle <= others.amax(0))).all()


@pytest.mark.parametrize("k", [3, 4])
def test_the_median_turns_with_its_gradients(k):
    gradients = gradients_of(k, 2)
    torch.testing.assert_close(combined("median", -gradients)[0], -combined("median", gradients)[0])


@pytest.mark.parametrize("per", ["row", "entry"])
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 4.0])
def test_shrinkage_is_its_formula(per, strength):
    for seed in range(5):
        gradients = (gradients_of(6, seed) + gradients_of(1, seed + 50)).double()
        expected = gradients.mean(0)
        rows = [range(i, i + 4) for i in (0, 4, 8)] + [range(12, 15)]
        for row in rows if per == "row" else [[j] for j in range(SIZE)]:
            of = gradients[:, list(row)]
            signal = float((of.mean(0) ** 2).sum())
            noise = float(of.var(0, correction=1).sum()) / len(gradients)  # of the mean
            expected[list(row)] *= max(0.0, 1 - strength * noise / signal)
        found = combined(f"snr:per={per},strength={strength}", gradients.float())[0]
        torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)


def test_shrunk_gradients_are_nearer_to_the_true_one_where_there_is_noise():
    """James and Stein's promise, for a signal of a third of the noise's size."""
    g = torch.Generator().manual_seed(1)
    layout = Layout((Part("m", 0, (50, 40), "matrix"),))
    truth = torch.randn(2000, generator=g) * 0.3
    rule = RULES.parse("snr")
    for _ in range(20):
        gradients = truth + torch.randn(8, 2000, generator=g) * 2.5
        shrunk = rule.combine(gradients, Step(layout))[0]
        assert (shrunk - truth).norm() < 0.5 * (gradients.mean(0) - truth).norm()


def test_surgery_is_torchjds_with_the_same_order():
    """Theirs is the sum of the projected gradients as in the paper, ours the mean."""
    for k, number in itertools.product([2, 3, 5, 8], range(10)):
        gradients = gradients_of(k, number, 6 if k < 8 else SIZE)
        gradients = torch.cat([gradients, torch.zeros(k, SIZE - gradients.shape[1])], 1)
        torch.manual_seed(Step(LAYOUT, number=number, seed=3).generator("pcgrad").initial_seed())
        torch.testing.assert_close(
            combined("pcgrad", gradients, number)[0] * k, PCGrad()(gradients), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("text", ["pcgrad", "upgrad"])
def test_two_that_conflict_are_each_projected_to_a_right_angle(text):
    conflicts = 0
    for seed in range(40):
        a, b = pair = gradients_of(2, seed, SIZE)
        expected = pair.mean(0)
        if a @ b < 0:
            conflicts += 1
            expected = (a - (a @ b) / (b @ b) * b + b - (a @ b) / (a @ a) * a) / 2
        gradient = combined(text, pair)[0]
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)
        assert (pair @ gradient >= -1e-4).all()
    assert 5 < conflicts < 35


@pytest.mark.parametrize("text", ["pcgrad", "upgrad"])
@pytest.mark.parametrize("k", [2, 4, 8])
def test_without_a_conflict_it_is_the_plain_mean(text, k):
    gradients = gradients_of(k, 7).abs()
    torch.testing.assert_close(combined(text, gradients)[0], gradients.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", [2, 3, 5, 8])
def test_upgrad_is_torchjds(k):
    """Their projector with next to no regularisation; as it comes it takes a matrix whose squares sum to less than 1e-4
    for zero, and is then the plain mean: late in training, always."""
    theirs = UPGrad(projector=QuadprogProjector(norm_eps=0, reg_eps=1e-9))
    for seed in range(30):
        gradients = gradients_of(k, seed) * 10 ** torch.linspace(-1, 1, k)[:, None]
        expected = theirs(gradients.double()).float()
        torch.testing.assert_close(combined("upgrad", gradients)[0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("k", [2, 3, 8, 20])
def test_upgrad_conflicts_with_nothing(k):
    """Also with more gradients than they have dimensions, and as small as they become."""
    for seed, scale in itertools.product(range(10), [1.0, 1e-5]):
        gradients = gradients_of(k, seed) * scale
        gradient = combined("upgrad", gradients)[0]
        assert (gradients @ gradient >= -2e-5 * gradients.norm(dim=1) * gradients.norm()).all()


def test_upgrad_is_linear_in_the_length_of_each_gradient():
    for seed in range(20):
        gradients = gradients_of(4, seed)
        c, d = torch.rand(2, 4, 1, generator=torch.Generator().manual_seed(seed)) * 5
        parts = combined("upgrad", c * gradients)[0] + combined("upgrad", d * gradients)[0]
        torch.testing.assert_close(combined("upgrad", (c + d) * gradients)[0], parts, rtol=1e-3, atol=1e-3)


def test_of_opposites_upgrad_leaves_nothing():
    one = gradients_of(1, 0)
    torch.testing.assert_close(combined("upgrad", torch.cat([one, -one]))[0], torch.zeros(SIZE), rtol=0, atol=1e-4)


def test_a_loss_that_is_no_number_breaks_no_agreement():
    gradients = gradients_of(3, 0)
    gradients[1, 2] = torch.nan
    for text in EVERY_AGREEMENT:
        assert combined(text, gradients)[0].shape == (SIZE,)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.97, 2.0])
def test_agreement_filtering_of_two_microbatches_is_the_published_package(threshold):
    """Without its tracking; of two it compares the one with the other, as we do."""
    ours, theirs = Problem(), Problem()
    rule = RULES.parse(f"gaf:threshold={threshold},base=sgd,base.lr=0.2")
    data = TensorDataset(theirs.x[:24], theirs.y[:24])
    optimizer = torch.optim.SGD(theirs.module.parameters(), 0.2)
    state, filtered = ours.start(rule), 0
    for number in range(40):
        order = torch.randperm(24, generator=torch.Generator().manual_seed(number))
        update = ours.step(rule, state, rows=order)
        halves = [Subset(data, half.tolist()) for half in order.split(12)]
        seen = step_GAF(theirs.module, optimizer, nn.functional.cross_entropy, halves, wandb=False, verbose=False,
                        cos_distance_thresh=threshold)  # fmt: skip
        assert (update.agreed > 0) == (seen["agreed_count"] > 0)
        filtered += update.agreed == 0
        torch.testing.assert_close(ours.weights.flat, nn.utils.parameters_to_vector(theirs.module.parameters()))
    assert filtered == 0 if threshold == 2.0 else 0 < filtered < 40


@pytest.mark.parametrize(
    "text", ["and-mask:threshold=1.1", "and-mask:k=1", "snr:strength=-1", "snr:per=column", "median:k=1", "pcgrad:k=0",
             "upgrad:base=upgrad"],
)  # fmt: skip
def test_impossible_settings_are_refused_in_one_line(text):
    with pytest.raises(UserError) as error:
        RULES.parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [1e-15, 1e-6, 1.0, 1e12, 1e18])
def test_gaf_agrees_at_any_size_of_the_gradients(size):
    """Squares of a float32 end at 1e-38 and 1e38."""
    pair = size * torch.tensor([[1.0, 2.0, -1.0], [1.0, 2.1, -1.0]])
    assert agreeing(pair, 0.5).tolist() == [True, True]


def test_pcgrad_bears_a_gradient_whose_square_is_zero():
    gradients = torch.stack([torch.ones(4), torch.full((4,), -1e-25)])
    found, _ = RULES.parse("pcgrad").combine(gradients, Step(Layout.flat(4)))
    assert found.isfinite().all()
