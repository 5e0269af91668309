"""What each process of `test_ddp.py` does; torchrun starts it. What it ends with is kept in a file of its own."""

import contextlib
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from crevasse.errors import UserError
from crevasse.integrations.ddp import AgreementHook
from crevasse.rules import RULES
from crevasse.rules.agreement import Agreement

ROWS, STEPS = 24, 6
#: Those that decide on one question; a rule that asks or remembers more is refused.
AGREEMENTS = [n for n in RULES if issubclass(c := RULES.cls(n), Agreement) and c.update is Agreement.update]
STRICT = "gaf:threshold=0.5"  # some steps are filtered out, some are not
REFUSED = ["sam", "adamw", "gaf:k=7", "gaf:base=sgd", "gaf:base=adamw,base.lr=0.5", "gaf:threshold=3", "gav"]


class Unused(nn.Module):
    """A layer that no batch ever uses, and one that only some processes use."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.unused, self.sometimes = network(), nn.Linear(5, 5), nn.Linear(6, 3)

    def forward(self, x, sometimes=False):
        return self.model(x) + (self.sometimes(x) if sometimes else 0)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def pictures() -> nn.Sequential:
    """A kernel and a matrix whose memory is not in the order of their entries."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(4, 3))
    layers[3].weight = nn.Parameter(layers[3].weight.detach().T.contiguous().T)
    return layers.to(memory_format=torch.channels_last)


def batches(steps: int = STEPS, pixels: bool = False) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(1)
    truth = torch.randn(6, 3, generator=g)
    xs = torch.randn(steps, ROWS, 6, generator=g)
    ys = [(x @ truth).argmax(1) for x in xs]
    if pixels:
        return list(zip(torch.randn(steps, ROWS, 3, 2, 2, generator=g), ys, strict=True))
    return list(zip(xs, ys, strict=True))


def adamw(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), 0.02, betas=(0.9, 0.98), weight_decay=0.1)


def mine(batch, part: int = 0, parts: int = 1):
    """This process' rows, or a part of them."""
    n = dist.get_world_size() * parts
    i = dist.get_rank() * parts + part
    return [t[i * ROWS // n : (i + 1) * ROWS // n] for t in batch]


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def train(rule: str, model: nn.Module, data, accumulate: int = 1, **options) -> dict:
    """A few steps. -> the weights, and what was agreed on in each step"""
    wrapped = DistributedDataParallel(model, **{"bucket_cap_mb": 1e-4} | options)
    hook, optimizer, agreed = AgreementHook(rule, wrapped, seed=3), adamw(model), []
    for batch in data:
        optimizer.zero_grad()
        for part in range(accumulate):
            last = part == accumulate - 1
            with contextlib.nullcontext() if last else wrapped.no_sync():
                x, y = mine(batch, part, accumulate)
                (F.cross_entropy(wrapped(x), y) / accumulate).backward()
        agreed.append(hook.agreed)
        if agreed[-1] == 0.0:
            assert all(not p.grad.any() for p in model.parameters())
        else:
            optimizer.step()
    return {"weights": weights(model), "agreed": agreed}


def unused() -> dict:
    model, rank = Unused(), dist.get_rank()
    wrapped = DistributedDataParallel(model, bucket_cap_mb=1e-4, find_unused_parameters=True)
    hook = AgreementHook("gaf:threshold=2", wrapped)
    for batch in batches(3):
        model.zero_grad()
        x, y = mine(batch)
        F.cross_entropy(wrapped(x, sometimes=rank == 1), y).backward()
        assert hook.agreed
    own = torch.zeros_like(model.sometimes.weight)
    if rank == 1:
        own = torch.autograd.grad(F.cross_entropy(model(x, sometimes=True), y), [model.sometimes.weight])[0]
    return {"unused": model.unused.weight.grad, "sometimes": model.sometimes.weight.grad, "own": own}


def broken(asks: bool) -> dict:
    """One process has a gradient that is no number. -> what is said, and whether anything moved"""
    model, said, rank = network(), [], dist.get_rank()
    wrapped = DistributedDataParallel(model, bucket_cap_mb=1e-4)
    hook, optimizer = AgreementHook("gaf:threshold=2", wrapped), adamw(model)
    for number, batch in enumerate(batches(4)):
        optimizer.zero_grad()
        x, y = mine(batch)
        if number == 2 and rank == 1:
            x = x * torch.nan
        before, counted = weights(model), len(optimizer.state)
        try:
            F.cross_entropy(wrapped(x), y).backward()
            if not asks or hook.agreed:
                optimizer.step()
            said.append("")
        except UserError as e:
            said.append(str(e))
            assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
            assert len(optimizer.state) == counted
        if not asks and said[-1]:
            break
    return {"said": said, "weights": weights(model)}


def refusals() -> list[str]:
    said = []
    for rule in REFUSED:
        try:
            AgreementHook(rule, DistributedDataParallel(network()))
        except UserError as e:
            said.append(str(e))
    hook = AgreementHook("gaf", DistributedDataParallel(network()))
    try:
        _ = hook.agreed
    except UserError as e:
        said.append(str(e))
    return said


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = {name: train(name, network(), batches()) for name in AGREEMENTS}
    found["one bucket"] = train("gaf", network(), batches(), bucket_cap_mb=25)
    found["filtered"] = train(STRICT, network(), batches())
    found["accumulated"] = train("gaf", network(), batches(), accumulate=3)
    found["a view"] = train("gaf-sign", network(), batches(), gradient_as_bucket_view=True)
    found["frozen"] = train("gaf-sign", frozen(), batches())
    found["pictures"] = train("snr", pictures(), batches(pixels=True))
    found["half"] = train("gaf-sign", network().to(torch.bfloat16), [(x.bfloat16(), y) for x, y in batches()])
    found["unused"] = unused()
    found["broken"], found["deaf"] = broken(asks=True), broken(asks=False)
    found["refused"] = refusals()
    torch.save(found, folder / f"{dist.get_rank()}.pt")
    dist.barrier()
    dist.destroy_process_group()


def frozen() -> nn.Sequential:
    model = network()
    model[2].requires_grad_(False)
    return model


if __name__ == "__main__":
    main(Path(sys.argv[1]))
