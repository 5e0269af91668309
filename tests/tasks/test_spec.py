"""Names with options: what is typed, what is kept and what is shown are the same thing."""

import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from crevasse.errors import UserError, unknown
from crevasse.spec import (
    Entry,
    Named,
    Sizes,
    Table,
    convert,
    describe,
    format_sizes,
    parse_sizes,
    require,
    to_json,
)
from crevasse.tasks import TASKS, Task, parse_task

PRIMES = [5, 7, 11, 13, 31, 97, 9973]

# --- every task, with fields that nobody chose ----------------------------------------------------


@st.composite
def three_sizes(draw: st.DrawFn, names: str, largest: int) -> dict[str, Sizes]:
    """Training, gap and beyond sizes as a task allows them, by the names of its fields."""
    chosen = sorted(draw(st.sets(st.integers(1, largest), min_size=1, max_size=8)))
    cut = draw(st.integers(1, len(chosen)))
    head, beyond = chosen[:cut], chosen[cut:]
    named = names.split()
    held = draw(st.sets(st.sampled_from(head[1:-1]))) if "gap" in named and len(head) > 2 else set()
    parts = [[v for v in head if v not in held], *([sorted(held)] if "gap" in named else []), beyond]
    return {name: Sizes(tuple(part)) for name, part in zip(named, parts, strict=True)}


def with_fields(sizes: st.SearchStrategy, **fields: st.SearchStrategy) -> st.SearchStrategy[dict[str, object]]:
    return st.builds(lambda a, b: {**a, **b}, sizes, st.fixed_dictionaries({}, optional=fields))


