"""Weights set by formula, judged as a trained model is: every answer right, at every length."""

import itertools
import math

import numpy as np
import pytest
import torch

from crevasse.config import TrialConfig
from crevasse.documents import Data
from crevasse.errors import UserError
from crevasse.formats import FORMATS
from crevasse.formats.generate import generate
from crevasse.formats.script import FILLER, MARKS
from crevasse.judgement import judge
from crevasse.models import MODELS
from crevasse.models.constructed.addition import set_addition
from crevasse.models.constructed.automata import Automaton, explore
from crevasse.models.constructed.counter import EXACT, Multiplier, factorial, running_products
from crevasse.models.constructed.looped import looped_width, set_looped
from crevasse.models.constructed.recurrent import bilinear_size, gru_width, set_bilinear, set_gru
from crevasse.rules import RULES
from crevasse.tasks import Problems, parse_task
from crevasse.tasks.groups import multiplication_table

FIRST = len(MARKS)  # the token of residue 0


# --- automata, made from the definition of each task -----------------------------------------------------------------
def monoid(table, symbols=None):
    """The word's product from the left, of a multiplication table."""
    symbols = np.arange(len(table)) if symbols is None else np.array(symbols)
    return Automaton(table[:, symbols], symbols, symbols + FIRST, np.arange(len(table)) + FIRST)


def product(p):
    table = np.arange(p)[:, None] * np.arange(p) % p
    return Automaton(table[1:, 1:] - 1, np.arange(p - 1), np.arange(1, p) + FIRST, np.arange(1, p) + FIRST)


def counter(m, symbols):
    return monoid((np.arange(m)[:, None] + np.arange(m)) % m, symbols)


def fresh_affine(p):
    """State: the value, and whether b comes next."""

    def step(state, v):
        value, b_next = state
        return ((value + v) % p, False) if b_next else (value * v % p, True)

    tokens = range(FIRST, FIRST + p)
    return explore([(v, False) for v in range(p)], step, tokens, lambda state: state[0] + FIRST)


def factorial_mod(primes):
    """State: n alone, then p, counter and product; a filler is a step."""
    values = range(max(primes) + 1)

    def step(state, symbol):
        if len(state) == 1:
            (n,) = state
            return (symbol, n - 1, n) if symbol in primes and n < symbol else state
        p, count, product = state
        return (p, count - 1, product * count % p) if symbol == len(values) and count > 0 else state

    tokens = [*range(FIRST, FIRST + len(values)), FILLER]
    return explore([(v,) for v in [*values, 0]], step, tokens, lambda state: state[-1] + FIRST)


CASES = {
    "parity:T=1-10,beyond=20": counter(2, [0, 1]),
    "cycle:T=1-8,beyond=20": counter(5, [1, 4]),
    "iterated-product:p=7,T=1-4,beyond=20": product(7),
    "iterated-product:p=13,T=1-3,beyond=6+8": product(13),
    "words:group=S3,T=1-4,gap=,beyond=20": monoid(multiplication_table("S3")),
    "words:group=S4,T=1-2,gap=,beyond=3+6": monoid(multiplication_table("S4")),
    "affine:p=5,maps=fresh,n=1-2,gap=,beyond=4": fresh_affine(5),
}
WRITERS = {
    "bilinear": (set_bilinear, lambda a: "bilinear:width={},products={}".format(*bilinear_size(a))),
    "gru": (set_gru, lambda a: f"gru:width={gru_width(a)}"),
    "looped": (set_looped, lambda a: f"looped:width={4 * math.ceil(looped_width(a) / 4)},heads=2"),
}


def built(task, form, model, write, *data):
    """A config, its data, and the model with constructed weights."""
    config = TrialConfig(
        parse_task(task), FORMATS.parse(form), MODELS.parse(model), RULES.parse("sgd"), train=5, held_out=40, steps=0
    )
    made = Data(config)
    torch.manual_seed(0)
    network = config.model.build(made.script.size, made.context, made.silent)
    write(network, *data)
    return config, made, network


