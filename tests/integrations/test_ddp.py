"""Agreement across processes is agreement across microbatches: the same weights as one process that cuts its batch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import ddp_worker as worker
import pytest
import torch
import torch.distributed as dist
from ddp_worker import AGREEMENTS, REFUSED, STEPS
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from crevasse.errors import UserError
from crevasse.integrations.ddp import AgreementHook
from crevasse.integrations.optimizer import RuleOptimizer

pytestmark = pytest.mark.slow
CASES = {
    **{name: (name, worker.network, worker.batches) for name in AGREEMENTS},
    "one bucket": ("gaf", worker.network, worker.batches),
    "filtered": (worker.STRICT, worker.network, worker.batches),
    "accumulated": ("gaf", worker.network, worker.batches),
    "a view": ("gaf-sign", worker.network, worker.batches),
    "frozen": ("gaf-sign", worker.frozen, worker.batches),
    "pictures": ("snr", worker.pictures, lambda: worker.batches(pixels=True)),
}


@pytest.fixture(scope="module", params=[2, 4])
def processes(request, tmp_path_factory):
    """How many, and what each of them ended with."""
    n, folder = request.param, tmp_path_factory.mktemp("ddp")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={n}", "--standalone",
         worker.__file__, folder],
        capture_output=True, text=True, timeout=100, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return n, [torch.load(folder / f"{rank}.pt") for rank in range(n)]


def alone(rule, model, data, n):
    """One process that cuts each batch into as many microbatches. -> its weights, and what was agreed on"""
    text = f"{rule}{',' if ':' in rule else ':'}k={n}"
    optimizer, agreed = RuleOptimizer(text, model, worker.adamw(model), seed=3), []
    for batch in data:
        for look in optimizer.looks(batch):
            x, y = look.batch
            look.backward(F.cross_entropy(model(x), y))
        agreed.append(optimizer.agreed)
    return model.state_dict(), agreed


@pytest.mark.parametrize("case", CASES)
def test_processes_train_what_one_process_trains_on_microbatches(case, processes):
    n, found = processes
    rule, model, data = CASES[case]
    expected, agreed = alone(rule, model(), data(), n)
    for mine in found:
        assert mine[case]["agreed"] == pytest.approx(agreed, abs=1e-6)
        for name, weight in mine[case]["weights"].items():
            torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-6)
    assert len(agreed) == STEPS


def test_all_processes_end_with_the_same_bits(processes):
    _, (first, *others) = processes
    for other in others:
        for case in (*CASES, "half", "broken"):
            for name, weight in other[case]["weights"].items():
                assert torch.equal(weight, first[case]["weights"][name])


def test_a_step_on_which_nobody_agreed_is_not_made(processes):
    _, (first, *_) = processes
    assert {a == 0.0 for a in first["filtered"]["agreed"]} == {True, False}


def test_a_parameter_that_is_not_used_has_no_gradient_and_one_used_by_some_is_zero_for_the_others(processes):
    n, found = processes
    for mine in found:
        assert mine["unused"]["unused"] is None or not mine["unused"]["unused"].any()
        torch.testing.assert_close(mine["unused"]["sometimes"], found[1]["unused"]["own"] / n)


@pytest.mark.parametrize("case", ["broken", "deaf"])
def test_a_gradient_that_is_no_number_is_one_error_in_all_processes(case, processes):
    """Where it is asked for, and at the next pass where nobody asked; training can go on after it."""
    _, found = processes
    said = "the gradient of process 1 is not finite: no step should be made"
    for mine in found:
        assert mine[case]["said"] == (["", "", said, ""] if case == "broken" else ["", "", "", said])
        assert all(v.isfinite().all() for v in mine[case]["weights"].values())


def test_what_does_not_fit_is_refused(processes):
    n, found = processes
    for mine in found:
        for said, expected in zip(
            mine["refused"],
            ("sam does not make one gradient", "adamw does not make", f"number of processes, {n}, not 7",
             "no base here", "no base here", "threshold of gaf", "unknown rule 'gav'", "nothing was agreed on yet"),
            strict=True,
        ):  # fmt: skip
            assert expected in said
    assert len(found[0]["refused"]) == len(REFUSED) + 1


def test_one_process_has_nobody_to_agree_with(tmp_path: Path):
    with pytest.raises(UserError, match="needs a DistributedDataParallel, not a Sequential"):
        AgreementHook("gaf", worker.network())
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        with pytest.raises(UserError, match="one process has nobody to agree with: use RuleOptimizer"):
            AgreementHook("gaf", DistributedDataParallel(worker.network()))
    finally:
        dist.destroy_process_group()


def test_the_example_of_the_docs_runs(tmp_path: Path):
    page = (Path(__file__).resolve().parents[2] / "docs" / "rules-in-your-training.md").read_text("utf-8")
    [code] = [c for c in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "AgreementHook" in c]
    (tmp_path / "train.py").write_text(code, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", tmp_path / "train.py"],
        capture_output=True, text=True, timeout=100, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    made = re.findall(r"process \d: (\d+) of 80 steps made", done.stdout)
    assert len(made) == 2 and made[0] == made[1] and int(made[0]) > 40
