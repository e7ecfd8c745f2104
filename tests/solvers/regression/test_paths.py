"""Paths and cross-validation against fits one by one, and against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn import linear_model
from sklearn.model_selection import KFold, LeaveOneOut, ShuffleSplit

from gramian.solvers.core.target_rows import TargetData
from gramian.solvers.core.targets import TargetMoments, moments_of
from gramian.solvers.regression import ElasticNet, ElasticNetCV, Lasso, LassoCV, elastic_net_path, plot_path
from gramian.solvers.regression.validation import all_but_one, among, shared_moments


def rows_of(seed: int, count: int = 60, width: int = 8, targets: int = 0):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + 3
    weights = rng.normal(size=(width, targets or 1)) * (rng.random((width, targets or 1)) < 0.5)
    outputs = inputs @ weights + 2 + rng.normal(size=(count, targets or 1))
    return inputs, outputs if targets else outputs[:, 0]


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_a_path_is_the_fits_one_by_one(ratio):
    inputs, targets = rows_of(0, targets=2)
    path = elastic_net_path(inputs, targets, l1_ratio=ratio, alphas=6, eps=1e-2)
    assert path.coefficients.shape == (2, 8, 6) and path.intercepts.shape == path.dual_gaps.shape == (2, 6)
    assert np.all(np.diff(path.alphas) < 0) and not path.coefficients[:, :, 0].any() and path.coefficients[:, :, 1].any()
    for place, alpha in enumerate(path.alphas):
        model = ElasticNet(alpha, l1_ratio=ratio).fit(inputs, targets)
        assert np.allclose(path.coefficients[:, :, place], model.coef_, atol=1e-8)
        assert np.allclose(path.intercepts[:, place], model.intercept_, atol=1e-7)


def test_a_plot_has_a_line_for_every_coefficient_that_is_ever_nonzero():
    pytest.importorskip("matplotlib")
    path = elastic_net_path(*rows_of(1), alphas=5)
    axes = plot_path(path, names=[f"x{place}" for place in range(8)])
    assert len(axes.lines) == (path.coefficients != 0).any(axis=1).sum() and axes.get_legend() is not None
    assert np.array_equal(axes.lines[0].get_xdata(), path.alphas)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("cv", [4, ShuffleSplit(3, random_state=0), LeaveOneOut()], ids=["folds", "shuffles", "one out"])
def test_errors_of_folds_are_those_of_scikit_learn(weighted, intercept, cv):
    inputs, targets = rows_of(2, count=24, width=4)
    weights = np.random.default_rng(3).uniform(0.2, 2, size=24) if weighted else None
    ours = LassoCV(alphas=5, cv=cv, fit_intercept=intercept, tol=1e-12).fit(inputs, targets, sample_weight=weights)
    peer = linear_model.LassoCV(alphas=5, cv=cv, fit_intercept=intercept, tol=1e-12, max_iter=100_000)
    theirs = peer.fit(inputs, targets, sample_weight=weights)
    assert np.allclose(ours.alphas_, theirs.alphas_, rtol=1e-10)
    close = 1e-5 * theirs.mse_path_.max()  # coefficients are within the root of the gap
    assert np.allclose(ours.mse_path_, theirs.mse_path_, rtol=1e-5, atol=close)
    assert ours.alpha_ == pytest.approx(theirs.alpha_) and np.allclose(ours.coef_, theirs.coef_, atol=1e-5)


def test_several_ratios():
    inputs, targets = rows_of(4)
    ours = ElasticNetCV(l1_ratio=[0.3, 0.9], alphas=6, cv=3, tol=1e-12).fit(inputs, targets)
    peer = linear_model.ElasticNetCV(l1_ratio=[0.3, 0.9], alphas=6, cv=3, tol=1e-12, max_iter=100_000)
    theirs = peer.fit(inputs, targets)
    assert ours.mse_path_.shape == theirs.mse_path_.shape == (2, 6, 3)
    assert np.allclose(ours.mse_path_, theirs.mse_path_, rtol=1e-5)
    assert ours.l1_ratio_ == theirs.l1_ratio_ and ours.alpha_ == pytest.approx(theirs.alpha_)


def test_every_target_chooses_its_own():
    inputs, targets = rows_of(5, targets=3)
    targets[:, 1] = np.random.default_rng(6).normal(size=len(targets))  # nothing to fit: a large alpha
    together = LassoCV(alphas=[1.0, 0.1, 0.01, 1e-3], cv=3, tol=1e-12).fit(inputs, targets)
    assert together.alpha_.shape == (3,) and together.mse_path_.shape == (3, 4, 3) and together.alpha_[1] > together.alpha_[0]
    for place in range(3):
        alone = LassoCV(alphas=[1.0, 0.1, 0.01, 1e-3], cv=3, tol=1e-12).fit(inputs, targets[:, place])
        assert together.alpha_[place] == alone.alpha_
        assert np.allclose(together.coef_[place], alone.coef_, atol=1e-6)
        assert np.allclose(together.mse_path_[place], alone.mse_path_, rtol=1e-5)
    best = Lasso(float(together.alpha_[0])).fit(inputs, targets[:, 0])
    assert np.allclose(best.coef_, together.coef_[0], atol=1e-6)


def test_moments_of_folds_add_up_and_a_feature_of_one_fold_is_dead_without_it():
    """Were the fold subtracted from the whole, rounding of what was large would be left of the feature."""
    inputs, targets = rows_of(7, count=30)
    inputs[:, 3] = 0
    inputs[:10, 3] = 1e9 * np.random.default_rng(8).normal(size=10)
    data = TargetData.of(inputs, targets)
    folds = list(KFold(3).split(inputs))
    whole, parts = shared_moments(data, folds)
    for (fit, _), part in zip(folds, parts):
        expected = moments_of(data.rows(fit))
        assert part.rows == expected.rows == 20
        assert np.allclose(part.gram, expected.gram, rtol=1e-12, atol=1e-12 * np.abs(expected.gram).max())
        assert (part.gram[3, 3] == 0) == (fit.min() == 10)
    assert whole.rows == 30 and np.allclose(whole.gram, moments_of(data).gram, rtol=1e-12)


def test_all_but_one_of_any_number_of_parts():
    parts = []
    for place in range(7):
        parts.append(TargetMoments(1))
        parts[-1].update(np.array([[2.0**place]]), np.ones(1))
    for place, others in enumerate(all_but_one(parts, TargetMoments(1))):
        assert others.rows == 6 and others.mean[0] * 6 == pytest.approx(127 - 2.0**place)


def test_rows_of_weight_zero_are_out_of_every_fold():
    inputs, targets = rows_of(9, count=30)
    weights = np.ones(30)
    weights[[0, 7, 29]] = 0
    kept = np.flatnonzero(weights)
    assert among(kept, np.array([0, 1, 29, 28])).tolist() == [0, 26]
    one = LassoCV(alphas=4, cv=[(np.arange(15), np.arange(15, 30))]).fit(inputs, targets, sample_weight=weights)
    place = np.cumsum(weights).astype(int) - 1
    folds = [(place[np.arange(15)[weights[:15] > 0]], place[15 + np.flatnonzero(weights[15:])])]
    other = LassoCV(alphas=4, cv=folds).fit(inputs[kept], targets[kept])
    assert np.allclose(one.mse_path_, other.mse_path_) and np.allclose(one.coef_, other.coef_)
