"""Array backends: numpy, torch, cupy, whatever follows the array API standard. No other file but `_cuda` knows that they exist.

Everything else in `gramian.solvers` takes the standard's functions from `namespace(array)`; here is what the standard lacks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_cupy_array, is_numpy_array, is_torch_array

from gramian.solvers.backend import _cuda
from gramian.solvers.backend.lapack import solve_cholesky

Array = Any  # an array of any backend; the standard defines no common type

__all__ = [
    "Array",
    "as_floating",
    "assignment",
    "check_current",
    "cholesky",
    "clip",
    "copied",
    "detached",
    "device",
    "full",
    "is_cupy_array",
    "is_numpy_array",
    "kth_largest",
    "namespace",
    "on_host",
    "principal",
    "principals",
    "put",
    "same_library",
    "solve_positive",
    "solves_stacks",
    "solve_triangular",
    "to_numpy",
]


def namespace(*arrays: Array) -> Any:
    """Return the array-API namespace shared by `arrays`, of which None is ignored.

    TypeError is raised when they come from different backends.
    """
    return array_namespace(*(array for array in arrays if array is not None))


def on_host(array: Array) -> bool:
    """Return whether a value of `array` is there at once: a device would have to be waited for."""
    return not (is_cupy_array(array) or (is_torch_array(array) and array.device.type != "cpu"))


def detached(array: Array) -> Array:
    """Return `array` apart from any graph of gradients.

    What solvers do is not differentiated, and a graph would keep its inputs.
    """
    return array.detach() if is_torch_array(array) and array.requires_grad else array


def same_library(one: Array, other: Array, names: tuple[str, str]) -> None:
    """Raise TypeError, naming both, for arrays of different libraries."""
    libraries = [namespace(array).__name__.rpartition(".")[2] for array in (one, other)]
    if libraries[0] != libraries[1]:
        way = ", by torch.from_numpy or .numpy()" if {*libraries} == {"numpy", "torch"} else ""
        sides = f"{names[0]} is a {libraries[0]} array but {names[1]} is a {libraries[1]} array"
        raise TypeError(f"{sides}: convert one of them{way}")


def copied(array: Array) -> Array:
    """Return a copy on the same device, which the standard's own function leaves to torch's default device."""
    return array.clone() if is_torch_array(array) else namespace(array).asarray(array, copy=True)


def as_floating(array: Array, like: Array | None = None) -> Array:
    """Return `array` with a real floating dtype: that of `like` if given, its own if it has one, else float64.

    TypeError is raised for an array of another library than `like`.
    """
    xp = namespace(array)
    if like is not None:
        same_library(array, like, ("an argument", "the problem's weight"))
        array = detached(array)
        return array if array.dtype == like.dtype else xp.astype(array, like.dtype)
    return array if xp.isdtype(array.dtype, "real floating") else xp.astype(array, xp.float64)


def check_current(array: Array) -> None:
    """Raise ValueError for a cupy array on another device than the current one, where cupy would put all that it makes."""
    if not is_cupy_array(array):
        return
    import cupy

    current = cupy.cuda.Device().id
    if array.device.id != current:
        need = f"with cupy.cuda.Device({array.device.id})"
        raise ValueError(f"the arrays are on device {array.device.id} but device {current} is current: solve within `{need}`")


def full(shape: tuple[int, ...], value: float, like: Array) -> Array:
    """Return a constant array with the backend, device and dtype of `like`."""
    return namespace(like).full(shape, value, dtype=like.dtype, device=device(like))


def to_numpy(array: Array) -> np.ndarray:
    """Return a host copy of `array`; this is the one place where a device synchronises on purpose."""
    found: np.ndarray = array
    if is_torch_array(array):
        found = array.detach().cpu().numpy()
    elif is_cupy_array(array):
        found = array.get()
    elif not is_numpy_array(array):
        found = np.asarray(array)
    return found


def clip(array: Array, lower: Array | float, upper: Array | float | None) -> Array:
    """Return `array` cut to lower <= x <= upper.

    With cupy the standard's own function selects by masks, for which the host has to wait.
    """
    if is_cupy_array(array):
        import cupy

        return cupy.clip(array, lower, upper)
    return namespace(array).clip(array, lower, upper)


def put(array: Array, rows: np.ndarray, values: Array) -> None:
    """Set `array[rows, :] = values`, in place; the standard knows no assignment to a list of places."""
    if is_numpy_array(array) or is_torch_array(array) or is_cupy_array(array):
        array[namespace(array).asarray(rows, device=device(array))] = values
        return
    for k, row in enumerate(map(int, rows)):
        array[row, :] = values[k, :]


def kth_largest(array: Array, k: int) -> Array:
    """Return the k-th largest entry (k >= 1) along the last axis, kept as an axis of length one.

    This takes linear time where the backend can: cupy sorts, and torch on a GPU gives a row to one block of threads in
    `kthvalue`, but to many in `topk`.
    """
    size = array.shape[-1]
    if is_torch_array(array) and array.is_cuda:
        return array.topk(k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
    if is_torch_array(array):
        return array.kthvalue(size - k + 1, dim=-1, keepdim=True).values
    xp = namespace(array)
    if is_numpy_array(array) or is_cupy_array(array):
        return xp.partition(array, size - k, axis=-1)[..., size - k : size - k + 1]
    return xp.sort(array, axis=-1)[..., size - k : size - k + 1]


def cholesky(matrix: Array) -> tuple[Array, bool]:
    """Return the lower Cholesky factor and whether it exists.

    Every backend fails in its own way (an exception, an info code, part of a factor in silence on cupy); here it is always the
    flag, and the factor is then not to be used.
    """
    xp = namespace(matrix)
    if is_torch_array(matrix):
        import torch

        factor, info = torch.linalg.cholesky_ex(matrix)
        return factor, bool((info == 0).all())
    if is_cupy_array(matrix):
        factors, positive = _cuda.factors(matrix[None, :, :])
        return factors[0, :, :], bool(positive[0])
    try:
        factor = xp.linalg.cholesky(matrix)
    except Exception as error:  # LinAlgError lives in a different module on every backend
        if type(error).__name__ != "LinAlgError":
            raise
        return matrix, False
    return factor, bool(xp.all(xp.isfinite(factor)))


def solve_triangular(factor: Array, right: Array, *, upper: bool) -> Array:
    """Return `factor^-1 right` for a triangular `factor`.

    The standard offers only the general solve, which is used where nothing better is.
    """
    xp = namespace(factor, right)
    if is_torch_array(factor):
        import torch

        return torch.linalg.solve_triangular(factor, right, upper=upper)
    if is_numpy_array(factor):
        from scipy.linalg import solve_triangular as solve

        return solve(factor, right, lower=not upper, check_finite=False)
    if is_cupy_array(factor):
        from cupyx.scipy.linalg import solve_triangular as solve

        return solve(factor, right, lower=not upper, check_finite=False)
    return xp.linalg.solve(factor, right)


def solve_positive(matrices: Array, right: Array) -> tuple[Array, Array]:
    """Return solutions x of `A x = b` for a stack of positive definite A (b, k, k) and right (b, k, m), by Cholesky.

    Return also, per matrix, whether it was positive definite (b,): where it was not, its x is not to be used. `matrices` may be
    overwritten.
    """
    xp = namespace(matrices, right)
    count = matrices.shape[0]
    if is_torch_array(matrices):
        import torch

        factor, info = torch.linalg.cholesky_ex(matrices)
        return torch.cholesky_solve(right, factor), info == 0
    if is_numpy_array(matrices):
        found = np.array(np.swapaxes(right, 1, 2), dtype=matrices.dtype, order="C")  # a copy, which x replaces
        regular = [solve_cholesky(matrix, lines) for matrix, lines in zip(np.ascontiguousarray(matrices), found)]
        return np.swapaxes(found, 1, 2), np.asarray(regular, dtype=bool)
    if is_cupy_array(matrices):
        factors, positive = _cuda.factors(matrices)
        return _cuda.solutions(factors, right), positive
    try:
        factor = xp.linalg.cholesky(matrices)
    except Exception as error:
        if type(error).__name__ != "LinAlgError":
            raise
        if count == 1:
            return right, xp.zeros((1,), dtype=xp.bool, device=device(matrices))
        parts = [solve_positive(matrices[k : k + 1, :, :], right[k : k + 1, :, :]) for k in range(count)]
        return xp.concat([part[0] for part in parts]), xp.concat([part[1] for part in parts])
    found = xp.linalg.solve(xp.matrix_transpose(factor), xp.linalg.solve(factor, right))
    return found, xp.all(xp.isfinite(factor), axis=(1, 2))


def assignment(value: Array) -> np.ndarray:
    """Return for every row of `value` (n, n) a column of its own, so that the values of all pairs add up to the most."""
    from scipy.optimize import linear_sum_assignment

    chosen: np.ndarray = linear_sum_assignment(to_numpy(value), maximize=True)[1]
    return chosen


def principals(matrix: Array, chosen: Array) -> Array:
    """Return the principal submatrices `matrix[i_b, i_b]` (b, k, k) for indices (b, k)."""
    xp = namespace(matrix, chosen)
    if is_torch_array(matrix) or is_cupy_array(matrix):
        return matrix[chosen[:, :, None], chosen[:, None, :]]
    if is_numpy_array(matrix):
        found = np.empty((*chosen.shape, chosen.shape[1]), matrix.dtype)
        for index, out in zip(chosen, found):
            principal(matrix, index, out)
        return found
    parts = [xp.take(xp.take(matrix, chosen[b, :], axis=0), chosen[b, :], axis=1) for b in range(chosen.shape[0])]
    return xp.stack(parts)


def principal(matrix: np.ndarray, chosen: np.ndarray, out: np.ndarray, *, half: bool = False) -> np.ndarray:
    """Write `matrix[i, i]` (k, k) to `out`, of numpy arrays; some rows at a time, so that all of it stays in the cache.

    half: what is below the diagonal need not be written, for who does not read it.
    """
    for first in range(0, len(chosen), 64):
        part, begin = slice(first, first + 64), first if half else 0
        matrix.take(chosen[part], 0).take(chosen[begin:], 1, out=out[part, begin:], mode="clip")
    return out


def solves_stacks(array: Array) -> bool:
    """Return whether the backend factorises a stack of matrices at once; the others go through it one by one."""
    return is_torch_array(array) or is_cupy_array(array)
