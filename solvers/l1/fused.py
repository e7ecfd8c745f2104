"""What iterations do beside their matrix product, in as few passes over memory as can be.

On cupy this is one kernel. Elsewhere the formulas run as they are written here, which defines what the kernels compute.
"""

from __future__ import annotations

from gramian.solvers.backend._cuda import kernel, map_of
from gramian.solvers.backend._xp import Array, clip, full, is_cupy_array, namespace
from gramian.solvers.core.terms import L1, Term

__all__ = ["proximal_step", "reflected", "relaxed"]

# One block of threads for every row, which it goes through twice: the second time it reads what the cache still holds. A
# step or a weight is read at [row * its rows + column * its columns], so that 0 stands for an axis along which it is one.
PROXIMAL_ROW = r"""
extern "C" __global__ void proximal_row(
    const REAL* ahead, const REAL* gradient, const REAL* before, const REAL* momentum,
    const REAL* step, long long step_columns, const REAL* weight, long long weight_rows, long long weight_columns,
    long long width, long long restart, REAL* point, REAL* beyond, REAL* next)
{
    __shared__ REAL sums[THREADS];
    const long long row = blockIdx.x, first = row * width;
    REAL sum = 0;
    for (long long j = threadIdx.x; j < width; j += THREADS) {
        const REAL length = step[j * step_columns], here = ahead[first + j];
        const REAL moved = here - length * gradient[first + j];
        const REAL size = fabs(moved) - length * weight[row * weight_rows + j * weight_columns];
        const REAL found = size > 0 ? copysign(size, moved) : 0 * moved;  // NaN is kept
        const REAL back = step_columns ? (here - found) / length : here - found;
        point[first + j] = found;
        sum += back * (found - before[first + j]);
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    const bool uphill = restart && sums[0] > 0;
    const REAL old = momentum[row], fresh = (1 + sqrt(1 + 4 * old * old)) / 2;
    const REAL inertia = uphill ? 0 : (old - 1) / fresh;
    for (long long j = threadIdx.x; j < width; j += THREADS) {
        const REAL found = point[first + j];
        beyond[first + j] = found + inertia * (found - before[first + j]);
    }
    if (threadIdx.x == 0) next[row] = uphill ? 1 : fresh;
}
"""
THREADS = 256  # a power of two, for the sum


def proximal_step(
    term: Term, ahead: Array, gradient: Array, before: Array, momentum: Array, step: Array | float, *, restart: bool
) -> tuple[Array, Array, Array]:
    """Return x, y and t after one accelerated proximal gradient step from y_k = ahead, x_k = before, t_k = momentum (q, 1).

        x_{k+1} = prox_{step h}(y_k - step grad f(y_k)),   t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2,
        y_{k+1} = x_{k+1} + (t_k - 1) / t_{k+1} (x_{k+1} - x_k),

    but y_{k+1} = x_{k+1} and t_{k+1} = 1 in rows where `restart` finds <y_k - x_{k+1}, x_{k+1} - x_k> > 0, in the metric
    1 / step; all rows decide together if the term couples them. step: a number, or (p,), one for each channel. gradient: at
    `ahead`.
    """
    if isinstance(term, L1) and is_cupy_array(gradient) and gradient.size:
        return soft_step(term, ahead, gradient, before, momentum, step, restart)
    xp = namespace(ahead)
    point = term.prox(ahead - step * gradient, step)
    move = point - before
    following = 0.5 * (1 + xp.sqrt(1 + 4 * momentum**2))
    inertia = (momentum - 1) / following
    if restart:
        back = ahead - point if isinstance(step, float) else (ahead - point) / step
        axis = None if getattr(term, "couples_rows", False) else 1
        uphill = xp.sum(back * move, axis=axis, keepdims=True) > 0
        following = xp.where(uphill, xp.ones_like(following), following)
        inertia = xp.where(uphill, xp.zeros_like(inertia), inertia)
    return point, point + inertia * move, following


def soft_step(
    term: L1, ahead: Array, gradient: Array, before: Array, momentum: Array, step: Array | float, restart: bool
) -> tuple[Array, Array, Array]:
    """Return the same for cupy arrays and an L1 term, from one kernel."""
    xp = namespace(gradient)
    rows, width = gradient.shape
    weight = term.weight_like(gradient)
    lengths = full((1,), step, gradient) if isinstance(step, float) else xp.asarray(step, dtype=gradient.dtype)
    weights = full((1, 1), weight, gradient) if isinstance(weight, float) else weight
    given = [xp.ascontiguousarray(array) for array in (ahead, gradient, before, momentum)]
    point, beyond, following = (xp.empty_like(array) for array in (given[0], given[0], given[3]))
    along = [stride // gradient.itemsize for stride in xp.broadcast_to(weights, (rows, width)).strides]
    along_step = 0 if isinstance(step, float) else xp.broadcast_to(lengths, (width,)).strides[0] // gradient.itemsize
    source = f"#define THREADS {THREADS}\n{PROXIMAL_ROW}"
    arguments = (*given, lengths, along_step, weights, *along, width, int(restart), point, beyond, following)
    real = "float" if gradient.dtype == xp.float32 else "double"
    kernel(source, "proximal_row", real)((rows,), (THREADS,), arguments)
    return point, beyond, following


def reflected(ahead: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Return U = clip(H, lower, upper) and H - 2 U, which is Z - U for Z = H - U, what the soft threshold keeps."""
    if is_cupy_array(ahead):
        operation = "dual = ahead < lower ? lower : ahead > upper ? upper : ahead; difference = ahead - dual - dual;"
        apply = map_of("T ahead, T lower, T upper", "T dual, T difference", operation, "gramian_reflected")
        dual, difference = apply(ahead, lower, upper)
        return dual, difference
    dual = clip(ahead, lower, upper)
    difference = ahead - dual
    difference -= dual
    return dual, difference


def relaxed(product: Array, dual: Array, pull: Array, share: float) -> Array:
    """Return product + share * dual + pull, in the place of `product`; the contents of dual are lost."""
    if is_cupy_array(product):
        operation = "sum = product + (T)share * dual + pull;"
        return map_of("T product, T dual, T pull, float64 share", "T sum", operation, "gramian_relaxed")(
            product, dual, pull, share, product
        )
    dual *= share  # in place: on a processor the passes beside the product cost as well
    product += dual
    product += pull
    return product
