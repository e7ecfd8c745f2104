"""Which channels or heads to keep: the loss of a layer as a quadratic in its mask, budgets, and cutting masks to 0/1."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from functools import cached_property
from numbers import Integral
from typing import Literal

from gramian.solvers.backend._xp import Array, as_floating, copied, device, full, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.given import given, given_floats, given_together
from gramian.solvers.backend.options import is_number, number, shown
from gramian.solvers.backend.printed import digits, extent, kept, kind
from gramian.solvers.core.certificate import Certificate, measured
from gramian.solvers.core.grams import check_gram, least_curvature
from gramian.solvers.core.patterns import check_score
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status

__all__ = ["Budget", "MaskChoice", "MaskProblem", "RelaxedMask", "keep_within", "threshold"]

SILENT = 1e-12  # energy over the losses of units removed one at a time, below which it is rounding of zero
NEGATIVE = 1e-6  # of the summed losses of single units: a loss further below zero is none, of float32 products either


@dataclass(frozen=True, eq=False)
class MaskProblem:
    """loss(z) = f(W diag(z)) = constant + <b, z - 1> + 1/2 (z - 1)^T A (z - 1) for a mask z (m,), 1 = kept, 0 = removed

    One unit is a channel, or a head, whose block of A is then summed. All arrays are float64, and copied.

    Parameters
    ----------
    matrix : array (m, m)
        A = (W^T W) o G, positive semidefinite by the Schur product theorem.
    linear : array (m,)
        b = sum_i W_i o slope_i, zero when X* = X.
    constant : float
        The loss of the dense weights, zero when X* = X.
    cost : array (m,)
        c > 0, what keeping a unit costs of a budget.
    trusted : bool, default False
        Whether the checks are left out, because the problem is made of one that was checked.

    Attributes
    ----------
    units : int
        m.
    diagonal : array (m,)
        The diagonal of A.
    total : float
        What keeping every unit costs.
    energy : float
        loss(0) = 1/2 |X W^T|^2, the scale of a relative error.
    size : float
        Summed losses of units removed one at a time, signs aside.
    silent : bool
        Whether the energy is rounding of zero.
    curvature : float
        A proven lower bound of the least eigenvalue of A with its diagonal scaled to one; -inf if A is indefinite.

    Raises
    ------
    ValueError
        For shapes or dtypes that do not fit, NaN or Inf, a matrix that is not symmetric or has a negative diagonal, and costs
        that are not positive.

    References
    ----------
    Numerical Pruning, Eq. (3), (6) and (7), there with b = 0 and c = 1.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import MaskProblem, Quadratic
    >>> rng = np.random.default_rng(0)
    >>> layer = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> problem = MaskProblem.from_problem(layer)
    >>> problem
    MaskProblem(8 units, cost 8, float64, numpy)
    >>> mask = np.arange(8) > 0
    >>> bool(np.isclose(problem.value(mask), layer.loss(layer.anchor * mask)))
    True
    """

    matrix: Array
    linear: Array
    constant: float
    cost: Array
    trusted: InitVar[bool] = False

    def __post_init__(self, trusted: bool) -> None:
        if trusted:
            return
        for name, array in given_together({"matrix": self.matrix, "linear": self.linear, "cost": self.cost}).items():
            object.__setattr__(self, name, copied(as_floating(array)))
        object.__setattr__(self, "constant", number("constant", self.constant, "(-inf, inf)"))
        xp = namespace(self.matrix)
        if self.matrix.ndim != 2 or self.matrix.shape[0] != self.matrix.shape[1]:
            raise ValueError(f"matrix must be square but is {tuple(self.matrix.shape)}")
        for name in ("linear", "cost"):
            shape = tuple(getattr(self, name).shape)
            if shape != (self.units,):
                raise ValueError(f"matrix has {self.units} units but {name} is {shape}")
        for name in ("matrix", "linear", "cost"):
            array = getattr(self, name)
            if array.dtype != xp.float64:
                raise ValueError(f"{name} is {array.dtype} but mask problems are in float64")
            if not bool(xp.all(xp.isfinite(array))):
                raise ValueError(f"{name} holds NaN or Inf")
        if bool(xp.any(self.cost <= 0)):
            raise ValueError("every unit must have a positive cost")
        check_gram(self.matrix, "matrix", 1e-8, 1e-12 * float(xp.max(xp.abs(self.matrix))))

    @classmethod
    @computation
    def from_problem(
        cls,
        problem: Quadratic,
        groups: int | None = None,
        cost: Array | float | None = None,
        *,
        normalise: Literal["spectral", "frobenius"] | None = None,
    ) -> MaskProblem:
        """Make the mask problem of a layer, in float64 whatever the dtype of the layer.

        groups: as many equal runs of consecutive channels (heads) share one variable each; None, every channel has its own.
        cost: per unit, (m,) or one number; None is 1, so that a budget counts units. normalise: divides the loss by |X*|^2,
        the largest eigenvalue of G ("spectral") or its trace ("frobenius"); the paper normalises X and does not say how.
        Raises ValueError when the channels do not divide into `groups`.
        """
        if normalise not in (None, "spectral", "frobenius"):
            raise ValueError(f"normalise is 'spectral', 'frobenius' or None but got {shown(normalise)}")
        double = problem.double
        xp = namespace(double.anchor)
        width = double.shape[1]
        units = unit_count(width, groups)
        costs = unit_costs(units, cost, double.gram)
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
        problem_of_units = cls(matrix, linear, constant, costs)
        if normalise is None:
            return problem_of_units
        return problem_of_units.scaled(1 / (input_energy(double.gram, normalise) or 1.0))

    def __repr__(self) -> str:
        return f"MaskProblem({self.units} units, cost {digits(self.total)}, {kind(self.matrix)})"

    @property
    def units(self) -> int:
        """Return m."""
        return int(self.matrix.shape[0])

    @cached_property
    def diagonal(self) -> Array:
        """Return the diagonal of A, (m,)."""
        return namespace(self.matrix).linalg.diagonal(self.matrix)

    @cached_property
    def total(self) -> float:
        """Return what keeping every unit costs."""
        return float(namespace(self.cost).sum(self.cost))

    @cached_property
    def energy(self) -> float:
        """Return loss(0) = 1/2 |X W^T|^2, the scale of a relative error."""
        return self.value(namespace(self.cost).zeros_like(self.cost))

    @cached_property
    def size(self) -> float:
        """Return the summed losses of units removed one at a time, signs aside: a scale that no cancellation makes vanish."""
        xp = namespace(self.matrix)
        return abs(self.constant) + float(xp.sum(0.5 * self.diagonal + xp.abs(self.linear)))

    @property
    def silent(self) -> bool:
        """Return whether the energy is rounding of zero, so that no loss is a part of it."""
        return self.size > 0 and self.energy <= SILENT * self.size

    @cached_property
    def curvature(self) -> float:
        """Return a proven lower bound of the least eigenvalue of A with its diagonal scaled to one; -inf if A is indefinite."""
        return least_curvature(self.matrix)

    def possible(self, loss: float) -> bool:
        """Return whether a loss, and that at zero, are finite and not negative but for rounding: no data has another."""
        return -NEGATIVE * self.size <= min(loss, self.energy) and loss < float("inf")

    def value(self, mask: Array) -> float:
        """Return loss(z) for a mask (m,), boolean or real."""
        mask = given("mask", mask, self.matrix, "the mask problem")
        if tuple(mask.shape) != (self.units,):
            raise ValueError(f"the mask is {tuple(mask.shape)} but the problem has {self.units} units")
        xp = namespace(self.matrix, mask)
        removed = 1 - xp.astype(mask, xp.float64)
        return self.constant + float(xp.sum(removed * (0.5 * (self.matrix @ removed) - self.linear)))

    def spent(self, mask: Array) -> float:
        """Return <c, z> for a boolean mask."""
        mask = given("mask", mask, self.cost, "the mask problem")
        xp = namespace(self.cost, mask)
        return float(xp.sum(xp.where(mask, self.cost, xp.zeros_like(self.cost))))

    def scaled(self, factor: float) -> MaskProblem:
        """Return the same problem with its loss times `factor` > 0."""
        return MaskProblem(factor * self.matrix, factor * self.linear, factor * self.constant, self.cost, trusted=True)


@dataclass(frozen=True)
class Budget:
    """<c, z> = amount, or with a finite penalty the term penalty / 2 (<c, z> - amount)^2 of the objective

    All methods take the excess, <c, z> - amount.

    Parameters
    ----------
    amount : float
        What the kept units may cost.
    total : float
        <c, 1>, the cost of all units.
    penalty : float, default inf
        The penalty; infinity makes the budget exact.

    Attributes
    ----------
    target : float
        The cost to be removed.
    exact : bool
        Whether the penalty is infinite.

    Raises
    ------
    ValueError
        For amounts outside [0, total], and for a penalty that is not positive.

    Examples
    --------
    >>> from gramian.solvers import Budget
    >>> budget = Budget(6.0, total=8.0)
    >>> budget.target, budget.exact
    (2.0, True)
    >>> Budget(6.0, total=8.0, penalty=2.0).objective(1.0, excess=3.0)
    10.0
    """

    amount: float
    total: float
    penalty: float = float("inf")

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", number("the cost of all units", self.total))
        if not (is_number(self.amount) and 0 <= self.amount <= self.total * (1 + 1e-12)):
            found = f"between 0 and {self.total:g}, the cost of all units, but is {shown(self.amount)}"
            raise ValueError(f"a budget must be {found}")
        if not (is_number(self.penalty) and self.penalty > 0):
            raise ValueError(f"a penalty must be positive but is {shown(self.penalty)}")
        for name in ("amount", "penalty"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def target(self) -> float:
        """Return the cost to be removed."""
        return max(0.0, self.total - self.amount)

    @property
    def exact(self) -> bool:
        """Return whether the penalty is infinite."""
        return self.penalty == float("inf")

    def check_against(self, size: float) -> None:
        """Raise ValueError for a finite penalty so large, beside losses of this size, that rounding of <c, z> drowns them."""
        if not self.exact and self.penalty * self.total**2 > 1e14 * size > 0:
            raise ValueError(f"in float64 a penalty of {self.penalty:g} cannot be distinguished from an exact budget: use inf")

    def objective(self, loss: float, excess: float) -> float:
        """Return the loss with the penalty on this excess."""
        return loss if self.exact else loss + 0.5 * self.penalty * excess**2

    def gap(self, excess: float, price: float) -> float:
        """Return what the budget adds to a duality gap: penalty / 2 excess^2 >= price excess - price^2 / (2 penalty)."""
        return -price * excess if self.exact else 0.5 * self.penalty * (excess - price / self.penalty) ** 2

    def violation(self, excess: float) -> float:
        """Return the distance from an exact budget as a fraction of the total cost."""
        return abs(excess) / self.total if self.exact else 0.0


@dataclass(frozen=True, eq=False)
class RelaxedMask:
    """Hold a real mask, larger = kept longer, with the certificate of exactly this mask.

    Parameters
    ----------
    keep : array (m,)
        z, in float64.
    budget : Budget
        The budget that it was found for.
    price : float
        The multiplier of the budget: what the optimal loss rises by when one more unit of cost is removed.
    certificate : Certificate
        What is proven of z; its bound is one for the relaxation.
    status : Status
        How the solver ended.
    steps : int, default 0
        Iterations spent.
    detail : dict of str to float
        Named figures that a method adds.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import MaskProblem, Quadratic, relaxed_mask
    >>> rng = np.random.default_rng(0)
    >>> layer = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> problem = MaskProblem.from_problem(layer)
    >>> relaxed = relaxed_mask(problem, 6)
    >>> relaxed.keep.shape, round(float(relaxed.keep.sum()), 6), relaxed.bound_at(6) <= relaxed.certificate.objective
    ((8,), 6.0, True)
    """

    keep: Array
    budget: Budget
    price: float
    certificate: Certificate
    status: Status
    steps: int = 0
    detail: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.certificate.sound:
            object.__setattr__(self, "status", Status.BROKEN)

    def __repr__(self) -> str:
        within = f"budget {digits(self.budget.amount)} of {digits(self.budget.total)}"
        return f"RelaxedMask({extent(self.keep)} units, {within}, {self.status.label}, {measured(self.certificate)})"

    def required(self) -> RelaxedMask:
        """Return this mask, or raise NotSolved with it as the weights of a solution where its status is a failure."""
        detail = {**self.detail, "price": self.price}
        Solution(self.keep, self.status, self.certificate, self.steps, detail=detail).required()
        return self

    def bound_at(self, cost: float) -> float:
        """Return a proven lower bound of the loss of every mask of this cost that the relaxation admits, each 0/1 mask too.

        By duality loss(z) >= bound + price^2 / (2 penalty) + price (amount - <c, z>): the price is a slope of the
        optimal loss in its budget, which is convex.
        """
        softness = self.price**2 / (2 * self.budget.penalty)
        return self.certificate.bound + softness + self.price * (self.budget.amount - cost)


@dataclass(frozen=True, eq=False)
class MaskChoice:
    """Hold a 0/1 mask that was cut from a relaxed one.

    Parameters
    ----------
    mask : array (m,) of bool
        True = kept.
    cost : float
        <c, mask>.
    certificate : Certificate
        Its objective is loss(mask); its bound is one of the loss of any 0/1 mask of the same cost.
    rounding : float
        loss(mask) less the loss of the relaxed z that it was cut from.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import MaskProblem, Quadratic, relaxed_mask, threshold
    >>> rng = np.random.default_rng(0)
    >>> layer = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> problem = MaskProblem.from_problem(layer)
    >>> choice = threshold(problem, relaxed_mask(problem, 6))
    >>> int(choice.mask.sum()), choice.cost, choice.rounding >= 0
    (6, 6.0, True)
    """

    mask: Array
    cost: float
    certificate: Certificate
    rounding: float

    def __repr__(self) -> str:
        return f"MaskChoice({kept(self.mask)} units, cost {digits(self.cost)}, {measured(self.certificate)})"


@computation
def keep_within(score: Array, cost: Array, budget: float) -> Array:
    """Keep the longest run of units in descending score whose summed cost is within the budget.

    Among equal scores the unit that comes first is kept first. A billionth of the summed cost is granted on top, because
    budgets are often a fraction times a total, and rounding must not cost a unit. The cost falls short of the budget by less
    than that of the first unit that is removed, and masks of growing budgets are nested. With equal costs there are as many
    units as the budget counts.

    Parameters
    ----------
    score : array (m,)
        Larger = kept longer.
    cost : array (m,)
        What keeping a unit costs.
    budget : float
        The most that the kept units may cost.

    Returns
    -------
    array (m,) of bool
        True = kept.

    Raises
    ------
    ValueError
        For shapes that do not fit, and for NaN scores.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import keep_within
    >>> keep_within(np.array([0.9, 0.1, 0.5, 0.7]), np.array([1.0, 1.0, 2.0, 1.0]), 4.0).astype(int).tolist()
    [1, 0, 1, 1]
    """
    score = given("score", score)
    cost = given("cost", cost, score, "score")
    check_score(score)
    budget = number("a budget", budget, "[-inf, inf]")
    xp = namespace(score, cost)
    if score.ndim != 1 or tuple(cost.shape) != tuple(score.shape):
        raise ValueError(f"scores are {tuple(score.shape)} but costs are {tuple(cost.shape)}: both must be (m,)")
    order = xp.argsort(-score, stable=True)
    spent = xp.cumulative_sum(xp.take(cost, order))
    count = int(xp.sum(xp.astype(spent <= budget + 1e-9 * float(spent[-1]), xp.int64)))
    return xp.argsort(order) < count


@computation
def threshold(problem: MaskProblem, relaxed: RelaxedMask) -> MaskChoice:
    """Cut a relaxed mask to the 0/1 mask of its largest entries within its budget.

    It is exact in budget to within one unit; ties keep the unit that comes first. The order of z need not be the best order
    (with A = [[2, 0, 0], [0, 9, 5], [0, 5, 3]] and 2 of 3 units kept, `newton_score` removes unit 3 for 1.5 where unit 1
    costs 1.0); it is when A is diagonal. So the certificate says how far from any best mask this one can be.

    Parameters
    ----------
    problem : MaskProblem
        The loss.
    relaxed : RelaxedMask
        From `relaxed_mask` or `newton_score`.

    Returns
    -------
    MaskChoice
        The mask, what rounding cost, and a bound for any mask.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import MaskProblem, Quadratic, relaxed_mask, threshold
    >>> rng = np.random.default_rng(0)
    >>> layer = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> problem = MaskProblem.from_problem(layer)
    >>> choice = threshold(problem, relaxed_mask(problem, 6))
    >>> int(choice.mask.sum()), choice.certificate.bound <= choice.certificate.objective
    (6, True)
    """
    mask = keep_within(relaxed.keep, problem.cost, relaxed.budget.amount)
    cost, loss = problem.spent(mask), problem.value(mask)
    certificate = Certificate(
        loss, relaxed.bound_at(cost), ratio(loss, problem.energy, problem.size), sound=problem.possible(loss)
    )
    return MaskChoice(mask, cost, certificate, loss - problem.value(relaxed.keep))


def unit_count(width: int, groups: int | None) -> int:
    """Return how many units so many channels are, where None makes each of them one."""
    units = width if groups is None else groups
    if not isinstance(units, Integral) or isinstance(units, bool) or units < 1 or width % units:
        raise ValueError(f"{width} channels do not divide into {shown(groups)} groups of equal size")
    return int(units)


def unit_costs(units: int, cost: Array | float | None, like: Array) -> Array:
    """Return costs (m,) as `like`. ValueError is raised unless there is a positive one for every unit."""
    if cost is None or is_number(cost):
        costs = full((units,), 1.0 if cost is None else float(cost), like)
    else:
        costs = given_floats("cost", cost, like)
    if tuple(costs.shape) != (units,) or not bool(namespace(costs).all((costs > 0) & (costs < float("inf")))):
        raise ValueError(f"costs must be positive, one for each of {units} units, but are {costs}")
    return costs


def input_energy(gram: Array, norm_kind: Literal["spectral", "frobenius"]) -> float:
    """Return |X*|^2 from the Gram matrix: its largest eigenvalue or its trace."""
    xp = namespace(gram)
    if norm_kind == "spectral":
        return float(xp.max(xp.linalg.eigvalsh(gram)))
    if norm_kind == "frobenius":
        return float(xp.sum(xp.linalg.diagonal(gram)))
    raise ValueError(f"normalise is 'spectral', 'frobenius' or None but got {norm_kind!r}")


def ratio(loss: float, energy: float, size: float) -> float:
    """Return a loss relative to the energy, where zero over zero is zero; infinite where either is negative beyond rounding.

    size: of the numbers that both are sums of.
    """
    if min(loss, energy) < -NEGATIVE * size:  # no data has it
        return float("inf")
    return max(loss, 0.0) / energy if energy > 0 else (0.0 if loss <= 0 else float("inf"))
