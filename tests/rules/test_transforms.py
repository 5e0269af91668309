"""Base rules and transforms by the properties that they claim, against other implementations and written-out formulas.

Of pytorch_optimizer's are used here, after a look at their code: Lion, OrthoGrad, Lookahead and the two functions
gradfilter_ema and gradfilter_ma. Its GrokFastAdamW is not: that divides the learning rate by 1 + lambda.
"""

from collections import deque

import pytest
import pytorch_optimizer
import torch
from problem import Problem
from pytorch_optimizer.optimizer.grokfast import gradfilter_ema, gradfilter_ma
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from crevasse.errors import UserError
from crevasse.rules import RULES, Ask, Layout, Part, Step
from crevasse.rules.egd import levelled
from crevasse.rules.muon import orthogonalised

STEPS = 25
NEW = ["perp", "egd", "row-clip", "sphere", "grokfast", "grokfast-ma", "ema", "lookahead", "swa"]
TRANSFORMER_LIKE = Layout(
    (
        Part("embedding", 0, (7, 4), "embedding"),
        Part("kernel", 28, (3, 2, 5), "matrix"),
        Part("tall", 58, (6, 2), "matrix"),
        Part("norm", 70, (4,), "vector"),
        Part("head", 74, (5, 4), "head"),
    )
)


def drawn(seed, layout=TRANSFORMER_LIKE):
    """Weights and a gradient for a layout."""
    return torch.randn(2, layout.size, generator=torch.Generator().manual_seed(seed))


def slope(problem):
    """Give the module's parameters their gradients, by torch alone."""
    problem.module.zero_grad()
    problem.loss(problem.rows).backward()
    return problem


def flat(problem):
    return nn.utils.parameters_to_vector(problem.module.parameters()).detach()


def side_by_side(text, move, **close):
    """Our rule beside another implementation, step by step. move: (problem, step number) -> None, steps by torch."""
    ours, theirs, rule = Problem(), Problem(), RULES.parse(text)
    state = ours.start(rule)
    for number in range(STEPS):
        state = ours.step(rule, state).state
        move(slope(theirs), number)
        torch.testing.assert_close(ours.weights.flat, flat(theirs), **close)
    return ours, state


def by_optimizer(make):
    """A `move` that is a torch optimizer's step."""
    made = []

    def move(problem, number):
        if not made:
            made.append(make(problem.module))
        made[0].step()

    return move


# Lion


@pytest.mark.parametrize(("beta1", "beta2", "decay"), [(0.9, 0.99, 0.0), (0.9, 0.97, 0.5), (0.5, 0.0, 0.1)])
def test_lion_is_another_librarys_lion(beta1, beta2, decay):
    def make(module):
        return pytorch_optimizer.Lion(module.parameters(), lr=0.01, betas=(beta1, beta2), weight_decay=decay)

    side_by_side(f"lion:lr=0.01,beta1={beta1},beta2={beta2},decay={decay}", by_optimizer(make))


def test_lion_is_its_formula_written_out():
    m = [0.0] * 53

    def move(problem, number):
        with torch.no_grad():
            gradient = torch.cat([v.grad.flatten() for v in problem.module.parameters()]).tolist()
            for i, g in enumerate(gradient):
                c = 0.9 * m[i] + 0.1 * g
                w = problem.weights.flat[i].item()
                problem.weights.flat[i] = w - 0.01 * ((c > 0) - (c < 0)) - 0.01 * 0.2 * w
                m[i] = 0.99 * m[i] + 0.01 * g

    side_by_side("lion:lr=0.01,decay=0.2", move)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_lion_moves_every_entry_by_its_rate_whatever_the_size_of_the_gradient(size):
    rule, (weights, gradient) = RULES.parse("lion:lr=0.125,decay=0"), drawn(0)
    state, now = rule.init(weights, TRANSFORMER_LIKE), Step(TRANSFORMER_LIKE, 0.5)
    moved, _ = rule.apply(gradient * size, weights, state, now)
    torch.testing.assert_close(moved, weights - 0.0625 * gradient.sign())


# Muon


def polynomial(singular):
    """Where five rounds of the published quintic take singular values."""
    for _ in range(5):
        singular = 3.4445 * singular - 4.7750 * singular**3 + 2.0315 * singular**5
    return singular


