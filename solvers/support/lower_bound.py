"""A proven lower bound of the loss on every support that a pattern admits, so that what a search found has a gap."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gramian.solvers.backend._xp import Array, clip, device, full, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.given import given_floats
from gramian.solvers.backend.options import whole
from gramian.solvers.backend.printed import digits, extent
from gramian.solvers.core.certificate import certify
from gramian.solvers.core.patterns import NM, PatternLike, TopK, counted_pattern
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution
from gramian.solvers.core.terms import Support
from gramian.solvers.support.diagonal_split import conditional_split, diagonal_split, proven_split
from gramian.solvers.support.perspective import relaxed_point

__all__ = ["SupportBound", "bounded", "dual_bound", "l0_bound"]

USUAL = 2.0  # d is as large on most channels, in units of the first one
LEAST_PRICE = 1e-3  # of the highest, so that no channel is left without curvature


@dataclass(frozen=True, eq=False)
class SupportBound:
    """f(V) >= total for every V whose support the pattern admits

    Parameters
    ----------
    total : float
        The bound of the loss of all rows, in squared outputs; -inf where nothing is known.
    rows : array (q,), optional
        The bound of every row, where rows do not compete; None where they do.
    split : array (p,)
        d >= 0, the diagonal that it rests on: G - diag(d) is positive semidefinite, and that is proven. All zeros where none is
        known, and then the bound is zero or -inf.
    point : array (q, p)
        U, the weights at which the rest of the Gram was replaced by a tangent, in float64.
    steps : int, default 0
        Steps of ADMM that were spent.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import SupportBound
    >>> SupportBound(1.5, np.array([0.5, 1.0]), np.ones(8), np.zeros((2, 8)))
    SupportBound(2x8, at least 1.5)
    """

    total: float
    rows: Array | None
    split: Array
    point: Array
    steps: int = 0

    def __repr__(self) -> str:
        return f"SupportBound({extent(self.point)}, at least {digits(self.total)})"


@computation
def l0_bound(problem: Quadratic, pattern: PatternLike, *, steps: int = 50, splits: int = 3) -> SupportBound:
    """max_U,d b(U, d) <= min_V f(V) subject to V satisfying the pattern

    With d >= 0 and G - diag(d) positive semidefinite, f lies above its tangent at any weights U by the diagonal at least,

        f(V) >= f(U) + sum_ij g_ij (v_ij - u_ij) + 1/2 d_j (v_ij - u_ij)^2,   g = grad f(U),

    and what is on the right is separable: its least value over every support is found by sorting. b(U, d) is that value, less
    what rounding may have added to it (`dual_bound`); so every U and every proven d give a bound.

    Its maximum over U is the minimum of the perspective relaxation, which is solved for all rows at once by ADMM, one product
    with p x p numbers a step. It is concave in d with the slope 1/2 sum_i v_ij^2 (1 / z_ij - 1), V and Z of the relaxation. The
    first d is a multiple of 1 / (G^-1)_jj; then follow steps of Frank and Wolfe's method to the d that maximises the slope
    (minimum trace factor analysis with weights, a semidefinite program of some ten inverses), and U follows. The best of all
    is returned.

    What is bounded is the problem that is given. l0 solves a damped one as a rule, and damping is what the bound lives on: d
    can be the ridge, and more. A Gram that is singular has no d: its bound is zero, for a loss is a sum of squares, and -inf
    where X* != X. The bound says how much better a support can be at the very most, not how much better one is.

    Parameters
    ----------
    problem : Quadratic
        f, damped as a rule: `problem.damped(ridge)`.
    pattern : TopK, NM, str or float
        Which masks are allowed; also "2:4", or a sparsity.
    steps : int, default 50
        Steps of ADMM for every d.
    splits : int, default 3
        How many d are tried, one after another.

    Returns
    -------
    SupportBound
        The bound and what it rests on.

    Raises
    ------
    ValueError
        For numbers out of range, and for a pattern that does not fit.
    TypeError
        For a pattern that is neither TopK nor NM.

    References
    ----------
    Dong, Chen and Linderoth 2015, Regularization vs. relaxation; Pilanci, Wainwright and El Ghaoui 2015; Argyriou, Foygel and
    Srebro 2012 for the proximal map.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, TopK, l0_admm, l0_bound
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> found = l0_admm(problem, TopK(0.5)).certificate.objective
    >>> 0.8 * found < l0_bound(problem, TopK(0.5)).total <= found
    True
    """
    steps, splits = whole("steps", steps), whole("splits", splits)
    pattern = counted_pattern(pattern, problem.shape, "l0_bound")
    exact = problem.double
    xp = namespace(exact.anchor)
    unit, scale = exact.rescaled()
    dead = exact.diagonal == 0
    gram = unit.gram + xp.eye(exact.shape[1], dtype=xp.float64, device=device(dead)) * xp.astype(dead, xp.float64)
    best, split = without_split(problem, pattern), conditional_split(gram)
    if split is None:
        return best
    usual, point, spent = USUAL * split * scale * scale, exact.anchor, 0
    for index in range(1, splits + 1):
        diagonal = xp.where(dead, xp.zeros_like(split), split * scale * scale)
        point, worth = relaxed_point(exact, pattern, diagonal, usual, point, steps)
        found, spent = dual_bound(problem, pattern, diagonal, point), spent + steps
        best = found if found.total > best.total else best
        price = worth * scale * scale  # the slope of b in d, in these coordinates
        highest = float(xp.max(price))
        if index == splits or not 0 < highest < float("inf"):  # zero: nothing is kept in part, and d is of no consequence
            break
        ahead = diagonal_split(gram, clip(price / highest, LEAST_PRICE, None), split)
        split = split + 2 / (index + 1) * (ahead - split)  # Frank and Wolfe's step
    return replace(best, steps=spent)


@computation
def dual_bound(problem: Quadratic, pattern: PatternLike, split: Array, point: Array) -> SupportBound:
    """b(U, d) = min_V f(U) + sum_ij g_ij (v_ij - u_ij) + 1/2 d_j (v_ij - u_ij)^2 over the pattern, less rounding

    A weight that is pruned costs c_0 = 1/2 d u^2 - g u, and one that is kept c_1 = -g^2 / (2 d); so keeping it gains

        c_0 - c_1 = 1/2 d (u - g / d)^2 >= 0,

    and the pattern keeps those that gain most. That G - diag(d) is positive semidefinite is proven here, for a d that is
    smaller than the one given by some rounding; where it cannot be, and where d is not positive on a live channel, no U is of
    use. Of what is computed, the rounding comes off. A gradient is off by gamma (|slope| + |V - W| |G|) at most, which moves c
    by that times |u| or |g| / d, and a sum by gamma times the sum of the sizes of its terms.

    Parameters
    ----------
    problem : Quadratic
        f.
    pattern : TopK, NM, str or float
        Which masks are allowed; also "2:4", or a sparsity.
    split : array (p,)
        d.
    point : array (q, p)
        U.

    Returns
    -------
    SupportBound
        The bound, with the d that was proven.

    Raises
    ------
    ValueError
        For arrays of other shapes, and for a pattern that does not fit.
    TypeError
        For a pattern that is neither TopK nor NM.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, TopK, dual_bound
    >>> problem = Quadratic(np.diag([1.0, 4.0]), np.array([[3.0, 1.0]]))  # pruning v_1 costs 4.5, pruning v_2 costs 2
    >>> split = np.array([0.999, 3.999])  # the rest, of 0.001, is positive
    >>> round(dual_bound(problem, TopK(0.5), split, problem.anchor).total, 2)
    2.0
    """
    pattern = counted_pattern(pattern, problem.shape, "dual_bound")
    split, point = given_floats("split", split, problem.double.anchor), given_floats("point", point, problem.double.anchor)
    if tuple(point.shape) != problem.shape or tuple(split.shape) != problem.shape[1:]:
        found = f"d is {tuple(split.shape)} and the point {tuple(point.shape)}"
        raise ValueError(f"{found} but the problem's weight is {problem.shape}")
    exact = problem.double
    xp = namespace(exact.anchor, split, point)
    split = proven_split(exact.gram, split)
    dead = exact.diagonal == 0
    if split is None or not bool(xp.all((split > 0) | dead) & xp.all(xp.isfinite(point))):
        return without_split(problem, pattern)
    change = point - exact.anchor
    point = exact.anchor + change  # U is W + change; as a sum it is rounded
    product, size = change @ exact.gram, xp.abs(change) @ xp.abs(exact.gram)
    loss, loss_size = 0.5 * product * change, size * xp.abs(change)
    gradient, slope_size = product, size
    if exact.slope is not None:
        loss, loss_size = loss + exact.slope * change, loss_size + xp.abs(exact.slope * change)
        gradient, slope_size = product + exact.slope, size + xp.abs(exact.slope)
    curvature = xp.where(dead, xp.ones_like(split), split)
    goal = gradient / curvature  # how far from U a kept weight is
    gain = 0.5 * split * (point - goal) ** 2
    lost = xp.where(dead & (gradient != 0), xp.full_like(gain, float("inf")), xp.zeros_like(gain))  # no data has that slope
    gain = gain + lost
    if bool(xp.any(xp.isnan(gain))):
        return without_split(problem, pattern)
    kept = pattern.select(gain)
    rows = xp.sum(loss + (0.5 * split * point - gradient) * point - xp.where(kept, gain, xp.zeros_like(gain)), axis=1)
    # gamma of n roundings is below n eps = 2 n u: p of a product, p of a sum, q of the sum of rows, a few of each term.
    gamma = (2 * exact.shape[1] + exact.shape[0] + 16) * float(xp.finfo(gain.dtype).eps)
    blur = gamma * slope_size
    sizes = loss_size + xp.abs(gradient * point) + split * point * point + xp.abs(gradient * goal)
    slack = gamma * sizes + blur * (xp.maximum(xp.abs(point), xp.abs(goal)) + blur / curvature)
    rows = rows - 2 * xp.sum(slack, axis=1)
    if exact.floor is not None:
        rows = rows + (exact.floor - 2 * gamma * xp.abs(exact.floor))
    rows = xp.where(xp.isnan(rows), xp.full_like(rows, -float("inf")), rows)
    total = float(xp.sum(rows))
    if exact.slope is None:  # G is positive definite, so no loss is negative
        rows, total = clip(rows, 0.0, None), max(total, 0.0)
    if competing(pattern):
        return SupportBound(total, None, split, point)
    return SupportBound(float(xp.sum(rows) - gamma * xp.sum(xp.abs(rows))), rows, split, point)


@computation
def bounded(problem: Quadratic, pattern: PatternLike, solution: Solution, *, steps: int = 50, splits: int = 3) -> Solution:
    """The same weights, certified by how far they can be from the best that the pattern admits: f(V) - `l0_bound`

    Parameters
    ----------
    problem : Quadratic
        f, the problem that was solved: with its damping, if it was damped. The gap is one of this problem and of no other.
    pattern : TopK, NM, str or float
        Which masks are allowed; also "2:4", or a sparsity.
    solution : Solution
        The answer of a method, whose weights satisfy the pattern.
    steps, splits : int
        As for `l0_bound`.

    Returns
    -------
    Solution
        The solution with a certificate that has a gap in place of its residual on the support.

    Raises
    ------
    ValueError
        For weights that do not satisfy the pattern, and as `l0_bound` does.
    TypeError
        For a pattern that is neither TopK nor NM.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import NM, Quadratic, bounded, l0_admm
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> solution = bounded(problem, NM(2, 4), l0_admm(problem, NM(2, 4)))
    >>> solution.certificate.relative_gap < 0.2
    True
    """
    pattern = counted_pattern(pattern, problem.shape, "bounded")
    mask = solution.weights != 0
    if tuple(mask.shape) != problem.shape or not pattern.admits(mask):
        raise ValueError(f"the weights are {tuple(mask.shape)} and must be {problem.shape} and satisfy the pattern {pattern}")
    found = certify(problem, Support(mask), solution.weights)
    bound = l0_bound(problem, pattern, steps=steps, splits=splits).total
    return replace(solution, certificate=replace(found, bound=min(bound, found.objective), residual=None))


def competing(pattern: TopK | NM) -> bool:
    """Return whether the weights of different rows compete."""
    return isinstance(pattern, TopK) and not pattern.per_row


def without_split(problem: Quadratic, pattern: TopK | NM) -> SupportBound:
    """Return what is known without a positive diagonal: a loss that is a sum of squares is at least zero.

    It is one where there is no slope and G is positive semidefinite but for the rounding of data. Whether a slope and a floor
    are of data cannot be told from a Gram that is singular.
    """
    exact = problem.double
    xp = namespace(exact.anchor)
    rounding = 4 * exact.shape[1] * float(xp.finfo(problem.anchor.dtype).eps)
    known = exact.slope is None and proven_split(exact.gram, -rounding * exact.diagonal) is not None
    total = 0.0 if known else -float("inf")
    rows = None if competing(pattern) else full(exact.shape[:1], total, exact.anchor)
    return SupportBound(total, rows, xp.zeros_like(exact.diagonal), exact.anchor)
