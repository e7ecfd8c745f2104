"""Weights S + B A of a model in memory: S is saved as the checkpoint, B and A as an adapter of PEFT beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gramian.adapters.devices import solver_array, tensor_of
from gramian.adapters.files import write_bytes
from gramian.solvers import FactoredSolution, Quadratic
from gramian.solvers.factored.alternated import stationarity

__all__ = [
    "ADAPTER",
    "Factors",
    "has_adapter",
    "in_one_piece",
    "merge_adapter",
    "model_factors",
    "note_factors",
    "refuse_adapter",
    "write_adapter",
]

ADAPTER = "adapter"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # PEFT's, before the names of the model's own
NOTED = "gramian_factors"  # on a model in memory


@dataclass(frozen=True, eq=False)
class Factors:
    """S (q, p), B (q, r) and A (r, p) of an operator, as numpy arrays of float32 or float64, of which V = S + B A."""

    s: np.ndarray | None
    b: np.ndarray
    a: np.ndarray
    merged: ClassVar[bool] = True  # S alone is in the checkpoint

    @classmethod
    def of(cls, solution: FactoredSolution) -> Factors:
        """The parts of a solution, in the memory of the host."""
        sparse, left, right = (
            None if each is None else tensor_of(each).cpu().numpy() for each in (solution.sparse, solution.left, solution.right)
        )
        assert left is not None and right is not None
        return cls(sparse, left, right)

    def rounded(self, dtype: torch.dtype) -> Factors:
        """The same as they are stored in a dtype, in float32."""

        def stored(array: np.ndarray) -> np.ndarray:
            return np.asarray(torch.from_numpy(array).to(dtype).to(torch.float32).numpy())

        return Factors(None if self.s is None else stored(self.s), stored(self.b), stored(self.a))

    @property
    def sparse(self) -> torch.Tensor:
        """S."""
        return torch.from_numpy(np.zeros((len(self.b), self.a.shape[1]), self.b.dtype) if self.s is None else self.s)

    @property
    def weights(self) -> torch.Tensor:
        """S + B A, in float64."""
        product = torch.from_numpy(self.b.astype(np.float64) @ self.a.astype(np.float64))
        return product + self.sparse.to(torch.float64)

    @property
    def has_zeros(self) -> bool:
        """Whether there is an S."""
        return self.s is not None

    @property
    def mask(self) -> torch.Tensor:
        """Which weights S keeps; all of one dense matrix where there is no S."""
        return torch.ones((len(self.b), self.a.shape[1]), dtype=torch.bool) if self.s is None else self.sparse != 0

    def residual(self, problem: Quadratic, weights: Any) -> float:
        """That of the first-order conditions of S and B A at the weights as they are stored."""
        parts = [None if each is None else solver_array(torch.from_numpy(each).to(tensor_of(weights).device, torch.float64))
                 for each in (self.s, self.b, self.a)]  # fmt: skip
        return stationarity(problem, weights, *parts)


def note_factors(model: nn.Module, factors: Mapping[str, Factors]) -> None:
    """Let a model know what its weights are made of. A product without S is one dense matrix like any other, and what is no
    `Linear` has no adapter: both are saved in one piece."""
    kept = {name: each for name, each in factors.items() if each.s is not None and plain_linear(model, name)}
    if kept:
        setattr(model, NOTED, kept)


def plain_linear(model: nn.Module, name: str) -> bool:
    """Whether a name is that of a `Linear`, not of an expert's matrix."""
    try:
        return isinstance(model.get_submodule(name), nn.Linear)
    except AttributeError:
        return False


def model_factors(model: nn.Module) -> dict[str, Factors]:
    """The factors of the operators whose weights are still what they were made of."""
    noted: Mapping[str, Factors] = getattr(model, NOTED, {})
    return {name: each for name, each in noted.items() if plain_linear(model, name) and made_of(model, name, each)}