@pytest.mark.parametrize("shape", [(5, 5), (3, 20), (20, 3), (16, 24), (1, 6), (64, 64)])
def test_newton_schulz_moves_singular_values_alone_and_by_the_published_polynomial(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    expected = (u * polynomial(s / s.norm())) @ v
    torch.testing.assert_close(orthogonalised(matrix), expected.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(8, 8), (4, 16), (24, 6)])
def test_singular_values_of_muons_direction_are_near_one_and_its_directions_those_of_the_polar_factor(shape):
    g = torch.Generator().manual_seed(2)
    for _ in range(10):
        u, _, v = torch.linalg.svd(torch.randn(shape, generator=g), full_matrices=False)
        matrix = (u * torch.logspace(0, -1.5, min(shape))) @ v
        direction = orthogonalised(matrix)
        found = torch.linalg.svdvals(direction)
        assert found.min() > 0.65
        assert found.max() < 1.25
        # In the singular basis of the gradient it is diagonal, and positive.
        inside = u.T @ direction @ v.T
        torch.testing.assert_close(inside, inside.diagonal().diag(), rtol=0, atol=1e-4)
        assert (inside.diagonal() > 0.65).all()
        # No vector of numbers between .7 and 1.2 is further from one of ones than 2·√(.7·1.2)/(.7 + 1.2).
        assert torch.cosine_similarity(direction.flatten(), (u @ v).flatten(), dim=0) > 0.96


def test_a_muon_step_does_not_depend_on_the_scale_of_the_gradient():
    rule, (weights, gradient) = RULES.parse("muon:epsilon=1e-30"), drawn(3)
    results = [
        rule.apply(gradient * size, weights, rule.init(weights, TRANSFORMER_LIKE), Step(TRANSFORMER_LIKE))[0]
        for size in (1.0, 1e-8, 1e4)
    ]
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-4, atol=1e-5)


def test_muon_is_torchs_muon_on_matrices_and_torchs_adamw_on_the_rest(monkeypatch):
    # torch's computes in bfloat16, which is right to two digits only; in float32 it has to be ours exactly.
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    made = []

    def move(problem, number):
        if not made:
            matrix, *rest = problem.module.parameters()
            made.append(torch.optim.Muon([matrix], lr=0.05, weight_decay=0.2, momentum=0.9))
            made.append(torch.optim.AdamW(rest, lr=0.01, betas=(0.9, 0.98), weight_decay=0.2))
        for optimizer in made:
            optimizer.step()

    side_by_side("muon:lr=0.05,decay=0.2,momentum=0.9,rest_lr=0.01", move, rtol=1e-4, atol=1e-5)


def test_muon_is_torchs_muon_in_bfloat16_up_to_its_rounding():
    rule, p = RULES.parse("muon:lr=1,decay=0"), slope(Problem())
    matrix = next(iter(p.module.parameters()))
    before = matrix.detach().clone()
    ours = p.layout.parts[0].of(p.update(rule, p.start(rule)).weights) - before
    torch.optim.Muon([matrix], lr=1, weight_decay=0).step()
    torch.testing.assert_close(matrix.detach() - before, ours, rtol=0, atol=0.03)


def test_muon_flattens_kernels_scales_tall_matrices_and_has_two_rates():
    rule, (weights, gradient) = RULES.parse("muon:lr=0.5,decay=0,rest_lr=0.25,momentum=0"), drawn(4)
    now = Step(TRANSFORMER_LIKE, 0.5)
    moved, _ = rule.apply(gradient, weights, rule.init(weights, TRANSFORMER_LIKE), now)
    embedding, kernel, tall, norm, head = TRANSFORMER_LIKE.parts
    for part, scale in ((kernel, 1.0), (tall, 3**0.5)):
        u, s, v = torch.linalg.svd(part.of(gradient).reshape(part.shape[0], -1), full_matrices=False)
        expected = 0.25 * scale * (u * polynomial(s / s.norm())) @ v
        torch.testing.assert_close(part.matrix(weights - moved), expected, rtol=1e-3, atol=1e-3)
    for part in (embedding, norm, head):  # Adam's first step
        torch.testing.assert_close(part.of(weights - moved), 0.125 * part.of(gradient).sign(), rtol=1e-4, atol=1e-5)
    rates = rule.rate(now)
    assert [sorted(set(part.of(rates).flatten().tolist())) for part in TRANSFORMER_LIKE.parts] == [
        [0.125], [0.25], [0.25], [0.125], [0.125],
    ]  # fmt: skip


