"""Problems that no data has: refused where two channels show it, and never given a bound, nor an error below zero."""

from __future__ import annotations

import numpy as np
import pytest

from gramian.solvers import (
    FISTA,
    L1,
    MaskProblem,
    Quadratic,
    Status,
    TopK,
    affine_least_squares,
    certify,
    certify_mask,
    dsnot,
    exchange_weights,
    fistapruner,
    greedy_removal,
    l0_admm,
    lasso,
    magnitude,
    newton_score,
    refit,
    relaxed_mask,
    removal_path,
    solve,
    sparsegpt,
    threshold,
    wanda,
)

INFINITY = float("inf")


def indefinite(xp, size: int = 4) -> Quadratic:
    """Every pair of channels could be one of data, all of them together could not: the least eigenvalue is -1.7."""
    gram = 1.9 * np.eye(size) - 0.9
    return Quadratic(xp.asarray(gram), xp.asarray(np.array([[1.0, 1.1, 0.9, 1.0], [1.0, -1.0, 2.0, 3.0]])))


def negative(xp) -> Quadratic:
    """A slope that the floor leaves no room for: at the minimum the loss is 1 - 50."""
    slope, floor = np.full((1, 2), 10.0), np.ones(1)
    return Quadratic(*map(xp.asarray, (np.eye(2) * 2, np.ones((1, 2)), slope, floor)))


def everything(problem: Quadratic, xp) -> dict:
    """What every solver of weights makes of a problem."""
    pattern, (rows, width) = TopK(0.5), problem.shape
    mask = xp.asarray(np.arange(width) % 2 == 0) & xp.asarray(np.ones((rows, 1), dtype=bool))
    return {
        "sparsegpt": lambda: sparsegpt(problem, pattern),
        "refit": lambda: refit(problem, mask),
        "l0_admm": lambda: l0_admm(problem, pattern, steps=8),
        "exchange_weights": lambda: exchange_weights(problem, pattern, magnitude(problem, pattern).weights),
        "fistapruner": lambda: fistapruner(problem, pattern),
        "wanda": lambda: wanda(problem, pattern),
        "dsnot": lambda: dsnot(problem, pattern),
        "affine_least_squares": lambda: affine_least_squares(
            problem, xp.asarray(np.ones((1, width))), xp.asarray(np.zeros((rows, 1)))
        ),
        "lasso": lambda: lasso(problem, L1(0.1), max_steps=100),
        "solve": lambda: solve(problem, L1(0.1), FISTA(), max_steps=200),
    }


@pytest.mark.parametrize("make", [indefinite, negative])
def test_no_solver_reports_an_error_below_zero(xp, make):
    problem = make(xp)
    for name, run in everything(problem, xp).items():
        with np.errstate(all="ignore"):
            found = run()
        certificate = found.certificate
        assert certificate.bound == -INFINITY and not certificate.relative_error < 0, name
        assert certificate.objective >= 0 or found.status is Status.BROKEN, f"{name}: {found}"
        if name in ("lasso", "solve"):
            assert found.status not in (Status.CONVERGED, Status.AT_ROUNDING, Status.DIRECT), name
    assert not problem.relative_error(problem.anchor + 5 * xp.asarray([[1.0, 1.0, 1.0, 1.0][: problem.shape[1]]])) < 0


def test_least_squares_below_zero_is_broken(xp):
    problem = indefinite(xp)
    assert problem.energy < 0
    found = refit(problem, xp.asarray(np.ones((2, 4), dtype=bool)))
    assert found.status is Status.BROKEN and found.certificate.relative_error == INFINITY and not found.certificate.sound
    assert problem.relative_error(0 * problem.anchor) == INFINITY


