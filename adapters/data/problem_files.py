"""Problem files: one operator's layer-wise problem in one safetensors file, which can be solved anywhere without its model.

    weight      (q, p)        the dense weights W, outputs x inputs
    gram_upper  p (p + 1) / 2 upper triangle of X*^T X* / N, row-major as `numpy.triu_indices` lists it
    slope       (q, p)        gradient of the loss at W, over N; only where X* != X
    floor       (q,)          loss at W per row, over N; only where X* != X

All tensors are float32 and per token: N is the number of tokens, which the metadata record beside the operator's name. Files
that hold `gram_upper` alone are moments of other text, for held-out errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gramian.adapters import tensor_files
from gramian.solvers import Quadratic
from gramian.solvers.backend._xp import to_numpy

__all__ = ["problem_bytes", "read_gram", "read_problem", "write_problem", "write_tensors"]

LAYOUT = "mean of x x^T over tokens, upper triangle, row-major (numpy.triu_indices)"
READABLE = ("F16", "F32", "F64")


def write_problem(path: str | Path, problem: Quadratic, *, tokens: int, metadata: Mapping[str, str] | None = None) -> None:
    """Write `problem`, a sum over `tokens` tokens as layers give it, as means per token.

    metadata: strings such as `model`, `operator` and `layer`. The file appears complete or not at all. ValueError: values
    beyond float32. OSError: the file cannot be written.
    """
    if tokens < 1:
        raise ValueError(f"tokens is {tokens}: a problem is a mean over at least one token")
    width = problem.shape[1]
    gram = to_numpy(problem.gram)
    tensors = {
        "weight": to_numpy(problem.anchor),
        "gram_upper": np.concatenate([gram[row, row:] for row in range(width)]) / tokens,
    }
    if problem.slope is not None and problem.floor is not None:
        tensors |= {"slope": to_numpy(problem.slope) / tokens, "floor": to_numpy(problem.floor) / tokens}
    write_tensors(path, tensors, {**(metadata or {}), "tokens": str(tokens), "gram": LAYOUT})


def problem_bytes(shape: tuple[int, int], moved: bool) -> int:
    """The bytes of the tensors of one file. shape: (q, p) of the weight. moved: whether X* != X, so that there are slopes."""
    q, p = shape
    return 4 * (q * p + p * (p + 1) // 2 + moved * (q * p + q))


def write_tensors(path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write tensors as float32 to a safetensors file that appears complete or not at all; ValueError for NaN or Inf."""
    path = Path(path)
    single = {}
    for name, tensor in tensors.items():
        with np.errstate(over="ignore"):
            single[name] = np.ascontiguousarray(tensor, dtype=np.float32)
        if not np.isfinite(single[name]).all():
            raise ValueError(f"{path}: {name} holds values that are not finite in float32")
    tensor_files.write_tensors(path, single, metadata)


def read_problem(path: str | Path) -> tuple[Quadratic, dict[str, str]]:
    """Read the problem per token, in numpy float64, and the file's metadata.

    FileNotFoundError: there is no such file. ValueError, naming file and tensor: what it holds is not a problem.
    """
    tensors, metadata = read_tensors(path, ("weight", "gram_upper"), ("slope", "floor"))
    gram, weight = unpacked(path, tensors["gram_upper"]), tensors["weight"]
    if weight.ndim != 2 or weight.size == 0:
        raise ValueError(f"{path}: weight is {weight.shape} but must be a matrix (outputs, inputs)")
    if weight.shape[1] != len(gram):
        raise ValueError(f"{path}: weight is {weight.shape} but gram_upper is the triangle of a {gram.shape} matrix")
    try:
        return Quadratic(gram, weight, tensors.get("slope"), tensors.get("floor"), owned=True), metadata
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_gram(path: str | Path) -> np.ndarray:
    """Read the (p, p) mean of x x^T, in float64, from a file that need hold nothing else. Errors are as in `read_problem`."""
    return unpacked(path, read_tensors(path, ("gram_upper",))[0]["gram_upper"])


def read_tensors(
    path: str | Path, needed: tuple[str, ...], optional: tuple[str, ...] = ()
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read finite float64 tensors by name, and the metadata; ValueError for a tensor that is missing or not floating."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no problem file {str(path)!r}")
    kinds, metadata = tensor_files.tensor_names(path)
    for name in needed:
        if name not in kinds:
            raise ValueError(f"{path} holds the tensors {sorted(kinds)} but a problem needs {name!r}")
    names = (*needed, *(name for name in optional if name in kinds))
    for name in names:
        if kinds[name] not in READABLE:
            raise ValueError(f"{path}: {name} is {kinds[name]} but must be one of {', '.join(READABLE)}")
    tensors = {name: tensor.astype(np.float64) for name, tensor in tensor_files.read_tensors(path, names).items()}
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"{path}: {name} holds NaN or Inf")
    return tensors, metadata


def unpacked(path: str | Path, upper: np.ndarray) -> np.ndarray:
    """Unpack a row-major upper triangle into its symmetric matrix, row by row, since index arrays would outweigh it."""
    width = (math.isqrt(8 * upper.size + 1) - 1) // 2
    if upper.ndim != 1 or upper.size == 0 or width * (width + 1) // 2 != upper.size:
        raise ValueError(f"{path}: gram_upper is {upper.shape} but a triangle of width p has p (p + 1) / 2 entries")
    gram = np.empty((width, width))
    first = 0
    for row in range(width):
        last = first + width - row
        gram[row, row:] = gram[row:, row] = upper[first:last]
        first = last
    if (gram.diagonal() < 0).any():
        raise ValueError(f"{path}: gram_upper has negative entries on the diagonal: it is no mean of x x^T")
    return gram
