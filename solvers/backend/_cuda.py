"""For cupy arrays: factorisations that report whether they exist, and kernels. cupy is imported when one is needed."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

Array = Any

__all__ = ["factors", "kernel", "map_of", "solutions", "tensor_core_sum"]

TOGETHER = 2**16  # matrices of a stack times this, above the entries of one: the batched routine is faster (cupy's own rule)


def factors(matrices: Array) -> tuple[Array, Array]:
    """Return lower Cholesky factors of a stack (b, k, k), and which are factors (b,), both on the device: nobody waits.

    `cupy.linalg.cholesky` calls the same routines of cuSOLVER and drops what they report; what it returns of a matrix that
    is not positive definite is finite as a rule. Set to raise, it waits for every stack and does not say which matrix
    it was, so it is only used where cupy has no such routines. Nothing here needs torch.
    """
    import cupy

    count, size = matrices.shape[:2]
    lower = cupy.array(matrices, order="C", copy=True)
    info = cupy.zeros(count, dtype=cupy.int32)
    if not lower.size:
        return lower, info == 0
    try:
        from cupy.cuda import cublas, cusolver
        from cupy.cuda.device import get_cusolver_handle

        upper = cublas.CUBLAS_FILL_MODE_UPPER  # in columns: the lower triangle of rows
        kind = {"f": "s", "d": "d"}[lower.dtype.char]
        alone, room, batched = (getattr(cusolver, kind + name) for name in ("potrf", "potrf_bufferSize", "potrfBatched"))
    except (ImportError, AttributeError):
        return factors_in_turn(matrices)
    handle = get_cusolver_handle()
    if count > 1 and size**2 <= TOGETHER * count:
        step = size**2 * lower.itemsize
        places = cupy.arange(lower.data.ptr, lower.data.ptr + count * step, step, dtype=cupy.uintp)
        batched(handle, upper, size, places.data.ptr, size, info.data.ptr, count)
    else:
        length = room(handle, upper, size, lower.data.ptr, size)
        work = cupy.empty(length, dtype=lower.dtype)
        for k in range(count):
            alone(handle, upper, size, lower[k].data.ptr, size, work.data.ptr, length, info[k:].data.ptr)
    return cupy.tril(lower), info == 0


def factors_in_turn(matrices: Array) -> tuple[Array, Array]:
    """Return the same by public functions alone, waiting for each matrix."""
    import cupy
    import cupyx

    lower, positive = cupy.zeros_like(matrices), np.ones(matrices.shape[0], dtype=bool)
    for k in range(matrices.shape[0]):
        try:
            with cupyx.errstate(linalg="raise"):
                lower[k] = cupy.linalg.cholesky(matrices[k])
        except np.linalg.LinAlgError:
            positive[k] = False
    return lower, cupy.asarray(positive)


def solutions(lower: Array, right: Array) -> Array:
    """Return x (b, k, m) with L L^T x = b for lower factors (b, k, k).

    Large ones are solved in turn, as they were made, and all of them before cupy 14, whose triangular solve takes no stacks.
    """
    import cupy
    from cupyx.scipy.linalg import solve_triangular as solve

    count, size = lower.shape[:2]
    if not right.size:
        return cupy.array(right, copy=True)
    if count > 1 and size**2 <= TOGETHER * count and int(cupy.__version__.split(".")[0]) >= 14:
        return solve(lower, solve(lower, right, lower=True), lower=True, trans="T")
    found = cupy.empty_like(right)
    for k in range(count):
        found[k] = solve(lower[k], solve(lower[k], right[k], lower=True), lower=True, trans="T")
    return found


def tensor_core_sum(pairs: list[tuple[Array, Array]]) -> Array:
    """Return the sum of products A B of float32 pairs (m, k), (k, n), multiplied in TF32 and added up in float32.

    Every call says so for itself, and no setting of a process is touched. cuBLAS counts in columns: (A B)^T = B^T A^T.
    """
    import cupy
    from cupy.cuda import cublas, runtime
    from cupy.cuda.device import get_cublas_handle

    (rows, inner), width = pairs[0][0].shape, pairs[0][1].shape[1]
    found, kind = cupy.zeros((rows, width), dtype=cupy.float32), runtime.CUDA_R_32F
    if not found.size or not inner:
        return found
    one, plain = np.ones(1, dtype=np.float32), cublas.CUBLAS_OP_N
    handle = get_cublas_handle()
    for left, right in pairs:
        a, b = cupy.ascontiguousarray(left), cupy.ascontiguousarray(right)
        cublas.gemmEx(
            handle, plain, plain, width, rows, inner, one.ctypes.data, b.data.ptr, kind, width, a.data.ptr, kind, inner,
            one.ctypes.data, found.data.ptr, kind, width, cublas.CUBLAS_COMPUTE_32F_FAST_TF32, cublas.CUBLAS_GEMM_DEFAULT,
        )  # fmt: skip
    return found


@cache
def kernel(source: str, name: str, real: str) -> Any:
    """Return the CUDA function `name` of a source in which REAL stands for `real`, float or double. It is compiled when first
    called.
    """
    import cupy

    return cupy.RawKernel(source, name, options=(f"-DREAL={real}",))


@cache
def map_of(inputs: str, outputs: str, operation: str, name: str) -> Any:
    """Return an elementwise function of cupy arrays, in CUDA C."""
    import cupy

    return cupy.ElementwiseKernel(inputs, outputs, operation, name)