@pytest.mark.parametrize(
    "gram, message",
    [
        ([[1.0, 10.0], [10.0, 1.0]], r"entry \[0, 1\] is 10 but channels of norms 1 and 1 have an inner product of at most 1"),
        ([[0.0, 1.0], [1.0, 0.0]], r"not positive semidefinite: entry \[0, 1\] is 1 but"),
        ([[1e6, 0, 0], [0, 1.0, 0.9], [0, 0, 1.0]], r"not symmetric: entries \[1, 2\] and \[2, 1\] are 0.9 and 0"),
        ([[1e12, 0, 0], [0, 1e-6, 1e-5], [0, 1e-5, 1e-6]], r"entry \[1, 2\] is 1e-05"),
        ([[1.0, 0.0], [0.0, -2.0]], r"its diagonal, sums of squares, has negative entries, such as -2 at 1"),
    ],
)
def test_what_two_channels_show_is_refused(xp, gram, message):
    with pytest.raises(ValueError, match=message):
        Quadratic(xp.asarray(np.array(gram)), xp.asarray(np.ones((1, len(gram)))))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("unit", [1e-12, 1e-3, 1.0, 1e9])
def test_what_data_have_is_not_refused(xp, unit, dtype):
    """Duplicate, opposite and dead channels, and channels whose squares are next to nothing, or nothing, in float32."""
    rng = np.random.default_rng(0)
    inputs = (rng.normal(size=(500, 7)) * [1.0, 1e-6, 1e5, 1.0, 1.0, 1.0, 1e-12]).astype(dtype)
    inputs[:, 3], inputs[:, 4], inputs[:, 5] = inputs[:, 0], -2 * inputs[:, 0], 0
    gram = (inputs * np.asarray(unit, dtype=dtype)).T @ (inputs * np.asarray(unit, dtype=dtype))
    problem = Quadratic(xp.asarray(gram), xp.asarray(np.ones((2, 7), dtype=dtype)))
    assert problem.double.curvature > -1e-5


def test_the_curvature_of_a_gram_is_proven(xp):
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(50, 12))
    for made, low, high in (
        (inputs.T @ inputs, 0, 1),
        (inputs[:6].T @ inputs[:6], -1e-12, 0),
        (np.float32(inputs[:6]).T @ np.float32(inputs[:6]), -1e-5, 0),
    ):
        problem = Quadratic(xp.asarray(made.astype(float)), xp.asarray(np.ones((1, 12))))
        size = np.sqrt(np.diag(made))
        assert low <= problem.curvature <= high
        assert problem.curvature <= np.linalg.eigvalsh(made.astype(float) / size / size[:, None])[0] + 1e-13
    assert indefinite(xp).curvature == -INFINITY


def test_masks_of_an_impossible_loss(xp):
    """A = 1.9 I - 0.9: two units alone could be of data, four together are not."""
    problem = MaskProblem(*map(xp.asarray, (1.9 * np.eye(4) - 0.9, np.zeros(4))), 0.0, xp.asarray(np.ones(4)))
    relaxed = relaxed_mask(problem, 1.0, max_steps=30)
    for certificate in (
        relaxed.certificate,
        certify_mask(problem, xp.asarray(np.array([True, False, False, False])), 1.0),
        newton_score(problem, 1.0).certificate,
        threshold(problem, relaxed).certificate,
    ):
        assert certificate.bound == -INFINITY and not certificate.relative_error < 0 and not certificate.sound
    assert relaxed.status is Status.BROKEN
    with pytest.raises(ValueError, match=r"matrix is not positive semidefinite: entry \[0, 1\] is 3"):
        MaskProblem(*map(xp.asarray, (np.array([[1.0, 3.0], [3.0, 1.0]]), np.zeros(2))), 0.0, xp.asarray(np.ones(2)))


def test_chains_of_masks_of_an_impossible_loss(xp):
    for problem in (indefinite(xp), negative(xp)):
        for run in (greedy_removal, lambda problem: removal_path(problem, list(range(problem.shape[1])))):
            with pytest.raises(ValueError, match="the chain of masks has no losses"):
                run(problem)


def test_a_floor_below_zero_has_no_bound(xp):
    arrays = np.eye(2), np.ones((1, 2)), np.zeros((1, 2)), np.array([-0.5])
    certificate = certify(Quadratic(*map(xp.asarray, arrays)), L1(0.1), xp.asarray(np.array([[1.0, 1.0]])))
    assert certificate.bound == -INFINITY and not certificate.sound and certificate.relative_error == INFINITY
