"""Weights A S B as numbers: what a solution is, and what of it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from gramian.adapters.devices import solver_array, tensor_of
from gramian.solvers import Quadratic
from gramian.solvers.support import factor_updates

__all__ = ["Wrapped"]


@dataclass(frozen=True, eq=False)
class Wrapped:
    """S (q, p), and the blocks of A (n, a, a) and B (m, b, b) of an operator, as numpy arrays, of which V = A S B."""

    core: np.ndarray
    left: np.ndarray
    right: np.ndarray
    merged: ClassVar[bool] = False  # a model that is saved computes with the three
    has_zeros: ClassVar[bool] = True

    @classmethod
    def of(cls, factors: factor_updates.Factors) -> Wrapped:
        """The factors of a solution, in the memory of the host."""
        return cls(*(tensor_of(each).cpu().numpy() for each in (factors.core, factors.left, factors.right)))

    def rounded(self, dtype: torch.dtype) -> Wrapped:
        """The same as they are stored in a dtype, in float32, or in float64 where they are stored so."""
        wide = torch.float64 if dtype is torch.float64 else torch.float32
        return Wrapped(*(torch.from_numpy(each).to(dtype).to(wide).numpy() for each in (self.core, self.left, self.right)))

    @property
    def weights(self) -> torch.Tensor:
        """A S B, in float64."""
        return torch.from_numpy(self.on(torch.device("cpu"), np.asarray).dense())

    @property
    def mask(self) -> torch.Tensor:
        """Which weights the core keeps."""
        return torch.from_numpy(self.core != 0)

    def residual(self, problem: Quadratic, weights: Any) -> float:
        """The largest of those of the three, each on its own least squares beside the others. weights: their product, for the
        device that it is on."""
        factors = self.on(tensor_of(weights).device, solver_array)
        return max(factor_updates.residuals(problem, factors).values())

    def on(self, device: torch.device, placed: Any) -> factor_updates.Factors:
        """The three in float64 as `placed` makes arrays of them."""
        parts = (torch.from_numpy(each).to(device, torch.float64) for each in (self.core, self.left, self.right))
        return factor_updates.Factors(*(placed(part) for part in parts))
