"""The worked example of each page in docs/ is a test: what a newcomer copies, runs."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from crevasse.config import TrialConfig
from crevasse.formats import FORMATS
from crevasse.models import MODELS
from crevasse.rules import RULES
from crevasse.spec import Entry, Table
from crevasse.studies import run_study
from crevasse.tasks import TASKS, parse_task
from crevasse.trial import run_trial

DOCS = Path(__file__).resolve().parent.parent / "docs"
TABLES = {"task": TASKS, "format": FORMATS, "model": MODELS, "rule": RULES}


def example(kind, folder, monkeypatch):
    """The page's file as a module, and the object that its line in the table leads to."""
    page = (DOCS / f"add-a-{kind}.md").read_text("utf-8")
    code = re.search(r"```python\n(.*?)```", page, flags=re.DOTALL).group(1)
    name, path, summary = re.search(r'"([\w-]+)": Entry\("([\w.:]+)", "([^"]+)"\)', page).groups()
    module = f"example_{kind}"
    (folder / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, module, raising=False)
    table = Table(kind, {name: Entry(f"{module}:{path.partition(':')[2]}", summary)})
    return table.parse(name)


@pytest.mark.parametrize("kind", list(TABLES))
def test_the_worked_example_trains(kind, tmp_path, monkeypatch):
    thing = example(kind, tmp_path, monkeypatch)
    parts = {
        "task": parse_task("iterated-product:p=7,T=1-3,beyond=4"), "format": FORMATS.parse("direct"),
        "model": MODELS.parse("transformer:width=16"), "rule": RULES.parse("adamw"),
    } | {kind: thing}  # fmt: skip
    config = TrialConfig(**parts, steps=30, batch=32, held_out=30)
    record = run_trial(config, tmp_path / "out")
    assert record["status"] == "done"
    assert record["config"][kind]["name"] == thing.name
    assert record["result"]["moved_steps"] == 30


def test_the_worked_study_answers(tmp_path, monkeypatch):
    study = example("study", tmp_path, monkeypatch)
    verdict = run_study(study, "smoke", tmp_path / "out", workers=1)
    assert verdict["answer"].startswith("The best held-out score came with a batch of")
    assert [a["arm"] for a in verdict["arms"]] == ["batch-8", "batch-32"]


def test_every_page_that_the_design_asks_for_is_there():
    for page in ("architecture", "cli", *(f"add-a-{k}" for k in (*TABLES, "study"))):
        assert (DOCS / f"{page}.md").exists()


def blocks(page):
    """The code on a page, block by block."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), flags=re.DOTALL)


def test_rules_in_your_training_run_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for code in blocks("rules-in-your-training.md"):
        if "DistributedDataParallel" not in code and "Trainer" not in code:
            exec(compile(code, "rules-in-your-training.md", "exec"), namespace)
    loss, agreed, passes = re.findall(r"[\d.]+", capsys.readouterr().out)
    assert float(loss) < 0.5 and 0 < float(agreed) <= 1
    assert float(passes) == 2 * 20 * 4, "of each step one forward and one backward pass, in four parts"


def test_every_rule_stands_on_its_page():
    page = (DOCS / "rules.md").read_text("utf-8")
    told = set(re.findall(r"`([a-z0-9-]+)`", page))
    assert set(RULES) <= told, f"rules.md does not tell of {set(RULES) - told}"