# Perp


@pytest.mark.parametrize("base", ["SGD", "AdamW"])
def test_perp_is_another_librarys_orthograd(base):
    def make(module):
        return pytorch_optimizer.OrthoGrad(getattr(torch.optim, base)(module.parameters(), lr=0.01, weight_decay=0.0))

    text = f"perp:base={base.lower()},base.lr=0.01,base.decay=0" + (",base.beta2=0.999" if base == "AdamW" else "")
    side_by_side(text, by_optimizer(make), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rescale", ["true", "false"])
def test_what_perp_leaves_stands_at_a_right_angle_to_the_weights_of_each_part(rescale):
    rule, (weights, gradient) = RULES.parse(f"perp:rescale={rescale}"), drawn(5)
    left = rule.before(gradient, weights, {}, Step(TRANSFORMER_LIKE))
    for part in TRANSFORMER_LIKE.parts:
        g, w, rest = (part.of(vector).flatten() for vector in (gradient, weights, left))
        assert abs(torch.cosine_similarity(rest, w, dim=0)) < 1e-5
        size = g.norm() if rescale == "true" else (g - (g @ w) / (w @ w) * w).norm()
        torch.testing.assert_close(rest.norm(), size)


def test_perp_of_the_whole_vector_and_half_of_it():
    (weights, gradient), now = drawn(6), Step(TRANSFORMER_LIKE)
    along = (weights @ gradient) / (weights @ weights) * weights
    for strength in (1.0, 0.5):
        rule = RULES.parse(f"perp:by=whole,rescale=false,strength={strength}")
        torch.testing.assert_close(rule.before(gradient, weights, {}, now), gradient - strength * along)


def test_by_perp_and_small_steps_norms_stay_to_second_order():
    def growth(lr):
        p, rule = Problem(), RULES.parse(f"perp:base=sgd,base.lr={lr}")
        p.weights.flat.copy_(torch.randn(53, generator=torch.Generator().manual_seed(0)))
        before = [part.of(p.weights.flat).norm() for part in p.layout.parts]
        p.step(rule, p.start(rule))
        after = [part.of(p.weights.flat).norm() for part in p.layout.parts]
        return torch.stack(after) / torch.stack(before) - 1

    # Ten times the step, a hundred times the growth.
    torch.testing.assert_close(growth(1.0), 100 * growth(0.1), rtol=0.1, atol=1e-4)


def test_perp_keeps_still_where_the_gradient_is_all_along_the_weights_and_free_where_weights_are_zero():
    layout = Layout(
        (Part("one", 0, (1,), "vector"), Part("along", 1, (2, 2), "matrix"), Part("zero", 5, (3,), "vector"))
    )
    weights = torch.tensor([0.3, 1.0, 2.0, 3.0, 4.1, 0.0, 0.0, 0.0])
    gradient = torch.cat([weights[:5] * 0.7, torch.tensor([1.0, -2.0, 3.0])])
    left = RULES.parse("perp").before(gradient, weights, {}, Step(layout))
    torch.testing.assert_close(left, torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0, -2.0, 3.0]))


@pytest.mark.parametrize("stablemax", [False, True])
def test_perp_asks_with_the_loss_that_it_was_told(stablemax):
    p = Problem()
    asking = RULES.parse(f"perp:stablemax={str(stablemax).lower()}").update(
        None, p.weights.flat, p.start(RULES.parse("perp")), p.now()
    )
    assert next(asking) == Ask(stablemax=stablemax)
    plain = Problem()
    rule = RULES.parse(f"perp:strength=0,base=sgd,stablemax={str(stablemax).lower()}")
    loss = plain.loss(plain.rows, stablemax=stablemax)
    expected = flat(plain) - 0.1 * torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, plain.module.parameters())]
    )
    update = plain.step(rule, plain.start(rule))
    torch.testing.assert_close(plain.weights.flat, expected)
    torch.testing.assert_close(update.loss, loss.detach())


# Egalitarian gradient descent


