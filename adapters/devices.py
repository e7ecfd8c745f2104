"""CUDA devices: which array library the solvers run on there, and how tensors are handed to it and back without a copy.

torch and cupy both work on the default stream unless the program sets another, and DLPack orders the two where they differ.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch
from array_api_compat import is_cupy_array

from gramian.solvers.backend._xp import as_floating, to_numpy
from gramian.solvers.core.moments import Products

__all__ = [
    "NO_CUPY",
    "all_finite",
    "current_device",
    "precision_of_products",
    "release_cached",
    "solver_array",
    "solver_library",
    "tensor_of",
    "usable_device",
    "where",
]

NO_CUPY = (
    "cupy is not installed or sees no GPU: the solvers run on torch CUDA tensors instead, without their own kernels. Install "
    "'gramian[cuda12]' or 'gramian[cuda13]', whichever is the CUDA of torch, for cupy"
)


def all_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor Inf. Of floating-point numbers the extremes hold one then, and are found without
    another array."""
    if tensor.numel() and tensor.is_floating_point() and tensor.itemsize > 1:  # of a byte each there are no extremes
        laid = tensor.T if tensor.ndim == 2 and not tensor.is_contiguous() else tensor  # as it lies in memory: ten times faster
        return all(bool(torch.isfinite(each)) for each in torch.aminmax(laid.detach()))
    return bool(torch.isfinite(tensor).all())


def usable_device(device: str | torch.device) -> torch.device:
    """Return the device, after a first number was computed on it. ValueError, with what to do instead, where that fails."""
    try:
        found = torch.device(device)
        torch.empty(1, device=found, dtype=torch.float64).sum().item()  # moments and certificates are float64
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        advice = ""
        if str(device).startswith("cuda"):
            advice = "; the CPU works everywhere (--device cpu), a GPU needs its driver and a build of torch for CUDA"
        raise ValueError(f"device {str(device)!r} cannot be used: {reason}{advice}") from error
    return found


@cache
def cupy_module() -> Any:
    """Return cupy where it is installed and sees a GPU; else warn once and return None."""
    try:
        import cupy

        if cupy.cuda.is_available():
            return cupy
    except ImportError:
        pass
    warnings.warn(NO_CUPY, stacklevel=2)
    return None


def solver_library(device: torch.device) -> str:
    """Name the array library that solves the problems of a model on a device: numpy, cupy or torch."""
    if device.type == "cuda":
        return "torch" if cupy_module() is None else "cupy"
    return "numpy" if device.type == "cpu" else "torch"


@contextmanager
def current_device(device: torch.device) -> Iterator[None]:
    """Make a CUDA device this thread's current one in torch and in cupy while the context is open: cupy computes on no other,
    and torch exports no tensor of another. Nothing changes for devices of other kinds."""
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
            if (cupy := cupy_module()) is not None:
                stack.enter_context(cupy.cuda.Device(torch.cuda.current_device()))
        yield


def solver_array(tensor: torch.Tensor) -> Any:
    """Return the tensor as the array that the solvers are fastest on: numpy on the CPU, cupy on a GPU where it can be used.

    The array shares the tensor's memory, except that bfloat16, which neither library knows, becomes float32.
    """
    tensor = tensor.detach()
    kind = tensor.device.type
    if kind == "cpu":
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if kind == "cuda" and (cupy := cupy_module()) is not None:
        with current_device(tensor.device):
            return cupy.from_dlpack(tensor.float() if tensor.dtype == torch.bfloat16 else tensor)
    return tensor if kind == "cuda" else as_floating(tensor)


def tensor_of(array: Any) -> torch.Tensor:
    """Return an array of any library as a tensor: one on a GPU shares its memory, others are copied, on the host."""
    if isinstance(array, torch.Tensor):
        return array
    if is_cupy_array(array):
        with current_device(torch.device("cuda", array.device.id)):
            return torch.from_dlpack(array)
    return torch.from_numpy(to_numpy(array).copy())


def precision_of_products(device: torch.device, dtype: torch.dtype) -> Products:
    """Name the precision in which products of activations are formed: float32 on a GPU, where float64 takes 2 to 64 times as
    long, unless the activations are float64 themselves; else float64."""
    return "float32" if device.type == "cuda" and dtype != torch.float64 else "float64"


def where(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Settings that a report records of a run on a device with activations of a dtype."""
    return {
        "device": str(device),
        "solvers": solver_library(device),
        "products": precision_of_products(device, dtype),
    }


def release_cached(device: torch.device) -> None:
    """Free the memory of the GPU that torch and cupy keep for later, since neither can use what the other keeps."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        if (cupy := cupy_module()) is not None:
            cupy.get_default_memory_pool().free_all_blocks()