prime = st.sampled_from(PRIMES)
FIELDS: dict[str, st.SearchStrategy[dict[str, object]]] = {
    "factorial": with_fields(three_sizes("n gap beyond", 400), figures=st.integers(0, 400)),
    "factorial-mod": st.one_of(
        with_fields(three_sizes("n gap beyond", 90), axis=st.just("n")).map(lambda f: {**f, "p": Sizes((5, 97))}),
        three_sizes("p gap beyond", len(PRIMES)).map(
            lambda f: (
                {k: Sizes(tuple(PRIMES[i - 1] for i in v)) for k, v in f.items()} | {"n": Sizes((1, 4)), "axis": "p"}
            )
        ),
    ),
    "rising-product": with_fields(three_sizes("n gap beyond", 200), p=prime),
    "iterated-product": with_fields(three_sizes("T gap beyond", 200), p=prime),
    "fibonacci": with_fields(three_sizes("n gap beyond", 2000), m=st.one_of(st.just(0), st.integers(2, 10_000))),
    "sum": with_fields(three_sizes("n gap beyond", 200), p=st.sampled_from([0, *PRIMES])),
    "parity": three_sizes("T beyond", 1000),
    "cycle": three_sizes("T beyond", 1000),
    "affine": with_fields(three_sizes("n gap beyond", 200), p=prime, maps=st.sampled_from(["fixed", "fresh"])),
    "quadratic": with_fields(
        three_sizes("n gap beyond", 200),
        p=st.sets(prime, min_size=1).map(lambda v: Sizes(tuple(sorted(v)))),
        c=st.sets(st.integers(0, 4), min_size=1).map(lambda v: Sizes(tuple(sorted(v)))),
    ),
    "words": with_fields(
        three_sizes("T gap beyond", 200),
        group=st.sampled_from(["S3", "S4", "S5", "A5", "A4xZ5", "Z60", "Z120"]),
    ),
    "power-mod": three_sizes("n gap beyond", 96).map(lambda f: {**f, "p": Sizes((5, 97))}),
    "catalan": three_sizes("n gap beyond", 48).map(lambda f: {**f, "p": Sizes((5, 97))}),
    "primorial": three_sizes("n gap beyond", 24).map(lambda f: {**f, "p": Sizes((5, 97))}),
    "gcd": with_fields(three_sizes("steps beyond", 3), m=st.integers(5, 600)),
    "pointer": with_fields(three_sizes("n beyond", 200), m=st.integers(2, 200)),
    "collatz": with_fields(three_sizes("n beyond", 500), largest=st.integers(1, 10**6)),
    "josephus": with_fields(
        three_sizes("n gap beyond", 200),
        k=st.sets(st.integers(1, 10_000), min_size=1).map(lambda v: Sizes(tuple(sorted(v)))),
    ),
    "ackermann": st.one_of(
        with_fields(
            three_sizes("n gap beyond", 200),
            m=st.sets(st.integers(0, 3), min_size=1).map(lambda v: Sizes(tuple(sorted(v)))),
            p=st.sets(prime, min_size=1).map(lambda v: Sizes(tuple(sorted(v)))),
            axis=st.just("n"),
        ),
        three_sizes("m gap beyond", 3).map(lambda f: {**f, "n": Sizes((1, 4)), "axis": "m"}),
    ),
    "brackets": three_sizes("n beyond", 100),
    "tribonacci": with_fields(three_sizes("n gap beyond", 200), m=st.integers(2, 10_000)),
    "recurrence": with_fields(
        three_sizes("n gap beyond", 200),
        m=st.integers(11, 10_000),
        coefficients=st.lists(st.integers(1, 10), min_size=1, max_size=8).map(lambda v: "+".join(map(str, v))),
    ),
    "modular": with_fields(st.just({}), p=prime, op=st.sampled_from(["add", "sub", "mul", "div", "squares", "s5"])),
    "addition": three_sizes("digits beyond", 18),
    "multiplication": three_sizes("digits beyond", 9),
    "copy": st.fixed_dictionaries({"p": st.integers(2, 10_000), "T": st.integers(1, 200)}),
    "digits": st.just({}),
    "program": with_fields(
        three_sizes("n gap beyond", 25),
        source=st.sampled_from(["f(n) = 3n-1", "f(a; b) = a · b", "f(a; b) = if b == 0 then a else f(b; a mod b)"]),
    ).map(lambda f: {**f, "n": Sizes((0, *f["n"]))}),
    "program-mod": st.fixed_dictionaries(
        {"n": st.sets(st.integers(1, 25), min_size=1).map(lambda v: Sizes(tuple(sorted(v)))), "m": st.integers(2, 26)},
        optional={
            "source": st.sampled_from(["f(1) = 2; f(n) = n + f(n-1)", "f(0) = 0; f(1) = 1; f(n) = f(n-1) + f(n-2)"])
        },
    ),
}


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    name = draw(st.sampled_from(sorted(FIELDS)))
    return TASKS.cls(name)(**draw(FIELDS[name]))


def test_every_field_of_every_task_but_the_file_task_is_drawn():
    assert set(FIELDS) == set(TASKS) - {"pairs"}
    unshrunk = settings(phases=[Phase.generate], database=None)
    for name, fields in FIELDS.items():
        declared = {f.name for f in dataclasses.fields(TASKS.cls(name))}
        found = find(fields, lambda found, declared=declared: set(found) == declared, settings=unshrunk)
        assert set(found) == declared


@settings(max_examples=300, deadline=None)
@given(tasks())
def test_a_description_is_read_back_as_the_same_task(task):
    text = describe(task)
    assert parse_task(text) == task
    assert describe(parse_task(text)) == text


@settings(max_examples=300, deadline=None)
@given(tasks())
def test_a_config_on_disk_is_read_back_as_the_same_task(task):
    kept = json.loads(json.dumps(to_json(task)))
    assert TASKS.load(kept) == task
    assert to_json(TASKS.load(kept)) == kept