@pytest.mark.parametrize("shape", [(5, 5), (3, 20), (20, 3), (1, 6)])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_egd_raises_singular_values_to_a_power_and_turns_nothing(shape, strength):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    expected = (u * s ** (1 - strength)) @ v
    torch.testing.assert_close(levelled(matrix, strength, 1e-5), expected.float())


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_at_full_strength_all_singular_values_are_one_however_small_the_gradient(size):
    rule, (weights, gradient) = RULES.parse("egd"), drawn(8)
    levels = rule.before(gradient * size, weights, {}, Step(TRANSFORMER_LIKE))
    for part in TRANSFORMER_LIKE.parts:
        if part.kind == "vector":
            assert torch.equal(part.of(levels), part.of(gradient * size))
        else:
            values = torch.linalg.svdvals(part.matrix(levels))
            torch.testing.assert_close(values, torch.ones_like(values), rtol=1e-4, atol=1e-4)


def test_egd_blows_up_no_rounding():
    u, _, v = torch.linalg.svd(
        torch.randn(6, 9, generator=torch.Generator().manual_seed(9)).double(), full_matrices=False
    )
    s = torch.tensor([3.0, 1.0, 1e-3, 1e-7, 0.0, 0.0], dtype=torch.double)
    found = torch.linalg.svdvals(levelled(((u * s) @ v).float(), 1.0, 1e-5))
    torch.testing.assert_close(found[:3], torch.ones(3), rtol=1e-3, atol=1e-3)
    assert found[3] < 0.05
    assert torch.equal(levelled(torch.zeros(3, 4), 1.0, 1e-5), torch.zeros(3, 4))


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_egd_is_gradient_descent_on_the_svd_written_out(strength):
    def move(problem, number):
        with torch.no_grad():
            for v in problem.module.parameters():
                if v.dim() == 2:
                    a, s, b = torch.linalg.svd(v.grad.double(), full_matrices=False)
                    # The three gradients of a softmax's logits sum to zero: one singular value is rounding.
                    s = torch.where(s > 1e-5 * s[0], s ** (1 - strength), s * (1e-5 * s[0]) ** -strength)
                    v -= 0.02 * ((a * s) @ b).float()
                else:
                    v -= 0.02 * v.grad

    side_by_side(f"egd:base=sgd,base.lr=0.02,strength={strength}", move, rtol=1e-3, atol=1e-2)


# Row clip and sphere


@pytest.mark.parametrize("parts", ["inner", "matrices", "all"])
@pytest.mark.parametrize("base", ["sgd", "lion"])
def test_row_clip_is_torchs_renorm_after_every_step(parts, base):
    def move(problem, number):
        optimizers.setdefault(0, make(problem.module.parameters())).step()
        with torch.no_grad():
            weight, bias, head, last = problem.module.parameters()
            for v in {"inner": (weight, bias, last), "matrices": (weight, head), "all": (weight, bias, head, last)}[
                parts
            ]:
                v.copy_(torch.renorm(v.view(len(v) if v.dim() > 1 else 1, -1), 2, 0, 0.8).view_as(v))

    optimizers = {}
    make = (
        (lambda p: torch.optim.SGD(p, 0.5))
        if base == "sgd"
        else (lambda p: pytorch_optimizer.Lion(p, 0.05, weight_decay=0.0))
    )
    text = "base=sgd,base.lr=0.5" if base == "sgd" else "base=lion,base.lr=0.05,base.decay=0"
    ours, _ = side_by_side(f"row-clip:limit=0.8,parts={parts},{text}", move, rtol=1e-4, atol=1e-5)
    lengths = torch.linalg.vector_norm(ours.layout.parts[0].of(ours.weights.flat), dim=1)
    assert (lengths > 0.79).any(), "the limit was never met"


@pytest.mark.parametrize("text", ["row-clip:limit=0.1,parts=all", "sphere", "sphere:by=part,strength=0.5"])
def test_long_rows_are_pulled_in_by_the_first_real_step_and_not_before(text):
    p, rule = Problem(), RULES.parse(text)
    state, before = p.start(rule), p.weights.flat.clone()
    state = p.step(rule, state, 0.0).state
    assert torch.equal(p.weights.flat, before)
    p.step(rule, state)
    if text.startswith("row-clip"):
        assert max(part.matrix(p.weights.flat).norm(dim=1).max() for part in p.layout.parts) < 0.1001


