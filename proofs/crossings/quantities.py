"""Where the papers meet: one quantity that stands under several names (claims X1, X2 and X6).

The inputs are X (N, p), the weights W (p, q); G = X^T X, and A = (W W^T) o G as in Numerical Pruning. P are the pruned inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.crossings.refits import close
from gramian.proofs.greedy_output.second_moments import Channels, channels, joint_error, scores, squared_norm
from gramian.proofs.kit.claims import Claim, Property, Verdict
from gramian.proofs.kit.grids import grids

__all__ = ["X1", "X2", "X6"]

GREEDY, NUMERICAL, FISTA = "Greedy Output Approximation", "Numerical Pruning", "FISTAPruner"


# --- X1, X2: scores, masks, losses -----------------------------------------------------------------------------------


def hadamard(case: Channels) -> np.ndarray:
    """A = (W W^T) o (Z^T Z), (h, h), of Numerical Pruning for the second level: its inputs are Z = X A^T, its weight W =
    B^T."""
    hidden = case.inputs @ case.first.T
    return np.asarray((case.second.T @ case.second) * (hidden.T @ hidden))


def is_the_diagonal_of_the_mask_problem(case: Channels, formula: Callable[[Channels], np.ndarray]) -> None:
    close(formula(case), np.diag(hadamard(case)))


X1 = Claim(
    "X1",
    f"{GREEDY}, Eq. (3); {NUMERICAL}, Eq. (7)",
    "M_i = |B_i|^2 (A_i^T Sigma A_i) with Sigma = X^T X is A_ii of the mask problem of the second level",
    Verdict.HOLDS,
    properties=(
        Property(
            "M = diag((B^T B) o (Z^T Z)), Z = X A^T",
            channels(),
            is_the_diagonal_of_the_mask_problem,
            lambda case: scores(case.first, case.second, case.inputs.T @ case.inputs),
            {
                "Sigma a mean, A a sum": lambda case: scores(case.first, case.second, case.moment),
                "diagonal of Z^T Z alone": lambda case: np.sum((case.inputs @ case.first.T) ** 2, axis=0),
                "weights alone": lambda case: scores(case.first, case.second, np.eye(case.first.shape[1])),
            },
        ),
    ),
)


class Masked(NamedTuple):
    """mask: z (h,), which is 0 for channels that are removed."""

    case: Channels
    mask: np.ndarray


@st.composite
def masked_channels(draw: st.DrawFn) -> Masked:
    case = draw(channels())
    return Masked(case, draw(grids((len(case.first),), values=(0.0, 1.0)))[0])


def is_the_loss_of_a_mask(masked: Masked, formula: Callable[[np.ndarray, np.ndarray], float]) -> None:
    """The formula, of A and the 0/1 vector of P, is Eq. (3) of Numerical Pruning at z and half of the other paper's joint
    error."""
    case, gone = masked.case, masked.mask == 0
    hidden, weight = case.inputs @ case.first.T, case.second.T
    loss = formula(hadamard(case), 1 - masked.mask)
    close(loss, 0.5 * squared_norm(hidden @ weight - hidden @ (masked.mask[:, None] * weight)))
    close(loss, 0.5 * squared_norm(hidden[:, gone] @ weight[gone]))
    close(loss, 0.5 * joint_error(case.first[gone], case.second[:, gone], case.inputs.T @ case.inputs))


X2 = Claim(
    "X2",
    f"{NUMERICAL}, Eqs. (3) and (7); {GREEDY}, Eqs. (2) and (3)",
    "for a 0/1 mask the loss of Eq. (3) is 1/2 1_P^T A 1_P = 1/2 |X_P W_P|_F^2, half of the error of removing the channels P",
    Verdict.HOLDS,
    properties=(
        Property(
            "loss of the mask = 1/2 1_P^T A 1_P = 1/2 joint error",
            masked_channels(),
            is_the_loss_of_a_mask,
            lambda matrix, gone: 0.5 * float(gone @ matrix @ gone),
            {
                "no half": lambda matrix, gone: float(gone @ matrix @ gone),
                "the diagonal": lambda matrix, gone: 0.5 * float(np.diag(matrix) @ gone),
                "kept for pruned": lambda matrix, gone: 0.5 * float((1 - gone) @ matrix @ (1 - gone)),
            },
        ),
    ),
)


# --- X6: Wanda -------------------------------------------------------------------------------------------------------


class Layer(NamedTuple):
    """inputs: X (N, p). weight: W (p, q)."""

    inputs: np.ndarray
    weight: np.ndarray


@st.composite
def layers(draw: st.DrawFn, orthogonal: bool = False) -> Layer:
    tokens, width, outputs = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    inputs, weight, sizes = draw(grids((tokens, width), (width, outputs), (width,)))
    return Layer(np.diag(sizes) if orthogonal else inputs, weight)


def wanda(layer: Layer) -> np.ndarray:
    """|W_jl| |X_j|_2, (p, q)."""
    return np.asarray(np.abs(layer.weight) * np.linalg.norm(layer.inputs, axis=0)[:, None])


def squares_to_the_loss_of_one_weight(layer: Layer, formula: Callable[[Layer], np.ndarray]) -> None:
    """The loss without one weight is its score squared, and over the outputs these losses add up to the diagonal of A."""
    squared = formula(layer) ** 2
    for index in np.ndindex(*layer.weight.shape):
        weight = layer.weight.copy()
        weight[index] = 0
        close(squared[index], squared_norm(layer.inputs @ (weight - layer.weight)))
    close(np.sum(squared, axis=1), np.diag((layer.weight @ layer.weight.T) * (layer.inputs.T @ layer.inputs)))


def picks_the_best_weights(layer: Layer, formula: Callable[[Layer], np.ndarray]) -> None:
    """Where the Gram is diagonal, no weights of an output can be pruned at a smaller loss than as many of the lowest scores."""
    order = np.argsort(formula(layer), axis=0, kind="stable")
    for column in range(layer.weight.shape[1]):
        terms = layer.inputs * layer.weight[:, column]
        for count in range(len(order) + 1):
            losses = [squared_norm(terms[:, list(chosen)].sum(axis=1)) for chosen in combinations(range(len(order)), count)]
            close(squared_norm(terms[:, order[:count, column]].sum(axis=1)), min(losses))


X6 = Claim(
    "X6",
    f"{FISTA}, Sec. 2 (Wanda); {NUMERICAL}, Eq. (7); {GREEDY}, Eq. (3)",
    "Wanda's score squared, (|W_jl| |X_j|_2)^2 = W_jl^2 G_jj, is the loss without that weight; summed over outputs, A_jj = M_j",
    Verdict.HOLDS,
    properties=(
        Property(
            "score^2 = loss of one weight, and the sum over outputs is diag A",
            layers(),
            squares_to_the_loss_of_one_weight,
            wanda,
            {
                "G_jj for its root": lambda layer: np.abs(layer.weight) * np.sum(layer.inputs**2, axis=0)[:, None],
                "1-norm of the inputs": lambda layer: np.abs(layer.weight) * np.sum(np.abs(layer.inputs), axis=0)[:, None],
                "mean over tokens": lambda layer: wanda(layer) / np.sqrt(len(layer.inputs)),
            },
        ),
        Property(
            "diagonal Gram: the lowest scores are the best to prune",
            layers(orthogonal=True),
            picks_the_best_weights,
            wanda,
            {
                "magnitude": lambda layer: np.abs(layer.weight),
                "inputs alone": lambda layer: np.linalg.norm(layer.inputs, axis=0)[:, None] + 0 * layer.weight,
                "highest first": lambda layer: -wanda(layer),
            },
        ),
    ),
)
