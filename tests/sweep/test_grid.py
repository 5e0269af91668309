"""A sweep's file becomes exactly the trials that it says, or one line that tells what is wrong with it."""

import itertools
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crevasse.api import make_config
from crevasse.errors import UserError
from crevasse.sweep.grid import read_sweep, setting_text
from crevasse.sweep.search import parse_search

BASE = 'task = "iterated-product:p=7,T=1-3,beyond=4"\n'


@pytest.fixture
def sweep_of(tmp_path):
    """The sweep that a text describes."""

    def make(text, budget=None):
        path = tmp_path / "s.toml"
        path.write_text(text if "task =" in text else BASE + text, "utf-8")
        return read_sweep(path, budget)

    return make


def trials(*options, task="iterated-product:p=7,T=1-3,beyond=4"):
    """The same trials written out by hand."""
    return [make_config(task, **o) for o in options]


def test_a_file_without_a_grid_is_one_trial_with_the_defaults_of_the_command_line(sweep_of):
    sweep = sweep_of("")
    assert list(sweep.configs) == trials({})
    assert sweep.settings == ({},)
    assert sweep.name == "s"


def test_a_grid_is_every_combination_with_every_seed_setting_by_setting(sweep_of):
    sweep = sweep_of(
        'steps = 10\nseeds = 2\nseed = 3\n[grid]\ntrain = [60, 120]\nmodel = ["bilinear", "gru:width=16"]\n'
        '"rule.decay" = [0.1, 1]\n'
    )
    expected = [
        {"steps": 10, "train": train, "model": model, "rule": f"adamw:decay={decay}", "seed": seed}
        for train, model, decay, seed in itertools.product((60, 120), ("bilinear", "gru:width=16"), (0.1, 1), (3, 4))
    ]
    assert list(sweep.configs) == trials(*expected)
    assert sweep.settings[0] == {"train": 60, "model": "bilinear", "rule.decay": 0.1}
    assert [len(configs) for _, configs in sweep.groups()] == [2] * 8
    assert setting_text(sweep.settings[-1]) == "train=120, model=gru:width=16, rule.decay=1"


def test_seeds_may_be_a_list(sweep_of):
    assert [c.seed for c in sweep_of("seeds = [7, 0, 3]").configs] == [7, 0, 3]


def test_cases_are_combined_with_the_grid(sweep_of):
    sweep = sweep_of(
        '[grid]\ntrain = [60, 120]\n[[cases]]\nname = "narrow"\nmodel = "bilinear:width=12"\n'
        '[[cases]]\nmodel = "gru"\nseeds = 2\n'
    )
    assert list(sweep.configs) == trials(
        {"model": "bilinear:width=12", "train": 60}, {"model": "bilinear:width=12", "train": 120},
        {"model": "gru", "train": 60}, {"model": "gru", "train": 60, "seed": 1},
        {"model": "gru", "train": 120}, {"model": "gru", "train": 120, "seed": 1},
    )  # fmt: skip
    assert sweep.settings[0] == {"case": "narrow", "train": 60}
    assert sweep.settings[2]["case"] == "model=gru, seeds=2", "a case without a name is called by its fields"


def test_the_file_gives_way_to_a_case_a_case_to_the_grid_the_grid_to_a_budget(sweep_of):
    text = (
        'steps = 1\nbatch = 1\ntrain = 1\nwarmup = 0.1\nmodel = "gru"\n[grid]\ntrain = [30, 40]\nsteer = [1, 2]\n'
        '[[cases]]\nbatch = 2\ntrain = 20\nwarmup = 0.2\nmodel = "lstm"\n'
        "[budgets.smoke]\nwarmup = 0.3\nsteer = 5\nseeds = 1\n[budgets.smoke.grid]\ntrain = [50]\n"
    )
    shared = {"steps": 1, "batch": 2, "model": "lstm"}
    assert list(sweep_of(text).configs) == trials(
        *({**shared, "train": t, "steer": s, "warmup": 0.2} for t in (30, 40) for s in (1, 2))
    )
    smoke = sweep_of(text, "smoke")
    assert list(smoke.configs) == trials({**shared, "train": 50, "steer": 5, "warmup": 0.3})
    assert smoke.settings[0].keys() == {"case", "train"}, "what a budget fixes does not vary"
    assert smoke.notes == ()


