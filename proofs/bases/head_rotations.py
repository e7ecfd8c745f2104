"""Rotations inside attention heads (claims B1, B2): what attention computes is unchanged, and no polar step lowers the scores.

Heads h = 1, ..., H read values of groups, g(h), with rows V_g (d, p) and biases b_g, and write by columns O_h (o, d).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Property, Verdict
from gramian.solvers.support.rotations import (
    HeadPart,
    polar_factor,
    rotated_columns,
    rotated_rows,
    safe_multiple,
    score_gradient,
    squared_scores,
)

__all__ = ["B1", "B2"]

STEPS = 12


class Attention(NamedTuple):
    """output: O (o, H d). value: V (G d, p). bias: b (G d,). rotations: (G, d, d). mixing: A (H, N, N), what each token takes
    of every other. inputs: X (N, p)."""

    output: np.ndarray
    value: np.ndarray
    bias: np.ndarray
    rotations: np.ndarray
    mixing: np.ndarray
    inputs: np.ndarray

    @property
    def heads(self) -> int:
        return len(self.mixing)

    def computed(self, output: np.ndarray, value: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """sum over h of A_h (X V_g(h)^T + 1 b_g(h)^T) O_h^T, (N, o)."""
        width, groups = self.rotations.shape[1], len(self.rotations)
        values = self.inputs @ value.T + bias
        found = np.zeros((len(self.inputs), len(output)))
        for head, mixing in enumerate(self.mixing):
            shared = head * groups // self.heads
            own, there = (slice(place * width, (place + 1) * width) for place in (head, shared))
            found += mixing @ values[:, there] @ output[:, own].T
        return found


def orthogonal(rng: np.random.Generator, width: int) -> np.ndarray:
    return np.asarray(np.linalg.qr(rng.normal(size=(width, width)))[0])


@st.composite
def attentions(draw: st.DrawFn) -> Attention:
    """Draw attention with grouped queries or without, with values of any width, whatever the tokens take of each other."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    groups, members, width = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    inputs, outputs, tokens = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rotations = np.stack([orthogonal(rng, width) for _ in range(groups)])
    shapes = ((outputs, groups * members * width), (groups * width, inputs), (groups * width,))
    output, value, bias = (rng.normal(size=shape) for shape in shapes)
    mixing, windows = rng.random(size=(groups * members, tokens, tokens)), rng.normal(size=(tokens, inputs))
    return Attention(output, value, bias, rotations, mixing, windows)


Rotated = Callable[[Attention], tuple[np.ndarray, np.ndarray, np.ndarray]]  # to an output projection, values, biases


def rotated(given: Attention) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """O R, R^T V and R^T b."""
    groups = len(given.rotations)
    return (
        rotated_columns(given.output, given.rotations, given.heads),
        rotated_rows(given.value, given.rotations, groups),
        rotated_rows(given.bias[:, None], given.rotations, groups)[:, 0],
    )


def without_the_bias(given: Attention) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    output, value, _ = rotated(given)
    return output, value, given.bias


def twice_the_same_way(given: Attention) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    output, _, _ = rotated(given)
    back = given._replace(rotations=np.swapaxes(given.rotations, 1, 2))
    _, value, bias = rotated(back)
    return output, value, bias


