"""The race of narrow models."""

import pytest
import torch
from problem import Network, Problem, same_however_stopped
from torch import nn

from crevasse.api import make_config
from crevasse.errors import UserError
from crevasse.integrations.optimizer import RuleOptimizer
from crevasse.rules import RULES, Oracle
from crevasse.spec import describe
from crevasse.trial import run_trial

SMALL = "race:cells=8,each=10,thin=2.5,refit=4,gain=0.001,enough=0"


def steer_loss(p, weights):
    with p.weights.at(weights):
        return float(p.loss(p.steered).detach())


def test_it_goes_on_wherever_it_was_stopped():
    assert int(same_however_stopped(RULES.parse(SMALL), 40)["blocks"]) > 0


def test_the_steer_loss_of_the_model_only_falls():
    p, rule = Problem(), RULES.parse(SMALL)
    state = p.start(rule)
    start, losses = p.weights.flat.clone(), [steer_loss(p, torch.zeros_like(p.weights.flat))]
    for _ in range(60):
        before = p.weights.flat.clone()
        state = p.step(rule, state).state
        if not torch.equal(before, p.weights.flat):
            losses.append(steer_loss(p, p.weights.flat))
            assert losses[-1] == pytest.approx(float(state["lowest"]), abs=1e-5)
    assert len(losses) > 2 and losses == sorted(losses, reverse=True)
    assert not torch.equal(start, p.weights.flat)


def test_what_was_kept_stays_and_the_rest_is_zero():
    p, rule = Problem(), RULES.parse(SMALL.replace("refit=4", "refit=0"))
    state = p.start(rule)
    state = p.train(rule, 10, state)
    assert int(state["blocks"]) == 1
    outside = torch.ones(p.layout.size, dtype=torch.bool)
    outside[rule.block(p.layout, 0)] = False
    assert (p.weights.flat[outside] == 0).all() and outside.any()
    assert int(rule.rounds(p.layout)) == 2
    first, second = (set(rule.block(p.layout, i).tolist()) for i in (0, 1))
    shared = {e for part in p.layout.parts if part.axes == () for e in range(part.start, part.start + part.size)}
    assert first & second == shared


def test_a_round_that_gains_too_little_leaves_no_trace():
    p, rule = Problem(), RULES.parse("race:cells=8,each=10,thin=2.5,gain=100,patience=2")
    before = p.weights.flat.clone()
    state = p.train(rule, 30)
    assert torch.equal(p.weights.flat, before)
    assert int(state["blocks"]) == 0 and int(state["failed"]) == 2 and int(state["phase"]) == 2


def test_models_are_given_up_on_the_way_and_what_is_left_is_paid():
    p, rule = Problem(), RULES.parse("race:cells=64,each=20,thin=2.5,refit=0")
    share = len(p.layout.window(rule.window(p.layout, 1))) / p.layout.size
    state, alive, rows = p.start(rule), [], 0
    for _ in range(20):
        state = p.step(rule, state).state
        alive.append(len(state["cells"]))
    assert alive == [64] * 3 + [16] * 4 + [6] * 5 + [2] * 8
    rows = 1 + 64 * 4 + 16 * 4 + 6 * 5 + 2 * 7  # of each step those that began it, and the one that knows nothing
    judged = 64 + 16 + 6 + 2
    assert p.cost.backward_rows == pytest.approx(24 * share * (rows - 1))
    assert p.cost.forward_rows == pytest.approx(24 * share * (rows + judged))
    assert p.cost.samples == 24 * (rows - 1)


def test_the_models_kept_first_are_those_of_the_lowest_steer_loss():
    p, rule = Problem(), RULES.parse("race:cells=8,each=1,thin=2.5,refit=0,gain=0")
    state = p.step(rule, p.start(rule)).state
    born = rule.born(p.start(rule), p.now(), rule.block(p.layout, 0), 0)
    assert len(born) == 8 and len({tuple(row.tolist()) for row in born}) == 8
    whole = torch.zeros(8, p.layout.size)
    whole[:, rule.block(p.layout, 0)] = state["cells"]
    losses = [steer_loss(p, w) for w in whole]
    kept = steer_loss(p, state["kept"]) if int(state["blocks"]) else steer_loss(p, torch.zeros(p.layout.size))
    assert kept == pytest.approx(min([*losses, steer_loss(p, torch.zeros(p.layout.size))]), abs=1e-6)


def test_by_the_training_loss_no_steer_set_is_asked_for():
    rule = RULES.parse(f"{SMALL},by=train")
    assert not rule.steers and RULES.parse(SMALL).steers
    assert RULES.parse(describe(rule)) == rule
    p, asks = Problem(steer=0), []
    answer = p.answer
    p.answer = lambda rows, ask: asks.append(ask) or answer(rows, ask)
    state = p.train(rule, 40)
    assert len(asks) > 40 and not any(ask.steer for ask in asks)
    assert int(state["blocks"]) > 0
    assert float(p.ask(Oracle.loss)) == pytest.approx(float(state["lowest"]), abs=1e-5)


