"""Estimators by scikit-learn's conventions, against its own estimators at tiny tolerances, and against brute force."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("sklearn")

from scipy import sparse
from sklearn import linear_model
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from gramian.solvers import regression
from gramian.solvers.regression import ElasticNet, ElasticNetCV, L0Regression, Lasso, LassoCV, NonNegativeLeastSquares


def rows_of(seed: int, count: int = 60, width: int = 8, targets: int = 0, noise: float = 0.5):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + 3
    weights = rng.normal(size=(width, targets or 1)) * (rng.random((width, targets or 1)) < 0.5)
    outputs = inputs @ weights + 2 + noise * rng.normal(size=(count, targets or 1))
    return inputs, outputs if targets else outputs[:, 0]


def objective(model, inputs, targets, alpha, ratio, weights=None):
    """scikit-learn's, per target."""
    weights = np.ones(len(inputs)) if weights is None else weights
    v = np.atleast_2d(model.coef_).astype(float)
    residual = targets.reshape(len(targets), -1) - inputs @ v.T - model.intercept_
    fit = weights @ residual**2 / (2 * weights.sum())
    return fit + alpha * (ratio * np.abs(v).sum(axis=1) + 0.5 * (1 - ratio) * (v**2).sum(axis=1))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [ElasticNet(), ElasticNetCV(alphas=4, cv=3), L0Regression(), Lasso(), LassoCV(alphas=4, cv=3), NonNegativeLeastSquares()]
)
def test_conventions_hold(estimator, check):
    check(estimator)