@settings(max_examples=100, deadline=None)
@given(tasks())
def test_a_config_on_disk_says_every_field_and_a_description_only_what_differs(task):
    names = [f.name for f in dataclasses.fields(task)]
    assert list(to_json(task)) == ["name", *names]
    assert list(to_json(task, drop_name=True)) == names
    shown = {item.partition("=")[0] for item in describe(task).partition(":")[2].split(",") if item}
    default = TASKS.cls(task.name)()
    assert shown == {n for n in names if getattr(task, n) != getattr(default, n)}


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_defaults_need_no_options(name):
    task = parse_task(name)
    assert task == TASKS.cls(name)() == TASKS.load({"name": name})
    assert describe(task) == task.name == name
    assert TASKS.parse(f"{name}:") == task


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_a_config_is_frozen_and_hashable(name):
    task = parse_task(name)
    assert {task: 1}[parse_task(name)] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.p = 7


def test_options_override_defaults_and_spaces_do_not_matter():
    assert TASKS.parse("iterated-product:p=7", p=11, T="1-3").p == 7
    assert TASKS.parse("iterated-product", p=11).p == 11
    spaced, dense = (
        parse_task(" iterated-product : p = 7 , T = 1 - 3 "),
        parse_task("iterated-product:p=7,T=1-3"),
    )
    assert spaced == dense


# --- sizes ----------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 300)))
def test_sizes_are_read_back_from_their_text(found):
    sizes = tuple(sorted(found))
    assert parse_sizes(format_sizes(sizes)) == sizes


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 30)), max_size=5))
def test_ranges_may_overlap_and_come_in_any_order(ranges):
    text = "+".join(f"{a}-{a + k}" for a, k in ranges)
    wanted = tuple(sorted({v for a, k in ranges for v in range(a, a + k + 1)}))
    assert parse_sizes(text) == wanted
    assert parse_sizes(format_sizes(wanted)) == wanted


@given(st.sets(st.integers(0, 60)))
def test_sizes_are_written_as_shortly_as_can_be(found):
    parts = [p for p in format_sizes(tuple(sorted(found))).split("+") if p]
    runs = sum(v - 1 not in found for v in found)
    assert len(parts) == runs


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("6", (6,)),
        ("1-3+7", (1, 2, 3, 7)),
        ("", ()),
        ("3-3", (3,)),
        (" 1 - 2 + 4 ", (1, 2, 4)),
        ("2+1+2", (1, 2)),
    ],
)
def test_sizes_are_read(text, sizes):
    assert parse_sizes(text) == sizes


@pytest.mark.parametrize(
    "text",
    ["x", "1,2", "3-1", "1-", "-1", "1--3", "1.5", "1-2-3", "0x10", "1e3", "1-9999999", "½", "²", "9" * 5000],
    ids=lambda t: t[:12],
)
def test_what_is_no_list_of_sizes_is_refused(text):
    with pytest.raises(UserError) as error:
        parse_sizes(text)
    assert text[:20] in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given_as", [6, "6", [6], (6,)])
def test_sizes_may_be_given_as_values(given_as):
    """As a TOML file gives them: a number, or a list of numbers."""
    assert TASKS.build("iterated-product", {"T": given_as}).T == (6,)


def test_sizes_given_as_values_are_the_same_as_those_that_are_typed():
    assert TASKS.build("iterated-product", {"T": [3, 1, 2, 2]}) == parse_task("iterated-product:T=1-3")