def test_row_clip_does_not_touch_short_rows():
    rule, (weights, _) = RULES.parse("row-clip:limit=1.5,parts=all"), drawn(10)
    clipped = rule.after(weights.clone(), weights, {}, Step(TRANSFORMER_LIKE))
    before, after = (TRANSFORMER_LIKE.row_sums(v.square()).sqrt() for v in (weights, clipped))
    torch.testing.assert_close(after, before.clamp(max=1.5))
    short = TRANSFORMER_LIKE.spread((before <= 1.4).float()).bool()
    assert torch.equal(clipped[short], weights[short])
    assert short.any()


@pytest.mark.parametrize("base", ["sgd:lr=0.5", "adamw:lr=0.1,decay=1", "muon"])
@pytest.mark.parametrize("by", ["row", "part"])
def test_on_spheres_norms_stay_those_of_the_start_and_directions_are_where_the_base_went(base, by):
    name, _, options = base.partition(":")
    rule = RULES.parse(",".join([f"sphere:by={by},base={name}", *(f"base.{o}" for o in options.split(",") if o)]))
    p, plain = Problem(), Problem()

    def lengths(vector):
        matrices = [part.matrix(vector) for part in p.layout.parts if part.kind != "vector"]
        return torch.cat([m.norm(dim=1) if by == "row" else m.norm().view(1) for m in matrices])

    start, state, other = lengths(p.weights.flat), p.start(rule), plain.start(RULES.parse(base))
    p.step(rule, state)
    plain.step(RULES.parse(base), other)
    for part in p.layout.parts:
        a, b = part.matrix(p.weights.flat), part.matrix(plain.weights.flat)
        cosine = (
            torch.cosine_similarity(a, b) if by == "row" else torch.cosine_similarity(a.flatten(), b.flatten(), dim=0)
        )
        torch.testing.assert_close(cosine, torch.ones_like(cosine))
    p.train(rule, STEPS, state)
    torch.testing.assert_close(lengths(p.weights.flat), start)


def test_between_base_and_sphere_norms_are_geometric_means_and_rows_of_zero_are_free():
    weights, moved = drawn(11)
    weights[:4] = 0
    for strength in (0.25, 1.0):
        rule = RULES.parse(f"sphere:strength={strength}")
        held = rule.after(moved.clone(), weights, rule.remember(weights, TRANSFORMER_LIKE), Step(TRANSFORMER_LIKE))
        start, base, found = (TRANSFORMER_LIKE.row_sums(v.square()).sqrt() for v in (weights, moved, held))
        expected = base ** (1 - strength) * start**strength
        free = torch.zeros(len(start), dtype=torch.bool)
        free[0] = free[7 + 3 + 6] = True  # the row that was zero, and the norm's gains
        torch.testing.assert_close(found, torch.where(free, base, expected))


# Grokfast


@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_grokfast_is_another_librarys_filter(base):
    means, optimizers = [None], []

    def move(problem, number):
        if not optimizers:
            make = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[base]
            optimizers.append(make(problem.module.parameters(), lr=0.01, weight_decay=0.0))
        means[0] = gradfilter_ema(problem.module, means[0], alpha=0.8, lamb=3.0)
        optimizers[0].step()

    text = f"grokfast:alpha=0.8,lamb=3,base={base},base.lr=0.01,base.decay=0"
    side_by_side(text + (",base.beta2=0.999" if base == "adamw" else ""), move, rtol=1e-4, atol=1e-5)


def test_grokfast_starts_from_the_first_gradient_written_out():
    mean = []

    def move(problem, number):
        gradient = torch.cat([v.grad.flatten() for v in problem.module.parameters()]).double()
        if not mean:
            mean.append(gradient)
        mean[0] = 0.98 * mean[0] + 0.02 * gradient
        problem.weights.flat.sub_(0.03 * (gradient + 2 * mean[0]).float())

    side_by_side("grokfast:base=sgd,base.lr=0.03", move)


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("window", [1, 4, 7])
def test_the_window_of_grokfast_is_a_queue_of_gradients_written_out(window, warmup):
    queue = deque(maxlen=window)

    def move(problem, number):
        gradient = torch.cat([v.grad.flatten() for v in problem.module.parameters()]).double()
        queue.append(gradient)
        if not warmup or len(queue) == window:
            gradient = gradient + 5 * sum(queue) / len(queue)
        problem.weights.flat.sub_(0.02 * gradient.float())

    side_by_side(f"grokfast-ma:window={window},warmup={str(warmup).lower()},base=sgd,base.lr=0.02", move)


