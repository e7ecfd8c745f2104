"""Local search over supports: against brute force over every exchange, closed forms, and its own promises."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from least_squares import PATTERNS, exchanges, improve, random_start, refit_loss, size

import gramian.solvers.support.exchange as module
from gramian.proofs.kit.strategies import Layer, from_gram, layers, normal_layer
from gramian.solvers import NM, Quadratic, Status, TopK, l0_admm, refit, sparsegpt
from gramian.solvers.support.exchange import Tableau, exchange_weights

# -- the end of the search ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("drift", [0.0, 0.4])
def test_no_exchange_helps_when_it_says_so(xp, pattern, drift):
    moved = 0.0
    for seed in range(3):
        layer = normal_layer(seed, 14, 8, 3, condition=30.0, drift=drift)
        start = random_start(seed, layer, pattern)
        point, solution = improve(xp, layer, pattern, start, rounds=30)
        assert solution.status is Status.SWAP_OPTIMAL and solution.detail["ridge"] == 0
        assert solution.detail["swap_optimal"] == 1 and solution.detail["rows_at_rest"] == 3
        assert all(gain <= 1.1e-6 * loss + 1e-11 * zero for gain, loss, zero in exchanges(layer, point != 0, pattern))
        moved += solution.detail["exchanges"] + solution.detail["shifts"]
        helped = any(gain > 1e-3 * loss for gain, loss, _ in exchanges(layer, start != 0, pattern))
        assert helped == (solution.certificate.objective < (1 - 1e-6) * refit_loss(layer, start != 0))
    assert moved > 6


@given(layer=layers(tokens=9, inputs=6), seed=st.integers(0, 99), per_row=st.booleans())
@settings(max_examples=20)
def test_any_layer(xp, layer: Layer, seed, per_row):
    """Singular, dead, duplicated, tied, one row, one column, more channels than tokens, scales 1e-6 and 1e6, X* != X."""
    pattern = TopK(0.5, per_row)
    point, solution = improve(xp, layer, pattern, random_start(seed, layer, pattern), rounds=30)
    rounding = 1e-11 * (layer.magnitude(point) + size(layer))
    assert abs(solution.certificate.objective - layer.loss(point)) <= rounding
    figures = [error for _, error in solution.history]
    assert all(later <= earlier + 1e-6 for earlier, later in pairwise(figures))
    if solution.detail["swap_optimal"]:  # to within the ridge, 1e-7 where channels depend on each other
        found = exchanges(layer, point != 0, pattern)
        assert all(gain <= 2e-6 * loss + 3e-6 * zero + rounding for gain, loss, zero in found)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_channels_that_do_not_interact(xp, pattern):
    """With G diagonal the best support is the pattern of the largest v_j^2 G_jj, and any start must lead there."""
    rng = np.random.default_rng(80)
    diagonal, weight = rng.uniform(0.1, 10, size=16), rng.normal(size=(4, 16)) * np.logspace(-1, 1, 4)[:, None]
    layer = from_gram(np.diag(diagonal), weight)
    for seed in range(2):
        point, solution = improve(xp, layer, pattern, random_start(seed, layer, pattern), rounds=40, candidates=8)
        np.testing.assert_array_equal(point != 0, pattern.select(weight**2 * diagonal))
        assert solution.detail["swap_optimal"] == 1
        assert (solution.detail["shifts"] > 0) == (pattern == TopK(0.5))


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_a_planted_support_is_found_again(xp, pattern):
    """W satisfies the pattern and the start keeps some wrong weights for right ones: the loss is zero again."""
    layer = normal_layer(81, 200, 24, 5, condition=5.0)
    support = pattern.select(np.random.default_rng(81).random((5, 24)))
    layer = Layer(layer.inputs, np.where(support, layer.weight, 0.0))
    score = np.where(support, 1.0, 0.0) + 0.7 * np.random.default_rng(82).random((5, 24)) - 0.9 * (np.arange(24) % 5 == 0)
    wrong = pattern.select(score)
    assert not np.array_equal(wrong, support)
    point, solution = improve(xp, layer, pattern, np.where(wrong, 1.0, 0.0), rounds=30)
    np.testing.assert_allclose(point, layer.weight, atol=1e-6)
    assert solution.certificate.relative_error <= 1e-12


@pytest.mark.parametrize("pattern", (TopK(0.5), NM(2, 4)), ids=str)
def test_worth_of_the_search(xp, pattern):
    """From SparseGPT's mask more than a tenth of the error goes; from a better one hardly any is left to take."""
    from_sweep, from_search = [], []
    for seed in range(2):
        problem = normal_layer(seed, 90, 32, 6, condition=60.0).problem(xp)
        for found, start in ((from_sweep, sparsegpt(problem, pattern)), (from_search, l0_admm(problem, pattern))):
            refitted = refit(problem, start.weights != 0, start=start.weights).certificate.objective
            better = exchange_weights(problem, pattern, start.weights).certificate.objective
            found.append(better / refitted)
    assert np.mean(from_sweep) < 0.9 and np.mean(from_sweep) < np.mean(from_search)