def test_by_the_training_loss_the_model_of_the_lowest_one_is_kept():
    p, rule = Problem(), RULES.parse("race:cells=8,each=1,thin=2.5,refit=0,gain=0,by=train")
    state = p.step(rule, p.start(rule)).state
    whole = torch.zeros(9, p.layout.size)  # the last is the one that knows nothing
    whole[:8, rule.block(p.layout, 0)] = state["cells"]
    losses = [float(p.ask(lambda oracle, w=w: oracle.loss(w))) for w in whole]
    assert float(p.ask(lambda oracle: oracle.loss(state["kept"]))) == pytest.approx(min(losses), abs=1e-6)
    assert float(state["lowest"]) == pytest.approx(min(losses), abs=1e-6)


@pytest.mark.parametrize("growth", [0, 1, 5])
def test_no_more_models_are_kept_than_may_be(growth):
    rule = RULES.parse(SMALL.replace("gain=0.001", f"gain=0,patience=9,growth={growth}"))
    p = Problem()
    state = p.train(rule, 120)
    assert rule.rounds(p.layout) == int(state["blocks"]) == (1 if growth == 1 else 2)
    assert int(state["phase"]) == 2
    outside = torch.ones(p.layout.size, dtype=torch.bool)
    outside[rule.block(p.layout, 0)] = False
    assert (p.weights.flat[outside] == 0).all() == (growth == 1)


def test_the_last_model_that_may_be_kept_is_still_refitted():
    p, rule = Problem(), RULES.parse(SMALL + ",growth=1")
    state = p.train(rule, 10)
    assert (int(state["blocks"]), int(state["phase"])) == (1, 1)
    state = p.train(rule, 4, state)
    assert int(state["phase"]) == 2


def test_a_training_ends_with_the_race_and_goes_on_to_the_same_end(tmp_path):
    rule = "race:cells=4,each=5,refit=2,growth=1,thin=4"
    config = make_config(
        "iterated-product:p=5,T=1-3,beyond=4", "direct", "bilinear:width=8,products=16", rule,
        train=60, steer=20, batch=32, steps=200, schedule="constant", warmup=0.0, probe_every=5,
    )  # fmt: skip
    whole = run_trial(config, tmp_path / "whole")["result"]
    assert whole["steps"] < 60

    stops = iter(range(1, 200, 3))

    def stop(progress):
        if progress.step >= next(stops):
            raise KeyboardInterrupt

    while True:
        try:
            record = run_trial(config, tmp_path / "cut", progress=stop)
            break
        except KeyboardInterrupt:
            continue
    for name in ("ledger.parquet", "weights.safetensors"):
        a, b = ((tmp_path / place / "trials" / config.id / name).read_bytes() for place in ("whole", "cut"))
        assert a == b
    assert record["result"]["steps"] == whole["steps"]


@pytest.mark.parametrize("rule", [SMALL, "starve:by=width", "starve:by=dropout"])
def test_a_model_without_widths_is_refused_before_it_trains(tmp_path, rule):
    config = make_config("modular:p=11", "direct", "mlp", rule, train=60, steer=12, batch=32)
    with pytest.raises(UserError, match="which widths it has"):
        run_trial(config, tmp_path)
    assert not list(tmp_path.glob("trials/*/trial.json"))
    with pytest.raises(UserError, match="which widths it has"):
        RuleOptimizer(RULES.parse(rule), nn.Linear(6, 3))


def test_a_network_of_somebody_else_is_raced_in_its_own_loop():
    torch.manual_seed(0)
    network = Network(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    p = Problem()
    optimizer = RuleOptimizer(RULES.parse(SMALL), network)
    for _ in range(12):
        for look in optimizer.looks((p.x[p.rows], p.y[p.rows]), steer=(p.x[p.steered], p.y[p.steered])):
            x, y = look.batch
            look.backward(nn.functional.cross_entropy(network(x), y))
    with torch.no_grad():
        lost = float(nn.functional.cross_entropy(network(p.x[p.steered]), p.y[p.steered]))
    assert lost < torch.tensor(3.0).log()
    assert int(optimizer._state["blocks"]) > 0


@pytest.mark.parametrize(
    "text", ["cells=0", "each=0", "thin=0.5", "gain=-1", "lr=-1", "patience=0", "growth=-1", "by=held-out"]
)
def test_settings_that_cannot_be_are_refused(text):
    with pytest.raises(UserError, match=text.partition("=")[0]):
        RULES.parse(f"race:{text}")
