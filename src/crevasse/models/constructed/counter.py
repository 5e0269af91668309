"""n! itself, by a cell that counts down and multiplies in floating point; how errors of its weights grow."""

import torch
from torch import Tensor, nn

from crevasse.spec import require

#: The largest n whose running products are all exact: 22! is 2¹⁹ times an odd number below 2⁵³, 23! is not.
EXACT = 22


class Multiplier(nn.Module):
    """A cell whose state is (1, counter, product) in float64, each the number itself.

    A step multiplies two projections of the state entrywise and projects back, as `Bilinear` does with state and
    symbol: counter → counter − decrement, product → factor · counter · product. It is a module of its own, because
    in `Bilinear` products are of the state with a symbol, never with itself, and because its norm would take the
    size of the numbers away.
    """

    def __init__(self, decrement: float = 1.0, factor: float = 1.0) -> None:
        super().__init__()
        self.left, self.right, self.out = (nn.Linear(3, 3, bias=False, dtype=torch.float64) for _ in range(3))
        with torch.no_grad():
            # The products: 1 · 1, counter · 1, counter · product.
            self.left.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0]]))
            self.right.weight.copy_(torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 0, 1]]))
            self.out.weight.copy_(torch.tensor([[1.0, 0, 0], [-decrement, 1, 0], [0, 0, factor]], dtype=torch.float64))

    def forward(self, n: Tensor, steps: int) -> Tensor:
        """n (row,) -> the products after each step: n, n(n − 1), …, (row, step)"""
        start = n.double()
        state = torch.stack([torch.ones_like(start), start, torch.ones_like(start)], -1)
        products = []
        for _ in range(steps):
            state = self.out(self.left(state) * self.right(state))
            products.append(state[:, 2])
        return torch.stack(products, 1)


@torch.no_grad()
def running_products(n: int, decrement: float = 1.0, factor: float = 1.0, nudge: Tensor | None = None) -> list[float]:
    """n, n(n − 1), …, n!: exact for constants of 1 and no nudge.

    decrement, factor: the two constants of the step; nudge (27,): what is added to all the weights, in the order of
    `parameters()`: left, right, out. Raises UserError for an n whose products float64 does not hold.
    """
    require(1 <= n <= EXACT, f"the products of n! are exact in float64 for n from 1 to {EXACT}, not {n}")
    cell = Multiplier(decrement, factor)
    if nudge is not None:
        flat = nn.utils.parameters_to_vector(cell.parameters())
        require(nudge.shape == flat.shape, f"a nudge has {len(flat)} numbers, one for each weight")
        nn.utils.vector_to_parameters(flat + nudge, cell.parameters())
    products: list[float] = cell(torch.tensor([n]), n)[0].tolist()
    return products


def factorial(n: int, decrement: float = 1.0, factor: float = 1.0, nudge: Tensor | None = None) -> float:
    """The last of `running_products`."""
    return running_products(n, decrement, factor, nudge)[-1]