def right(made, network, x):
    """The share of problems that are answered rightly, running freely. x (problem, column)"""
    problems = Problems(x, made.script.task.solve(x))
    written = generate(network, made.form, made.script, made.encode(problems), x, rows=4096)
    return np.mean([o.correct for o in written])


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("task", CASES)
def test_an_automaton_answers_everything(task, name):
    automaton, (write, text) = CASES[task], WRITERS[name]
    spec = text(automaton)
    if name == "looped" and "affine" in task:  # two tokens a step
        spec += ",loops=9"
    config, made, network = built(task, "direct", spec, write, automaton)
    if config.task.count(config.task.train_sizes) <= 20_000:
        assert right(made, network, config.task.every(config.task.train_sizes)) == 1
    found = judge(config, made, network)
    assert found["splits"] and set(found["splits"].values()) == {1.0}, found["splits"]


@pytest.mark.parametrize("form", ["filler", "filler:tokens=25"])
@pytest.mark.parametrize("name", WRITERS)
def test_the_factorial_modulo_p_is_counted_down_on_fillers(name, form):
    primes = (5, 7) if name == "looped" else (5, 7, 11, 13)
    automaton, (write, text) = factorial_mod(primes), WRITERS[name]
    last = max(primes) - 1
    task = f"factorial-mod:n=1-{last - 1},p={'+'.join(map(str, primes))},gap=,beyond={last}"
    spec = text(automaton) + (",loops=26" if name == "looped" else "")
    config, made, network = built(task, form, spec, write, automaton)
    whole = config.task.every(config.task.sizes)
    assert len(whole) == sum(p - 1 for p in primes)
    assert right(made, network, whole) == 1
    assert set(judge(config, made, network)["splits"].values()) == {1.0}


@pytest.mark.parametrize(("name", "length", "rows"), [("bilinear", 3000, 4), ("gru", 3000, 4), ("looped", 257, 2)])
def test_errors_do_not_grow_along_a_word(name, length, rows):
    automaton, (write, text) = monoid(multiplication_table("S3")), WRITERS[name]
    vocabulary = FIRST + automaton.states
    network = MODELS.parse(text(automaton)).build(vocabulary, length, FIRST)
    write(network, automaton)
    words = torch.randint(FIRST, vocabulary, (rows, length), generator=torch.Generator().manual_seed(3))
    steps = torch.full((rows,), length - 1)
    with torch.no_grad():
        hidden = network(words, steps)
        logits = network.head(hidden)[:, :, FIRST:]
    table = multiplication_table("S3")
    states = [list(itertools.accumulate(word, lambda a, b: table[a, b])) for word in (words - FIRST).tolist()]
    states = torch.tensor(np.array(states))
    assert torch.equal(logits.argmax(2), states)
    others = logits.scatter(2, states[:, :, None], -torch.inf).amax(2)
    assert (logits.amax(2) - others).min() > 19
    if name == "bilinear":
        one_hot = torch.nn.functional.one_hot(states, hidden.shape[2])
        assert (hidden[:, 1:] - one_hot[:, 1:]).abs().max() < 1e-5
    if name == "gru":
        assert torch.equal(
            hidden.abs(), (torch.arange(hidden.shape[2]) < gru_width(automaton)).float().expand_as(hidden)
        )


def test_random_words_of_s5():
    automaton = monoid(multiplication_table("S5"))
    assert bilinear_size(automaton) == (120, 120**2)
    _, made, network = built(
        "words:group=S5,T=1-2,gap=,beyond=20", "direct", WRITERS["bilinear"][1](automaton), set_bilinear, automaton
    )
    assert right(made, network, np.random.default_rng(5).integers(0, 120, (8, 256))) == 1


def test_a_loop_is_a_step():
    automaton = monoid(multiplication_table("S3"))
    spec = WRITERS["looped"][1](automaton)
    for loops in (2, 3, 7):
        _, made, network = built(
            "words:group=S3,T=4,gap=,beyond=5", "direct", f"{spec},loops={loops}", set_looped, automaton
        )
        share = right(made, network, made.script.task.every((4,)))
        assert share == 1 if loops >= 3 else share < 0.5