# -- the pattern -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", [*PATTERNS, TopK(0.3), TopK(0.8, per_row=True)], ids=str)
@pytest.mark.parametrize("candidates", [2, 8, 64])
def test_counts_stay(xp, pattern, candidates):
    layer = normal_layer(83, 40, 16, 5, condition=30.0)
    start = random_start(83, layer, pattern)
    point, _ = improve(xp, layer, pattern, start, candidates=candidates, rounds=4)
    size = pattern.group if isinstance(pattern, NM) else 16 if pattern.per_row else point.size
    np.testing.assert_array_equal(*((array.reshape(-1, size) != 0).sum(axis=1) for array in (point, start)))


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_what_the_pattern_admits_is_used(xp, pattern):
    """A start with fewer weights than the pattern admits, down to none, is filled up."""
    layer = normal_layer(84, 40, 16, 4, condition=10.0)
    start = random_start(84, layer, pattern)
    for missing in (start * (np.arange(16) % 3 > 0), np.zeros_like(start)):
        point, solution = improve(xp, layer, pattern, missing)
        assert np.sum(point != 0) == np.sum(start != 0)
        assert solution.certificate.objective < refit_loss(layer, missing != 0)


def test_dead_channels_are_given_up(xp):
    layer = normal_layer(85, 60, 12, 4, condition=10.0, dead=4)
    dead = ~np.any(layer.inputs, axis=0)
    start = np.where(dead, layer.weight, 0.0)
    start[:, np.flatnonzero(~dead)[:2]] = 1.0
    point, solution = improve(xp, layer, TopK(0.5, per_row=True), start)
    assert np.all(point[:, dead] == 0) and np.all(np.sum(point != 0, axis=1) == 6)
    assert solution.detail["ridge"] == 0 and solution.detail["swap_optimal"] == 1


@pytest.mark.parametrize("pattern", [TopK(0.0), NM(4, 4), TopK(0.0, per_row=True)], ids=str)
def test_nothing_to_exchange(xp, pattern):
    layer = normal_layer(86, 30, 8, 3, drift=0.2)
    point, solution = improve(xp, layer, pattern, layer.weight)
    np.testing.assert_allclose(point, np.linalg.lstsq(layer.inputs, layer.outputs, rcond=None)[0].T, rtol=1e-9)
    assert solution.detail["exchanges"] == solution.detail["shifts"] == 0 and solution.detail["swap_optimal"] == 1


def test_no_inputs_at_all(xp):
    problem = Quadratic(xp.asarray(np.zeros((4, 4))), xp.asarray(np.ones((2, 4))))
    solution = exchange_weights(problem, NM(2, 4), xp.asarray(np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])))
    assert solution.certificate.objective == 0 and solution.detail["swap_optimal"] == 1


# -- honesty -----------------------------------------------------------------------------------------------------------


def test_no_claim_without_proof(xp):
    """Rounds that end too early, or candidates that never include every channel, prove nothing."""
    layer = normal_layer(87, 80, 24, 3, condition=30.0)
    start = random_start(87, layer, TopK(0.5))
    for options in ({"rounds": 1}, {"rounds": 0}, {"rounds": 60, "candidates": 8, "widest": 16}):
        _, solution = improve(xp, layer, TopK(0.5), start, **options)
        assert solution.detail["swap_optimal"] == 0 and solution.steps <= options["rounds"]
    assert solution.steps < 60 and solution.detail["rows_at_rest"] == 0
    point, solution = improve(xp, layer, TopK(0.5), start, rounds=60, candidates=8, widest=32)
    assert solution.detail["swap_optimal"] == 1
    assert all(gain <= 1.1e-6 * loss for gain, loss, _ in exchanges(layer, point != 0, TopK(0.5)))


def test_no_rounds_is_the_refit(xp):
    layer = normal_layer(88, 40, 12, 3, condition=30.0)
    start = random_start(88, layer, TopK(0.5))
    point, solution = improve(xp, layer, TopK(0.5), start, rounds=0)
    expected = refit(layer.problem(xp), xp.asarray(start != 0), start=xp.asarray(start))
    np.testing.assert_array_equal(point, xp.numpy(expected.weights))
    assert solution.certificate == expected.certificate and solution.history == ()


def test_history_never_rises(xp):
    layer = normal_layer(89, 70, 24, 5, condition=100.0)
    for pattern in (TopK(0.6), NM(2, 4)):
        start = random_start(89, layer, pattern)
        _, solution = improve(xp, layer, pattern, start, candidates=8, rounds=25)
        errors = [refit_loss(layer, start != 0) / layer.energy, *(error for _, error in solution.history)]
        assert len(errors) > 5 and all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(errors))
        assert solution.certificate.relative_error == pytest.approx(errors[-1], rel=1e-9)
        assert [step for step, _ in solution.history] == list(range(1, solution.steps + 1))