def heads_in_turn(given: Attention) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As if head h read the values of group h mod G."""
    width, groups = given.rotations.shape[1], len(given.rotations)
    blocks = given.output.reshape(len(given.output), given.heads, width)
    turned = [blocks[:, head] @ given.rotations[head % groups] for head in range(given.heads)]
    return np.concatenate(turned, axis=1), *rotated(given)[1:]


def computes_the_same(given: Attention, formula: Rotated) -> None:
    before = given.computed(given.output, given.value, given.bias)
    after = given.computed(*formula(given))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-11 * (1 + np.abs(before).max()))


B1 = Claim(
    "B1",
    "gramian, solvers/support/rotations.py",
    "attention with columns O_h Q_g(h), rows Q_g^T V_g and biases Q_g^T b_g computes what it does with O_h, V_g and b_g, for "
    "orthogonal Q_g, one for each group of heads that share values",
    Verdict.HOLDS,
    properties=(
        Property(
            "sum_h A_h (X V^T Q + b^T Q) (O_h Q)^T = sum_h A_h (X V^T + b^T) O_h^T",
            attentions(),
            computes_the_same,
            rotated,
            {
                "the bias as it was": without_the_bias,
                "both sides by Q": twice_the_same_way,
                "another group's rotation": heads_in_turn,
            },
        ),
    ),
)


# --- B2: a polar step ------------------------------------------------------------------------------------------------


class Head(NamedTuple):
    """parts: of a head, in two operators. start: an orthogonal matrix (d, d)."""

    parts: list[HeadPart]
    start: np.ndarray


@st.composite
def heads(draw: st.DrawFn) -> Head:
    """Draw weights with heavy tails, and inverses of Gram matrices of condition up to a thousand, of which one may be the
    identity."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    width, spread = draw(st.integers(2, 5)), draw(st.floats(0, 3))
    basis = orthogonal(rng, width)
    inverse = basis @ np.diag(np.logspace(-spread, 0, width)) @ basis.T
    parts = [HeadPart(rng.normal(size=(draw(st.integers(1, 6)), width)) ** 3, 0.5 * (inverse + inverse.T))]
    if draw(st.booleans()):
        parts.append(HeadPart(rng.normal(size=(4, width)) ** 3))
    return Head(parts, orthogonal(rng, width))


Step = Callable[[list[HeadPart], np.ndarray, float], np.ndarray]  # parts, Q, and tau over one that is large enough


def polar_step(parts: list[HeadPart], rotation: np.ndarray, shift: float = 1.0, sign: float = 1.0) -> np.ndarray:
    """The polar factor of dF/dQ + 4 tau Q diag(F_j), with a tau that is large enough."""
    gradient, columns = score_gradient(parts, rotation)
    multiple = max(safe_multiple(part, rotation) for part in parts)
    return np.asarray(polar_factor(sign * gradient + 4 * shift * multiple * rotation * columns))


def never_falls(head: Head, formula: Step) -> None:
    """One step after the other: every matrix is orthogonal, and F falls at none, but for rounding."""
    for shift in (1.0, 10.0):
        rotation, before = head.start, squared_scores(head.parts, head.start)
        for _ in range(STEPS):
            rotation = formula(head.parts, rotation, shift)
            np.testing.assert_allclose(rotation.T @ rotation, np.eye(len(rotation)), rtol=0, atol=1e-12)
            after = squared_scores(head.parts, rotation)
            assert after >= before * (1 - 1e-10), f"F falls from {before} to {after}"
            before = after


B2 = Claim(
    "B2",
    "gramian, solvers/support/rotations.py",
    "F(Q) = sum_ij (W Q)_ij^4 / (Q^T H Q)_jj^2 does not fall at Q <- polar factor of dF/dQ + 4 tau Q diag(F_1, ..., F_d), for "
    "every tau >= max_j lambda_max(H) / (Q^T H Q)_jj",
    Verdict.HOLDS,
    properties=(
        Property(
            "F(polar(dF/dQ + 4 tau Q diag(F_j))) >= F(Q), for tau = tr H / min_j h_j and its tenfold",
            heads(),
            never_falls,
            polar_step,
            {
                "the gradient alone": lambda parts, rotation, shift: polar_step(parts, rotation, 0.0),
                "the other sign": lambda parts, rotation, shift: polar_step(parts, rotation, shift, -1.0),
                "turned once more": lambda parts, rotation, shift: polar_step(parts, rotation, shift) @ rotation,
                "the gradient in place of its polar factor": lambda parts, rotation, shift: score_gradient(parts, rotation)[0],
            },
        ),
    ),
)