@pytest.mark.parametrize("alpha, ratio", [(0.3, 1.0), (0.01, 1.0), (0.3, 0.5), (1e-4, 0.9), (0.2, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("weighted", [False, True])
def test_objectives_are_at_most_those_of_scikit_learn(alpha, ratio, weighted):
    inputs, targets = rows_of(0)
    weights = np.random.default_rng(1).uniform(0.1, 3, size=len(inputs)) if weighted else None
    ours = ElasticNet(alpha, l1_ratio=ratio, tol=1e-12).fit(inputs, targets, sample_weight=weights)
    if alpha == 0:
        theirs = linear_model.LinearRegression().fit(inputs, targets, sample_weight=weights)
    else:
        peer = linear_model.ElasticNet(alpha=alpha, l1_ratio=ratio, tol=1e-14, max_iter=100_000)
        theirs = peer.fit(inputs, targets, sample_weight=weights)
    mine, other = (objective(model, inputs, targets, alpha, ratio, weights)[0] for model in (ours, theirs))
    assert mine <= other * (1 + 1e-12)
    assert mine - ours.dual_gap_ <= other * (1 + 1e-12)  # the bound is one
    assert ours.dual_gap_ <= 1e-9 * mine


def test_a_lasso_is_an_elastic_net_of_ratio_one():
    inputs, targets = rows_of(2)
    one, other = Lasso(0.1).fit(inputs, targets), ElasticNet(0.1, l1_ratio=1).fit(inputs, targets)
    assert np.array_equal(one.coef_, other.coef_) and one.intercept_ == other.intercept_


@pytest.mark.parametrize(
    "make", [lambda: Lasso(0.2), lambda: ElasticNet(0.2), lambda: NonNegativeLeastSquares(), lambda: L0Regression(3)]
)
def test_many_targets_are_those_one_by_one(make):
    inputs, targets = rows_of(3, targets=4)
    together = make().fit(inputs, targets)
    assert together.coef_.shape == (4, 8) and together.intercept_.shape == (4,)
    for place in range(4):
        alone = make().fit(inputs, targets[:, place])
        assert np.allclose(together.coef_[place], alone.coef_, atol=1e-9)
        assert together.intercept_[place] == pytest.approx(alone.intercept_, abs=1e-8)
    assert np.allclose(together.predict(inputs)[:, 0], inputs @ together.coef_[0] + together.intercept_[0])


def test_non_negative_least_squares():
    inputs, targets = rows_of(4)
    ours, theirs = (
        NonNegativeLeastSquares().fit(inputs, targets),
        linear_model.LinearRegression(positive=True).fit(inputs, targets),
    )
    assert ours.coef_.min() >= 0 and (ours.coef_ == 0).any()
    mine, other = (objective(model, inputs, targets, 0.0, 1.0)[0] for model in (ours, theirs))
    assert mine <= other * (1 + 1e-6)
    assert mine - ours.dual_gap_ <= other * (1 + 1e-12)
    assert 0 <= ours.dual_gap_ <= 1e-6 * mine


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_positive_coefficients(ratio):
    inputs, targets = rows_of(5)
    ours = ElasticNet(0.1, l1_ratio=ratio, positive=True).fit(inputs, targets)
    theirs = linear_model.ElasticNet(alpha=0.1, l1_ratio=ratio, positive=True, tol=1e-14, max_iter=100_000).fit(inputs, targets)
    assert ours.coef_.min() >= 0
    mine, other = (objective(model, inputs, targets, 0.1, ratio)[0] for model in (ours, theirs))
    assert mine <= other * (1 + 1e-6) and mine - ours.dual_gap_ <= other * (1 + 1e-12)


def test_few_coefficients_against_brute_force():
    inputs, targets = rows_of(6, noise=2.0)
    for kept in (1, 2, 3, 8):
        model = L0Regression(kept).fit(inputs, targets)
        assert (model.coef_ != 0).sum() <= kept
        losses = []
        for support in itertools.combinations(range(8), kept):
            plain = linear_model.LinearRegression().fit(inputs[:, support], targets)
            losses.append(np.mean((plain.predict(inputs[:, support]) - targets) ** 2) / 2)
        mine = objective(model, inputs, targets, 0.0, 1.0)[0]
        assert mine <= min(losses) * 1.02  # a search, not a proof
        assert mine >= min(losses) * (1 - 1e-9)
        assert model.certificate_.objective == pytest.approx(mine * len(inputs), rel=1e-9)


@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_matrix])
def test_sparse_inputs(container):
    rng = np.random.default_rng(7)
    inputs = np.where(rng.random((80, 6)) < 0.3, rng.normal(size=(80, 6)), 0)
    targets = inputs @ [1.0, 0, -2, 0, 0, 3] + 5 + 0.1 * rng.normal(size=80)
    for make in (lambda: Lasso(0.01), lambda: LassoCV(alphas=5, cv=3), lambda: L0Regression(3)):
        one, other = make().fit(container(inputs), targets), make().fit(inputs, targets)
        assert np.allclose(one.coef_, other.coef_, atol=1e-9) and one.intercept_ == pytest.approx(other.intercept_)
        assert np.allclose(one.predict(container(inputs)), other.predict(inputs))


def test_float32_inputs_have_float32_coefficients_and_a_gap_of_just_those():
    inputs, targets = rows_of(8)
    model = Lasso(0.1, tol=1e-10).fit(inputs.astype(np.float32), targets)
    assert model.coef_.dtype == np.float32
    best = Lasso(0.1, tol=1e-12).fit(inputs.astype(np.float32).astype(float), targets)
    off = objective(model, inputs.astype(np.float32).astype(float), targets, 0.1, 1.0)[0]
    assert off - model.dual_gap_ <= objective(best, inputs.astype(np.float32).astype(float), targets, 0.1, 1.0)[0] * (1 + 1e-12)
    assert model.dual_gap_ > 0  # they are rounded, and it says so


def test_a_warm_start_goes_on_from_the_fit_before():
    inputs, targets = rows_of(9, 200, 40)
    model = Lasso(0.05, warm_start=True).fit(inputs, targets)
    steps = model.n_iter_
    assert model.fit(inputs, targets).n_iter_ == 0 < steps


def test_a_fit_that_does_not_converge_says_how_far_it_came():
    inputs, targets = rows_of(10, 100, 50)
    with pytest.warns(ConvergenceWarning, match="did not converge.*gap.*tolerance: 1e-12, after 1 steps"):
        model = Lasso(0.01, max_iter=1).fit(inputs, targets)
    assert model.dual_gap_ > 1e-6 * objective(model, inputs, targets, 0.01, 1.0)[0]
    with pytest.warns(ConvergenceWarning, match=r"did not converge.*after 1 steps, in \d+ of 10 fits"):
        LassoCV(alphas=3, cv=3, max_iter=1).fit(inputs, targets)


@pytest.mark.parametrize(
    "model, message",
    [
        (Lasso(-1.0), "alpha must be finite and at least zero but is -1"),
        (ElasticNet(l1_ratio=1.5), "l1_ratio must be between 0 and 1 but is 1.5"),
        (Lasso(max_iter=0), "max_iter must be a whole number of at least one but is 0"),
        (Lasso(tol=-1), "tol must be at least zero but is -1"),
        (L0Regression(9), "from 1 to the number of features, 8, but is 9"),
        (L0Regression(0), "but is 0"),
        (ElasticNetCV(l1_ratio=0.0), "l1_ratio=0: give the alphas"),
        (LassoCV(alphas=0), "at least one alpha"),
    ],
)
def test_numbers_out_of_range_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(*rows_of(11))


def test_without_scikit_learn_one_sentence_says_what_to_install():
    code = "import sys; sys.modules['sklearn'] = None\nimport gramian.solvers\nimport gramian.solvers.regression"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "needs sklearn: pip install 'gramian[sklearn]'" in done.stderr.splitlines()[-1]


def test_the_solvers_do_not_import_scikit_learn():
    code = "import gramian.solvers as s, sys; [getattr(s, name) for name in s.__all__]; print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
    assert "sklearn" in sys.modules and regression.__all__ == sorted(regression.__all__)
