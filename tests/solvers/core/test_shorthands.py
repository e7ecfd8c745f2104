"""Patterns as text or a sparsity, L1 terms as a number; and what is neither is told what is wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from gramian.proofs.kit.strategies import normal_layer
from gramian.solvers import (
    FISTA,
    L1,
    NM,
    Affine,
    Support,
    TopK,
    certify,
    dsnot,
    empirical_ridge,
    exchange,
    exchange_weights,
    fistapruner,
    fistapruner_printed,
    l0_admm,
    lasso,
    magnitude,
    refit,
    solve,
    sparsegpt,
    wanda,
)

LAYER = normal_layer(31, 60, 8, 3)
METHODS = {
    "magnitude": magnitude,
    "wanda": wanda,
    "sparsegpt": sparsegpt,
    "dsnot": dsnot,
    "l0_admm": l0_admm,
    "exchange": exchange,
    "exchange_weights": lambda problem, pattern: exchange_weights(problem, pattern, 0 * problem.anchor),
    "fistapruner": fistapruner,
    "fistapruner_printed": lambda problem, pattern: fistapruner_printed(problem, pattern, max_lambdas=3),
}
COUNTED = ("sparsegpt", "dsnot", "exchange", "exchange_weights")


@dataclass(frozen=True)
class Own:
    """A user's pattern: what `TopK` keeps."""

    like = TopK(0.5)

    def check(self, shape):
        self.like.check(shape)

    def select(self, score):
        return self.like.select(score)

    def largest(self, score):
        return self.like.largest(score)

    def admits(self, mask):
        return self.like.admits(mask)


@pytest.mark.parametrize("method", METHODS)
def test_a_pattern_is_a_text_or_a_sparsity_too(xp, method):
    problem, call = LAYER.problem(xp), METHODS[method]
    for short, pattern in (
        ("2:4", NM(2, 4)),
        (" 1:2 ", NM(1, 2)),
        (0.5, TopK(0.5)),
        (np.float32(0.25), TopK(0.25)),
        (0, TopK(0)),
    ):
        found, expected = call(problem, short), call(problem, pattern)
        np.testing.assert_array_equal(xp.numpy(found.weights), xp.numpy(expected.weights))


@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_pattern_is_told_what_is(xp, method):
    problem, call = LAYER.problem(xp), METHODS[method]
    wanted = r"a pattern is TopK\(0.5\), NM\(2, 4\), '2:4' or a sparsity such as 0.5 but got "
    for wrong, named in ((TopK, "the class TopK"), (None, "None"), (True, "True"), (np.ones((3, 8)), r"an array \(3, 8\)")):
        with pytest.raises(TypeError, match=wanted + named):
            call(problem, wrong)
    for wrong, message in (
        ("50%", "a pattern is written n:m"),
        (50, r"sparsity must be in \[0, 1\) but is 50"),
        ("3:5", "of 5"),
    ):
        with pytest.raises(ValueError, match=message):
            call(problem, wrong)


@pytest.mark.parametrize("method", METHODS)
def test_a_users_pattern_works_or_is_told_where_it_does_not(xp, method):
    problem, call = LAYER.problem(xp), METHODS[method]
    if method not in COUNTED:
        options = {"warm_start": "wanda"} if method == "fistapruner" else {}
        assert int((call(problem, Own(), **options).weights == 0).sum()) == 12 if xp.name != "strict" else True
        return
    with pytest.raises(TypeError, match=f"{method} takes TopK and NM, whose zeros it can count .* but got Own"):
        call(problem, Own())


def test_the_pilot_of_the_ridge_and_a_warm_start_count_zeros(xp):
    problem = LAYER.problem(xp)
    np.testing.assert_array_equal(
        xp.numpy(empirical_ridge(problem, "2:4", 60).ridge), xp.numpy(empirical_ridge(problem, NM(2, 4), 60).ridge)
    )
    with pytest.raises(TypeError, match="empirical_ridge takes TopK and NM"):
        empirical_ridge(problem, Own(), 60)
    with pytest.raises(TypeError, match="its warm start, sparsegpt, takes TopK and NM"):
        fistapruner(problem, Own())
    with pytest.raises(TypeError, match="its warm start, sparsegpt, takes TopK and NM"):
        fistapruner_printed(problem, Own(), warm_start="sparsegpt")


