"""Orthogonal changes of basis inside attention heads, which leave a model as it is and make its weights easier to prune.

A head's values v_h = V_h x, (d,), are read by columns O_h of the output projection, and nothing but sums over tokens lies in
between. For any orthogonal Q the rows Q^T V_h and the columns O_h Q compute the same, since O_h Q Q^T V_h = O_h V_h. With
grouped queries several heads read the same values, so that all of them share Q.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import whole
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.support.obs import DAMPING, inverse_factor

__all__ = [
    "HeadPart",
    "HeadRotation",
    "attention_parts",
    "attention_rotations",
    "head_rotation",
    "polar_factor",
    "rotated_columns",
    "rotated_gram",
    "rotated_rows",
    "score_gradient",
    "squared_scores",
]

GROWTH = 4.0  # of the multiple of Q that is added to a gradient whose own step does not raise the scores


@dataclass(frozen=True, eq=False)
class HeadPart:
    """Hold what one operator has of a head: weights W (n, d) over its d channels, and H (d, d), symmetric positive definite.

    In the basis Q a weight is (W Q)_ij, and removing it costs w_ij^2 / (Q^T H Q)_jj where the others make up for it: the score
    of optimal brain surgeon, with H the head's block of G^-1. H = None is the identity.
    """

    weight: Array
    inverse: Array | None = None


@dataclass(frozen=True, eq=False)
class HeadRotation:
    """Hold an orthogonal Q (d, d), and the summed squared scores at the start and after every step that was accepted."""

    rotation: Array
    scores: tuple[float, ...]


def squared_scores(parts: Sequence[HeadPart], rotation: Array) -> float:
    """F(Q) = sum over parts, i and j of (W Q)_ij^4 / (Q^T H Q)_jj^2."""
    return sum(float(namespace(rotation).sum(terms(part, rotation)[2])) for part in parts)


def score_gradient(parts: Sequence[HeadPart], rotation: Array) -> tuple[Array, Array]:
    """Return dF/dQ, (d, d), and F column by column, (d,).

        dF/dQ = sum over parts of 4 W^T (W Q)^3 diag(h^-2) - 4 H Q diag(c h^-3),

    with powers entry by entry, h_j = (Q^T H Q)_jj and c_j = sum_i (W Q)_ij^4. F does not change where a column is scaled, so
    that no column of the gradient has a part along that column of Q.
    """
    xp = namespace(rotation)
    gradient, columns = xp.zeros_like(rotation), xp.zeros_like(rotation[0, :])
    for part in parts:
        turned, size, scores = terms(part, rotation)
        image = rotation if part.inverse is None else part.inverse @ rotation
        gradient = gradient + 4 * (part.weight.T @ turned**3) / size**2 - 4 * image * (scores / size)
        columns = columns + scores
    return gradient, columns


def terms(part: HeadPart, rotation: Array) -> tuple[Array, Array, Array]:
    """Return W Q (n, d), h (d,) and the summed squared scores of every column (d,)."""
    xp = namespace(rotation)
    turned = part.weight @ rotation
    size = xp.sum(rotation * (rotation if part.inverse is None else part.inverse @ rotation), axis=0)
    return turned, size, xp.sum(turned**4, axis=0) / size**2


def polar_factor(matrix: Array) -> Array:
    """argmax of <M, Q> over orthogonal Q: U V^T of the singular value decomposition M = U S V^T."""
    left, _, right = namespace(matrix).linalg.svd(matrix, full_matrices=False)
    return left @ right


@computation
def head_rotation(parts: Sequence[HeadPart], *, steps: int = 5) -> HeadRotation:
    """argmax of F(Q) = sum (W Q)_ij^4 / (Q^T H Q)_jj^2 over orthogonal Q, locally, from Q = I

    Large scores are made larger and small ones smaller, so that less is lost with the small ones. A step is

        Q <- polar factor of dF/dQ + 4 tau Q diag(F_1, ..., F_d),   tau = 1, 4, 16, ...,

    with the first tau at which F rises; without one the ascent ends. On orthogonal matrices F is also the function
    sum |q_j|^4 F_j(q_j), whose gradient is that with tau = 1. At every tau >= max_j lambda_max(H) / h_j F cannot fall: F_j is
    jointly convex in the (W q)_i and h, and h = lambda_max - q^T (lambda_max - H) q is concave on the sphere, so that F lies
    above the linear function of Q whose maximum over orthogonal matrices the step takes.

    Parameters
    ----------
    parts : sequence of HeadPart
        What reads the head, and what writes it, in float64 and from one library; at least one.
    steps : int, default 5
        How many steps at most.

    Returns
    -------
    HeadRotation
        Q, and F along the way, which only rises.
    """
    steps = whole("steps", steps)
    if not parts:
        raise ValueError("a head without parts has nothing to be rotated for: give at least one HeadPart")
    xp = namespace(parts[0].weight)
    width = parts[0].weight.shape[1]
    rotation = xp.eye(width, dtype=parts[0].weight.dtype, device=parts[0].weight.device)
    scores = [squared_scores(parts, rotation)]
    for _ in range(steps):
        gradient, columns = score_gradient(parts, rotation)
        found = rising(parts, rotation, gradient, columns, scores[-1])
        if found is None:
            break
        rotation, reached = found
        scores.append(reached)
    return HeadRotation(rotation, tuple(scores))


def rising(
    parts: Sequence[HeadPart], rotation: Array, gradient: Array, columns: Array, before: float
) -> tuple[Array, float] | None:
    """Return the first polar step after which F is larger, and F there; None where there is none."""
    xp = namespace(rotation)
    most = max([safe_multiple(part, rotation) for part in parts])
    multiple = 1.0
    while True:
        towards = gradient + 4 * multiple * rotation * columns
        if not bool(xp.all(xp.isfinite(towards))):
            return None
        found = polar_factor(towards)
        reached = squared_scores(parts, found)
        if reached > before:
            return found, reached
        if multiple >= most:
            return None
        multiple *= GROWTH


def safe_multiple(part: HeadPart, rotation: Array) -> float:
    """Return a tau from which on no step lowers F: the trace of H, which is no less than its norm, over the least h_j."""
    if part.inverse is None:
        return 1.0
    xp = namespace(rotation)
    return float(xp.linalg.trace(part.inverse)) / float(xp.min(terms(part, rotation)[1]))


# -- attention ---------------------------------------------------------------------------------------------------------


@computation
def attention_parts(output: Quadratic | None, value: Quadratic | None, heads: int, groups: int) -> list[list[HeadPart]]:
    """List, for every group of heads that share values, what it has of the output and of the value projection.

    Scores are relative to |X W^T|^2 of their operator, so that those of both add up. The output projection W (q, heads d) has a
    part for every head, its columns and its block of G^-1. In the value projection V (groups d, p) rows rotate and inputs do
    not: the score of a weight is (Q^T V)_jk^2 / (G^-1)_kk, so that V^T, its rows divided by the roots of diag(G^-1), is a part
    with H = I. Both inverses are of Gram matrices with SparseGPT's damping, a multiple of I, which is the same in every basis.

    ValueError: neither projection is given, or widths that are not those of so many heads and groups.
    """
    given = output if output is not None else value
    if given is None:
        raise ValueError("neither an output nor a value projection is given: nothing says which basis is better")
    if heads < 1 or groups < 1 or heads % groups:
        raise ValueError(f"{heads} heads cannot share {groups} groups of values evenly")
    width = given.shape[1] // heads if given is output else given.shape[0] // groups
    if output is not None and output.shape[1] != heads * width:
        raise ValueError(f"the output projection has {output.shape[1]} inputs, which {heads} heads do not divide")
    if value is not None and value.shape[0] != groups * width:
        raise ValueError(f"the value projection has {value.shape[0]} outputs but {groups} groups of {width} channels need "
                         f"{groups * width}")  # fmt: skip
    found: list[list[HeadPart]] = [[] for _ in range(groups)]
    xp = namespace(given.anchor)
    if output is not None and output.energy > 0:
        exact = output.double
        factor, _ = inverse_factor(output, DAMPING)
        anchor = exact.anchor / (2 * exact.energy) ** 0.5
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            columns = factor[:, own]
            found[head * groups // heads].append(HeadPart(anchor[:, own], columns.T @ columns))
    if value is not None and value.energy > 0:
        exact = value.double
        factor, _ = inverse_factor(value, DAMPING)
        scaled = exact.anchor / (2 * exact.energy * xp.sum(factor**2, axis=0)) ** 0.5
        for group in range(groups):
            found[group].append(HeadPart(scaled[group * width : (group + 1) * width, :].T))
    return found


@computation
def attention_rotations(output: Quadratic | None, value: Quadratic | None, *, heads: int, groups: int, steps: int = 5) -> Array:
    """Return `head_rotation` of every group of heads that share values, (groups, d, d), in float64.

    output: the loss of the output projection, whose columns are those of the heads one after another, those of a group
    together. value: the loss of the value projection, whose rows are those of the groups. Either may be None, where it is not
    to be pruned. An operator whose outputs are all zero has no say. Errors are those of `attention_parts`.
    """
    parts = attention_parts(output, value, heads, groups)
    given = output if output is not None else value
    assert given is not None
    xp = namespace(given.anchor)
    width = given.shape[1] // heads if given is output else given.shape[0] // groups
    identity = xp.eye(width, dtype=xp.float64, device=given.anchor.device)
    return xp.stack([head_rotation(each, steps=steps).rotation if each else identity for each in parts])


def rotated_columns(matrix: Array, rotations: Array, heads: int) -> Array:
    """Return M R for M (n, heads d), R the block-diagonal matrix with the rotation (groups, d, d) of every head."""
    xp = namespace(matrix)
    groups, width = rotations.shape[0], rotations.shape[1]
    blocks = [matrix[:, head * width : (head + 1) * width] @ rotations[head * groups // heads, :, :] for head in range(heads)]
    return xp.concat(blocks, axis=1)


def rotated_rows(matrix: Array, rotations: Array, heads: int) -> Array:
    """Return R^T M for M (heads d, n), a matrix of rows or biases (heads d, 1); R is that of `rotated_columns`."""
    return rotated_columns(matrix.T, rotations, heads).T


def rotated_gram(gram: Array, rotations: Array, heads: int) -> Array:
    """Return R^T G R for a symmetric G (heads d, heads d), symmetric to the last bit where G is."""
    turned = rotated_rows(rotated_columns(gram, rotations, heads), rotations, heads)
    return 0.5 * (turned + turned.T)
