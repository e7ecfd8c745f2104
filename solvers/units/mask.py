"""Which channels or heads to keep: a layer's loss as a quadratic in its mask, budgets, and cutting a relaxed mask to 0/1."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import Literal

from gramian.solvers.backend._xp import Array, as_floating, device, full, namespace
from gramian.solvers.core.certificate import Certificate
from gramian.solvers.core.patterns import check_score
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Status

__all__ = ["Budget", "MaskChoice", "MaskProblem", "RelaxedMask", "keep_within", "threshold"]

SILENT = 1e-12  # energy over what units lose one at a time, below which it is rounding of zero


@dataclass(frozen=True, eq=False)
class MaskProblem:
    """loss(z) = f(W diag(z)) = constant + <b, z - 1> + 1/2 (z - 1)^T A (z - 1) for a mask z (m,), 1 = kept, 0 = removed

    matrix: A = (W^T W) o G, (m, m), positive semidefinite by the Schur product theorem. linear: b = sum_i W_i o slope_i,
    (m,), zero when X* = X. constant: the loss of the dense weights, zero when X* = X. cost: c > 0, (m,), what keeping a
    unit costs of a budget. One unit is a channel, or a head, whose block of A is then summed. All arrays are float64.
    Source: Numerical Pruning, Eq. (3), (6) and (7), there with b = 0 and c = 1.
    Raises ValueError for shapes or dtypes that do not fit, NaN or Inf, and costs that are not positive.
    """

    matrix: Array
    linear: Array
    constant: float
    cost: Array
    trusted: InitVar[bool] = False

    def __post_init__(self, trusted: bool) -> None:
        if trusted:
            return
        xp = namespace(self.matrix, self.linear, self.cost)
        if self.matrix.ndim != 2 or self.matrix.shape[0] != self.matrix.shape[1]:
            raise ValueError(f"matrix must be square but is {tuple(self.matrix.shape)}")
        for name in ("linear", "cost"):
            shape = tuple(getattr(self, name).shape)
            if shape != (self.units,):
                raise ValueError(f"matrix has {self.units} units but {name} is {shape}")
        for name in ("matrix", "linear", "cost"):
            array = getattr(self, name)
            if array.dtype != xp.float64:
                raise ValueError(f"{name} is {array.dtype} but mask problems are judged in float64")
            if not bool(xp.all(xp.isfinite(array))):
                raise ValueError(f"{name} holds NaN or Inf")
        if bool(xp.any(self.cost <= 0)):
            raise ValueError("every unit must have a positive cost")
        if bool(xp.any(xp.abs(self.matrix - self.matrix.T) > 1e-10 * xp.max(xp.abs(self.matrix)))):
            raise ValueError("matrix is not symmetric")
        if bool(xp.any(self.diagonal < 0)):
            raise ValueError("matrix is not positive semidefinite: its diagonal has negative entries")

    @classmethod
    def from_problem(
        cls,
        problem: Quadratic,
        groups: int | None = None,
        cost: Array | float | None = None,
        *,
        normalise: Literal["spectral", "frobenius"] | None = None,
    ) -> MaskProblem:
        """The mask problem of a layer, in float64 whatever the layer's dtype.

        groups: as many equal runs of consecutive channels (heads) share one variable each; None, every channel its own.
        cost: per unit, (m,) or one number; None is 1, a budget then counts units. normalise: divides the loss by |X*|^2,
        the largest eigenvalue of G ("spectral") or its trace ("frobenius"); the paper normalises X and does not say how.
        Raises ValueError when the channels do not divide into `groups`.
        """
        double = problem.double
        xp = namespace(double.anchor)
        width = double.shape[1]
        units = width if groups is None else groups
        if units < 1 or width % units:
            raise ValueError(f"{width} channels do not divide into {groups} groups of equal size")
        gram = 0.5 * (double.gram + double.gram.T)  # symmetric to the last bit
        matrix = (double.anchor.T @ double.anchor) * gram
        linear = full((width,), 0.0, gram)
        constant = 0.0
        if double.slope is not None and double.floor is not None:
            linear = xp.sum(double.anchor * double.slope, axis=0)
            constant = float(xp.sum(double.floor))
        if units < width:
            size = width // units
            matrix = xp.sum(xp.reshape(matrix, (units, size, units, size)), axis=(1, 3))
            linear = xp.sum(xp.reshape(linear, (units, size)), axis=1)
            diagonal = xp.linalg.diagonal(matrix)
            below = xp.where(diagonal < 0, -diagonal, 0.0 * diagonal)  # where a sum of zero has been rounded
            matrix = matrix + xp.eye(units, dtype=matrix.dtype, device=device(matrix)) * below
        number = 1.0 if cost is None else cost
        costs = full((units,), number, gram) if isinstance(number, int | float) else as_floating(number, like=gram)
        whole = cls(matrix, linear, constant, costs)
        return whole if normalise is None else whole.scaled(1 / (input_energy(double.gram, normalise) or 1.0))

    @property
    def units(self) -> int:
        return self.matrix.shape[0]

    @cached_property
    def diagonal(self) -> Array:
        return namespace(self.matrix).linalg.diagonal(self.matrix)

    @cached_property
    def total(self) -> float:
        """What keeping every unit costs."""
        return float(namespace(self.cost).sum(self.cost))

    @cached_property
    def energy(self) -> float:
        """loss(0) = 1/2 |X W^T|^2, the scale of a relative error."""
        return self.value(namespace(self.cost).zeros_like(self.cost))

    @cached_property
    def size(self) -> float:
        """Summed losses of units removed one at a time, signs aside: a scale that no cancellation makes vanish."""
        xp = namespace(self.matrix)
        return abs(self.constant) + float(xp.sum(0.5 * self.diagonal + xp.abs(self.linear)))

    @property
    def silent(self) -> bool:
        """Whether the energy is rounding of zero, so that no loss is a part of it."""
        return self.size > 0 and self.energy <= SILENT * self.size

    def value(self, mask: Array) -> float:
        """loss(z) for a mask (m,), boolean or real."""
        if tuple(mask.shape) != (self.units,):
            raise ValueError(f"the mask is {tuple(mask.shape)} but the problem has {self.units} units")
        xp = namespace(self.matrix, mask)
        removed = 1 - xp.astype(mask, xp.float64)
        return self.constant + float(xp.sum(removed * (0.5 * (self.matrix @ removed) - self.linear)))

    def spent(self, mask: Array) -> float:
        """<c, z> for a boolean mask."""
        xp = namespace(self.cost, mask)
        return float(xp.sum(xp.where(mask, self.cost, xp.zeros_like(self.cost))))

    def scaled(self, factor: float) -> MaskProblem:
        """The same problem with its loss times `factor` > 0."""
        return MaskProblem(factor * self.matrix, factor * self.linear, factor * self.constant, self.cost, trusted=True)


@dataclass(frozen=True)
class Budget:
    """<c, z> = amount, or with a finite penalty the term penalty / 2 (<c, z> - amount)^2 of the objective.

    total: <c, 1>. Everything is told by the excess, <c, z> - amount. Raises ValueError for amounts outside [0, total].
    """

    amount: float
    total: float
    penalty: float = float("inf")

    def __post_init__(self) -> None:
        if not 0 <= self.amount <= self.total * (1 + 1e-12):
            raise ValueError(f"a budget must be between 0 and {self.total:g}, the cost of all units, but is {self.amount:g}")
        if not self.penalty > 0:
            raise ValueError(f"a penalty must be positive but is {self.penalty}")

    @property
    def target(self) -> float:
        """The cost to be removed."""
        return max(0.0, self.total - self.amount)

    @property
    def exact(self) -> bool:
        return self.penalty == float("inf")

    def check_against(self, size: float) -> None:
        """Raises ValueError for a finite penalty so large, beside losses of this size, that rounding of <c, z> drowns them."""
        if not self.exact and self.penalty * self.total**2 > 1e14 * size > 0:
            raise ValueError(f"in float64 a penalty of {self.penalty:g} cannot be told from an exact budget: use inf")

    def objective(self, loss: float, excess: float) -> float:
        return loss if self.exact else loss + 0.5 * self.penalty * excess**2

    def gap(self, excess: float, price: float) -> float:
        """What the budget adds to a duality gap: penalty / 2 excess^2 >= price excess - price^2 / (2 penalty)."""
        return -price * excess if self.exact else 0.5 * self.penalty * (excess - price / self.penalty) ** 2

    def violation(self, excess: float) -> float:
        """Distance from an exact budget as a fraction of the total cost."""
        return abs(excess) / self.total if self.exact else 0.0


@dataclass(frozen=True, eq=False)
class RelaxedMask:
    """keep: z (m,), float64, larger = kept longer. price: the multiplier of the budget, what the optimal loss rises by
    when one more unit of cost is removed. certificate: of exactly this z; its bound is proven for the relaxation."""

    keep: Array
    budget: Budget
    price: float
    certificate: Certificate
    status: Status
    steps: int = 0
    detail: dict[str, float] = field(default_factory=dict)

    def bound_at(self, cost: float) -> float:
        """Proven lower bound of the loss of every mask of this cost that the relaxation admits, each 0/1 mask included.

        By duality loss(z) >= bound + price^2 / (2 penalty) + price (amount - <c, z>): the price is a slope of the
        optimal loss in its budget, which is convex.
        """
        softness = self.price**2 / (2 * self.budget.penalty)
        return self.certificate.bound + softness + self.price * (self.budget.amount - cost)


@dataclass(frozen=True, eq=False)
class MaskChoice:
    """mask: boolean (m,), True = kept. cost: <c, mask>. certificate: objective loss(mask), and a proven lower bound of
    the loss of any 0/1 mask of the same cost. rounding: loss(mask) less the loss of the relaxed z it was cut from."""

    mask: Array
    cost: float
    certificate: Certificate
    rounding: float


def keep_within(score: Array, cost: Array, budget: float) -> Array:
    """Boolean mask (m,): the longest run of units in descending score whose summed cost stays within `budget`.

    Among equal scores the unit that comes first is kept first. A billionth of the summed cost is granted on top, because
    budgets are often a fraction times a total, and rounding must not cost a unit. The cost falls short of the budget by
    less than that of the first unit left out; masks of growing budgets are nested. Equal costs: as many units as the
    budget counts.
    """
    check_score(score)
    xp = namespace(score, cost)
    if score.ndim != 1 or tuple(cost.shape) != tuple(score.shape):
        raise ValueError(f"scores are {tuple(score.shape)} but costs are {tuple(cost.shape)}: both must be (m,)")
    order = xp.argsort(-score, stable=True)
    spent = xp.cumulative_sum(xp.take(cost, order))
    count = int(xp.sum(xp.astype(spent <= budget + 1e-9 * float(spent[-1]), xp.int64)))
    return xp.argsort(order) < count


def threshold(problem: MaskProblem, relaxed: RelaxedMask) -> MaskChoice:
    """The 0/1 mask of the largest z within the relaxation's budget, what rounding lost, and a bound for any mask.

    Exact in budget to within one unit; ties keep the unit that comes first. The order of z need not be the best order
    (with A = [[2, 0, 0], [0, 9, 5], [0, 5, 3]] and 2 of 3 units kept, `newton_score` removes unit 3 for 1.5 where unit 1
    costs 1.0); it is when A is diagonal. So the certificate says how far from any best mask this one can be.
    """
    mask = keep_within(relaxed.keep, problem.cost, relaxed.budget.amount)
    cost, loss = problem.spent(mask), problem.value(mask)
    certificate = Certificate(loss, relaxed.bound_at(cost), ratio(loss, problem.energy))
    return MaskChoice(mask, cost, certificate, loss - problem.value(relaxed.keep))


def input_energy(gram: Array, norm_kind: Literal["spectral", "frobenius"]) -> float:
    """|X*|^2 from the Gram matrix: its largest eigenvalue or its trace."""
    xp = namespace(gram)
    if norm_kind == "spectral":
        return float(xp.max(xp.linalg.eigvalsh(gram)))
    if norm_kind == "frobenius":
        return float(xp.sum(xp.linalg.diagonal(gram)))
    raise ValueError(f"normalise is 'spectral', 'frobenius' or None but got {norm_kind!r}")


def ratio(loss: float, energy: float) -> float:
    """A loss relative to the energy; zero over zero is zero."""
    return loss / energy if energy > 0 else (0.0 if loss <= 0 else float("inf"))