@pytest.mark.parametrize("warmup", [True, False])
def test_the_window_of_grokfast_is_another_librarys_filter(warmup):
    queues, optimizers = [None], []

    def move(problem, number):
        if not optimizers:
            optimizers.append(torch.optim.SGD(problem.module.parameters(), lr=0.02))
        queues[0] = gradfilter_ma(problem.module, queues[0], window_size=6, lamb=5.0, warmup=warmup)
        optimizers[0].step()

    side_by_side(f"grokfast-ma:window=6,warmup={str(warmup).lower()},base=sgd,base.lr=0.02", move)


def test_the_sum_of_the_window_gathers_no_rounding():
    rule, layout = RULES.parse("grokfast-ma:window=10,base=sgd"), Layout.flat(50)
    own = rule.remember(torch.zeros(50), layout)
    g = torch.Generator().manual_seed(12)
    for number in range(2003):
        gradient = torch.randn(50, generator=g) * (1e6 if number < 1500 else 1.0)
        rule.before(gradient, torch.zeros(50), own, Step(layout))
    exact = own["gradients"].double().sum(0)
    torch.testing.assert_close(own["sum"].double(), exact, rtol=1e-5, atol=1e-5)


# Averages


@pytest.mark.parametrize("base", ["sgd", "adamw", "lion"])
@pytest.mark.parametrize("text", ["ema", "swa:start=3"])
def test_an_average_changes_nothing_in_training(text, base):
    name, _, options = text.partition(":")
    p, plain = Problem(), Problem()
    p.train(RULES.parse(f"{name}:{options + ',' if options else ''}base={base}"), STEPS)
    plain.train(RULES.parse(base), STEPS)
    assert torch.equal(p.weights.flat, plain.weights.flat)


def test_ema_that_starts_at_the_initial_weights_is_torchs():
    p, rule = Problem(), RULES.parse("ema:decay=0.9,corrected=false,base=sgd")
    average = AveragedModel(p.module, avg_fn=get_ema_avg_fn(0.9))
    average.update_parameters(p.module)  # the first call only copies
    state = p.start(rule)
    for _ in range(STEPS):
        state = p.step(rule, state).state
        average.update_parameters(p.module)
        expected = nn.utils.parameters_to_vector(average.module.parameters()).detach()
        torch.testing.assert_close(rule.judged(p.weights.flat, state), expected)


@pytest.mark.parametrize("decay", [0.5, 0.99, 0.9999])
def test_ema_is_the_weighted_mean_of_all_weights_written_out_without_the_initial_ones(decay):
    p, rule, seen = Problem(), RULES.parse(f"ema:decay={decay},base=sgd"), []
    state = p.start(rule)
    for _ in range(STEPS):
        state = p.step(rule, state).state
        seen.append(p.weights.flat.double())
        shares = torch.tensor([decay**i for i in range(len(seen))], dtype=torch.double).flip(0)
        expected = (shares / shares.sum()) @ torch.stack(seen)
        torch.testing.assert_close(rule.judged(p.weights.flat, state).double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("start", "every"), [(0, 1), (1, 1), (10, 1), (6, 4), (22, 100)])
def test_swa_is_torchs_average_of_the_weights_that_it_takes(start, every):
    p, rule = Problem(), RULES.parse(f"swa:start={start},every={every},base=sgd")
    average, state, taken = AveragedModel(p.module), p.start(rule), 0
    for made in range(1, STEPS + 1):
        state = p.step(rule, state).state
        if made >= start and (made - start) % every == 0:
            average.update_parameters(p.module)
            taken += 1
        expected = nn.utils.parameters_to_vector(average.module.parameters()).detach() if taken else p.weights.flat
        torch.testing.assert_close(rule.judged(p.weights.flat, state), expected)
    assert state["taken"] == taken > 0


