"""Streamed second moments of the inputs of a layer: all that a layer-wise problem ever needs of its activations."""

from __future__ import annotations

from threading import RLock
from typing import Any, Literal

import numpy as np

from gramian.solvers.backend._xp import Array, device, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.given import given_together
from gramian.solvers.backend.options import shown, whole
from gramian.solvers.backend.printed import kind
from gramian.solvers.backend.threads import crew
from gramian.solvers.core.sums import ProductSum, TokenRows

__all__ = ["Moments", "Products"]

Products = Literal["float64", "float32"]
TOKENS_PER_PRODUCT = 2048  # the most terms that one float32 product sums


class Moments:
    """G = X*^T X*,  C = (X* - X)^T X*,  E = (X* - X)^T (X* - X), summed over batches of tokens in float64.

    X* (N, p) is what the layer receives, and X (N, p) what it would receive from the dense model. The sums over tokens
    `total = 1^T X*` and `shift = 1^T (X* - X)` give means. `cross`, `drift` and `shift` exist only once a batch came with its
    dense counterpart; until then they are None and stand for zero. The moments do not depend on the weights, so layers that
    share an input share them. The smallest eigenvalues of a Gram matrix are 1e-5..1e-6 of the largest, so sums over batches
    are float64 whatever the dtype of the activations, and so are the products unless `update` is given another `products`.
    Several threads may add to the same moments.

    Parameters
    ----------
    width : int
        p, the number of channels.

    Attributes
    ----------
    tokens : int
        N, the number of tokens so far: the sum of their weights, rounded.
    mass : float
        The same sum, not rounded.
    gram : array (p, p) or None
        G, or None before the first batch.
    cross : array (p, p) or None
        C.
    drift : array (p, p) or None
        E.
    total : array (p,) or None
        1^T X*.
    shift : array (p,) or None
        1^T (X* - X).

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Moments, Quadratic
    >>> rng = np.random.default_rng(0)
    >>> moments = Moments(8)
    >>> for batch in rng.normal(size=(4, 16, 8)):
    ...     moments.update(batch)
    >>> moments
    Moments(8 channels, 64 tokens, float64, numpy)
    >>> Quadratic.from_moments(moments, rng.normal(size=(3, 8)))
    Quadratic(3x8, float64, numpy)
    """

    def __init__(self, width: int) -> None:
        self.width = whole("the number of channels", width)
        self.mass = 0.0
        self.squares, self.crosses, self.drifts = ProductSum(square=True), ProductSum(), ProductSum(square=True)
        self.inputs, self.differences = TokenRows(), TokenRows()
        self.total: Array | None = None
        self.shift: Array | None = None
        self.one_at_a_time = RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "one_at_a_time"}  # locks cannot be copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, one_at_a_time=RLock())

    @property
    def tokens(self) -> int:
        """N."""
        return round(self.mass)

    @property
    @computation
    def gram(self) -> Array | None:
        """G."""
        with self.one_at_a_time:
            self.inputs.release()
            self.differences.release()
            return self.squares.value

    @property
    @computation
    def cross(self) -> Array | None:
        """C."""
        with self.one_at_a_time:
            return self.crosses.value

    @property
    @computation
    def drift(self) -> Array | None:
        """E."""
        with self.one_at_a_time:
            return self.drifts.value

    def __repr__(self) -> str:
        if self.total is None:
            return f"Moments({self.width} channels, no tokens)"
        moved = "" if self.cross is None else ", X* != X"
        return f"Moments({self.width} channels, {self.tokens} tokens, {kind(self.total)}{moved})"

    @computation
    def update(
        self,
        inputs: Array,
        dense: Array | None = None,
        weights: Array | None = None,
        *,
        products: Products = "float64",
    ) -> None:
        """Add a batch of tokens.

        inputs: X*, (..., p); leading axes are tokens. dense: X, same shape, or None when it equals X*.
        weights: optional token weights, one per token, finite and non-negative: each counts as that many (`tokens` is the
        sum of weights, rounded), and 0 is padding, whose inputs may be NaN.
        products: how A^T B is formed. `float32`, for devices that are slow in float64, multiplies X* and X* - X rounded
        to float32 (the difference is taken before; half precision is not rounded), sums at most 2048 tokens so, and the
        rest in float64. With u = 2^-24 and n = min(N, 2048) every G_ij is then within (n + 2) u sqrt(G_ii G_jj) of its
        float64 value, as a rule within 20 u of that, and C and E likewise; G and E are symmetric with a diagonal of at
        least zero, but can have eigenvalues below zero by that rounding.
        Raises ValueError on another width, on different shapes, and on NaN or Inf, before anything is added.
        """
        values = {"inputs": inputs, "dense": dense, "weights": weights}
        optional = ("dense", "weights")
        arrays = given_together(values, optional, self.total, "what came before")
        inputs, dense, weights = (arrays.get(name) for name in values)
        if inputs.ndim < 1 or inputs.shape[-1] != self.width:
            channels = f"{inputs.shape[-1]} channels" if inputs.ndim else "no axis of channels"
            raise ValueError(f"inputs have {channels} but these moments have width {self.width}")
        if dense is not None and tuple(dense.shape) != tuple(inputs.shape):
            raise ValueError(f"inputs are {tuple(inputs.shape)} but the dense inputs are {tuple(dense.shape)}")
        if products not in ("float64", "float32"):
            raise ValueError(f"products must be 'float64' or 'float32' but is {shown(products)}")
        xp = namespace(inputs, dense)
        real = xp.float64 if products == "float64" else xp.float32
        flat = xp.reshape(inputs, (-1, self.width))
        root = None if weights is None else token_roots(weights, flat)
        mass = float(flat.shape[0]) if weights is None else float(xp.sum(xp.astype(weights, xp.float64)))
        # NaN and Inf show in the sums, and are reported there, rather than by what numpy says of them on the way
        quiet = np.errstate(invalid="ignore", over="ignore")
        with self.one_at_a_time, quiet, crew(flat, flat.shape[0] * self.width**2) as every:
            star = self.inputs(flat, None, root, real, every)
            total = column_sums(star, root)
            if not bool(xp.all(xp.isfinite(total))) and not bool(xp.all(xp.isfinite(star))):
                raise ValueError("the inputs hold NaN or Inf")
            gram = half_product(star)
            if dense is not None:
                difference = self.differences(flat, xp.reshape(dense, (-1, self.width)), root, real, every)
                shift = column_sums(difference, root)
                if not bool(xp.all(xp.isfinite(shift))) and not bool(xp.all(xp.isfinite(difference))):
                    raise ValueError("the dense inputs hold NaN or Inf")
                self.drifts.add(difference, difference, every, half_product(difference))
                self.crosses.add(difference, star, every, None if products == "float64" else product(difference, star))
                self.shift = added(self.shift, shift)
            self.squares.add(star, star, every, gram)
            self.total = added(self.total, total)
            self.mass += mass

    def merged(self, other: Moments) -> Moments:
        """Return the moments of both sets of tokens together.

        ValueError is raised unless both or neither have dense counterparts.
        """
        if not isinstance(other, Moments):
            raise TypeError(f"moments merge with Moments but the other is {shown(other)}")
        if self.width != other.width or (self.cross is None) != (other.cross is None):
            raise ValueError("moments add up only for one width, and with dense counterparts in both or in neither")
        both = Moments(self.width)
        both.mass = self.mass + other.mass
        both.squares = ProductSum(square=True, total=self.require() + other.require())
        both.crosses = ProductSum(total=added(self.cross, other.cross))
        both.drifts = ProductSum(square=True, total=added(self.drift, other.drift))
        both.total, both.shift = added(self.total, other.total), added(self.shift, other.shift)
        return both

    def scaled(self, weight: float) -> Moments:
        """Return w G, w C, w E and w times the sums over tokens: every token counts `weight` times as much.

        ValueError is raised unless the weight is a finite number of at least zero, and as `require` does.
        """
        if not 0 <= weight < float("inf"):
            raise ValueError(f"the weight of tokens must be a finite number of at least zero but is {shown(weight)}")
        found = Moments(self.width)
        found.mass = weight * self.mass
        found.squares = ProductSum(square=True, total=weight * self.require())
        found.crosses = ProductSum(total=None if self.cross is None else weight * self.cross)
        found.drifts = ProductSum(square=True, total=None if self.drift is None else weight * self.drift)
        found.total = None if self.total is None else weight * self.total
        found.shift = None if self.shift is None else weight * self.shift
        return found

    def require(self) -> Array:
        """Return the Gram matrix, or raise a ValueError that says that no token was seen."""
        gram = self.gram
        if gram is None:
            raise ValueError("no tokens were seen: run the model on some input before asking for its moments")
        return gram


