"""What several test files share."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from crevasse.api import make_config
from crevasse.config import TrialConfig


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def small() -> Callable[..., TrialConfig]:
    """A config that trains in about a second; any part of it can be replaced."""

    def make(
        task: str = "iterated-product:p=7,T=1-3,beyond=4",
        form: str = "direct",
        model: str = "bilinear:width=16,products=32",
        rule: str = "adamw:lr=0.01",
        **fields: Any,
    ) -> TrialConfig:
        defaults = {"steps": 60, "batch": 32, "train": 120, "held_out": 40, "probe_every": 10, "probe_rows": 32}
        return make_config(task, form, model, rule, **{**defaults, **fields})

    return make


@pytest.fixture(scope="session")
def tables() -> ModuleType:
    """docs/tables.py, which writes the tables of the pages that are held to the evidence."""
    path = Path(__file__).resolve().parent.parent / "docs" / "tables.py"
    spec = importlib.util.spec_from_file_location("tables", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Left out of `make fast`: the tests that start a real browser or a process a command, or load language models."""
    for item in items:
        starts_processes = item.path.name == "test_cli.py" and "mistake_gets_one_line" not in item.name
        loads_models = item.path.parent.name == "llm" and item.path.name != "test_text.py"
        if item.path.parent.name in ("report", "integrations") or starts_processes or loads_models:
            item.add_marker(pytest.mark.slow)
