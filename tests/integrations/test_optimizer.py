"""Rules in a plain PyTorch loop around somebody's own optimizer: equal to the same rule here, and safe."""

import copy
import io
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from crevasse.errors import UserError
from crevasse.integrations.optimizer import RuleOptimizer
from crevasse.rules import RULES, BaseRule, Oracle, Step, answered
from crevasse.rules import Seen as Answer
from crevasse.rules.base import proposed

ROWS = 24


def model_of(seed=0, **layers):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), *layers.values(), nn.Linear(8, 3))


def batches(count=8, rows=ROWS, seed=1):
    g = torch.Generator().manual_seed(seed)
    truth = torch.randn(6, 3, generator=g)
    xs = torch.randn(count, rows, 6, generator=g)
    return [(x, (x @ truth).argmax(1)) for x in xs]


STEER = batches(1, seed=9)[0]


def adamw(model, **over):
    return torch.optim.AdamW(model.parameters(), **{"lr": 3e-3, "betas": (0.9, 0.98), "weight_decay": 0.01} | over)


def vector(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def train(optimizer, model, data, **how):
    """The loop of the docs."""
    for batch in data:
        for look in optimizer.looks(batch, steer=STEER if optimizer.rule.steers else None, **how):
            x, y = look.batch
            look.backward(F.cross_entropy(model(x), y))


#: Not race, which needs a model that says which widths it has (tests/rules/test_race.py), nor invariant, which moves
#: the values of a trial's examples (tests/rules/test_invariant.py).
NOT_HERE = ("file", "race", "invariant")
LOOKS = [name for name in RULES if name not in NOT_HERE and not getattr(RULES.parse(name), "stablemax", False)]
WRAPS = [name for name in LOOKS if hasattr(RULES.parse(name), "base")]
PLAIN = [name for name in LOOKS if isinstance(RULES.parse(name), BaseRule)]
BASE = "adamw:lr=0.003,decay=0.01,beta2=0.98"


def based(name, base=BASE):
    """The rule on a given base."""
    text, _, options = base.partition(":")
    inner = "".join(f",base.{o}" for o in filter(None, options.split(",")))
    return f"{name}{',' if ':' in name else ':'}base={text}{inner}"


EVENTFUL = ["restarts:copies=2,each=3", "jump:every=3,repair=2", "swa:start=2,every=2", "delayed-compression:below=9"]


@pytest.mark.parametrize("name", WRAPS + EVENTFUL)
def test_around_torchs_adamw_a_rule_is_what_it_is_around_our_own(name):
    ours, theirs = model_of(), model_of()
    mine, wrapped = RuleOptimizer(based(name), ours), RuleOptimizer(name, theirs, adamw(theirs))
    for batch in batches():
        train(mine, ours, [batch])
        train(wrapped, theirs, [batch])
        torch.testing.assert_close(vector(theirs), vector(ours), rtol=1e-4, atol=1e-5)
        assert wrapped.agreed == pytest.approx(mine.agreed, abs=1e-6)
    assert wrapped.cost == mine.cost
    assert wrapped.number == 8


@pytest.mark.parametrize("name", LOOKS)
def test_in_a_loop_a_rule_is_what_it_is_in_the_laboratory(name):
    """The questions of the loop against the rule's own generator, answered by hand."""
    rule = RULES.parse(name)
    model, other = model_of(), model_of()
    optimizer = RuleOptimizer(rule, model, seed=5)
    weights = vector(other)
    state = rule.init(weights, optimizer.vector.layout)
    for number, batch in enumerate(batches(4)):

        def answer(ask, batch=batch, at=weights, number=number):
            from crevasse.integrations.batches import swapped
            from crevasse.seeds import seed_for

            x, y = STEER if ask.steer else batch
            if ask.swapped:
                y = swapped([x, y], ask.swapped, torch.Generator().manual_seed(seed_for(5, f"labels {number}")))[1]
            nn.utils.vector_to_parameters(at if ask.at is None else ask.at, other.parameters())
            size = ROWS // ask.parts
            losses = [
                F.cross_entropy(other(x[i * size : (i + 1) * size]), y[i * size : (i + 1) * size]) for i in ask.asked
            ]
            slopes = [torch.autograd.grad(v, list(other.parameters())) for v in losses] if ask.slopes else []
            flat = torch.stack([torch.cat([g.flatten() for g in s]) for s in slopes]) if slopes else None
            return Answer(torch.stack(losses).detach(), flat)

        step = Step(optimizer.vector.layout, 1.0, number, 5)
        update = answered(rule.update(Oracle(ROWS, ROWS if rule.steers else 0), weights, state, step), answer)
        weights, state = update.weights.clone(), update.state
        train(optimizer, model, [batch])
        torch.testing.assert_close(vector(model), weights, rtol=1e-4, atol=1e-5)
        assert optimizer.loss == pytest.approx(float(update.loss), rel=1e-4)


@pytest.mark.parametrize("name", PLAIN)
def test_a_rule_of_one_gradient_is_an_optimizer_like_any_other(name):
    one, other = model_of(), model_of()
    looking, plain = RuleOptimizer(name, one), RuleOptimizer(name, other)
    for x, y in batches(5):
        train(looking, one, [(x, y)])
        plain.zero_grad()
        F.cross_entropy(other(x), y).backward()
        plain.step()
        torch.testing.assert_close(vector(other), vector(one), rtol=1e-5, atol=1e-6)


TORCHS = ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adagrad", "Adadelta", "Rprop", "RMSprop", "Adamax", "ASGD"]


@pytest.mark.parametrize("kind", TORCHS)
def test_any_torch_optimizer_is_a_base_and_a_step_that_is_tried_leaves_no_trace(kind):
    make = getattr(torch.optim, kind)
    plain, wrapped = model_of(), model_of()
    theirs = make(plain.parameters(), lr=0.01)
    ours = RuleOptimizer("gaf:threshold=2", wrapped, make(wrapped.parameters(), lr=0.01))
    for x, y in batches(6):
        theirs.zero_grad()
        F.cross_entropy(plain(x), y).backward()
        theirs.step()
        before, state = vector(wrapped), ours._theirs.collect()
        proposed(ours._theirs, torch.randn(len(before)), before, state, Step(ours.vector.layout))
        ours.vector.scatter(before)
        ours._theirs.hand_back(state)
        train(ours, wrapped, [(x, y)])
        torch.testing.assert_close(vector(wrapped), vector(plain), rtol=1e-4, atol=1e-5)


# --- what people do in their loops ---


def test_batches_of_one_step_are_accumulated():
    one, other = model_of(), model_of()
    whole, parts = (RuleOptimizer("sam", m, adamw(m)) for m in (one, other))
    for x, y in batches(4):
        train(whole, one, [(x, y)])
        for look in parts.looks((x[:10], y[:10]), (x[10:], y[10:])):
            a, b = look.batch
            look.backward(F.cross_entropy(other(a), b))
        torch.testing.assert_close(vector(other), vector(one), rtol=1e-5, atol=1e-6)


def test_microbatches_may_be_batches_of_their_own():
    one, other = model_of(), model_of()
    cut, dealt = (RuleOptimizer("gaf:k=2,threshold=1.5", m, adamw(m)) for m in (one, other))
    for x, y in batches(4):
        train(cut, one, [(x, y)])
        for look in dealt.looks(*((x[i : i + 6], y[i : i + 6]) for i in range(0, ROWS, 6))):
            a, b = look.batch
            look.backward(F.cross_entropy(other(a), b))
        torch.testing.assert_close(vector(other), vector(one), rtol=1e-5, atol=1e-6)
        assert dealt.agreed == cut.agreed


def test_where_their_number_does_not_fit_batches_are_cut():
    """Three batches, two microbatches: halves of each, three to a microbatch."""
    one, other = model_of(), model_of()
    cut, given = (RuleOptimizer("gaf:k=2,threshold=1.5", m, adamw(m)) for m in (one, other))
    for x, y in batches(3):
        train(cut, one, [(x, y)])
        sizes = []
        for look in given.looks(*((x[i : i + 8], y[i : i + 8]) for i in range(0, ROWS, 8))):
            a, b = look.batch
            sizes.append((look.part, len(a)))
            look.backward(F.cross_entropy(other(a), b))
        assert sizes == [(0, 4)] * 3 + [(1, 4)] * 3
        torch.testing.assert_close(vector(other), vector(one), rtol=1e-5, atol=1e-6)


def test_a_scheduler_that_cycles_momentum_finds_it():
    model = model_of()
    optimizer = RuleOptimizer("sam", model, adamw(model))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=5)
    first = optimizer.param_groups[0]["betas"]
    train(optimizer, model, batches(1))
    scheduler.step()
    assert optimizer.param_groups[0]["betas"] != first