def made_of(model: nn.Module, name: str, factors: Factors) -> bool:
    """Whether a weight is S + B A as it is stored in the dtype of the model or of its checkpoint."""
    weight: Any = model.get_submodule(name).weight
    if weight.is_meta or tuple(weight.shape) != tuple(factors.sparse.shape):
        return False
    expected = factors.weights
    storage = getattr(getattr(model, "config", None), "dtype", None) or weight.dtype
    storage = getattr(torch, storage) if isinstance(storage, str) else storage
    found = weight.detach().cpu()
    return any(torch.equal(expected.to(dtype).to(found.dtype), found) for dtype in (storage, found.dtype))


@contextmanager
def in_one_piece(model: nn.Module) -> Iterator[None]:
    """Let a model be saved as the weights that it computes with, for formats that have no adapters."""
    noted = model.__dict__.pop(NOTED, None)
    try:
        yield
    finally:
        if noted is not None:
            setattr(model, NOTED, noted)


def write_adapter(factors: Mapping[str, Factors], folder: Path) -> None:
    """Write B and A as a LoRA adapter of PEFT with alpha = r, so that it adds B A; nothing without factors."""
    if not factors:
        return
    folder.mkdir()
    ranks = {name: each.a.shape[0] for name, each in factors.items()}
    tensors = {}
    for name, each in factors.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = torch.from_numpy(each.a).contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = torch.from_numpy(each.b).contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    most = max(ranks.values())
    config = {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": None, "inference_mode": True, "bias": "none",
        "fan_in_fan_out": False, "lora_dropout": 0.0, "r": most, "lora_alpha": most, "target_modules": sorted(ranks),
        "rank_pattern": ranks, "alpha_pattern": ranks,
    }  # fmt: skip
    write_bytes(folder / CONFIG, json.dumps(config, indent=2).encode())


def merge_adapter(model: nn.Module, folder: Path, storage: torch.dtype) -> None:
    """Add B A to the weights of a model whose directory has such an adapter, and note the factors, so that it is saved alike.

    ValueError is raised for an adapter that is not one of this kind or does not fit.
    """
    place = folder / ADAPTER
    if not has_adapter(folder):
        return
    config, tensors = json.loads((place / CONFIG).read_text(encoding="utf-8")), load_file(place / WEIGHTS)
    ranks = config.get("rank_pattern") or {}
    if config.get("peft_type") != "LORA" or ranks != config.get("alpha_pattern") or len(tensors) != 2 * len(ranks):
        raise ValueError(f"{place} is no adapter that `save` has written, with alpha = r: merge it with PEFT, or move it away")
    found = {}
    for name in ranks:
        parts = [tensors.get(f"{PREFIX}{name}.lora_{letter}.weight") for letter in "BA"]
        if not plain_linear(model, name) or any(part is None for part in parts):
            raise ValueError(f"{place} has an adapter of {name}, which is no Linear of the model, or is incomplete")
        weight: Any = model.get_submodule(name).weight
        left, right = (part.to(torch.float32).numpy() for part in parts if part is not None)
        if tuple(weight.shape) != (left.shape[0], right.shape[1]) or left.shape[1] != right.shape[0]:
            raise ValueError(f"{place}: {name} is {tuple(weight.shape)} but B is {left.shape} and A is {right.shape}")
        found[name] = Factors(weight.detach().to("cpu", torch.float32).numpy().copy(), left, right)
        with torch.no_grad():
            weight.copy_(found[name].weights.to(storage).to(weight.dtype))
    note_factors(model, found)


def has_adapter(folder: Path) -> bool:
    """Whether the weights of a directory are S alone, and B and A stand beside them."""
    return (folder / ADAPTER / CONFIG).is_file()


def refuse_adapter(folder: Path) -> None:
    """Raise ValueError for a directory whose weights are S alone, where nothing adds B A."""
    if has_adapter(folder):
        raise ValueError(f"{folder} holds sparse weights whose rest is in {ADAPTER}: load it with gramian.load, which adds it")