def test_dotted_names_apply_after_whole_things_wherever_they_stand(sweep_of):
    text = '"rule.lr" = 0.5\n"model.width" = 16\n[grid]\nrule = ["sgd", "adamw:lr=0.1"]\n[[cases]]\nmodel = "gru"\n'
    assert list(sweep_of(text).configs) == trials(
        {"rule": "sgd:lr=0.5", "model": "gru:width=16"}, {"rule": "adamw:lr=0.5", "model": "gru:width=16"}
    )


def test_dotted_names_reach_inside_and_need_no_quotes_where_toml_can_do_without(sweep_of):
    text = 'rule.k = 4\n[grid]\n"rule.base" = ["sgd"]\nrule.base.lr = [0.1]\ntask.T = [[1, 2], "1-3"]\n'
    # `rule` itself cannot stand beside an unquoted rule.k in TOML, so a case brings it.
    sweep = sweep_of(text.replace('"rule.base" = ["sgd"]\n', "") + '[[cases]]\nrule = "gaf:base=sgd"\n')
    assert list(sweep.configs) == [
        *trials({"rule": "gaf:base=sgd,k=4,base.lr=0.1"}, task="iterated-product:p=7,T=1-2,beyond=4"),
        *trials({"rule": "gaf:base=sgd,k=4,base.lr=0.1"}),
    ]


def test_labels_and_data_seed_are_written_as_on_the_command_line(sweep_of):
    sweep = sweep_of('seed = 5\n[grid]\nlabels = ["true", "random", "noisy=0.25"]\ndata_seed = ["seed", 9]')
    assert [(c.labels, c.noise, c.data_seed) for c in sweep.configs] == [
        (*labels, data) for labels in (("true", 0.0), ("random", 0.0), ("noisy", 0.25)) for data in (None, 9)
    ]
    assert sweep_of("labels = true").configs[0].labels == "true"


def test_a_trial_that_stands_there_twice_runs_once_and_is_told(sweep_of):
    sweep = sweep_of('[grid]\nrule = ["adamw", "adamw:lr=0.003"]\ntrain = [30, 40]\n')
    assert list(sweep.configs) == trials({"train": 30}, {"train": 40})
    (note,) = sweep.notes
    assert note.startswith("2 trials") and "rule=adamw, train=30" in note


AXES = {
    "train": st.integers(20, 200), "batch": st.integers(1, 64), "steer": st.integers(0, 9),
    "rule.decay": st.floats(0, 2), "rule.lr": st.floats(1e-5, 1), "model.width": st.integers(1, 64),
    "schedule": st.sampled_from(["cosine", "constant"]),
}  # fmt: skip


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_grid_gives_each_combination_once(data, tmp_path_factory):
    names = data.draw(st.lists(st.sampled_from(sorted(AXES)), unique=True, max_size=4))
    grid = {n: data.draw(st.lists(AXES[n], unique=True, min_size=1, max_size=3)) for n in names}
    seeds = data.draw(st.integers(1, 3))
    lines = [f'"{n}" = {values!r}'.replace("'", '"') for n, values in grid.items()]
    path = tmp_path_factory.mktemp("grid") / "s.toml"
    path.write_text("\n".join([BASE, 'model = "gru"', f"seeds = {seeds}", "[grid]", *lines]))
    sweep = read_sweep(path)

    def read(config, name):
        for part in name.split("."):
            config = getattr(config, part)
        return config

    found = [(*(read(c, n) for n in names), c.seed) for c in sweep.configs]
    assert found == list(itertools.product(*grid.values(), range(seeds)))
    assert len({c.id for c in sweep.configs}) == len(found)
    assert [tuple(s.values()) for s in sweep.settings] == [row[:-1] for row in found]


SEARCH = '[search]\ntries = 2\n[search.space]\n"rule.lr" = [0.1, 0.2]\n'

