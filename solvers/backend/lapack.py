"""Cholesky solves of numpy arrays that other threads can run beside: scipy's own LAPACK, called by its address.

scipy's Python wrappers of LAPACK hold the interpreter while they compute. The routines that scipy offers to Cython are the
same, and `ctypes` lets go of the interpreter while it calls them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

__all__ = ["solve_cholesky"]

NAMES = {np.dtype(np.float32): "sposv", np.dtype(np.float64): "dposv"}


def solve_cholesky(matrix: np.ndarray, right: np.ndarray) -> bool:
    """Solve `A x = b` in place for one symmetric A (k, k), by Cholesky, and return whether A was positive definite.

    Both arrays are C-ordered and of one dtype, float32 or float64. right: the columns of b as rows (m, k), which x replaces.
    ValueError for others. Of `matrix` what is below the diagonal is not read. It is overwritten: by its factor, seen from
    Fortran, where a symmetric C-ordered matrix is its own transpose.
    """
    for array in (matrix, right):  # or what is beside it in memory would be overwritten
        if array.dtype != matrix.dtype or array.shape[1] != len(matrix) or not array.flags.c_contiguous:
            found, beside = f"{array.shape} of {array.dtype}", f"{matrix.shape} of {matrix.dtype}"
            raise ValueError(f"{found} is no C-ordered array beside {beside}")
    posv = routine(matrix.dtype)
    size, count, failed = ctypes.c_int(matrix.shape[0]), ctypes.c_int(right.shape[0]), ctypes.c_int(0)
    order = ctypes.byref(size)
    posv(b"L", order, ctypes.byref(count), matrix.ctypes.data, order, right.ctypes.data, order, ctypes.byref(failed))
    return failed.value == 0


@cache
def routine(dtype: np.dtype[Any]) -> Callable[..., None]:
    """Return LAPACK's `posv` for a dtype: (uplo, n, nrhs, a, lda, b, ldb, info), by reference."""
    from scipy.linalg import cython_lapack

    capsule = cython_lapack.__pyx_capi__[NAMES[dtype]]
    name, pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    signature = name(capsule)
    if signature.count(b"int *") != 5:  # n, nrhs, lda, ldb, info: a LAPACK of 64-bit integers would read beyond them
        raise RuntimeError(f"scipy's LAPACK has another interface than expected: {signature.decode()}")
    kinds = [ctypes.c_char_p, *[ctypes.c_void_p] * 7]
    found: Callable[..., None] = ctypes.CFUNCTYPE(None, *kinds)(pointer(capsule, signature))
    return found