def test_a_step_beside_the_loop_is_told_what_it_is():
    model = model_of()
    optimizer = RuleOptimizer("sam", model, adamw(model))
    train(optimizer, model, batches(1))
    with pytest.raises(UserError, match=r"take optimizer.step\(\) out"):
        optimizer.step()


def test_a_loss_may_come_in_parts():
    one, other = model_of(), model_of()
    whole, parts = (RuleOptimizer("gaf:k=2,threshold=2", m, adamw(m)) for m in (one, other))
    for x, y in batches(3):
        train(whole, one, [(x, y)])
        for look in parts.looks((x, y)):
            a, b = look.batch
            for i in range(0, len(a), 4):
                look.backward(F.cross_entropy(other(a[i : i + 4]), b[i : i + 4]) * 4 / len(a))
        torch.testing.assert_close(vector(other), vector(one), rtol=1e-5, atol=1e-6)
        assert parts.loss == pytest.approx(whole.loss)


@pytest.mark.parametrize("name", ["gaf:threshold=1.5", "sam", "grokfast", "momentum"])
def test_a_gradient_is_clipped_where_the_base_is_given_it(name):
    bound, seen = 0.01, []
    model = model_of()
    inner = adamw(model) if hasattr(RULES.parse(name), "base") else None
    optimizer = RuleOptimizer(name, model, inner, clip=bound)
    if inner is not None:
        inner.register_step_pre_hook(
            lambda *_: seen.append(float(torch.cat([p.grad.flatten() for p in model.parameters()]).norm()))
        )
    else:
        before = vector(model)
    train(optimizer, model, batches(3))
    if inner is not None:
        assert seen == pytest.approx([bound] * 3, rel=1e-3)
    else:
        assert float((vector(model) - before).norm()) <= 3 * 0.1 * bound * (1 + 0.9 + 0.81) + 1e-6


