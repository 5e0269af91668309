"""Known contrasts, met again through the door for other people's training: a + b modulo 59 by a small network.

Two embeddings of width 64, one hidden layer of 256, half of the pairs, full batch, at most 1000 steps; figures are the
steps until 95% of the held-out pairs are right (median, lowest and highest of 3 seeds; 1000 where it never happened),
with what was measured before this project began (one seed) as the goal. Held-out pairs are read, never steered by.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crevasse.integrations.optimizer import RuleOptimizer
from crevasse.rules import RULES
from measure import Figure

P, STEPS, EVERY, SEEDS = 59, 1000, 25, (0, 1, 2)
#: Rule, learning rate, decay, and what was measured before.
RUNS = (
    (None, 1e-2, 1.0, "425"),
    (None, 1e-2, 3.0, "250"),
    ("perp", 1e-2, 0.0, "100"),
    ("perp:rescale=false", 1e-2, 0.0, "100"),
    ("muon:lr=0.05,decay=0.5", 5e-2, 0.5, "925"),
    ("grokfast:alpha=0.95,lamb=2", 1e-2, 1.0, "500"),
    ("snr:k=8,per=entry", 1e-2, 1.0, "400"),
    ("egd", 5e-2, 0.1, "not in 1000"),
    ("gaf:k=2,threshold=0.97", 1e-2, 1.0, "never: every step filtered out"),
)


class Adder(nn.Module):
    """Two embeddings, side by side, and one hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Embedding(P, 64), nn.Embedding(P, 64)
        self.hidden, self.out = nn.Linear(128, 256), nn.Linear(256, P)
        for embedding in (self.first, self.second):
            # Vectors of length one. With entries of size one, torch's default, perp is three times slower, and no
            # faster than adamw with strong decay.
            nn.init.normal_(embedding.weight, std=1 / 8)

    def forward(self, pairs: Tensor) -> Tensor:
        """(row, 2) -> logits (row, P)"""
        read = torch.cat([self.first(pairs[:, 0]), self.second(pairs[:, 1])], 1)
        return self.out(torch.relu(self.hidden(read)))


def figures() -> Iterator[Figure]:
    """Steps to 95% held-out, rule by rule."""
    torch.set_num_threads(1)
    for rule, lr, decay, before in RUNS:
        name = f"{rule or 'adamw alone'} (lr {lr:g}, decay {decay:g})"
        yield Figure(f"steps to 95%: {name}", [steps_to(rule, lr, decay, seed) for seed in SEEDS], before)


def steps_to(rule: str | None, lr: float, decay: float, seed: int) -> float:
    """Steps until 95% of the held-out pairs are right, or STEPS."""
    torch.manual_seed(seed)
    pairs = torch.cartesian_prod(torch.arange(P), torch.arange(P))[torch.randperm(P * P)]
    sums, half = pairs.sum(1) % P, P * P // 2
    model = Adder()
    adamw = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay, betas=(0.9, 0.98))
    base = rule is not None and not hasattr(RULES.parse(rule), "base")
    optimizer = adamw if rule is None else RuleOptimizer(rule, model, None if base else adamw)
    for step in range(1, STEPS + 1):
        if isinstance(optimizer, RuleOptimizer):
            for look in optimizer.looks((pairs[:half], sums[:half])):
                x, y = look.batch
                look.backward(F.cross_entropy(model(x), y))
        else:
            optimizer.zero_grad()
            F.cross_entropy(model(pairs[:half]), sums[:half]).backward()
            optimizer.step()
        if step % EVERY == 0:
            with torch.no_grad():
                right = (model(pairs[half:]).argmax(1) == sums[half:]).float().mean()
            if right >= 0.95:
                return float(step)
    return float(STEPS)


if __name__ == "__main__":
    for figure in figures():
        print(figure)