@pytest.mark.parametrize("name", WRITERS)
def test_any_table_will_do_and_every_weight_is_overwritten(name):
    rng = np.random.default_rng(7)
    automaton = Automaton(
        rng.integers(0, 5, (5, 3)), rng.integers(0, 5, 3), np.array([9, 4, 6]), np.array([3, 8, 3, 5, 9])
    )
    write, text = WRITERS[name]
    networks = []
    for seed in range(2):
        torch.manual_seed(seed)
        networks.append(MODELS.parse(text(automaton)).build(10, 12, 2))
        write(networks[-1], automaton)
    a, b = (n.state_dict() for n in networks)
    assert all(torch.equal(a[k], b[k]) for k in a)
    words = torch.from_numpy(rng.choice([9, 4, 6, 2], (200, 11)))  # 2 is not listed
    words[words[:, 0] == 2, 0] = 4
    expected = []
    for first, *rest in words.tolist():
        state = automaton.first[[9, 4, 6].index(first)]
        for token in rest:
            state = state if token == 2 else automaton.table[state, [9, 4, 6].index(token)]
        expected.append(automaton.answers[state])
    with torch.no_grad():
        found = networks[0].head(networks[0](words, torch.full((200,), 10), first=10)[:, -1]).argmax(1)
    assert found.tolist() == expected and len(set(expected)) > 2


def test_terms_are_fewer_where_symbols_act_alike():
    reset = np.tile(np.arange(4), (30, 1))  # four symbols, each leading all of thirty states to one
    assert len(Automaton(reset, np.arange(4), np.arange(4), np.arange(30)).terms.target) == 4 + 30
    assert len(counter(5, range(5)).terms.target) == 25
    assert len(counter(5, [1, 4]).terms.target) == 15  # and the marks, that change nothing


SMALL = {
    "bilinear:width=5,products=36": (set_bilinear, "takes a bilinear model of width 6 with 36 products"),
    "bilinear:width=6,products=35": (set_bilinear, "not 6 with 35"),
    "gru:width=42": (set_gru, "takes a gru of width 43, not 42"),
    "gru:width=43,layers=2": (set_gru, "a gru of one layer"),
    "lstm:width=43": (set_gru, "a gru of one layer"),
    "looped:width=42,heads=1": (set_looped, "even width of at least"),
    "looped:width=64,heads=64": (set_looped, "heads of 2 or more"),
    "looped:width=64,position=none": (set_looped, "position=learned"),
}


@pytest.mark.parametrize("spec", SMALL)
def test_what_is_too_small_is_refused(spec):
    write, words = SMALL[spec]
    automaton = monoid(multiplication_table("S3"))
    network = MODELS.parse(spec).build(FIRST + 6, 9, FIRST)
    before = [p.clone() for p in network.parameters()]
    with pytest.raises(UserError, match=words) as caught:
        write(network, automaton)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True))


def test_arrays_that_do_not_fit_are_refused():
    good = monoid(multiplication_table("S3"))
    for change, words in [
        ({"first": good.first[:5]}, "as many answers"),
        ({"table": good.table + 1}, "numbered from 0 to 5"),
        ({"tokens": good.tokens * 0}, "a token of its own"),
    ]:
        with pytest.raises(UserError, match=words):
            Automaton(
                **{"table": good.table, "first": good.first, "tokens": good.tokens, "answers": good.answers} | change
            )
    network = MODELS.parse("bilinear:width=8,products=40").build(FIRST + 5, 9, FIRST)
    with pytest.raises(UserError, match="tokens of this model are numbered"):
        set_bilinear(network, good)
    network = MODELS.parse("bilinear:width=8,products=40").build(FIRST + 6, 9, FIRST + 1)
    with pytest.raises(UserError, match="writes tokens from 8 to 12"):
        set_bilinear(network, good)


