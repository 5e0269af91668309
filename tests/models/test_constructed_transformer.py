"""Transformers whose weights are set by formula, judged as trained ones are: right as far as they reach."""

import dataclasses

import numpy as np
import pytest
import torch

from crevasse.config import TrialConfig
from crevasse.documents import Data
from crevasse.errors import UserError
from crevasse.formats import FORMATS, Encoded
from crevasse.formats.generate import generate
from crevasse.formats.script import END, EQUALS, MARKS
from crevasse.judgement import judge
from crevasse.models import MODELS
from crevasse.models.constructed.doubling import Ask, doubling_width, set_doubling
from crevasse.models.constructed.parity import counting_width, set_counting
from crevasse.rules import RULES
from crevasse.tasks import Problems, parse_task
from crevasse.tasks.base import stack_rows
from crevasse.tasks.groups import multiplication_table

FIRST = len(MARKS)  # the token of residue 0, and of the digit 0
ASK = Ask(EQUALS, END)


def built(task, form, model, write, *data):
    """A config, its data, and the model with constructed weights. model: by the context"""
    text = MODELS.parse("transformer")
    config = TrialConfig(parse_task(task), FORMATS.parse(form), text, RULES.parse("sgd"), train=3, held_out=50, steps=0)
    made = Data(config)
    torch.manual_seed(0)
    network = MODELS.parse(model(made.context)).build(made.script.size, made.context, made.silent)
    write(network, *data)
    return config, made, network


def answers(made, network, x):
    """What the model answers, running freely, and what is right. x (problem, column) -> (problem,), (problem,)"""
    solution = made.script.task.solve(x)
    encoded = made.encode(Problems(x, solution))
    read = np.full(len(x), -1)
    for length in np.unique(encoded.prompt):  # one after another: else most of them wait for the longest
        rows = np.flatnonzero(encoded.prompt == length)
        some = Encoded(*(getattr(encoded, f.name)[rows] for f in dataclasses.fields(encoded)))
        for row, o in zip(rows, generate(network, made.form, made.script, some, x[rows], rows=8192), strict=True):
            read[row] = made.script.numbers(o.answer)[0] if o.answer else -1
    return read, solution.answers[:, 0].astype(np.int64)


def exact(made, network, x):
    found, right = answers(made, network, x)
    return bool((found == right).all()) and len(x) > 0


def asked(made, sizes, limit=300, listed=20_000):
    """All problems of each size of which there are few, else some."""
    task, rng = made.script.task, np.random.default_rng(0)
    few = [task.every((s,)) if task.count((s,)) <= listed else task.sample(rng, limit, (s,)) for s in sizes]
    return stack_rows(few)


def cyclic(m):
    return (np.arange(m)[:, None] + np.arange(m)) % m


def monoid(table, values):
    """Table, tokens, elements and answers, where elements are written as these residues."""
    tokens = np.array(values) + FIRST
    return table, tokens, np.arange(len(table)), tokens


def product(p):
    x = np.arange(1, p)
    return monoid(x[:, None] * x % p - 1, x)


def group(name):
    table = multiplication_table(name)
    return monoid(table, range(len(table)))


def doubling(layers, elements, heads=2):
    return lambda _: f"transformer:layers={layers},width={doubling_width(elements, layers)},heads={heads}"


# --- doubling ---------------------------------------------------------------------------------------------------------
REACH = {
    "parity:T={}": monoid(cyclic(2), [0, 1]),
    "iterated-product:p=5,T={}": product(5),
    "words:group=S3,gap=,T={}": group("S3"),
}


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("task", REACH)
def test_m_layers_multiply_2_to_the_m_and_no_more(task, layers):
    data, reach = REACH[task], 2**layers
    table = data[0]
    text = task.format(f"1-{reach}") + f",beyond={reach + 1}"
    _, made, network = built(text, "direct", doubling(layers, len(table)), set_doubling, *data)
    assert exact(made, network, asked(made, range(1, reach + 1), listed=2_000))
    # One more: the first factor is not seen, so that the answer is wrong wherever it was not the identity.
    longer = asked(made, [reach + 1], listed=2_000)
    found, right = answers(made, network, longer)
    assert (found == answers(made, network, longer[:, 1:])[1]).all()
    one = {"iterated-product": 1}.get(made.script.task.name, 0)
    assert ((found == right) == (longer[:, 0] == one)).all() and (found != right).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "layers", "data"),
    [
        ("iterated-product:p=7,T=1-4,beyond=5-8", 3, product(7)),
        ("iterated-product:p=13,T=1-3,beyond=16", 4, product(13)),
        ("words:group=S4,T=1-3,gap=,beyond=4", 2, group("S4")),
        ("cycle:T=1-10,beyond=32", 5, monoid(cyclic(5), range(5))),
    ],
)
def test_monoids(task, layers, data):
    config, made, network = built(task, "direct", doubling(layers, len(data[0])), set_doubling, *data)
    assert exact(made, network, asked(made, config.task.sizes))
    found = judge(config, made, network)
    assert found["train"] == 1 and set(found["splits"].values()) == {1.0} and len(found["splits"]) == 2