@pytest.mark.parametrize("value", [["a"], [2.5], [None], [[1]], 2.5, None, [-1], {"a": 1}, True])
def test_sizes_that_are_no_whole_numbers_are_refused(value):
    with pytest.raises(UserError, match=r"T of task iterated-product|sizes"):
        TASKS.build("iterated-product", {"T": value})


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "iterated-produkt",
            ["unknown task 'iterated-produkt'", "did you mean 'iterated-product'", "affine", "words"],
        ),
        ("facorial:n=3", ["did you mean 'factorial'"]),
        ("zzz", ["'zzz'", "factorial, factorial-mod, rising-product"]),
        ("", ["''", "factorial"]),
        ("iterated-product:q=3", ["option of task iterated-product", "'q'", "p, T, gap, beyond"]),
        ("iterated-product:beyon=3", ["did you mean 'beyond'"]),
        ("iterated-product:p", ["'p'", "key=value"]),
        ("iterated-product:p=", ["p of task iterated-product", "whole number", "''"]),
        ("iterated-product:p=x", ["p of task iterated-product", "'x'", "whole number"]),
        ("iterated-product:p=13.5", ["'13.5'", "whole number"]),
        ("iterated-product:p=1e3", ["'1e3'", "whole number"]),
        ("iterated-product:p=nan", ["'nan'", "whole number"]),
        ("iterated-product:T=a", ["'a'", "sizes"]),
        ("iterated-product:name=x", ["'name'", "p, T, gap, beyond"]),
        ("words:group=S6", ["'S6'", "S3, S4, S5, A5, A4xZ5, Z60, Z120", "did you mean"]),
        ("modular:op=plus", ["'plus'", "add, sub, mul, div, squares, s5"]),
        ("affine:maps=frsh", ["did you mean 'fresh'", "fixed, fresh"]),
        ("iterated-product:p.x=3", ["p"]),
        ("iterated-product:p=13,p.x=3", ["p"]),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_is_allowed(text, said):
    with pytest.raises(UserError) as error:
        parse_task(text)
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in said), message


@pytest.mark.parametrize("value", [13.7, True, None, [13], "1" * 5000])
def test_a_value_that_is_no_whole_number_does_not_become_one(value):
    with pytest.raises(UserError, match="p of task iterated-product"):
        TASKS.build("iterated-product", {"p": value})


@pytest.mark.parametrize("data", [{}, {"name": None}, {"name": 3}, {"name": "nope", "p": 3}])
def test_a_config_without_a_known_name_is_refused(data):
    with pytest.raises(UserError, match="unknown task"):
        TASKS.load(data)


def test_a_table_answers_as_a_mapping_does():
    assert "factorial" in TASKS
    assert "nope" not in TASKS
    assert TASKS.get("nope") is None
    assert len(TASKS) == len(list(TASKS)) == len(set(TASKS))
    with pytest.raises(UserError, match="nope"):
        TASKS.parse("nope")


@pytest.mark.parametrize("name", list(TASKS))
def test_a_table_names_the_class_that_has_that_name(name):
    assert issubclass(TASKS.cls(name), Task)
    assert TASKS.cls(name).name == name
    assert TASKS[name].summary


def test_an_unknown_name_lists_what_there_is_and_the_nearest_first():
    assert str(unknown("rule", "sdg", ["adam", "sgd"])) == (
        "unknown rule 'sdg'; did you mean 'sgd'? (there are: adam, sgd)"
    )
    assert "did you mean" not in str(unknown("rule", "qqqq", ["adam", "sgd"]))


@given(st.text())
def test_an_error_is_one_line_whatever_it_quotes(text):
    assert len(str(UserError(f"bad {text} value")).splitlines()) == 1


def test_a_requirement_that_fails_is_a_user_error():
    require(True, "never")
    with pytest.raises(UserError, match="always"):
        require(False, "always")


# --- fields of every kind, and tables within tables -----------------------------------------------


ONE_TO_TWO, ONE_TO_THREE = parse_sizes("1-2"), parse_sizes("1-3")


@dataclass(frozen=True)
class Inner(Named):
    """Something that stands inside something else."""

    name: ClassVar[str] = "inner"
    width: int = 3
    rate: float = 0.5


@dataclass(frozen=True)
class Other(Named):
    """Another thing that could stand there."""

    name: ClassVar[str] = "other"
    sizes: Sizes = ONE_TO_TWO
    on: bool = False


