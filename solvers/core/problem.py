"""The one loss of the toolkit: the output error of a layer as a quadratic in its weights."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import InitVar, dataclass
from functools import cached_property
from typing import Any

from gramian.solvers.backend._xp import Array, as_floating, check_current, copied, device, full, namespace, solve_positive
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.given import given, given_together
from gramian.solvers.backend.options import is_number, number
from gramian.solvers.backend.printed import extent, kind, span
from gramian.solvers.backend.split import halves, split_product
from gramian.solvers.core.grams import DEFECT, channel_norms, check_gram, least_curvature, unit_diagonal
from gramian.solvers.core.moments import Moments
from gramian.solvers.core.rounding import Rounding
from gramian.solvers.core.target_rows import TargetData
from gramian.solvers.core.targets import TargetMoments, anchored, moments_of

__all__ = ["Quadratic"]


OF_GRAM = (
    "diagonal",
    "unit_scale",
    "lipschitz",
    "unit_lipschitz",
    "curvature",
    "halves",
)  # cached numbers that do not depend on the outputs


@dataclass(frozen=True, eq=False)
class Quadratic:
    """f(V) = 1/2 |X* V^T - X W^T|_F^2 = sum_i floor_i + <slope_i, v_i - w_i> + 1/2 (v_i - w_i) G (v_i - w_i)^T

    The loss is anchored at W because in float32 the raw form <V G, V> - 2 <V, Q> loses every digit near the dense weights.
    The rows of V are independent problems that share one Gram. All arrays come from one library and share one dtype, float32
    or float64; lists, data frames and whole numbers become float64. A problem owns what it holds: what is written later to an
    array that it was made of, such as its own answer, does not change it.

    Parameters
    ----------
    gram : array (p, p)
        G = X*^T X*, symmetric positive semidefinite.
    anchor : array (q, p)
        W, the dense weights.
    slope : array (q, p), optional
        The gradient at W, equal to W C. None means zero, which is the case of X* = X.
    floor : array (q,), optional
        The loss at W per row, equal to 1/2 diag(W E W^T), in squared outputs. None means zero.
    trusted : bool, default False
        Whether the checks are left out, because the problem is made of one that was checked.
    owned : bool, default False
        Whether nobody else writes to the arrays, so that they need not be copied: a Gram of many channels is large.

    Attributes
    ----------
    shape : tuple of int
        (q, p).
    energy : float
        f(0) = 1/2 |X W^T|_F^2, the scale of every relative error.
    at_zero : tuple of arrays
        The loss per row (q,) and the gradient (q, p) at V = 0.
    diagonal : array (p,)
        The diagonal of G.
    unit_scale : array (p,)
        The channel norms sqrt(G_jj), and one for a dead channel.
    lipschitz, unit_lipschitz : float
        Upper bounds of the largest eigenvalue of G, and of G with its diagonal scaled to one.
    curvature : float
        A proven lower bound of the least eigenvalue of G with its diagonal scaled to one; -inf if G is indefinite.
    double : Quadratic
        The problem in float64, in which certificates are computed.

    Raises
    ------
    ValueError
        For shapes or dtypes that do not fit, for NaN or Inf, and for a Gram that is not symmetric, or that two
        channels alone show not to be positive semidefinite: a negative square, |G_ij| > sqrt(G_ii G_jj).
    TypeError
        For arrays of different libraries, and for those without real numbers in memory (complex, sparse, JAX's).

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic
    >>> rng = np.random.default_rng(0)
    >>> X, W = rng.normal(size=(64, 8)), rng.normal(size=(4, 8))
    >>> problem = Quadratic.from_data(X, W)
    >>> problem
    Quadratic(4x8, float64, numpy)
    >>> V = 0.9 * W
    >>> bool(np.isclose(problem.loss(V), 0.5 * np.sum((X @ V.T - X @ W.T) ** 2)))
    True
    >>> round(problem.relative_error(V), 6)
    0.01
    """

    gram: Array
    anchor: Array
    slope: Array | None = None
    floor: Array | None = None
    trusted: InitVar[bool] = False
    owned: InitVar[bool] = False

    def __post_init__(self, trusted: bool, owned: bool) -> None:
        if trusted:  # made from a problem that was checked
            return
        self.take({"gram": self.gram, "weight": self.anchor, "slope": self.slope, "floor": self.floor}, owned)
        gram, anchor = self.gram, self.anchor
        xp = namespace(anchor)
        check_current(anchor)
        if gram.ndim != 2 or gram.shape[0] != gram.shape[1]:
            raise ValueError(f"gram must be a square matrix but is {tuple(gram.shape)}")
        if anchor.ndim != 2 or anchor.shape[1] != gram.shape[0]:
            way = ": weight[None, :] is one row" if tuple(anchor.shape) == (gram.shape[0],) else ""
            raise ValueError(f"gram is {tuple(gram.shape)} but weight is {tuple(anchor.shape)}, not (q, {gram.shape[0]}){way}")
        if (self.slope is None) != (self.floor is None):
            raise ValueError("slope and floor come together: give both (X* != X) or neither (X* = X)")
        if self.slope is not None and self.floor is not None:
            if tuple(self.slope.shape) != tuple(anchor.shape):
                raise ValueError(f"slope is {tuple(self.slope.shape)} but weight is {tuple(anchor.shape)}")
            if tuple(self.floor.shape) != (anchor.shape[0],):
                raise ValueError(f"floor is {tuple(self.floor.shape)} but weight has {anchor.shape[0]} rows")
        for name in ("gram", "anchor", "slope", "floor"):
            array = getattr(self, name)
            if array is None:
                continue
            if array.dtype not in (xp.float32, xp.float64) or array.dtype != anchor.dtype:
                kinds = f"{name} is {array.dtype} but weight is {anchor.dtype}"
                raise ValueError(f"{kinds}: use one floating dtype for all, float32 or float64")
            if not bool(xp.all(xp.isfinite(array))):
                raise ValueError(f"{'weight' if name == 'anchor' else name} holds NaN or Inf")
        check_gram(gram)
        if bool(xp.any(gram != gram.T)):  # the gradient is that of the loss only where they are equal to the last bit
            object.__setattr__(self, "gram", 0.5 * (gram + gram.T))

    def take(self, values: dict[str, object], owned: bool) -> None:
        """Hold what a user gave, as arrays of one library; whole numbers in the dtype of the others."""
        arrays = given_together(values, optional=("slope", "floor"))
        xp = namespace(*arrays.values())
        known = next((array.dtype for array in arrays.values() if xp.isdtype(array.dtype, "real floating")), xp.float64)
        for name, array in arrays.items():
            if not xp.isdtype(array.dtype, "real floating"):
                array = xp.astype(array, known)
            elif not owned:
                array = copied(array)
            object.__setattr__(self, "anchor" if name == "weight" else name, array)

    def __repr__(self) -> str:
        moved = "" if self.slope is None else ", X* != X"
        return f"Quadratic({extent(self.anchor)}, {kind(self.anchor)}{moved})"

    # -- ways in -----------------------------------------------------------------------------------------------------

    @classmethod
    def from_data(cls, inputs: Array, weight: Array, dense: Array | None = None) -> Quadratic:
        """f(V) = 1/2 |X* V^T - X W^T|_F^2 from inputs X* (N, p), weight W (q, p) and, if they differ, dense inputs X (N, p)."""
        values = {"inputs": inputs, "weight": weight, "dense": dense}
        arrays = given_together(values, optional=["dense"])
        moments = Moments(check_width(arrays["weight"], arrays["inputs"].shape[-1] if arrays["inputs"].ndim else 0))
        moments.update(arrays["inputs"], arrays.get("dense"))
        return cls.from_moments(moments, arrays["weight"])

    @classmethod
    @computation
    def from_moments(cls, moments: Moments, weight: Array) -> Quadratic:
        """Make the problem of streamed moments and a weight W (q, p), in float64.

        The Gram matrix is that of the moments, which later batches do not change.
        """
        gram = moments.require()
        xp = namespace(gram)
        weight = given("weight", weight, gram, "what the moments were made of")
        check_width(weight, moments.width)
        if not bool(xp.all(xp.isfinite(xp.linalg.diagonal(gram)))):
            raise ValueError("the inputs are too large for float64, their squares overflow: scale them")
        anchor = as_floating(weight, like=gram)
        anchor = copied(anchor) if anchor is weight else anchor
        if moments.cross is None or moments.drift is None:
            return cls(gram, anchor, owned=True)
        floor = 0.5 * xp.sum((anchor @ moments.drift) * anchor, axis=1)
        return cls(gram, anchor, anchor @ moments.cross, floor, owned=True)

    @classmethod
    def from_targets(cls, inputs: Array, targets: Array, *, weights: Array | None = None, intercept: bool = False) -> Quadratic:
        """f(V) = 1/2 sum_i c_i |V x_i + b - y_i|^2, where b = 0, or the best intercept for every V.

        inputs: X, (N, p), an array or a matrix of scipy.sparse, of which only the Gram is dense. targets: Y, (N,) or (N, q).
        weights: c, (N,), at least zero. The answer of a solver is V, (q, p), in the units of X and Y; with an intercept X and Y
        are centred in float64, and b = m_y - V m_x for their weighted means (`TargetMoments.intercept`). The loss is a sum: the
        term `alpha |v|_1` beside the mean 1/(2 n) sum_i c_i (...)^2 of scikit-learn or glmnet is `L1(n * alpha)`, n = sum c.

        The loss is anchored near its least squares, where a second pass over the data takes its value and gradient from the
        residuals. Anchored at zero, f loses as many digits as it is smaller than f(0).
        """
        data = TargetData.of(inputs, targets, weights)
        return cls(*anchored(data, moments_of(data), intercept))

    @classmethod
    def from_target_moments(cls, moments: TargetMoments, *, intercept: bool = False) -> Quadratic:
        """Make the problem of `from_targets` from streamed moments, which know f to rounding of f(0) only."""
        gram, cross, energy = moments.sums(intercept)
        return cls(gram, namespace(gram).zeros_like(cross), -cross, 0.5 * energy)

    # -- the loss ----------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """Return (q, p)."""
        return (self.anchor.shape[0], self.anchor.shape[1])

    def point(self, weights: Array) -> Array:
        """Return weights (q, p) that a user gave; floating ones remain in their dtype."""
        if type(weights) is not type(self.anchor) or weights.dtype != self.anchor.dtype:  # else there is nothing to see to
            weights = as_floating(given("weights", weights, self.anchor))
        if tuple(weights.shape) != self.shape:
            raise ValueError(f"weights are {tuple(weights.shape)} but the problem's weight is {self.shape}")
        return weights

    def starting_point(self, start: Array | None) -> Array:
        """Return the first point (q, p) of an iteration, in the dtype of the problem: what a user gave, or the dense weights.

        ValueError is raised for another shape, and for NaN or Inf.
        """
        if start is None:
            return self.anchor
        start = as_floating(given("start", start, self.anchor), like=self.anchor)
        if tuple(start.shape) != self.shape:
            raise ValueError(f"start is {tuple(start.shape)} but the problem's weight is {self.shape}")
        if not bool(namespace(start).all(namespace(start).isfinite(start))):
            raise ValueError("start holds NaN or Inf")
        return start

    @computation
    def value_and_gradient(self, weights: Array) -> tuple[Array, Array]:
        """Return the loss per row (q,) and its gradient `slope + (V - W) G` (q, p), from one matrix product."""
        weights = self.point(weights)
        xp = namespace(self.anchor, weights)
        change = weights - self.anchor
        product = change @ self.gram
        values = 0.5 * xp.sum(product * change, axis=1)
        if self.slope is None:
            return values, product
        return self.floor + xp.sum(self.slope * change, axis=1) + values, self.slope + product

    @computation
    def gradient(self, weights: Array) -> Array:
        """Return `slope + (V - W) G`, (q, p)."""
        product = (self.point(weights) - self.anchor) @ self.gram
        return product if self.slope is None else self.slope + product

    @cached_property
    def halves(self) -> tuple[Array, Array]:
        """Return the Gram matrix of a float32 problem as a sum of two of TF32, see `backend.split`."""
        return halves(self.gram)

    def split_gradient(self, weights: Array) -> Array:
        """Return the gradient of a float32 problem by three products of TF32 operands, within 3 * 2^-22 |V - W| |G| beside the
        rounding of sums."""
        product = split_product(weights - self.anchor, self.halves)
        return product if self.slope is None else self.slope + product

    def row_losses(self, weights: Array) -> Array:
        """Return f per row, (q,)."""
        return self.value_and_gradient(weights)[0]

    def loss(self, weights: Array) -> float:
        """Return f(V), one number."""
        return float(namespace(self.anchor).sum(self.row_losses(weights)))

    @cached_property
    def at_zero(self) -> tuple[Array, Array]:
        """Return the loss per row and the gradient at V = 0, the scales of everything relative."""
        return self.value_and_gradient(namespace(self.anchor).zeros_like(self.anchor))

    @cached_property
    def energy(self) -> float:
        """Return f(0) = 1/2 |X W^T|_F^2, the scale of every relative error."""
        return float(namespace(self.anchor).sum(self.at_zero[0]))

    def relative_error(self, weights: Array) -> float:
        """Return |X* V^T - X W^T|_F^2 / |X W^T|_F^2, where zero over zero is zero, in float64.

        It is infinite where a loss, or that at zero, is negative by more than rounding: no data has it.
        """
        xp, exact = namespace(self.anchor), self.double
        weights = xp.astype(self.point(weights), xp.float64)
        losses = exact.row_losses(weights)
        return exact.error_of(losses) if exact.possible(losses, exact.rounding(weights)) else float("inf")

    def error_of(self, losses: Array) -> float:
        """Return the relative error of losses (q,) that are `possible`: what is below zero is rounding of zero."""
        loss = max(float(namespace(losses).sum(losses)), 0.0)
        return loss / self.energy if self.energy > 0 else (0.0 if loss == 0 else float("inf"))

    def rounding(self, weights: Array) -> Rounding:
        """Return what rounding may have done to the loss and to the gradient of a float64 problem at V."""
        norms = channel_norms(self.gram)
        return Rounding.of(weights - self.anchor, norms, self.slope, self.floor)

    def possible(self, losses: Array, rounding: Rounding) -> bool:
        """Return whether losses (q,) and those at zero are finite, and not negative but for rounding, as sums of squares are.

        What float32 leaves, of the curvature of a singular Gram for instance, counts as rounding as far as it does at zero.
        """
        xp, coarse = namespace(losses), self.rounding_at_zero.coarse
        allowed = rounding.loss + xp.where(rounding.coarse < coarse, rounding.coarse, coarse)
        return self.possible_at_zero and bool(xp.all((losses >= -allowed) & (losses < float("inf"))))

    @cached_property
    def rounding_at_zero(self) -> Rounding:
        """Return what rounding may have done to `at_zero`."""
        return self.rounding(namespace(self.anchor).zeros_like(self.anchor))

    @cached_property
    def possible_at_zero(self) -> bool:
        """Return whether the losses at V = 0 are negative by rounding at most."""
        rounding = self.rounding_at_zero
        return bool(namespace(self.anchor).all(self.at_zero[0] >= -rounding.loss - rounding.coarse))

    # -- curvature ---------------------------------------------------------------------------------------------------

    @cached_property
    def diagonal(self) -> Array:
        """Return the diagonal of G, (p,)."""
        return namespace(self.gram).linalg.diagonal(self.gram)

    @cached_property
    def curvature(self) -> float:
        """Return a proven lower bound of the least eigenvalue of G in unit-diagonal coordinates: see `least_curvature`.

        It is positive for a Gram that is definite in exact arithmetic, negative for one that is singular to rounding, and
        -inf for one that is indefinite.
        """
        return least_curvature(self.double.gram)

    @cached_property
    def lipschitz(self) -> float:
        """Return an upper bound of the largest eigenvalue of G, `|G^8|_F^(1/8)`, which takes three products.

        A power iteration would be an estimate from below, and a step longer than 1/L may diverge. The excess here is at
        most p^(1/16), and in practice a few per cent, because real Grams have few large eigenvalues.
        """
        return spectral_bound(self.gram)

    @cached_property
    def unit_lipschitz(self) -> float:
        """Return the same bound for the Gram in unit-diagonal coordinates."""
        return spectral_bound(self.gram / self.unit_scale / self.unit_scale[:, None])

    @cached_property
    def origin(self) -> tuple[Array, Array, Array]:
        """Return V_0, next to the minimiser of f, with its losses (q,) and its gradient (q, p), of a problem in float64."""
        xp = namespace(self.anchor)
        if self.slope is None:
            return self.anchor, xp.sum(xp.zeros_like(self.anchor), axis=1), xp.zeros_like(self.anchor)
        unit = unit_diagonal(self.gram, 0.0 if self.curvature > 0 else DEFECT)
        solved, _ = solve_positive(unit[None, :, :], (self.slope / self.unit_scale).T[None, :, :])
        found = self.anchor - solved[0, :, :].T / self.unit_scale
        found = xp.where((self.diagonal > 0) & xp.isfinite(found), found, self.anchor)
        return (found, *self.value_and_gradient(found))

    @cached_property
    def has_minimum(self) -> bool:
        """Return whether f may be a sum of squares: G is not indefinite, and f is not below zero at V_0 (in float64)."""
        if not self.curvature > -float("inf"):
            return False
        if self.slope is None:
            return True
        xp, (found, losses, _) = namespace(self.anchor), self.origin
        here = self.rounding(found)
        allowed = here.loss + here.coarse + self.rounding_at_zero.coarse
        idle = xp.all((self.slope == 0) | (self.diagonal > 0))  # a dead channel cannot change any loss
        return bool(idle & xp.all(losses >= -allowed))

    # -- problems made of this one -----------------------------------------------------------------------------------

    def damped(self, ridge: Array | float) -> Quadratic:
        """f(V) + 1/2 sum_j ridge_j |V_j - W_j|^2, a ridge on the *change* of the weights; ridge >= 0 is a number or (p,).

        ValueError is raised for a ridge below zero, NaN or infinite, or beside which the Gram overflows.
        """
        xp = namespace(self.gram)
        width = self.shape[1]
        if is_number(ridge):
            added = full((width,), number("a ridge", ridge), self.gram)
        else:
            added = as_floating(given("ridge", ridge, self.gram), like=self.gram)
            if tuple(added.shape) not in ((width,), (1,)):
                raise ValueError(f"a ridge is a number or ({width},) but is {tuple(added.shape)}")
        if not bool(xp.all((added >= 0) & (added + self.diagonal < float("inf")))):
            bad = f"is {span(added)}" if is_number(ridge) else f"is from {span(added)}"
            raise ValueError(f"a ridge must be at least zero everywhere, and finite beside the Gram's diagonal, but {bad}")
        gram = self.gram + xp.eye(width, dtype=self.gram.dtype, device=device(self.gram)) * added
        return Quadratic(gram, self.anchor, self.slope, self.floor, trusted=True)

    def ridged(self, ridge: Array | float) -> Quadratic:
        """f(V) + 1/2 sum_j ridge_j |V_j|^2, a ridge on the weights themselves; ridge >= 0 is a number or (p,)."""
        xp = namespace(self.gram)
        # f does not see a dead channel, whose weights may be large beyond any other and would leave no digits of the rest.
        anchor = xp.where(self.diagonal == 0, xp.zeros_like(self.anchor), self.anchor)
        pull = anchor * ridge
        slope, floor = pull, 0.5 * xp.sum(pull * anchor, axis=1)
        if self.slope is not None and self.floor is not None:
            slope, floor = self.slope + slope, self.floor + floor
        return Quadratic(self.damped(ridge).gram, anchor, slope, floor, trusted=True)

    @cached_property
    def unit_scale(self) -> Array:
        """Return the channel norms `s_j = sqrt(G_jj)` (p,), and one for a dead channel, which is not rescaled."""
        xp = namespace(self.gram)
        diagonal = self.diagonal
        return xp.sqrt(xp.where(diagonal > 0, diagonal, xp.ones_like(diagonal)))

    def rescaled(self, scale: Array | None = None) -> tuple[Quadratic, Array]:
        """Return the same loss in coordinates `v'_j = s_j v_j`, and the scale `s` (p,), which is positive.

        The default is `unit_scale`, which gives the Gram a unit diagonal. A term must follow its problem: `term.rescaled(s)`
        turns `lambda |v_j|` into `lambda / s_j |v'_j|`, so that the model is unchanged. Unit-diagonal coordinates improve
        conditioning 3 to 10 times on real layers.
        """
        usual, scale = scale is None, self.unit_scale if scale is None else self.positive_scale(scale)
        gram = (
            self.noted("unit Gram", lambda: self.gram / scale / scale[:, None]) if usual else self.gram / scale / scale[:, None]
        )
        slope = None if self.slope is None else self.slope / scale
        return Quadratic(gram, self.anchor * scale, slope, self.floor, trusted=True), scale

    def positive_scale(self, scale: Array) -> Array:
        """Return a scale (p,) that a user gave."""
        scale = as_floating(given("scale", scale, self.anchor), like=self.anchor)
        xp = namespace(scale)
        if tuple(scale.shape) != (self.shape[1],):
            raise ValueError(f"the scale is {tuple(scale.shape)} but the problem has {self.shape[1]} channels")
        if not bool(xp.all((scale > 0) & xp.isfinite(scale))):
            raise ValueError(f"the scale must be positive and finite but is from {span(scale)}")
        return scale

    def rows(self, chosen: Array) -> Quadratic:
        """Return the problem of some outputs alone; `chosen` holds indices of rows."""
        xp = namespace(self.anchor, chosen)
        slope = None if self.slope is None else xp.take(self.slope, chosen, axis=0)
        floor = None if self.floor is None else xp.take(self.floor, chosen, axis=0)
        return Quadratic(self.gram, xp.take(self.anchor, chosen, axis=0), slope, floor, trusted=True)

    def part(self, rows: slice) -> Quadratic:
        """Return the problem of outputs that follow one another; what is known of G is known of it too."""
        slope, floor = (None if array is None else array[rows, ...] for array in (self.slope, self.floor))
        part = Quadratic(self.gram, self.anchor[rows, :], slope, floor, trusted=True)
        part.__dict__.update({name: value for name, value in self.__dict__.items() if name in OF_GRAM})
        return part

    def parts(self, rows: Iterable[slice]) -> list[Quadratic]:
        """Return the problems of several ranges of outputs, which share what is `noted` of one of them."""
        found, notes = [self.part(each) for each in rows], dict[Hashable, Any]()
        for each in found:
            each.__dict__["notes"] = notes
        return found

    def beside(self, fixed: Array) -> Quadratic:
        """f(V + F) as a loss of V, with F (q, p) held: anchored at W - F. What is `noted` of G is shared with this problem."""
        found = Quadratic(self.gram, self.anchor - fixed, self.slope, self.floor, trusted=True)
        found.__dict__.update({name: value for name, value in self.__dict__.items() if name in OF_GRAM})
        found.__dict__["notes"] = self.__dict__.setdefault("notes", {})
        return found

    def noted(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """Return `make()`, something long that depends on G alone: it is made once for all `parts` of a problem."""
        notes = self.__dict__.get("notes")
        if notes is None:
            return make()
        if name not in notes:
            notes[name] = make()
        return notes[name]

    def astype(self, dtype: object) -> Quadratic:
        """Return the problem in another floating dtype of its backend (`xp.float32`, ...), or itself when nothing changes."""
        if self.anchor.dtype == dtype:
            return self
        xp = namespace(self.anchor)
        slope = None if self.slope is None else xp.astype(self.slope, dtype)
        floor = None if self.floor is None else xp.astype(self.floor, dtype)
        moved = Quadratic(xp.astype(self.gram, dtype), xp.astype(self.anchor, dtype), slope, floor, trusted=True)
        narrower = xp.finfo(dtype).max < xp.finfo(self.anchor.dtype).max
        for name in ("gram", "anchor", "slope", "floor") if narrower else ():
            if (array := getattr(moved, name)) is not None and not bool(xp.all(xp.isfinite(array))):
                raise ValueError(f"{'weight' if name == 'anchor' else name} overflows {dtype}: scale the inputs or the weight")
        return moved

    @property
    def double(self) -> Quadratic:
        """Return the problem in float64, in which certificates are computed, or itself when it is that."""
        # Itself is not cached: an object that holds itself is freed only when the garbage collector comes by.
        return self if self.anchor.dtype == namespace(self.anchor).float64 else self.as_double

    @cached_property
    def as_double(self) -> Quadratic:
        """Return a copy of the problem in float64."""
        return self.astype(namespace(self.anchor).float64)


def check_width(weight: Array, width: int) -> int:
    """Return the number of channels of the inputs, or raise ValueError for a weight that is not (q, p)."""
    if weight.ndim != 2 or weight.shape[1] != width:
        way = ": weight[None, :] is one row" if tuple(weight.shape) == (width,) else ""
        raise ValueError(f"the inputs have {width} channels but weight is {tuple(weight.shape)}{way}")
    return width


@computation
def spectral_bound(matrix: Array) -> float:
    """Return |A^8|_F^(1/8) for a symmetric positive semidefinite A, raised by what rounding may have taken."""
    xp = namespace(matrix)
    top = float(xp.max(xp.abs(matrix)))
    if top == 0:
        return 0.0
    power, bound = matrix / top, top  # squares neither overflow nor vanish
    for exponent in (1.0, 0.5, 0.25, 0.125):
        norm = float(xp.sqrt(xp.sum(power * power)))
        if norm == 0:
            return 0.0
        bound *= norm**exponent
        if exponent > 0.125:
            power = power / norm  # powers of a normalised matrix neither overflow nor vanish
            power = power @ power
    raised: float = bound * (1 + matrix.shape[0] * float(xp.finfo(matrix.dtype).eps))
    return raised
