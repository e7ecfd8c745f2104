"""One linear operator of a torch model as a problem: its weight in (outputs, inputs) orientation, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from gramian.adapters.devices import all_finite, current_device, solver_array, tensor_of
from gramian.adapters.models.experts import Packed, expert_at
from gramian.adapters.models.plain_modules import check_plain_module
from gramian.solvers import Moments, Quadratic

__all__ = ["Layer", "Site"]

Site = nn.Module | Packed  # where operators meet their inputs: a module, or a parameter with a matrix of every expert


class Layer:
    """A `Linear` (weight as it is) or a `Conv1D` of transformers (weight transposed), fused projections included, or the matrix
    of one expert of a packed parameter.

    module: the torch module. moments: those of what has flowed into it, shared between layers that share an input. expert: the
    parameter and the expert's number. ValueError for any other module.
    """

    def __init__(
        self, name: str, module: nn.Module, moments: Moments | None = None, expert: tuple[Packed, int] | None = None
    ) -> None:
        self.name, self.module, self.expert = name, module, expert
        self.transposed = type(module).__name__ == "Conv1D"
        if expert is None:
            self.check()
        self.moments = moments if moments is not None else Moments(self.weight.shape[1])

    @classmethod
    def at(cls, root: nn.Module, path: str, name: str | None = None) -> Layer:
        """The operator at a dotted path from `root`: a module, or a packed expert by its parameter and number. name: what it is
        called, by default its path. AttributeError where there is nothing."""
        expert = expert_at(root, path)
        module = expert[0].module if expert is not None else root.get_submodule(path)
        return cls(name or path, module, expert=expert)

    def check(self) -> None:
        """Raise ValueError for a module that computes no X W^T with its weight."""
        name, module = self.name, self.module
        parameter = getattr(module, "weight", None)
        if not isinstance(parameter, torch.Tensor) or parameter.ndim != 2:
            raise ValueError(f"{name} is a {type(module).__name__} without a weight matrix: capture Linear or Conv1D modules")
        if not (isinstance(module, nn.Linear) or self.transposed):
            raise ValueError(f"{name} is a {type(module).__name__}: only Linear and Conv1D modules compute X W^T")
        check_plain_module(name, module)

    @property
    def site(self) -> Site:
        """Where the operator meets its inputs."""
        return self.module if self.expert is None else self.expert[0]

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The parameters of the operator as they are, by full name: an expert's slice is called as the expert is."""
        if self.expert is not None:
            packed, number = self.expert
            return {self.name: packed.parameter[number]}
        return {f"{self.name}.{leaf}": parameter for leaf, parameter in self.module.named_parameters(recurse=False)}

    def __repr__(self) -> str:
        outputs, inputs = self.weight.shape
        return f"Layer({self.name}, {outputs} outputs x {inputs} inputs, {self.moments.tokens} tokens)"

    @property
    def weight(self) -> torch.Tensor:
        """W (q, p), a view of the parameter, in the model's dtype."""
        return self.matrix_in(self.parameter.detach())

    @property
    def parameter(self) -> torch.Tensor:
        """The parameter that W is, or is a part of."""
        if self.expert is not None:
            return self.expert[0].parameter
        parameter: torch.Tensor = self.module.weight  # type: ignore[assignment]
        return parameter

    def matrix_in(self, tensor: torch.Tensor) -> torch.Tensor:
        """The entries (q, p) that belong to W in a tensor of the parameter's shape, such as its gradient: a view."""
        if self.expert is not None:
            packed, number = self.expert
            return packed.matrix_in(tensor, number)
        return tensor.T if self.transposed else tensor

    def problem(self, moments: Moments | None = None, rows: Sequence[int] | None = None) -> Quadratic:
        """f(V) = 1/2 |X* V^T - X W^T|_F^2 for the present weight W and the tokens seen, in float64.

        The arrays are numpy for a model on the CPU, and cupy (torch without cupy) for one on a GPU. moments: others than the
        layer's own, for instance those of held-out text. rows: the outputs that are wanted, all by default. A bias plays no
        part, since it cancels. ValueError where the weight holds NaN or Inf.
        """
        weight = self.weight
        if not all_finite(weight):
            raise ValueError(f"the weight of {self.name} holds NaN or Inf")
        moments = moments or self.moments
        weight = weight if rows is None else weight[list(rows)]
        weight = weight.to(torch.float64, copy=True)  # the problem must not change when its answer is written back
        with current_device(weight.device):
            return Quadratic.from_moments(moments, weight if isinstance(moments.gram, torch.Tensor) else solver_array(weight))

    def assign(self, weights: Any, dtype: torch.dtype | None = None) -> None:
        """Write V (q, p) of any array library into the module in place, rounded to `dtype` (the checkpoint's) first and
        then to the parameter's own. ValueError for another shape, NaN or Inf; the module is then unchanged."""
        target = self.weight
        if tuple(weights.shape) != tuple(target.shape):
            raise ValueError(f"weights are {tuple(weights.shape)} but {self.name} is {tuple(target.shape)}")
        values = tensor_of(weights).to(dtype or target.dtype).to(target.dtype)
        if not all_finite(values):
            raise ValueError(f"the weights for {self.name} hold NaN or Inf in {dtype or target.dtype}")
        with torch.no_grad():
            target.copy_(values)
