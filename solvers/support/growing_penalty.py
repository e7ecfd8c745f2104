"""ADMM whose penalty grows, on parts of the rows of a weight that go through their steps together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, clip, copied, namespace
from gramian.solvers.core.patterns import check_score
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.direct.restricted import refit
from gramian.solvers.support.obs import inverse_factor

__all__ = ["Choose", "InTurn", "Peers", "searched"]

PIVOT_DAMPING = 0.01  # of the unit-diagonal Gram, in the pivots only; 0.001 to 0.03 measure alike

Choose = Callable[[Sequence[Array]], Sequence[Array]]
InTurn = Callable[[int, int, Callable[[int], Array]], Array]
Look = Callable[[int, Sequence[Array], bool], Status | None]


@dataclass(frozen=True)
class Peers:
    """What parts of the rows of one weight ask of one another, wherever they are; all ask as often, and in the same order.

    choose(scores) -> masks, of the parts here. in_turn(number, count, make) -> make(number), the same for all parts: number is
    0, 1 and so on to count - 1 at most, from one call to the next, and some may be made elsewhere.
    """

    choose: Choose
    in_turn: InTurn = lambda number, count, make: make(number)


class Rows:
    """Some rows in the search, in its coordinates and in float32: W, the slope, Z and U. What can be done in place is: new
    arrays of this size take as long as the products."""

    def __init__(self, problem: Quadratic, scale: Array) -> None:
        xp = namespace(problem.anchor)
        self.anchor = narrowed("the weight", problem.anchor * scale)
        self.slope = None if problem.slope is None else narrowed("the slope", problem.slope / scale)
        self.sparse, self.dual = copied(self.anchor), xp.zeros_like(self.anchor)

    def move(self, inverse: Array, rho: float) -> Array:
        """Minimise over V, and return V + U; `dual` holds it until `take`."""
        sparse = self.sparse
        sparse -= self.dual
        sparse -= self.anchor
        sparse *= rho
        if self.slope is not None:
            sparse -= self.slope
        moved = sparse @ inverse  # the change of W, to which W and U are added
        moved += self.anchor
        moved += self.dual
        self.dual = moved
        return moved

    def take(self, mask: Array) -> None:
        """Keep what the mask keeps of V + U as Z, and the rest as U."""
        xp = namespace(mask)
        self.sparse = self.dual * xp.astype(mask, self.dual.dtype)  # a product: selecting by a random mask is ten times slower
        self.dual -= self.sparse


def searched(
    parts: Sequence[Quadratic], peers: Peers, steps: int, first: float, last: float, stage: int, look: Look
) -> list[Solution]:
    """Return exact weights of every part on the support that ADMM finds. look(step, masks, whether a stage is over): why the
    search ends, None where it goes on."""
    xp = namespace(parts[0].anchor)
    scale, values, vectors = parts[0].noted("pivots", lambda: pivots_of(parts[0].double))
    mean = float(xp.mean(values)) or 1.0
    some, diagonal = [Rows(part.double, scale) for part in parts], parts[0].diagonal
    alive, dead = xp.astype(diagonal > 0, xp.float32), not bool(xp.all(diagonal > 0))
    stages = -(-steps // stage)
    growth = (last / first) ** (1 / max(1, stages - 1))
    rho, ended, inverse = first * mean, None, None

    def inverse_at(number: int) -> Array:
        """Return the inverse of a stage."""
        root = vectors / xp.sqrt(values + first * mean * growth**number)
        return root @ root.T  # symmetric in its very form: half the work where the backend sees it

    for step in range(steps):
        if step % stage == 0:
            fresh, inverse = first * mean * growth ** (step // stage), None
            for each in some:
                each.dual *= rho / fresh  # rho U, the multiplier, is the same
            rho = fresh
            inverse = peers.in_turn(step // stage, stages, inverse_at)
        scores = [xp.abs(each.move(inverse, rho)) for each in some]
        if dead:
            for score in scores:
                score *= alive
        masks = peers.choose(scores)
        for each, mask in zip(some, masks):
            each.take(mask)
        ended = look(step + 1, masks, (step + 1) % stage == 0 or step + 1 == steps)
        if ended:
            break
    for score in scores:
        check_score(score)  # NaN, once there, remains
    del some, scores, inverse  # their memory is free before the refits
    exact = [
        refit(part, mask) for part, mask in zip(parts, masks)
    ]  # not from Z: where both fit alike, that is right to float32
    status = ended or Status.SEARCHED
    return [Solution(each.weights, status, each.certificate, step + 1, detail=each.detail) for each in exact]


def narrowed(name: str, array: Array) -> Array:
    """Return an array in float32. ValueError where it overflows."""
    xp = namespace(array)
    found = xp.astype(array, xp.float32)
    if not bool(xp.all(xp.isfinite(found))):
        raise ValueError(f"{name} overflows float32: scale the inputs or the weight")
    return found


def pivots_of(problem: Quadratic) -> tuple[Array, Array, Array]:
    """Return s_j of the coordinates v'_j = s_j v_j with s_j^2 = 1 / (G^-1)_jj, G slightly damped, and the eigenvalues and
    eigenvectors of G there, in float32."""
    xp = namespace(problem.anchor)
    factor, _ = inverse_factor(problem.rescaled()[0], PIVOT_DAMPING)
    scale = problem.unit_scale / xp.sqrt(xp.sum(factor * factor, axis=0))  # (G + D)^-1 = U^T U
    values, vectors = xp.linalg.eigh(xp.astype(problem.gram / scale / scale[:, None], xp.float32))
    return scale, clip(values, 0, None), vectors