@pytest.mark.parametrize("around", [True, False])
@pytest.mark.parametrize("given", ["rule", "inner"])
def test_schedulers_may_be_given_either_optimizer(around, given):
    one, other = model_of(), model_of()
    inner = torch.optim.SGD(one.parameters(), 0.1)
    ours = RuleOptimizer("gaf:threshold=2", one, inner) if around else RuleOptimizer("sgd:lr=0.1", one)
    theirs = torch.optim.SGD(other.parameters(), 0.1)
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: (step + 1) / 4 if step < 4 else 0.5 ** (step - 3))
        for o in (inner if given == "inner" and around else ours, theirs)
    ]
    for x, y in batches(6):
        train(ours, one, [(x, y)])
        theirs.zero_grad()
        F.cross_entropy(other(x), y).backward()
        theirs.step()
        for scheduler in schedulers:
            scheduler.step()
        torch.testing.assert_close(vector(one), vector(other), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_a_scheduler_sees_that_steps_are_made():
    model = model_of()
    optimizer = RuleOptimizer("sam", model, adamw(model))
    rate = optimizer.param_groups[0]["lr"]
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    train(optimizer, model, batches(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns where it saw no step of the optimizer
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rate / 10)


@pytest.mark.parametrize("name", ["gaf:threshold=2", "sam", "grokfast"])
def test_a_gradient_scaler_changes_nothing_but_an_overflow(name):
    one, other = model_of(), model_of()
    plain, scaled = (RuleOptimizer(name, m, adamw(m)) for m in (one, other))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for x, y in batches(5):
        train(plain, one, [(x, y)])
        train(scaled, other, [(x, y)], scaler=scaler)
        scaler.update()
        torch.testing.assert_close(vector(other), vector(one), rtol=1e-5, atol=1e-6)
    before, state = vector(other), copy.deepcopy(scaled.state_dict())
    x, y = batches(1)[0]
    for look in scaled.looks((x, y), scaler=scaler):
        a, b = look.batch
        look.backward(F.cross_entropy(other(a), b) * torch.inf)
    scaler.update()
    assert scaler.get_scale() == 2.0**9
    assert torch.equal(vector(other), before)
    assert same(scaled.state_dict() | {"cost": state["cost"]}, state), "a look that is in vain costs all the same"
    train(scaled, other, [(x, y)], scaler=scaler)
    scaler.update()
    with pytest.raises(UserError, match=r"scaler.update\(\)"):
        train(scaled, other, [(x, y)] * 2, scaler=scaler)


def test_a_scaler_that_is_off_is_none():
    one, other = model_of(), model_of()
    plain, off = (RuleOptimizer("mezo", m) for m in (one, other))
    train(plain, one, batches(3))
    train(off, other, batches(3), scaler=torch.amp.GradScaler("cpu", enabled=False))
    assert torch.equal(vector(one), vector(other))


@pytest.mark.parametrize("name", ["mezo", "es"])
def test_losses_alone_are_checked_under_a_scaler_too(name):
    model = model_of()
    optimizer, scaler = RuleOptimizer(name, model), torch.amp.GradScaler("cpu")
    train(optimizer, model, batches(2)[:1], scaler=scaler)
    scaler.update()
    before = vector(model)
    with pytest.raises(UserError, match="loss that is not a number"):
        train(optimizer, model, [(torch.full((ROWS, 6), torch.nan), batches(1)[0][1])], scaler=scaler)
    assert torch.equal(vector(model), before)


def test_autocast_around_the_whole_loop_sees_the_weights_of_each_look():
    """It keeps rounded copies of the weights, of which a second look must not be a third."""
    moves = []
    for around in (True, False):
        model = model_of()
        optimizer = RuleOptimizer("sam:rho=2", model, torch.optim.SGD(model.parameters(), 1.0))
        before = vector(model)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=around):
            for look in optimizer.looks(batches(1)[0]):
                x, y = look.batch
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    loss = F.cross_entropy(model(x), y)
                look.backward(loss)
        moves.append(vector(model) - before)
    torch.testing.assert_close(moves[0], moves[1], rtol=1e-3, atol=1e-4)


def test_a_loop_that_was_left_but_is_still_held_ends_where_another_begins():
    """An interrupted cell of a notebook holds its loop in the traceback."""
    model = model_of()
    optimizer = RuleOptimizer("sam:rho=1", model, adamw(model))
    x, y = batches(1)[0]
    before = vector(model)
    held = optimizer.looks((x, y))
    look = next(held)
    look.backward(F.cross_entropy(model(x), y))
    next(held)
    assert not torch.equal(vector(model), before)
    with optimizer.judged():
        assert torch.equal(vector(model), before)
    train(optimizer, model, [(x, y)])
    with pytest.raises(UserError, match="another loop"):
        next(held)
    assert optimizer.number == 1


def test_a_parameter_may_be_a_single_number():
    for name in ("sam", "grokfast", "muon", "perp", "sphere"):
        model = model_of()
        model.scale = nn.Parameter(torch.tensor(1.0))
        head = adamw(model) if name in WRAPS else None
        optimizer = RuleOptimizer(name, model, head)
        for look in optimizer.looks(batches(1)[0]):
            x, y = look.batch
            h = model[2](model[1](model[0](x)))
            look.backward(F.cross_entropy(h * model.scale, y))
        assert optimizer.number == 1


def test_groups_are_those_of_the_optimizer_within_also_after_it_was_restored():
    model = model_of()
    inner = adamw(model)
    optimizer = RuleOptimizer("gaf:threshold=2", model, inner)
    train(optimizer, model, batches(1))
    inner.load_state_dict(copy.deepcopy(inner.state_dict()))
    assert optimizer.param_groups is inner.param_groups


def test_a_compiled_model_and_the_plain_one_have_the_same_names():
    model = model_of()
    optimizer = RuleOptimizer("gaf:threshold=2", model, adamw(model))
    train(optimizer, model, batches(2))
    compiled = torch.compile(model_of(), backend="eager")
    again = RuleOptimizer("gaf:threshold=2", compiled, adamw(compiled))
    again.load_state_dict(optimizer.state_dict())
    assert again.number == 2


def test_a_gradient_is_left_as_the_user_made_it():
    model = model_of()
    optimizer = RuleOptimizer("grokfast:lamb=5", model, adamw(model))
    x, y = batches(1)[0]
    F.cross_entropy(model(x), y).backward()
    before = [p.grad.clone() for p in model.parameters()]
    optimizer.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))