BAD = [
    ("steps = \n", ["not a TOML file", "line 2"]),
    ('x = "', ["not a TOML file", "line 2"]),
    ('rule = "sgd"\nrule.lr = 1', ["not a TOML file", "quotes"]),
    (f"steps = {'9' * 5000}", ["not a TOML file"]),
    ("stepz = 3", ["unknown field 'stepz'", "'steps'"]),
    ('"ruel.lr" = 3', ["ruel.lr", "rule"]),
    ("noise = 0.1", ["noisy=0.25"]),
    ('steps = "many"', ["steps", "whole number", "many"]),
    ("steps = true", ["steps", "whole number"]),
    ("steps = 1.5", ["steps", "1.5"]),
    ("steps = 2026-01-01", ["steps", "number"]),
    ("steps = -1", ["steps", "-1"]),
    ("train = [10, 20]", ["train", "[grid]"]),
    ("warmup = nan", ["warmup", "finite"]),
    ('schedule = "cosin"', ["'cosine'"]),
    ('labels = "nosy"', ["labels", "'noisy'"]),
    ('labels = "noisy=lots"', ["labels", "lots", "share"]),
    ("data_seed = -3", ["data_seed", "-3"]),
    ("task = 3", ["task", "text"]),
    ('rule = "adam"', ["rule", "'adamw'"]),
    ('rule = "adamw:lr=fast"', ["fast", "number"]),
    ('"rule.lr" = inf', ["rule.lr", "finite"]),
    ('"rule.lr" = 2026-01-01', ["rule.lr", "number"]),
    ('"rule.rate" = 0.1', ["rule.rate", "adamw", "lr"]),
    ("seeds = 0", ["seeds", "1 and 10000"]),
    ("seeds = 20000", ["seeds", "10000"]),
    ("seeds = []", ["seeds", "empty"]),
    ("seeds = [1, 1]", ["seeds", "twice"]),
    ('seeds = [1, "x"]', ["seeds", "whole number"]),
    ("seeds = [1, -1]", ["seed", "-1"]),
    ("seed = 3\nseeds = [1]", ["seed", "list"]),
    ("grid = 3", ["grid", "table"]),
    ("[grid]\ntrain = []", ["grid.train", "empty"]),
    ("[grid]\ntrain = 3", ["grid.train", "list"]),
    ("[grid]\ntrain = [3, 4, 3]", ["grid.train", "3", "twice"]),
    ("[grid]\nwarmup = [0, 0.0]", ["grid.warmup", "twice"]),
    ("[grid]\ntrian = [3]", ["unknown field of the grid", "'train'"]),
    ("[grid]\ntrain = [3, 'x']", ["grid.train", "whole number"]),
    ("[grid]\nsteps = [3, -4]", ["steps", "-4"]),
    ("[grid]\nseeds = [3, 4]", ["grid.seeds", "seeds = 5"]),
    ("[grid]\nseed = [3, 4]", ["grid.seed", "seeds = 5"]),
    ('[grid]\nrule = ["adamw", "sgd"]\n"rule.beta1" = [0.1]', ["grid.rule.beta1", "rule sgd", "beta1"]),
    ("seeds = 10000\n[grid]\ntrain = [1,2,3,4,5,6,7,8,9,10,11]\nsteps = [1,2,3,4,5,6,7,8,9,10]", ["1000000"]),
    ("cases = []", ["cases", "[[cases]]"]),
    ("[cases]\nname = 'a'", ["cases", "[[cases]]"]),
    ("[[cases]]\nname = 'a'\n[[cases]]\nname = 'a'", ["cases (2)", "'a'", "taken"]),
    ("[[cases]]\nname = 3", ["cases (1)", "name", "text"]),
    ("[[cases]]\nmodle = 'gru'", ["cases (1)", "'model'"]),
    ("[[cases]]\nname = 'a'\nmodel = 'gruu'", ["cases (a): model", "'gru'"]),
    ("[budgets]\nsmoke = 3", ["budgets", "smoke", "table"]),
    ("[budgets.smoke]\nstepz = 3", ["budgets.smoke", "'steps'"]),
    ("[budgets.smoke.grid]\ntrain = []", ["budgets.smoke", "grid.train", "empty"]),
    ("[budgets.smoke.search]\ntries = 3", ["budgets.smoke", "search"]),
    ("search = 3", ["search", "table"]),
    (SEARCH.replace("tries", "trys"), ["search", "'tries'"]),
    (SEARCH.replace("tries = 2", "tries = 0"), ["search", "tries", "0"]),
    (SEARCH.replace("tries = 2", 'metric = "random"'), ["metric", "held_out_loss"]),
    (SEARCH.replace("tries = 2", 'sampler = "grid"'), ["sampler", "tpe"]),
    ("[search]\ntries = 2", ["search", "space", "empty"]),
    (SEARCH.replace("rule.lr", "rule.rate"), ["space (adamw): rule.rate", "adamw", "lr"]),
    (SEARCH.replace("rule.lr", "train"), ["space", "train", "batch"]),
    (SEARCH.replace("[0.1, 0.2]", "[]"), ["space", "rule.lr", "empty"]),
    (SEARCH.replace("[0.1, 0.2]", "3"), ["space", "rule.lr", "list"]),
    (SEARCH.replace("[0.1, 0.2]", "{ low = 0.1 }"), ["rule.lr", "low and high"]),
    (SEARCH.replace("[0.1, 0.2]", "{ low = 1, high = 0 }"), ["rule.lr", "below high"]),
    (SEARCH.replace("[0.1, 0.2]", "{ low = 0, high = 1, log = true }"), ["rule.lr", "above 0"]),
    (SEARCH.replace("[0.1, 0.2]", '{ low = "a", high = 1 }'), ["rule.lr", "numbers", "'a'"]),
    (SEARCH.replace("[0.1, 0.2]", "{ low = 0, high = 1, logg = true }"), ["rule.lr", "'log'"]),
    (SEARCH.replace("[0.1, 0.2]", "[-1]"), ["rule.lr", "lr of adamw", "-1"]),
    ('[grid]\n"rule.lr" = [0.1]\n' + SEARCH, ["rule.lr", "grid too"]),
    ('[grid]\nrule = ["adamw", "sgd"]\n' + SEARCH.replace("rule.lr", "rule.beta1"), ["rule sgd", "beta1"]),
    ("steps = 0\n" + SEARCH, ["steps"]),
    ('task = "factorial"\n' + SEARCH, ["factorial", "validation"]),
]


