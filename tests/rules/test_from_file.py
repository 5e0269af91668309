"""A rule in one file of the user's: the numbers of a rule in the table, and what is said where the file is wrong."""

import json
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from problem import Problem, same_however_stopped

from crevasse import store
from crevasse.config import TrialConfig
from crevasse.errors import UserError
from crevasse.rules import RULES, Rule
from crevasse.spec import describe, to_json
from crevasse.trial import run_trial

#: The mathematics of sgd, written by somebody else. Annotations as text have to be found in the file's module.
PLAIN = """
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from crevasse.rules import Rule, Update


@dataclass(frozen=True)
class Plain(Rule):
    name: ClassVar[str] = "plain"

    lr: float = 0.1
    decay: float = 0.0
    parts: int = 1

    def __post_init__(self) -> None:
        if self.lr < 0:
            raise ValueError("downhill only")

    def init(self, weights, layout):
        return {}

    def update(self, oracle, weights, state, step):
        loss, gradient = yield from oracle.gradient()
        return Update(weights.sub(gradient.add(weights, alpha=self.decay), alpha=self.lr * step.scale), state, loss)

    def microbatches(self):
        return self.parts
"""
#: A transform with a base, and an ancestor that is not meant.
HALVED = """
from dataclasses import dataclass
from typing import ClassVar

from crevasse.rules.transform import Transform


@dataclass(frozen=True)
class Shrunk(Transform):
    name: ClassVar[str] = "shrunk"
    by: float = 1.0

    def before(self, gradient, weights, state, step):
        return gradient * self.by


@dataclass(frozen=True)
class Halved(Shrunk):
    name: ClassVar[str] = "halved"
    by: float = 0.5

RULE = Halved
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="my_rule.py"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def trained(rule):
    p = Problem()
    p.train(rule if isinstance(rule, Rule) else RULES.parse(rule), 8)
    return p.weights.flat


def refused(rule):
    """What a user is told, in one line."""
    with pytest.raises(UserError) as error:
        RULES.parse(rule).microbatches()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_file_gives_bitwise_the_numbers_of_the_same_rule_in_the_table(write):
    file = write(PLAIN)
    assert torch.equal(trained(f"file:{file}"), trained("sgd"))
    assert torch.equal(trained(f"file:{file},options=lr=0.3;decay=0.1"), trained("sgd:lr=0.3,decay=0.1"))
    assert not torch.equal(trained(f"file:{file},options= lr = 0.3 ;"), trained("sgd"))
    assert RULES.parse(f"file:{file},options=parts=4").microbatches() == 4
    same_however_stopped(RULES.parse(f"file:{file}"), 3)


def test_the_page_that_tells_of_it_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "add-a-rule.md").read_text("utf-8")
    rule, run = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("my_rule.py").write_text(rule)
    namespace: dict = {}
    exec(run.replace("steps=100", "steps=5, train=50, held_out=20"), namespace)
    assert namespace["result"]["status"] == "done" and namespace["result"]["passes"] == 10


def test_options_of_its_base_are_options_too(write):
    file = write(HALVED)
    assert torch.equal(trained(f"file:{file},options=base=sgd;base.lr=0.2"), trained("sgd:lr=0.1"))
    assert torch.equal(
        trained(f"file:{file},options=by=1;base=clip;base.norm=1e-3;base.base=sgd"), trained("clip:norm=1e-3,base=sgd")
    )
    assert "option of rule sgd 'by'" in refused(f"file:{file},options=base=sgd;base.by=2")


def test_a_rule_that_steers_or_keeps_an_average_does_so_from_a_file(write):
    file = write("from crevasse.rules.matching import Matching\nRULE = Matching\n")
    assert RULES.parse(f"file:{file}").steers
    assert torch.equal(trained(f"file:{file}"), trained("matching"))
    rule, other, p = (
        RULES.parse("file:" + write("from crevasse.rules.ema import Ema as RULE")),
        RULES.parse("ema"),
        Problem(),
    )
    state = p.train(rule, 5)
    assert torch.equal(rule.judged(p.weights.flat, state), other.judged(p.weights.flat, state))
    assert not torch.equal(rule.judged(p.weights.flat, state), p.weights.flat)


def test_a_trial_of_it_is_that_of_the_table_and_its_config_is_read_back(write, small, tmp_path):
    config = small(rule=f"file:{write(PLAIN)},options=lr=0.2")
    plain = replace(config, rule=RULES.parse("sgd:lr=0.2"))
    record, other = run_trial(config, tmp_path), run_trial(plain, tmp_path)
    weights = [(tmp_path / "trials" / c.id / store.WEIGHTS).read_bytes() for c in (config, plain)]
    assert weights[0] == weights[1]
    assert record["result"]["passes"] == other["result"]["passes"]
    again = TrialConfig.from_json(json.loads(json.dumps(record["config"])))
    assert (again, again.id) == (config, config.id)
    assert RULES.parse(describe(config.rule)) == config.rule


@pytest.mark.slow
def test_it_goes_to_a_process_that_has_not_read_the_file(write, tmp_path):
    rule = RULES.parse(f"file:{write(PLAIN)},options=parts=3")
    assert rule.microbatches() == 3, "here it is read"
    (tmp_path / "rule.pickle").write_bytes(pickle.dumps(rule))
    code = "import pickle, sys; rule = pickle.load(open(sys.argv[1], 'rb')); print(rule.microbatches(), rule.options)"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "rule.pickle"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["3", "parts=3"]


def test_a_changed_file_is_another_rule_and_not_the_one_that_ran(write):
    file = write(PLAIN)
    rule, kept = RULES.parse(f"file:{file}"), to_json(RULES.parse(f"file:{file}"))
    sent = pickle.dumps(rule)
    write(PLAIN + "# changed\n")
    assert RULES.parse(f"file:{file}") != rule
    with pytest.raises(UserError, match="has changed since"):
        RULES.load(kept)
    with pytest.raises(UserError, match="has changed since"):  # it was not read before the change
        pickle.loads(sent).steers  # noqa: B018


def test_a_config_can_be_read_without_its_file_until_the_rule_is_needed(write):
    file = write(PLAIN)
    rule = RULES.parse(f"file:{file}")
    Path(file).unlink()
    again = RULES.load(to_json(rule))
    assert again == rule and describe(again) == f"file:{file}"
    with pytest.raises(UserError, match=r"my_rule\.py: no such file"):
        Problem().start(again)
    assert "no such file" in refused(f"file:{file}")


def test_the_file_is_not_run_before_it_is_needed_and_then_once(write, tmp_path):
    log = tmp_path / "log"
    file = write(f"open({str(log)!r}, 'a').write('run ')\n{PLAIN.replace('from __future__ import annotations', '')}")
    rule = RULES.parse(f"file:{file}")
    assert describe(rule) == f"file:{file}" and not log.exists()
    trained(rule)
    trained(RULES.parse(f"file:{file},options=lr=0.5"))
    assert log.read_text() == "run "
    assert not list(tmp_path.glob("__pycache__"))


BROKEN = {
    "x = 1\ndef f(:\n": r"my_rule\.py, line 2: SyntaxError: invalid syntax",
    "\n\nimport nothing_of_that_name\n": r"my_rule\.py, line 3: ModuleNotFoundError: No module named",
    "def f():\n    1 / 0\n\nf()\n": r"my_rule\.py, line 2: ZeroDivisionError: division by zero",
    "import sys\nsys.exit('bye')\n": r"my_rule\.py, line 2: SystemExit: bye",
    "from crevasse.rules.sgd import Sgd\nSgd(lr=-1)": r"my_rule\.py, line 2: lr of sgd must be",
    "": r"defines no rule: a frozen dataclass that derives from crevasse\.rules\.Rule",
    "from crevasse.rules.sgd import Sgd": "defines no rule",
    PLAIN.replace("(frozen=True)", ""): r"Plain of .*my_rule\.py must be a frozen dataclass",
    PLAIN.replace("@dataclass(frozen=True)", ""): r"Plain of .*my_rule\.py must be a frozen dataclass",
    PLAIN.replace('name: ClassVar[str] = "plain"', ""): "has a name",
    PLAIN.replace("def init", "def start"): r"Plain of .*my_rule\.py has to define init",
    HALVED.replace("RULE =", "rule ="): r"defines 2 rules \(Shrunk, rule\): a line such as RULE = rule says which",
    HALVED.replace("RULE = Halved", "RULE = Halved()"): "RULE of .* must be a frozen dataclass",
}  # fmt: skip


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_what_is_wrong_with_a_file_is_said_in_one_line(text, write):
    file = write(text)
    told = refused(f"file:{file}")
    assert re.search(BROKEN[text], told), told
    assert told == refused(f"file:{file}"), "asked again it is not taken for one that was read"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("lr=fast", "lr of rule file:.*must be a number, not 'fast'"),
        ("rate=0.1", r"unknown option of rule file:\S+ 'rate'.* \(there are: lr, decay, parts\)"),
        ("lr", "option 'lr' of file:.* is not of the form key=value"),
        ("lr=-1", r"my_rule\.py, line 20: ValueError: downhill only"),
    ],
)
def test_wrong_options_are_refused_with_what_is_allowed(options, said, write):
    told = refused(f"file:{write(PLAIN)},options={options}")
    assert re.search(said, told), told


def test_it_is_no_base_and_needs_a_file(write, tmp_path):
    with pytest.raises(UserError, match="base of clip must be a rule of one gradient"):
        RULES.parse(f"clip:base=file,base.file={write(HALVED)}")
    with pytest.raises(UserError, match="rule file needs file"):
        RULES.parse("file")
    with pytest.raises(UserError, match="directory"):
        RULES.parse(f"file:{tmp_path}")