def test_what_fails_within_a_try_of_a_step_leaves_the_optimizer_as_it_was():
    model = model_of()
    inner = adamw(model)
    optimizer = RuleOptimizer("crossfit", model, inner)
    train(optimizer, model, batches(2))
    weights, state, tries = vector(model), copy.deepcopy(inner.state_dict()), []

    def third_fails(*_):
        tries.append(1)
        if len(tries) == 3:
            raise KeyError("of the user")

    hook = inner.register_step_pre_hook(third_fails)
    with pytest.raises(KeyError):
        train(optimizer, model, batches(1))
    hook.remove()
    assert torch.equal(vector(model), weights)
    assert same(inner.state_dict(), state)


def test_a_gradient_scaler_drives_a_rule_of_one_gradient_as_any_optimizer():
    one, other = model_of(), model_of()
    plain, scaled = (RuleOptimizer("perp", m, adamw(m)) for m in (one, other))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for x, y in batches(5):
        train(plain, one, [(x, y)])
        scaled.zero_grad()
        scaler.scale(F.cross_entropy(other(x), y)).backward()
        scaler.unscale_(scaled)
        nn.utils.clip_grad_norm_(other.parameters(), 1e6)
        scaler.step(scaled)
        scaler.update()
        torch.testing.assert_close(vector(other), vector(one), rtol=1e-5, atol=1e-6)