def whole(sweep):
    """Read the section [search] too."""
    if sweep.search is not None:
        parse_search(sweep)


@pytest.mark.parametrize(("text", "needles"), BAD)
def test_a_mistake_is_one_line_that_names_file_and_key_and_what_is_allowed(sweep_of, text, needles):
    with pytest.raises(UserError) as error:
        whole(sweep_of(text))
    line = str(error.value)
    assert "\n" not in line
    for needle in needles:
        assert needle in line, line


def test_without_a_task_there_is_nothing_to_do(tmp_path):
    (tmp_path / "s.toml").write_text("steps = 3")
    with pytest.raises(UserError, match=r"s\.toml: task is missing"):
        read_sweep(tmp_path / "s.toml")


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (["s.toml", "--budget", "smok"], ["s.toml", "'smoke'"]),
        (["nowhere.toml"], ["nowhere.toml", "No such file"]),
        (["."], ["cannot be read"]),
        (["binary.toml"], ["binary.toml", "not a TOML file"]),
        (["bad.toml"], ["bad.toml", "unknown field 'stepz'"]),
        (["failing.toml", "--workers", "1"], ["1 of 1 trials could not run", "1000"]),
        (["s.toml", "--engine", "rya"], ["unknown engine", "'ray'"]),
        (["s.toml", "--address", "here"], ["address", "ray"]),
        (["s.toml", "--workers", "0"], ["workers", "0"]),
        (["s.toml", "--resume"], ["crevasse-out/s", "no trials"]),
        (["s.toml", "--resume", "--dry-run"], ["crevasse-out/s", "no trials"]),
        (["s.toml", "--out", "s.toml"], ["cannot write to s.toml"]),
        (["s.toml", "--out", "s.toml/x"], ["cannot write to s.toml/x"]),
        ([], ["CONFIG.toml"]),
    ],
)
def test_the_command_says_it_in_one_line_and_exits_2(tmp_path, words, needles, capsys, monkeypatch):
    from crevasse.cli import main

    monkeypatch.chdir(tmp_path)
    files = {
        "s.toml": f"{BASE}[budgets.smoke]\nsteps = 1\n".encode(),
        "binary.toml": b"\xff\xfe\x00",
        "bad.toml": f"{BASE}stepz = 3".encode(),
        "failing.toml": b'task = "modular:p=7"\ntrain = 1000\n',
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(sys, "argv", ["crevasse", "sweep", *words])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert out == ""
    assert err.startswith("crevasse: ") and err.count("\n") == 1, err
    for needle in needles:
        assert needle in err
    assert {p.name for p in tmp_path.iterdir()} == set(files), "nothing is half written"