# --- addition --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("p", [59, 97])
@pytest.mark.parametrize("spec", ["mlp", "mlp:embeddings=shared", "mlp:width=2,hidden=5", "mlp:width=12,hidden=100"])
def test_cosines_add_every_pair(spec, p):
    config, made, network = built(f"modular:op=add,p={p}", "direct", spec, set_addition, np.arange(p) + FIRST)
    whole = config.task.every(config.task.train_sizes)
    assert len(whole) == p**2 and right(made, network, whole) == 1
    assert judge(config, made, network)["splits"] == {"random": 1.0}
    a, b = whole.T
    with torch.no_grad():
        tokens = torch.from_numpy(whole + FIRST)
        logits = network.head(network(tokens, torch.ones(len(whole)), first=1)[:, 0])[:, FIRST:].double()
    wanted = torch.from_numpy((a + b) % p)[:, None]
    lead = logits.gather(1, wanted)[:, 0] - logits.scatter(1, wanted, -torch.inf).amax(1)
    assert lead.min() == pytest.approx(20, rel=0.1)


def test_addition_that_cannot_be_is_refused():
    for spec, m, frequencies, words in [
        ("mlp:width=2,hidden=4", 59, (), "takes 5 hidden units a frequency"),
        ("mlp:width=6,hidden=60", 59, (1, 2, 3, 4), "take an mlp of width 8, not 6"),
        ("mlp", 15, (5,), "frequencies prime to 15"),
        ("mlp", 12, (), "an odd modulus"),
        ("mlp:layers=2", 59, (), "one layer that reads two tokens"),
    ]:
        network = MODELS.parse(spec).build(FIRST + m, 3, FIRST)
        with pytest.raises(UserError, match=words):
            set_addition(network, np.arange(m) + FIRST, frequencies)
    with pytest.raises(UserError, match="one layer that reads two tokens"):
        set_addition(MODELS.parse("mlp").build(FIRST + 5, 4, FIRST), np.arange(5) + FIRST)


# --- n! itself -------------------------------------------------------------------------------------------------------
def test_the_multiplier_is_exact_as_far_as_float64_goes():
    for n in range(1, EXACT + 1):
        assert running_products(n) == [math.perm(n, k) for k in range(1, n + 1)]
        assert int(factorial(n)) == math.factorial(n)
    beyond = Multiplier()(torch.tensor([EXACT + 1]), EXACT + 1)[0, -1]
    assert int(beyond) != math.factorial(EXACT + 1)
    for n in (0, EXACT + 1):
        with pytest.raises(UserError, match="from 1 to 22"):
            factorial(n)


def test_the_multiplier_writes_the_trace_of_the_task():
    task = parse_task("factorial:figures=0,n=1-22,gap=,beyond=")
    x = np.arange(1, EXACT + 1)[:, None]
    states = task.solve(x).states[:, :, 0]
    for n, expected in zip(x[:, 0].tolist(), states, strict=True):
        assert running_products(n) == [v for v in expected.tolist() if v != -1]


@pytest.mark.parametrize("epsilon", [1e-3, -1e-6])
def test_errors_of_the_two_constants_grow_as_the_closed_forms_say(epsilon):
    for n in (5, 22):
        falling = math.prod(n - k * (1 + epsilon) for k in range(n))
        assert factorial(n, decrement=1 + epsilon) == pytest.approx(falling, rel=1e-12)
        assert factorial(n, factor=1 + epsilon) == pytest.approx(math.factorial(n) * (1 + epsilon) ** n, rel=1e-12)


def test_every_weight_can_be_nudged():
    exact, changed = factorial(9), 0
    for i in range(27):
        nudge = torch.zeros(27, dtype=torch.float64)
        assert factorial(9, nudge=nudge) == exact
        nudge[i] = 1e-6
        changed += factorial(9, nudge=nudge) != exact
    nudge = torch.zeros(27, dtype=torch.float64)
    nudge[18 + 3] = -0.01  # out: what the counter takes of 1 · 1
    assert factorial(9, nudge=nudge) == pytest.approx(factorial(9, decrement=1.01), rel=1e-12)
    assert changed == 27
    with pytest.raises(UserError, match="27 numbers"):
        factorial(9, nudge=torch.zeros(26))
