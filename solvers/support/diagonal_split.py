"""A Gram matrix as a diagonal and a positive semidefinite rest: the largest diagonal by a barrier, and a proof in rounding."""

from __future__ import annotations

from gramian.solvers.backend._xp import Array, cholesky, device, namespace, solve_triangular

__all__ = ["conditional_split", "diagonal_split", "proven_split"]

INSIDE = 0.98  # of the largest multiple
TOLERANCE = 0.1  # what the barrier leaves open at most, of what the diagonal is worth; it is a tenth of that in fact
SHRINKING = 0.2  # of the barrier, once Newton's method has come near its centre
NEWTON_STEPS = 60  # at most, of which ten to twenty are used
ARMIJO = 0.1  # of the rise that the slope promises


def conditional_split(gram: Array) -> Array | None:
    """Return nearly the largest multiple of 1 / (G^-1)_jj, which is what of channel j no others make up for, that is inside

    d = t / diag(G^-1) with t the smallest eigenvalue of G in coordinates where diag(G^-1) is one. It costs two inverses, and is
    what `diagonal_split` begins with. None where rounding does not let G be inverted.

    gram: (p, p), float64, its diagonal about one.
    """
    xp = namespace(gram)
    identity = xp.eye(gram.shape[0], dtype=gram.dtype, device=device(gram))
    factor, positive = cholesky(gram)
    if not positive:
        return None
    triangle = solve_triangular(factor, identity, upper=False)
    scale = xp.sqrt(xp.sum(triangle * triangle, axis=0))  # sqrt diag(G^-1)
    least = float(xp.min(xp.linalg.eigvalsh(gram * scale * scale[:, None])))
    return INSIDE * least / scale**2 if least > 0 else None


def diagonal_split(gram: Array, price: Array, start: Array) -> Array:
    """argmax_d <price, d> subject to G - diag(d) positive semidefinite and d >= 0, nearly, and from within

    It is the minimum trace factor analysis of G with weights, a semidefinite program. Newton's method follows the maxima of

        <price, d> / mu + log det(G - diag(d)) + sum_j log d_j

    while mu falls; they are within 2 p mu of the optimum. The gradient is price / mu - diag(P) + 1 / d and the Hessian
    -(P o P + diag(1 / d^2)), with P = (G - diag(d))^-1. A step takes an inverse and a solve of p unknowns.

    gram: (p, p), float64, positive definite, its diagonal about one. price: (p,), positive. start: a d inside, so G - diag(d)
    is positive definite and d > 0; where rounding says that it is not, it is returned.
    """
    xp = namespace(gram, price)
    width = gram.shape[0]
    identity = xp.eye(width, dtype=gram.dtype, device=device(gram))
    split, (factor, inside) = start, cholesky(gram - identity * start)
    if not inside:
        return start
    barrier = float(xp.sum(price * split)) / width
    for _ in range(NEWTON_STEPS):
        triangle = solve_triangular(factor, identity, upper=False)
        inverse = triangle.T @ triangle
        slope = price / barrier - xp.linalg.diagonal(inverse) + 1 / split
        direction = xp.linalg.solve(inverse * inverse + identity / split**2, slope[:, None])[:, 0]
        promised = float(xp.sum(slope * direction))  # the squared Newton decrement
        length = min(1.0, 0.9 / max(1e-300, float(xp.max(-direction / split))))
        before = barrier_value(price / barrier, split, factor)
        while length > 1e-6:
            trial = split + length * direction
            fresh, inside = cholesky(gram - identity * trial)
            if inside and barrier_value(price / barrier, trial, fresh) >= before + ARMIJO * length * promised:
                split, factor = trial, fresh
                break
            length /= 2
        else:  # rounding lets it no nearer to the border
            break
        if promised < width:
            if 2 * width * barrier <= TOLERANCE * float(xp.sum(price * split)):
                break
            barrier *= SHRINKING
    return split


def barrier_value(price: Array, split: Array, factor: Array) -> float:
    """Return <price, d> + log det(G - diag(d)) + sum_j log d_j from the Cholesky factor of G - diag(d)."""
    xp = namespace(split)
    return float(xp.sum(price * split) + 2 * xp.sum(xp.log(xp.linalg.diagonal(factor))) + xp.sum(xp.log(split)))


def proven_split(gram: Array, split: Array) -> Array | None:
    """Return d' <= d with G - diag(d') positive semidefinite whatever rounding did, or None where nothing is proven

    R R^T is positive semidefinite for any matrix R. So with E = G - diag(d) - R R^T and numbers x > 0 the rest of a smaller
    diagonal, G - diag(d - e), is so too where diag(e) + E is dominated by its diagonal in the scale of x (Gershgorin):

        e_i x_i >= sum_j |E_ij| x_j.

    R is the computed Cholesky factor, however it was computed, and x_i = 1 / |R_i|. E is off by the rounding of a product of
    length p, which is at most gamma_(p + 4) |R_i| |R_j|. e is about p^2 units of rounding of the diagonal of G.

    A dead channel has a row of zeros in G and its d' is zero. Where a diagonal of zero stands in a row that is not, G is
    indefinite. d' can be negative elsewhere, which only says that the channel has no curvature of its own.

    gram: (p, p), float64; what counts of it is its symmetric part. split: (p,), finite.
    """
    xp = namespace(gram, split)
    width = gram.shape[0]
    dead = xp.linalg.diagonal(gram) == 0
    if bool(xp.any(dead & xp.any(gram != 0, axis=1))):
        return None
    rest = gram + xp.eye(width, dtype=gram.dtype, device=device(gram)) * xp.where(dead, xp.ones_like(split), -split)
    factor, exists = cholesky(rest)
    if not exists:
        return None
    size = xp.sqrt(xp.sum(factor * factor, axis=1))
    wrong = xp.abs(rest - factor @ factor.T)
    wrong = 0.5 * (wrong + wrong.T)
    unit = (width + 4) * float(xp.finfo(gram.dtype).eps)  # twice gamma, which the rounding of these lines is part of
    missing = size * (wrong @ (1 / size) + width * unit * size) * (1 + unit)
    proven = (split - missing) - 2 * float(xp.finfo(gram.dtype).eps) * xp.abs(split)
    return xp.where(dead, xp.zeros_like(proven), proven) if bool(xp.all(xp.isfinite(proven))) else None