def added(one: Array | None, other: Array | None) -> Array | None:
    """Return the sum of two arrays, of which None stands for zero."""
    return other if one is None else one if other is None else one + other


def product(left: Array, right: Array) -> Array:
    """Return A^T B in float64; float32 factors are multiplied in slices of `TOKENS_PER_PRODUCT` tokens at most."""
    xp = namespace(left, right)
    if left.dtype == xp.float64:
        return left.T @ right
    total = xp.zeros((left.shape[1], right.shape[1]), dtype=xp.float64, device=device(left))
    for begin in range(0, left.shape[0], TOKENS_PER_PRODUCT):
        end = min(begin + TOKENS_PER_PRODUCT, left.shape[0])
        total += left[begin:end, :].T @ right[begin:end, :]
    return total


def half_product(tokens: Array) -> Array | None:
    """Return A^T A of float32 tokens, exactly symmetric, which a product on a device need not be; None for float64, which
    `ProductSum` multiplies itself.

    ValueError is raised when float32 cannot hold it.
    """
    xp = namespace(tokens)
    if tokens.dtype == xp.float64:
        return None
    found = product(tokens, tokens)
    if not bool(xp.all(xp.isfinite(xp.linalg.diagonal(found)))):
        raise ValueError("the inputs are too large for float32 products, their squares overflow: take products='float64'")
    return 0.5 * (found + found.T)


def column_sums(tokens: Array, root: Array | None) -> Array:
    """Return sums over tokens (p,), in float64, of rows that were multiplied by the roots of their weights."""
    xp = namespace(tokens)
    return xp.sum(tokens if root is None else tokens * root, axis=0, dtype=xp.float64)


def token_roots(weights: Array, tokens: Array) -> Array:
    """Return the square roots of token weights as a column (N, 1)."""
    xp = namespace(weights, tokens)
    flat = xp.reshape(xp.astype(weights, xp.float64), (-1, 1))
    if flat.shape[0] != tokens.shape[0]:
        raise ValueError(f"there are {flat.shape[0]} token weights but {tokens.shape[0]} tokens")
    if not bool(xp.all((flat >= 0) & xp.isfinite(flat))):
        wrong = flat[~((flat >= 0) & xp.isfinite(flat))]
        raise ValueError(f"token weights must be finite and at least zero but {wrong.shape[0]} are not, as {float(wrong[0])}")
    return xp.sqrt(flat)
