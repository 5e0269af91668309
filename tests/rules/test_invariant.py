"""The rule that looks for invariances in the training examples: what it adopts, and what it makes of a batch."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from crevasse import store
from crevasse.api import make_config
from crevasse.documents import Data, Rows
from crevasse.errors import UserError
from crevasse.integrations.optimizer import RuleOptimizer
from crevasse.rules import RULES
from crevasse.rules.changes import Change, Tally, Values
from crevasse.rules.invariant import candidates, holds
from crevasse.trial import run_trial

MODULUS = 5
CHANGES = [
    Change("order"), Change("order", (0, 2)), Change("reversal"), Change("shift", (0, 2), (1, -1)),
    Change("shift", (1, 2), (1, 1)), Change("shift", (1,), (1,), -1),
]  # fmt: skip


def moved(change, x, answer):
    """All that a change makes of an example, by definition: a set of (values, answer)."""
    n, places = len(x), change.places or tuple(range(len(x)))
    if change.kind == "reversal":
        return {(x, answer), (x[::-1], answer)}
    if max(places) >= n and change.kind == "shift":
        return {(x, answer)}
    if change.kind == "order":
        places = [p for p in places if p < n]
        orders = itertools.permutations([x[p] for p in places])
        return {(tuple(dict(zip(places, o, strict=True)).get(i, x[i]) for i in range(n)), answer) for o in orders}
    steps = dict(zip(places, change.steps, strict=True))
    return {
        (tuple((x[i] + k * steps.get(i, 0)) % MODULUS for i in range(n)), (answer + k * change.answer) % MODULUS)
        for k in range(MODULUS)
    }


def some(rows, seed=0):
    """Different examples of two or three values, in both forms."""
    draw = np.random.default_rng(seed)
    every = [x for n in (2, 3) for x in itertools.product(range(MODULUS), repeat=n)]
    chosen = [every[i] for i in draw.permutation(len(every))[:rows]]
    known = {x: int(draw.integers(MODULUS)) for x in chosen}
    x = torch.tensor([[*row, MODULUS][:3] for row in known])
    return known, Values(x, torch.tensor([*known.values()]), MODULUS)


def plain(values):
    return [
        (tuple(v for v in row if v < values.modulus), answer)
        for row, answer in zip(values.x.tolist(), values.answers.tolist(), strict=True)
    ]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_examples_have_the_same_canonical_form_where_one_leads_to_the_other(change):
    known, values = some(90)
    form = plain(values.canonical(change))
    pairs = list(itertools.combinations(range(len(known)), 2))
    rows = plain(values)
    led = [rows[b][0] in {x for x, _ in moved(change, *rows[a])} for a, b in pairs]
    assert any(led) and [form[a][0] == form[b][0] for a, b in pairs] == led
    assert all(f in moved(change, *row) for f, row in zip(form, rows, strict=True))


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_drawn_example_is_any_of_those_that_the_change_makes(change):
    _, values = some(90)
    generator = torch.Generator().manual_seed(0)
    drawn = [plain(values.drawn(change, generator)) for _ in range(200)]
    for i, row in enumerate(plain(values)):
        assert {d[i] for d in drawn} == moved(change, *row)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_tally_counts_the_answers_that_agree(change):
    """Of each orbit, in whatever order: the known ones but one; all agree only if each says what another one does."""
    known, values = some(60)
    orbits = {}
    for x, answer in known.items():
        orbits.setdefault(frozenset(y for y, _ in moved(change, x, 0)), []).append((x, answer))
    tally = values.tally(change)
    assert tally.facts == sum(len(o) - 1 for o in orbits.values()) > 0
    sure = [o for o in orbits.values() if all((y, b) in moved(change, *o[0]) for y, b in o)]
    assert sum(len(o) - 1 for o in sure) <= tally.agreed < tally.facts
    shares = np.bincount([*known.values()]) / len(known)
    assert tally.chance == pytest.approx(float((shares**2).sum()))


@pytest.mark.parametrize("chance", [0.01, 0.3])
def test_what_holds_is_no_accident(chance):
    """The bound is above the exact tail of a binomial; agreement without exception is enough once there is much."""
    nats, halfway = math.log(1000), (1 + chance) / 2
    for facts in (5, 30, 300):
        for agreed in range(facts + 1):
            if holds(Tally(facts, agreed, chance), nats):
                assert stats.binom.sf(agreed - 1, facts, halfway) <= math.exp(-nats)
    assert holds(Tally(30, 30, chance), nats)
    assert not holds(Tally(5, 5, chance), nats)
    assert not holds(Tally(0, 0, chance), nats) and not holds(Tally(300, 300, 1.0), nats)


ADDITION = {"values in any order", "value 1 +1, value 2 -1", "value 1 +1, answer +1", "value 2 +1, answer +1"}


@pytest.mark.parametrize(
    ("task", "fields", "found"),
    [
        ("modular:p=31", {}, ADDITION),
        ("modular:p=31", {"labels": "noisy", "noise": 0.1}, ADDITION),
        ("modular:p=31", {"labels": "random"}, set()),
        ("modular:p=31,op=sub", {}, {"value 1 +1, value 2 +1", "value 1 +1, answer +1", "value 2 +1, answer -1"}),
        ("modular:p=31,op=mul", {}, {"values in any order"}),
        ("modular:p=31,op=div", {}, set()),
        ("words:group=S3,T=5,gap=,beyond=6", {}, set()),
    ],
)
def test_it_finds_the_invariances_of_a_task_and_no_others(task, fields, found):
    config = make_config(task, "direct", "mlp" if "modular" in task else "bilinear", "adamw", train=460, **fields)
    values = Rows.of(Data(config).train).values
    every = candidates(values.x.shape[1])
    adopted = {str(c) for c in every if holds(values.tally(c), math.log(len(every) / 0.01))}
    assert adopted == found


@pytest.mark.parametrize(
    ("truth", "found"),
    [
        (lambda a, b: a < b, set()),  # neighbours agree nearly always
        (lambda a, b: np.maximum(a, b) // 8, {"values in any order"}),
        (lambda a, b: (a + b) % 31 // 10, {"values in any order", "value 1 +1, value 2 -1"}),
    ],
)
def test_answers_that_vary_slowly_are_no_invariance(truth, found):
    a, b = np.divmod(np.random.default_rng(0).permutation(31 * 31)[:480], 31)
    values = Values(torch.tensor(np.stack([a, b], 1)), torch.tensor(truth(a, b).astype(np.int64)), 31)
    assert {str(c) for c in candidates(2) if holds(values.tally(c), math.log(7 / 0.01))} == found


def test_nothing_is_moved_to_where_it_never_stands():
    """An operator between two numbers stays between them; numbers that are not all there are do not go around."""
    rows = [(a, 10, b) for a in range(10) for b in range(10)]
    values = Values(torch.tensor(rows), torch.tensor([a * b % 11 for a, _, b in rows]), 11)
    found = [c for c in candidates(3) if holds(values.tally(c), math.log(30 / 0.01))]
    assert found == [Change("order", (0, 2))]


def test_it_moves_the_examples_of_a_trial_and_tells_what_it_found(tmp_path, small):
    """Each changed row is a product of the same factors; a trial says so, and goes on bit for bit when stopped."""
    config = small("iterated-product:p=5,T=4,beyond=5", rule="invariant:base.lr=0.01", train=200, steps=30)
    record = run_trial(config, tmp_path / "one")
    assert record["result"]["notes"][-1].startswith("invariances found in the training examples: values in any order")
    rows = Rows.of(Data(config).train)
    batch = torch.arange(50)
    changed = rows.changed(batch, (Change("order"),), torch.Generator().manual_seed(0))
    before, after = plain(rows.values)[:50], plain(changed.values)
    assert [(sorted(x), a) for x, a in before] == [(sorted(x), a) for x, a in after]
    assert before != after and torch.equal(rows.values.x[:50], Rows.of(Data(config).train).values.x[:50])

    def stop(progress):
        if progress.step >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(config, tmp_path / "two", progress=stop, checkpoint_seconds=0)
    run_trial(config, tmp_path / "two")
    one, two = ((tmp_path / r / "trials" / config.id / store.WEIGHTS).read_bytes() for r in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(("task", "form"), [("iterated-product:p=5,T=4,beyond=5", "trace"), ("factorial", "direct")])
def test_documents_that_are_no_values_are_refused(task, form, tmp_path, small):
    with pytest.raises(UserError, match="moves the values of an example"):
        run_trial(
            small(task, form, rule="invariant", train=None if task == "factorial" else 120, held_out=10), tmp_path
        )


def test_training_elsewhere_refuses_it():
    with pytest.raises(UserError, match="only a trial can"):
        RuleOptimizer("invariant", torch.nn.Linear(2, 2), "adamw")
    assert RULES.parse("invariant:alpha=0").changes is False