@pytest.mark.parametrize("base", ["sgd", "momentum", "adamw"])
@pytest.mark.parametrize(("k", "alpha"), [(5, 0.5), (3, 0.8), (1, 0.3), (4, 0.9)])
def test_lookahead_is_another_librarys(base, k, alpha):
    def make(module):
        theirs = {
            "sgd": lambda p: torch.optim.SGD(p, 0.1),
            "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
            "adamw": lambda p: torch.optim.AdamW(p, 0.1, betas=(0.9, 0.98), weight_decay=0.01),
        }[base](module.parameters())
        made.append(pytorch_optimizer.Lookahead(theirs, k=k, alpha=alpha))
        return made[0]

    made = []
    p, state = side_by_side(
        f"lookahead:k={k},alpha={alpha},base={base},base.lr=0.1", by_optimizer(make), rtol=1e-4, atol=1e-5
    )
    made[0].backup_and_load_cache()  # what it would judge
    slow = torch.cat([v.detach().flatten() for v in made[0].param_groups[0]["params"]])
    torch.testing.assert_close(RULES.parse("lookahead").judged(p.weights.flat, state), slow, rtol=1e-4, atol=1e-5)


def test_lookahead_does_not_count_steps_that_do_not_move():
    p, rule = Problem(), RULES.parse("lookahead:k=2,base=sgd")
    state = p.step(rule, p.start(rule)).state
    before = p.weights.flat.clone()
    state = p.step(rule, state, 0.0).state
    assert torch.equal(p.weights.flat, before), "the jump back came at a rate of zero"
    p.step(rule, state)
    torch.testing.assert_close(p.weights.flat, state["slow"])


# All of them


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("other", NEW)
def test_transforms_stack(name, other):
    p, rule = Problem(), RULES.parse(f"{name}:base={other},base.base=sgd,base.base.lr=0.01")
    state = p.train(rule, 6)
    assert p.weights.flat.isfinite().all()
    assert rule.judged(p.weights.flat, state).isfinite().all()
    assert rule.rate(p.now(0.5)) == 0.005


@pytest.mark.parametrize(
    "text", [*NEW, "sphere:strength=0.5", "row-clip:limit=0.3", "lookahead:k=1", "grokfast-ma:window=2", "lion", "muon"]
)
def test_nothing_moves_at_a_rate_of_zero_in_the_middle_of_training_either(text):
    p, rule = Problem(), RULES.parse(text)
    state = p.train(rule, 4)
    before = p.weights.flat.clone()
    p.step(rule, state, 0.0)
    assert torch.equal(p.weights.flat, before)


@pytest.mark.parametrize("text", [*NEW, "lookahead:k=1", "lion", "muon"])
def test_new_weights_are_no_tensor_of_the_state(text):
    p, rule = Problem(), RULES.parse(text)
    update = p.update(rule, p.start(rule))
    held = {v.untyped_storage().data_ptr() for v in update.state.values()}
    assert update.weights.untyped_storage().data_ptr() not in held


@pytest.mark.parametrize("name", NEW)
def test_a_transform_works_on_a_vector_of_which_nothing_is_known(name):
    layout, rule = Layout.flat(9), RULES.parse(name)
    weights, gradient = torch.randn(2, 9, generator=torch.Generator().manual_seed(13))
    moved, _ = rule.apply(gradient, weights, rule.init(weights, layout), Step(layout))
    assert moved.shape == weights.shape
    assert not torch.equal(moved, weights)


@pytest.mark.parametrize(
    "text", ["lion:lr=-1", "lion:beta2=1", "lion:decay=-1", "muon:momentum=1", "muon:rest_lr=-1", "muon:epsilon=0",
             "perp:strength=2", "perp:by=row", "egd:strength=-1", "egd:floor=0", "row-clip:limit=0",
             "row-clip:parts=some", "sphere:strength=nan", "sphere:by=whole", "grokfast:alpha=1", "grokfast:lamb=-1",
             "grokfast-ma:window=0", "grokfast-ma:lamb=nan", "ema:decay=1", "lookahead:k=0", "lookahead:alpha=0",
             "swa:start=-1", "swa:every=0", "perp:base=gaf"],
)  # fmt: skip
def test_impossible_settings_are_refused_in_one_line(text):
    with pytest.raises(UserError) as error:
        RULES.parse(text)
    assert "\n" not in str(error.value)