def test_a_number_is_an_l1_term(xp):
    problem = LAYER.problem(xp)
    for number in (3.0, 3, np.float64(3)):
        for one, other in (
            (lasso(problem, number), lasso(problem, L1(3.0))),
            (solve(problem, number, FISTA()), solve(problem, L1(3.0), FISTA())),
        ):
            np.testing.assert_array_equal(xp.numpy(one.weights), xp.numpy(other.weights))
        assert certify(problem, number, problem.anchor) == certify(problem, L1(3.0), problem.anchor)


def test_what_is_no_term_or_solver_is_told_what_is(xp):
    problem, support = LAYER.problem(xp), Support(xp.asarray(LAYER.weight > 0))
    with pytest.raises(TypeError, match=r"lasso takes an L1 term, .* but got Support\(3x8.*: `solve` takes any term"):
        lasso(problem, support)
    for wrong, named in (("2:4", "'2:4'"), (L1, "the class L1"), (TopK(0.5), "TopK"), (True, "True")):
        with pytest.raises(TypeError, match=rf"a term (has a proximal map|is an object such as) .* but got {named}"):
            solve(problem, wrong, FISTA())
        with pytest.raises(TypeError, match=r"has neither polar|is an object such as L1\(0.5\)"):
            certify(problem, wrong, problem.anchor)
        with pytest.raises(TypeError, match="lasso takes an L1 term"):
            lasso(problem, wrong)
    for wrong, named in ((FISTA, "the class FISTA"), (None, "None"), ("fista", "'fista'")):
        with pytest.raises(TypeError, match=rf"a solver has init, step and weights, as FISTA\(\) has, but got {named}"):
            solve(problem, 1.0, wrong)


@pytest.mark.parametrize("shape", [(4,), (3,), (2, 8), (3, 7), (8, 1), (1, 3, 8), (2, 3, 8)])
def test_an_l1_weight_of_another_shape_is_refused_with_both(xp, shape):
    problem, term = LAYER.problem(xp), L1(xp.asarray(np.ones(shape)))
    own = ", ".join(map(str, shape))
    sides = rf"an L1 weight is \({own},?\) but the problem's weight is \(3, 8\): it must be a number, \(8,\), "
    for call in (
        lambda: lasso(problem, term),
        lambda: solve(problem, term, FISTA()),
        lambda: certify(problem, term, problem.anchor),
    ):
        with pytest.raises(ValueError, match=sides):
            call()


@pytest.mark.parametrize("shape", [(), (1,), (8,), (1, 8), (3, 1), (3, 8), (1, 1)])
def test_an_l1_weight_that_fits_is_the_same_spread_out(xp, shape):
    weight = np.random.default_rng(0).uniform(1, 5, shape)
    problem, spread = LAYER.problem(xp), xp.asarray(np.array(np.broadcast_to(weight, (3, 8))))
    for run in (lasso, lambda problem, term: solve(problem, term, FISTA())):
        one, other = run(problem, L1(xp.asarray(weight))), run(problem, L1(spread))
        np.testing.assert_allclose(xp.numpy(one.weights), xp.numpy(other.weights), rtol=0, atol=1e-9)


def test_other_terms_fit_or_are_refused_before_work(xp):
    problem = LAYER.problem(xp)
    with pytest.raises(ValueError, match=r"the mask is \(3, 7\) but the problem's weight is \(3, 8\)"):
        solve(problem, Support(xp.asarray(np.ones((3, 7), bool))), FISTA())
    with pytest.raises(ValueError, match=r"A is \(1, 7\) and D is \(3, 1\) but the weight is \(3, 8\)"):
        solve(problem, Affine(xp.asarray(np.ones((1, 7))), xp.asarray(np.ones((3, 1)))), FISTA())
    with pytest.raises(ValueError, match=r"the mask is \(8,\) but the problem's weight is \(3, 8\)"):
        refit(problem, xp.asarray(np.ones(8, bool)))
