"""Streaming second moments of a layer's inputs: all a layer-wise problem ever needs of its activations."""

from __future__ import annotations

from gramian.solvers._xp import Array, namespace

__all__ = ["Moments"]


class Moments:
    """`G = X*^T X*`, `C = (X* - X)^T X*`, `E = (X* - X)^T (X* - X)`, and the sums over tokens `total = 1^T X*` and
    `shift = 1^T (X* - X)`, which tell means; all in float64.

    `X*` (N, p) is what the layer receives, `X` (N, p) what it would receive from the dense model. `C`, `E` and `shift`
    exist only once a batch came with its dense counterpart; until then they are None and stand for zero. The moments do not
    depend on the weights, so layers that share an input share them. Products and sums are both float64, whatever the
    activations' dtype: the smallest eigenvalues of a Gram matrix are 1e-5..1e-6 of the largest.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.tokens = 0
        self.gram: Array | None = None
        self.cross: Array | None = None
        self.drift: Array | None = None
        self.total: Array | None = None
        self.shift: Array | None = None

    def update(self, inputs: Array, dense: Array | None = None, weights: Array | None = None) -> None:
        """Add a batch of tokens.

        inputs: X*, (..., p); leading axes are tokens. dense: X, same shape, or None when it equals X*.
        weights: optional token weights, one per token, non-negative: each counts as that many (`tokens` is the
        sum of weights, rounded), and 0 is padding.
        Raises ValueError on another width, on different shapes, and on NaN or Inf, before anything is added.
        """
        if inputs.shape[-1] != self.width:
            raise ValueError(f"inputs have {inputs.shape[-1]} channels but these moments have width {self.width}")
        if dense is not None and tuple(dense.shape) != tuple(inputs.shape):
            raise ValueError(f"inputs are {tuple(inputs.shape)} but the dense inputs are {tuple(dense.shape)}")
        xp = namespace(inputs, dense)
        star = xp.reshape(xp.astype(inputs, xp.float64), (-1, self.width))
        root = None if weights is None else token_roots(weights, star)
        if root is not None:
            star = star * root
        if not bool(xp.all(xp.isfinite(star))):
            raise ValueError("the inputs hold NaN or Inf")
        gram = star.T @ star
        if dense is not None:
            difference = xp.reshape(xp.astype(inputs, xp.float64) - xp.astype(dense, xp.float64), (-1, self.width))
            if root is not None:
                difference = difference * root
            if not bool(xp.all(xp.isfinite(difference))):
                raise ValueError("the dense inputs hold NaN or Inf")
            cross, drift, shift = difference.T @ star, difference.T @ difference, column_sums(difference, root)
            self.cross = added(self.cross, cross)
            self.drift = added(self.drift, drift)
            self.shift = added(self.shift, shift)
        self.gram = added(self.gram, gram)
        self.total = added(self.total, column_sums(star, root))
        self.tokens += star.shape[0] if root is None else round(float(xp.sum(root**2)))

    def merged(self, other: Moments) -> Moments:
        """The moments of both sets of tokens together. Raises ValueError unless both or neither have dense counterparts."""
        if self.width != other.width or (self.cross is None) != (other.cross is None):
            raise ValueError("moments add up only for one width, and with dense counterparts in both or in neither")
        both = Moments(self.width)
        both.tokens = self.tokens + other.tokens
        both.gram = self.require() + other.require()
        both.cross, both.drift = added(self.cross, other.cross), added(self.drift, other.drift)
        both.total, both.shift = added(self.total, other.total), added(self.shift, other.shift)
        return both

    def require(self) -> Array:
        """The Gram matrix, or a ValueError that says no token was seen."""
        if self.gram is None:
            raise ValueError("no tokens were seen: run the model on some input before asking for its moments")
        return self.gram


def added(one: Array | None, other: Array | None) -> Array | None:
    """The sum of two arrays, of which None stands for zero."""
    return other if one is None else one if other is None else one + other


def column_sums(tokens: Array, root: Array | None) -> Array:
    """Sums over tokens (p,) of rows that come times the roots of their weights."""
    return namespace(tokens).sum(tokens if root is None else tokens * root, axis=0)


def token_roots(weights: Array, tokens: Array) -> Array:
    """Square roots of token weights as a column (N, 1)."""
    xp = namespace(weights, tokens)
    flat = xp.reshape(xp.astype(weights, xp.float64), (-1, 1))
    if flat.shape[0] != tokens.shape[0]:
        raise ValueError(f"there are {flat.shape[0]} token weights but {tokens.shape[0]} tokens")
    if not bool(xp.all(flat >= 0)):
        raise ValueError("token weights must be at least zero")
    return xp.sqrt(flat)