def test_words_of_two_hundred_letters_leave_no_error_behind():
    table = multiplication_table("S3")
    _, made, network = built(
        "words:group=S3,T=1-2,gap=,beyond=200", "direct", doubling(8, 6), set_doubling, *group("S3")
    )
    x = asked(made, [200], 40)
    with torch.no_grad():
        logits = network.next_logits(torch.from_numpy(x + FIRST), torch.ones(len(x)), network.cache())[:, FIRST:]
    state = np.zeros(len(x), np.int64)
    for column in x.T:
        state = table[state, column]
    wanted = 20.0 * torch.nn.functional.one_hot(torch.from_numpy(state), 6)
    assert float((logits - wanted).abs().max()) < 0.01


def test_fillers_and_other_heads_change_nothing():
    data = group("S3")
    text = lambda _: "transformer:layers=3,width=64,heads=8"  # noqa: E731
    _, made, network = built("words:group=S3,T=1-4,gap=,beyond=5", "filler:tokens=4", text, set_doubling, *data)
    assert exact(made, network, asked(made, [1, 2, 3, 4]))  # with four fillers up to 8 tokens


def test_the_mark_takes_no_room_and_the_answer_is_ended():
    data = product(5)
    _, made, network = built(
        "iterated-product:p=5,T=1-4,beyond=5", "direct:notation=digits", doubling(3, 4), set_doubling, *data, ASK
    )
    x = asked(made, [1, 2, 3, 4])  # commas between them: 7 tokens
    assert exact(made, network, x)
    found, right = answers(made, network, asked(made, [5]))  # 9 tokens
    assert (found != right).any()


@pytest.mark.parametrize(("m", "layers"), [(3, 4), (7, 5)])
def test_fibonacci_numbers_are_powers_of_a_matrix(tmp_path, m, layers):
    step, powers = np.array([[0, 1], [1, 1]]), [np.eye(2, dtype=np.int64)]
    while not np.array_equal(after := powers[-1] @ step % m, powers[0]):
        powers.append(after)
    pisano = len(powers)
    assert pisano == {3: 8, 7: 16}[m]
    index = {p.tobytes(): i for i, p in enumerate(powers)}
    table = np.array([[index[(a @ b % m).tobytes()] for b in powers] for a in powers])

    fibonacci, reach = [0, 1], 2**layers
    for _ in range(reach):
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    file = tmp_path / "fibonacci.csv"  # as many strokes as n, and F_n mod m
    rows = "".join(f"{'|' * n},{fibonacci[n] % m}\n" for n in range(1, reach + 2))
    file.write_text("problem,answer\n" + rows)
    # The tokens depend on the alphabet of the file; powers with the same entry are read out alike.
    config = TrialConfig(
        parse_task(f"pairs:{file}"), FORMATS.parse("direct"), MODELS.parse(doubling(layers, pisano)(0)),
        RULES.parse("sgd"), train=5, steps=0,
    )  # fmt: skip
    made = Data(config)
    network = config.model.build(made.script.size, made.context, made.silent)
    token = made.script.vocabulary.index
    read = np.array([token(str(p[0, 1])) for p in powers])
    set_doubling(network, table, np.array([token("|")]), np.array([1]), read, ASK)
    x = np.arange(reach + 1)[:, None]
    found = generate(network, made.form, made.script, made.encode(Problems(x, config.task.solve(x))), x)
    last = fibonacci[reach] % m == fibonacci[reach + 1] % m  # one stroke more is not seen
    assert [o.correct for o in found] == [True] * reach + [last] and not last


