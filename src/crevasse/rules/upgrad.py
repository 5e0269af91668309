"""A gradient that works against no microbatch."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from crevasse.rules.agreement import Agreement
from crevasse.rules.base import Step

#: Added to the diagonal of the cosines, which in float32 may be singular or a little less.
EPSILON = 1e-6


def weights_of(products: np.ndarray) -> np.ndarray:
    """What UPGrad's gradient holds of each of k gradients, of their products. (k, k) -> (k,), float64

    The projection of gᵢ on the dual cone is Σⱼ vⱼgⱼ of smallest length with v ≥ eᵢ, that is eᵢ + x with x ≥ 0: least
    squares with a bound. It is solved for gradients of length one, so that their lengths only scale the result.
    """
    size = np.sqrt(products.diagonal())
    inverse = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    values, vectors = np.linalg.eigh(products * np.outer(inverse, inverse))
    root = np.sqrt(np.maximum(values, 0) + EPSILON)[:, None] * vectors.T  # rootᵀ·root: the cosines
    projected = np.eye(len(products))
    for i, column in enumerate(root.T):
        projected[i] += nnls(root, -column, maxiter=100 * len(products))[0]
    found: np.ndarray = (size @ projected) * inverse / len(products)
    return found


@dataclass(frozen=True)
class UpGrad(Agreement):
    """The base rule on the mean of the gᵢ, each projected on the cone of what conflicts with no gⱼ.

    Quinton and Rey 2024, "Jacobian descent for multi-objective optimization": u = mean of π(gᵢ), π(g) the nearest p
    with gⱼ·p ≥ 0 for all j. So u conflicts with none of the gradients, is their mean where none conflict, does not
    depend on their order, and grows in proportion with the length of any one of them.

    Costs one forward and one backward pass over the batch, in k parts, memory k vectors, and k small problems of least
    squares, which are felt from about k = 32. Not for small microbatches late in training: in a cone of many nearly
    orthogonal gradients little is cut off, and where they oppose each other the step dies.
    """

    name: ClassVar[str] = "upgrad"

    def combine(self, gradients: Tensor, step: Step) -> tuple[Tensor, float]:
        products = (gradients @ gradients.T).double().cpu().numpy()
        if not np.isfinite(
            products
        ).all():  # a trial takes no step of a loss that is no number; least squares would raise
            return gradients.mean(0), 1.0
        return torch.from_numpy(weights_of(products)).to(gradients) @ gradients, 1.0