def test_mixed_precision_by_autocast_trains():
    model = model_of()
    optimizer = RuleOptimizer("sam", model, adamw(model, lr=0.02))
    losses = []
    for batch in batches(1) * 40:
        for look in optimizer.looks(batch):
            x, y = look.batch
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(model(x), y)
            look.backward(loss)
        losses.append(optimizer.loss)
    assert losses[-1] < 0.7 * losses[0]


def same(one, other):
    """Equal to the last bit, tensors and all."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("around", [True, False])
@pytest.mark.parametrize("name", LOOKS)
def test_kept_and_restored_a_training_goes_on_bit_for_bit(name, around):
    """Through torch.save and the safe way to load, into objects that were made anew."""
    if around and name not in WRAPS:
        pytest.skip("it has no base")
    whole, first = model_of(), model_of()
    data = batches(9)
    straight = RuleOptimizer(name, whole, adamw(whole) if around else None, seed=3)
    train(straight, whole, data)
    optimizer = RuleOptimizer(name, first, adamw(first) if around else None, seed=3)
    train(optimizer, first, data[:5])
    kept = io.BytesIO()
    torch.save([first.state_dict(), optimizer.state_dict()], kept)
    kept.seek(0)
    weights, state = torch.load(kept, weights_only=True)
    second = model_of(seed=4)
    second.load_state_dict(weights)
    again = RuleOptimizer(name, second, adamw(second, lr=0.5) if around else None)
    again.load_state_dict(state)
    train(again, second, data[5:])
    assert torch.equal(vector(second), vector(whole))
    assert same(again.state_dict(), straight.state_dict())


def test_layers_that_keep_statistics_take_in_one_look_only():
    """The well-known trap of sharpness-aware training: the second pass is not of the weights that are kept."""
    one, other = model_of(norm=nn.BatchNorm1d(8)), model_of(norm=nn.BatchNorm1d(8))
    optimizer = RuleOptimizer("sam", one, adamw(one))
    x, y = batches(1)[0]
    train(optimizer, one, [(x, y)])
    other(x)
    assert torch.equal(one[2].running_mean, other[2].running_mean)
    assert int(one[2].num_batches_tracked) == 1
    assert one[2].track_running_stats


def test_what_stands_for_the_model_is_there_while_it_is_judged():
    model = model_of()
    optimizer = RuleOptimizer("ema:decay=0.5", model, adamw(model, lr=0.1))
    train(optimizer, model, batches(6))
    now = vector(model)
    with optimizer.judged():
        average = vector(model)
    assert torch.equal(vector(model), now)
    assert not torch.allclose(average, now)


def test_frozen_parameters_and_tied_ones_are_no_trouble():
    model = model_of()
    model[0].weight.requires_grad_(False)
    head, tied = model[-1], nn.Linear(8, 3)
    tied.weight, tied.bias = head.weight, head.bias
    model.append(tied)
    frozen = model[0].weight.clone()
    optimizer = RuleOptimizer(
        "gaf:threshold=2", model, torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    )
    for batch in batches(3):
        for look in optimizer.looks(batch):
            x, y = look.batch
            look.backward(F.cross_entropy(model[:3](x), y))
    assert torch.equal(model[0].weight, frozen)
    assert optimizer.vector.layout.size == 8 + 8 * 3 + 3


def test_batches_are_cut_in_the_form_that_they_have():
    x, y = batches(1)[0]
    seen = []
    model = model_of()
    optimizer = RuleOptimizer("gaf:k=3,threshold=2", model, adamw(model))
    for look in optimizer.looks({"x": x, "more": [y, (x, "text")], "labels": y}):
        seen.append(look.batch)
        look.backward(F.cross_entropy(model(look.batch["x"]), look.batch["labels"]))
    assert [len(b["more"][1][0]) for b in seen] == [8, 8, 8]
    assert seen[0]["more"][1][1] == "text"
    assert torch.equal(torch.cat([b["x"] for b in seen]), x)


def test_a_loop_that_is_left_early_makes_no_step():
    model = model_of()
    optimizer = RuleOptimizer("sam", model, adamw(model))
    train(optimizer, model, batches(1))
    before, state = vector(model), copy.deepcopy(optimizer.state_dict())
    for looked, look in enumerate(optimizer.looks(batches(1)[0])):
        if looked == 1:
            assert not torch.equal(vector(model), before), "the second look is at other weights"
            break
        x, y = look.batch
        look.backward(F.cross_entropy(model(x), y))
    assert torch.equal(vector(model), before)
    assert same(optimizer.state_dict() | {"cost": state["cost"]}, state)
    train(optimizer, model, batches(1))


# --- what is refused: one line, and nothing of the user's is touched ---


def spoilt(model, spoil, at):
    """A body of the loop that does something wrong at one of the looks."""

    def body(look):
        x, y = look.batch
        loss = F.cross_entropy(model(x), y)
        return spoil(look, loss, model) if look.part == at else look.backward(loss)

    return body


def backward_and(then):
    def spoil(look, loss, model):
        look.backward(loss)
        then(model)

    return spoil


def unused(look, loss, model):
    look.backward(model[-1](torch.ones(1, 8)).sum())


def no_slope(model):
    model[0].weight.grad.fill_(torch.inf)


def sparse(model):
    model[0].bias.grad = model[0].bias.grad.to_sparse()


def replaced(model):
    model[0].bias = nn.Parameter(torch.zeros(8))


SPOILS = {
    "a NaN loss": (lambda look, loss, model: look.backward(loss * torch.nan), "microbatch 2 of 2"),
    "an infinite gradient": (backward_and(no_slope), "microbatch 2 of 2 has a gradient"),
    "a parameter without a gradient": (unused, "0.weight got no gradient"),
    "a sparse gradient": (backward_and(sparse), "sparse"),
    "a loss that is no number": (lambda look, loss, model: look.backward(1.0), "one number in a tensor"),
    "losses of rows": (lambda look, loss, model: look.backward(loss.expand(3)), "one number in a tensor"),
    "a loss without a gradient": (lambda look, loss, model: look.backward(loss.detach()), "no gradient"),
    "no answer": (lambda look, loss, model: None, "look.backward"),
    "a step within": (backward_and(lambda model: torch.nn.init.zeros_(model[0].bias)), "moved within"),
    "a parameter that is replaced": (backward_and(replaced), "not those of the start"),
    "a parameter that is frozen": (backward_and(lambda m: m[0].bias.requires_grad_(False)), "not those of the start"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["gaf:k=2,threshold=2", "gaf-sign", "crossfit:k=2"])
@pytest.mark.parametrize("kind", list(SPOILS))
def test_what_goes_wrong_in_the_loop_is_told_and_nothing_has_moved(kind, name):
    spoil, said = SPOILS[kind]
    model = model_of()
    inner = adamw(model)
    optimizer = RuleOptimizer(name, model, inner)
    train(optimizer, model, batches(2))
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, copy.deepcopy(inner.state_dict())
    body = spoilt(model, spoil, 1)

    def loop():
        for look in optimizer.looks(batches(1)[0]):
            body(look)

    with pytest.raises(UserError, match=said) as error:
        loop()
    assert "\n" not in str(error.value)
    assert same(inner.state_dict(), state)
    if "replaced" not in kind and kind != "a step within":
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_body_that_fails_leaves_the_weights_that_were():
    model = model_of()
    optimizer = RuleOptimizer("sam", model, adamw(model))
    before = vector(model)

    def loop():
        for looked, look in enumerate(optimizer.looks(batches(1)[0])):
            if looked:
                raise KeyError("of the user")
            x, y = look.batch
            look.backward(F.cross_entropy(model(x), y))

    with pytest.raises(KeyError):
        loop()
    assert torch.equal(vector(model), before)


def test_a_nan_is_refused_by_a_plain_step_too():
    model = model_of()
    optimizer = RuleOptimizer("grokfast", model, adamw(model))
    before = vector(model)
    (F.cross_entropy(model(batches(1)[0][0]), batches(1)[0][1]) * torch.nan).backward()
    with pytest.raises(UserError, match="not finite"):
        optimizer.step()
    assert torch.equal(vector(model), before)


X, Y = torch.zeros(4, 6), torch.zeros(4, dtype=torch.long)


def other_model(optimizer, model):
    other = nn.Linear(6, 3)
    RuleOptimizer("gaf", other, adamw(other)).load_state_dict(optimizer.state_dict())


def grown(optimizer, model):
    model.append(nn.Linear(3, 3))
    next(optimizer.looks((X, Y)))


def steered_by_training(optimizer, model):
    next(optimizer.looks((X, Y), steer=(X[:1], Y[:1])))


def of_another_rule(optimizer, model):
    optimizer.load_state_dict(RuleOptimizer("sam", model, adamw(model)).state_dict())


def without_its_optimizer(optimizer, model):
    RuleOptimizer("gaf", model).load_state_dict(optimizer.state_dict())


def one_too_many(optimizer, model):
    RuleOptimizer("gaf", model, torch.optim.SGD([*model.parameters(), nn.Parameter(X)], 0.1))


def of_mixed_kinds(optimizer, model):
    RuleOptimizer("gaf", nn.ModuleList([model, nn.Linear(2, 2).double()]))


def another_loss(optimizer, model):
    RuleOptimizer("perp:stablemax=true", model, adamw(model))


def of_another_optimizer(optimizer, model):
    sgd = RuleOptimizer("gaf", model, torch.optim.SGD(model.parameters(), 0.1))
    sgd.load_state_dict(optimizer.state_dict())


def of_nothing(optimizer, model):
    RuleOptimizer("gaf", model).load_state_dict(RuleOptimizer("gaf", model).state_dict() | {"state": {}})


def an_empty_one(optimizer, model):
    model.empty = nn.Parameter(torch.zeros(0, 4))
    RuleOptimizer("gaf", model)


def odd_memory(optimizer, model):
    inner = torch.optim.SGD(model.parameters(), 0.1)
    inner.state[model[0].weight]["names"] = ["a"]
    next(RuleOptimizer("gaf", model, inner).looks((X, Y)))


REFUSED = {
    "no batch": ("gaf", lambda o, m: o.looks(), "needs a batch"),
    "a batch without rows": ("gaf", lambda o, m: o.looks((X[:0], Y[:0])), "no rows"),
    "another optimizer's state": ("gaf", of_another_optimizer, "of another optimizer within than SGD"),
    "a state of nothing": ("gaf", of_nothing, "base.mean is missing"),
    "a parameter without entries": ("gaf", an_empty_one, "empty has no entries"),
    "an optimizer that needs a closure": (
        "gaf", lambda o, m: RuleOptimizer("gaf", m, torch.optim.LBFGS(m.parameters())), "needs a closure"),
    "an optimizer that remembers a list": ("gaf", odd_memory, "SGD remembers a list"),
    "a copy": ("gaf", lambda o, m: copy.deepcopy(o), "keep its state_dict"),
    "too few rows": ("gaf:k=8", lambda o, m: next(o.looks((X, Y))), "4 rows cannot be split into 8"),
    "batches that cannot be cut": ("gaf:k=8", lambda o, m: o.looks(*[(X, Y)] * 3), "4 rows cannot be split into 8"),
    "a base that is named beside the user's": (
        "gaf", lambda o, m: RuleOptimizer("gaf:base=lion", m, adamw(m)), "lion, the base that the rule names"),
    "parameters for a model": (
        "gaf", lambda o, m: RuleOptimizer("gaf", m.parameters(), adamw(m)), "torch Module, not generator"),
    "another group": ("gaf", lambda o, m: o.add_param_group({"params": [nn.Parameter(X)]}), "make a new one"),
    "rows that do not agree": ("gaf", lambda o, m: next(o.looks((X, Y[:3]))), "3, 4 rows"),
    "no tensor": ("gaf", lambda o, m: next(o.looks("text")), "no tensor"),
    "a step where looks are needed": ("sam", lambda o, m: o.step(), "looks more than once"),
    "a step without a gradient": ("grokfast", lambda o, m: o.step(), "loss.backward"),
    "no problems that steer": ("reweight", lambda o, m: next(o.looks((X, Y))), "problems that steer"),
    "what steers is trained on": ("reweight", steered_by_training, "row 0 of the steer set is row 0"),
    "labels that cannot be found": ("label-noise", lambda o, m: next(o.looks(X)), "find the labels"),
    "another rule's state": ("gaf", of_another_rule, "of the rule sam"),
    "another model's state": ("gaf", other_model, "another model"),
    "no state at all": ("gaf", lambda o, m: o.load_state_dict({"state": {}}), "no state of a RuleOptimizer"),
    "the state of a rule around an optimizer": ("gaf", without_its_optimizer, "another optimizer"),
    "a model that has grown": ("gaf", grown, "not those of the start"),
    "an unknown rule": ("gaf", lambda o, m: RuleOptimizer("gaff", m, adamw(m)), "did you mean 'gaf'"),
    "two that move": ("gaf", lambda o, m: RuleOptimizer("adamw", m, adamw(m)), "leave the other optimizer out"),
    "a loss that is not ours": ("gaf", another_loss, "stablemax_cross_entropy"),
    "parameters left out": ("gaf", lambda o, m: RuleOptimizer("gaf", m, torch.optim.SGD([m[0].weight])), "0.bias"),
    "parameters of another model": ("gaf", one_too_many, "does not have"),
    "nothing to train": ("gaf", lambda o, m: RuleOptimizer("gaf", m.requires_grad_(False)), "no trained parameter"),
    "mixed kinds": ("gaf", of_mixed_kinds, "float32 on cpu, float64 on cpu"),
    "a clip of nothing": ("gaf", lambda o, m: RuleOptimizer("gaf", m, adamw(m), clip=0.0), "norm of clip"),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(REFUSED))
def test_what_cannot_be_is_refused_in_one_line(kind):
    name, ask, said = REFUSED[kind]
    model = model_of()
    inner = adamw(model)
    optimizer = RuleOptimizer(name, model, inner)
    state = copy.deepcopy(inner.state_dict())
    with pytest.raises(UserError, match=said) as error:
        ask(optimizer, model)
    assert "\n" not in str(error.value)
    assert same(inner.state_dict(), state)