def test_wrong_factorisations_are_refused(xp, monkeypatch):
    """Whatever the tableau was made of, a row's loss is computed anew: it does not rise, and the search goes on."""
    layer = normal_layer(90, 60, 16, 5, condition=30.0)
    start = random_start(90, layer, NM(2, 4))
    exact, calls = module.solve_positive, []

    def spoiled(matrices, right):
        calls.append(len(calls))
        solved, positive = exact(matrices, right)
        return (-solved if len(calls) <= 3 else solved), positive

    monkeypatch.setattr(module, "solve_positive", spoiled)
    _, spoilt = improve(xp, layer, NM(2, 4), start, rounds=40)
    assert len(calls) > 3 and spoilt.detail["swap_optimal"] == 1
    assert spoilt.certificate.objective < 0.5 * refit_loss(layer, start != 0)
    none = np.zeros(5, dtype=bool)
    monkeypatch.setattr(module, "solve_positive", lambda matrices, right: (right, xp.asarray(none[: right.shape[0]])))
    _, lost = improve(xp, layer, NM(2, 4), start, rounds=40)
    assert lost.certificate.objective == pytest.approx(refit_loss(layer, start != 0))
    assert lost.detail["rows_at_rest"] == lost.detail["swap_optimal"] == 0


def test_shifts_that_do_not_help_are_refused(xp, monkeypatch):
    layer = normal_layer(91, 60, 16, 6, condition=30.0)
    start = random_start(91, layer, TopK(0.5))
    tried, exact = [], module.best_shifts

    def worst(worth, mask, tolerance):
        tried.append(len(tried))
        rows = np.flatnonzero(mask.any(axis=1) & ~mask.all(axis=1))
        keen = np.where(mask, np.nan_to_num(worth), -np.inf)
        wrong = [(int(a), int(np.argmax(keen[a])), int(b), int(np.argmin(mask[b]))) for a, b in zip(rows[::2], rows[1::2])]
        return wrong if len(tried) <= 2 else exact(worth, mask, tolerance)

    monkeypatch.setattr(module, "best_shifts", worst)
    _, solution = improve(xp, layer, TopK(0.5), start, rounds=40)
    errors = [error for _, error in solution.history]
    assert len(tried) > 2 and all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(errors))


# -- the tableau -------------------------------------------------------------------------------------------------------


def tableau(gram: np.ndarray, slope: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Table, values and least loss of 1/2 v G v - slope v on a support, by explicit inverses."""
    gone, table, values = ~kept, np.empty_like(gram), np.empty(len(gram))
    inverse = np.linalg.inv(gram[np.ix_(kept, kept)])
    cross = inverse @ gram[np.ix_(kept, gone)]
    table[np.ix_(kept, kept)], table[np.ix_(kept, gone)], table[np.ix_(gone, kept)] = -inverse, cross, cross.T
    table[np.ix_(gone, gone)] = gram[np.ix_(gone, gone)] - gram[np.ix_(gone, kept)] @ cross
    weights = inverse @ slope[kept]
    values[kept], values[gone] = -weights, gram[np.ix_(gone, kept)] @ weights - slope[gone]
    return table, values, -0.5 * slope[kept] @ weights


@pytest.mark.parametrize("group", [2, 4, 8])
def test_tableau(xp, group):
    """Every figure against explicit inverses: worth, the best exchange, and the table after it."""
    rng, rows = np.random.default_rng(99), 6
    root = rng.normal(size=(12, 8))
    gram, slope = root.T @ root, rng.normal(size=(rows, 8))
    kept = NM(group // 2, group).select(rng.random((rows, 8)))
    exact = [tableau(gram, slope[row], kept[row]) for row in range(rows)]
    table = Tableau(*(xp.asarray(np.array(array)) for array in ([e[0] for e in exact], [e[1] for e in exact], kept)))
    change, added, dropped = (xp.numpy(array) for array in table.best(group))
    after = table.exchanged(xp.asarray(added), xp.asarray(dropped))
    for row in range(rows):
        for j in range(8):
            flipped = kept[row] ^ (np.arange(8) == j)
            difference = abs(tableau(gram, slope[row], flipped)[2] - exact[row][2])
            assert xp.numpy(table.worth)[row, j] == pytest.approx(difference, rel=1e-9)
        trials = {}
        for i, j in product(np.flatnonzero(~kept[row]), np.flatnonzero(kept[row])):
            if i // group == j // group:
                trial = kept[row].copy()
                trial[[i, j]] = True, False
                trials[i, j] = tableau(gram, slope[row], trial)[2] - exact[row][2]
        best = min(trials, key=trials.get)
        assert (added[row], dropped[row]) == best and change[row] == pytest.approx(trials[best], rel=1e-9)
        trial = kept[row].copy()
        trial[list(best)] = True, False
        expected = tableau(gram, slope[row], trial)
        np.testing.assert_array_equal(xp.numpy(after.kept)[row], trial)
        np.testing.assert_allclose(xp.numpy(after.table)[row], expected[0], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(xp.numpy(after.values)[row], expected[1], rtol=1e-8, atol=1e-10)