# --- counting ---------------------------------------------------------------------------------------------------------
COUNTERS = {
    "parity": (2, np.array([0, 1]) + FIRST, np.array([0, 1]), np.arange(2) + FIRST),
    "cycle": (5, np.array([1, 4]) + FIRST, np.array([1, 4]), np.arange(5) + FIRST),
}


def counting(task, layers=1):
    modulus, _, values, _ = COUNTERS[task]
    return lambda context: f"transformer:layers={layers},width={counting_width(modulus, values, context)},heads=1"


@pytest.mark.parametrize("task", COUNTERS)
@pytest.mark.parametrize("layers", [1, 2])
def test_one_layer_counts_at_every_length(task, layers):
    config, made, network = built(
        f"{task}:T=1-10,beyond=100", "direct", counting(task, layers), set_counting, *COUNTERS[task]
    )
    assert exact(made, network, asked(made, range(1, 11)))
    low, high = config.task.inputs[0].values
    for length in (99, 100):  # all counts there are
        x = np.where(np.arange(length) < np.arange(length + 1)[:, None], high, low)
        assert exact(made, network, x)
    assert set(judge(config, made, network)["splits"].values()) == {1.0}


@pytest.mark.parametrize("task", COUNTERS)
def test_a_thousand_tokens_are_counted(task):
    config, made, network = built(f"{task}:T=1-12,beyond=1000", "direct", counting(task), set_counting, *COUNTERS[task])
    low, high = config.task.inputs[0].values
    counts = np.r_[0, 1, 2, 3, 496:504, 997:1001]
    x = np.where(np.arange(1000) < counts[:, None], high, low)
    assert exact(made, network, np.concatenate([x, x[:, ::-1]]))


def test_a_count_is_asked_by_a_mark_and_ended():
    data = COUNTERS["parity"]
    _, made, network = built(
        "parity:T=1-8,beyond=9-20", "direct:notation=digits", counting("parity"), set_counting, *data, ASK
    )
    assert exact(made, network, asked(made, range(1, 21), 20, 20))


# --- what is refused --------------------------------------------------------------------------------------------------
def model(**options):
    return MODELS.parse("transformer", **options).build(20, 20, FIRST)


def test_too_small_models_are_refused():
    data, least = group("S3"), doubling_width(6, 2)
    set_doubling(model(layers=2, width=least, heads=2), *data)
    for options in (
        {"width": least - 2, "heads": 2},
        {"width": least, "heads": 1},
        {"width": 2 * least, "heads": least // 2},
    ):
        with pytest.raises(UserError, match=f"width of at least {least}"):
            set_doubling(model(layers=2, **options), *data)
    data = COUNTERS["parity"]
    least = counting_width(2, data[2], 400)
    for width in (least, least - 2):
        network = MODELS.parse("transformer", layers=1, width=width, heads=1).build(20, 400, FIRST)
        if width == least:
            set_counting(network, *data)
        else:
            with pytest.raises(UserError, match=f"width of at least {least}"):
                set_counting(network, *data)


def test_other_models_and_tables_are_refused():
    table, *rest = group("S3")
    for write, data in ((set_doubling, (table, *rest)), (set_counting, COUNTERS["parity"])):
        with pytest.raises(UserError, match="position=learned"):
            write(model(layers=1, width=64, heads=2, position="rotary"), *data)
        with pytest.raises(UserError, match="at most 1024"):
            write(MODELS.parse("transformer:width=64,heads=2").build(20, 1025, FIRST), *data)
    with pytest.raises(UserError, match="changes nothing"):
        set_doubling(model(width=64, heads=2), table * 0, *rest)
    other = table.copy()
    other[4, 5] = other[4, 4]
    with pytest.raises(UserError, match="brackets"):
        set_doubling(model(width=64, heads=2), other, *rest)
    with pytest.raises(UserError, match="numbered from 7 to 19"):
        set_doubling(model(width=64, heads=2), table, *rest[:2], rest[2] - FIRST)