@dataclass(frozen=True)
class Outer(Named):
    """A field of each kind."""

    name: ClassVar[str] = "outer"
    needed: int
    part: Named = Inner()
    kind: Literal["a", "b"] = "a"
    most: int | None = None
    share: float | None = 0.25
    on: bool = True
    label: str = "x"
    sizes: Sizes = ONE_TO_THREE


THINGS: Table[Named] = Table(
    "thing",
    {
        "inner": Entry(f"{__name__}:Inner", "inside"),
        "other": Entry(f"{__name__}:Other", "inside too"),
        "outer": Entry(f"{__name__}:Outer", "outside"),
    },
)
numbers = st.floats(allow_nan=False, allow_infinity=False)
inners = st.one_of(
    st.builds(Inner, width=st.integers(), rate=numbers),
    st.builds(Other, sizes=st.just(parse_sizes("4+6-7")), on=st.booleans()),
)
outers = st.builds(
    Outer,
    needed=st.integers(),
    part=inners,
    kind=st.sampled_from(["a", "b"]),
    most=st.one_of(st.none(), st.integers()),
    share=st.one_of(st.none(), numbers),
    on=st.booleans(),
    label=st.text("abcxyz-_./ ", min_size=1).map(str.strip).filter(bool),
    sizes=st.sets(st.integers(0, 50)).map(lambda v: Sizes(tuple(sorted(v)))),
)


@settings(max_examples=200, deadline=None)
@given(outers)
def test_a_thing_within_a_thing_makes_the_round_trip(thing):
    assert THINGS.parse(describe(thing)) == thing
    assert THINGS.load(json.loads(json.dumps(to_json(thing)))) == thing


def test_a_nested_thing_is_named_and_its_fields_are_set_by_a_dot():
    assert THINGS.parse("outer:needed=1,part=other").part == Other()
    assert THINGS.parse("outer:needed=1,part=other,part.on=yes").part == Other(on=True)
    assert THINGS.parse("outer:needed=1,part.width=9").part == Inner(width=9)
    assert THINGS.parse("outer:needed=1,part.width=9", part=Inner(rate=2.0)).part == Inner(width=9, rate=2.0)
    with pytest.raises(UserError, match=r"option of thing inner 'on'.*width, rate"):
        THINGS.parse("outer:needed=1,part.on=yes")


def test_a_missing_field_is_named():
    with pytest.raises(UserError, match="thing outer needs needed"):
        THINGS.parse("outer")


@pytest.mark.parametrize(
    ("value", "hint", "found"),
    [
        ("12", int, 12),
        ("1_000", int, 1000),
        (" -3 ", int, -3),
        (3, int, 3),
        (3.0, int, 3),
        ("0.5", float, 0.5),
        ("1e-3", float, 1e-3),
        (2, float, 2.0),
        ("none", int | None, None),
        (None, int | None, None),
        ("7", int | None, 7),
        ("Yes", bool, True),
        ("0", bool, False),
        (False, bool, False),
        ("b", Literal["a", "b"], "b"),
        ("1-2", Sizes, (1, 2)),
        (5, str, "5"),
    ],
)
def test_values_become_what_the_field_declares(value, hint, found):
    made = convert(value, hint, "here")
    assert made == found
    assert type(made) is type(found)


@pytest.mark.parametrize(
    ("value", "hint", "said"),
    [
        ("x", int, "whole number"),
        (3.5, int, "whole number"),
        (float("inf"), int, "whole number"),
        ([1], int, "whole number"),
        ("x", float, "a number"),
        ([1], float, "a number"),
        ("x", int | None, "whole number"),
        ("maybe", bool, "true or false"),
        (2, bool, "true or false"),
        ("c", Literal["a", "b"], "a, b"),
    ],
)
def test_values_that_are_not_what_the_field_declares_are_refused(value, hint, said):
    with pytest.raises(UserError) as error:
        convert(value, hint, "here")
    assert "here" in str(error.value)
    assert said in str(error.value)
