"""Exchange of kept units for removed ones: against brute force over every exchange, and its own promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import rounding_of_solve
from unit_instances import best_losses, magnitude, refit_objective, refitted_loss

import gramian.solvers.units.unit_exchange as module
from gramian.proofs.kit.strategies import Layer, from_gram, layers, normal_layer
from gramian.solvers import Status, exchange_units, greedy_removal
from gramian.solvers.units.removal import unit_problem
from gramian.solvers.units.unit_exchange import Tableau


def random_units(seed: int, units: int, kept: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(units) < kept


def searched(xp, layer: Layer, mask: np.ndarray, groups: int | None = None, dtype: str = "float64", **options):
    """Mask found and the answer, with what must hold of every answer checked."""
    problem = layer.problem(xp, dtype)
    found = exchange_units(problem, xp.asarray(mask), groups, **options)
    units, solution = xp.numpy(found.mask), found.solution
    weights = xp.numpy(solution.weights)
    assert units.dtype == bool and units.shape == mask.shape and np.sum(units) == np.sum(mask)
    assert weights.dtype == dtype and np.all(weights[:, ~np.repeat(units, weights.shape[1] // units.size)] == 0)
    assert solution.status is Status.SEARCHED and solution.certificate.violation == 0
    if dtype == "float64":
        assert solution.certificate.objective <= refit_objective(problem, xp.asarray(mask)) + 1e-12 * problem.energy
        assert abs(solution.certificate.objective - refit_objective(problem, found.mask)) <= 1e-12 * magnitude(layer)
    return units, found


def exchanges(layer: Layer, mask: np.ndarray) -> dict[tuple[int, int], float]:
    """Refitted loss after each exchange of a kept unit for a removed one, by least squares."""
    found = {}
    for dropped in np.flatnonzero(mask):
        for added in np.flatnonzero(~mask):
            trial = mask.copy()
            trial[[dropped, added]] = False, True
            found[int(dropped), int(added)] = refitted_loss(layer, trial)
    return found


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("drift", [0.0, 0.4])
def test_changes_of_the_loss_are_those_of_refits(xp, size, drift):
    """The best exchange, and every next one, from a tableau that is carried along."""
    layer, units = normal_layer(1, 40, 7 * size, 3, condition=30.0, drift=drift), 7
    work, _, _ = unit_problem(layer.problem(xp), units)
    tableau = Tableau(work, random_units(1, units, 3), size)
    for _ in range(4):  # beyond the best mask: to the least bad exchange
        before = refitted_loss(layer, tableau.kept)
        rivals = exchanges(layer, tableau.kept)
        change, dropped, added = tableau.best()
        assert min(rivals, key=rivals.__getitem__) == (dropped, added)
        assert change == pytest.approx(rivals[dropped, added] - before, rel=1e-8, abs=1e-10 * before)
        tableau.pivot(dropped, -1.0)
        tableau.pivot(added, 1.0)
        anew = Tableau(work, tableau.kept.copy(), size)
        np.testing.assert_allclose(xp.numpy(tableau.table), xp.numpy(anew.table), atol=1e-9)
        np.testing.assert_allclose(xp.numpy(tableau.values), xp.numpy(anew.values), atol=1e-8)
        assert anew.loss == pytest.approx(refitted_loss(layer, tableau.kept), rel=1e-9)


def test_batches_of_kept_units_change_nothing(monkeypatch):
    layer = normal_layer(2, 60, 24, 4, drift=0.2)
    whole = exchange_units(layer.problem(np), random_units(2, 12, 5), 12)
    monkeypatch.setattr(module, "BATCH_BYTES", 1)  # one by one
    single = exchange_units(layer.problem(np), random_units(2, 12, 5), 12)
    np.testing.assert_array_equal(single.mask, whole.mask)
    assert single.solution.detail == whole.solution.detail and whole.solution.detail["exchanges"] > 1


@given(layer=layers(tokens=9, inputs=8, multiple=2), seed=st.integers(0, 99), paired=st.booleans())
@settings(max_examples=25)
def test_no_exchange_helps_when_it_says_so(xp, layer: Layer, seed, paired):
    """Singular, dead, duplicated, tied, more channels than tokens, scales 1e-6 and 1e6, X* != X."""
    units = layer.weight.shape[1] // (2 if paired else 1)
    mask = random_units(seed, units, seed % (units + 1))
    kept, found = searched(xp, layer, mask, units)
    loss, detail = refitted_loss(layer, kept), found.solution.detail
    slack = 2e-6 * loss + (1e-10 + 10 * detail["ridge"]) * magnitude(layer)
    if detail["swap_optimal"]:
        assert all(rival >= loss - slack for rival in exchanges(layer, kept).values())
    if detail["ridge"] == 0:
        assert detail["swap_optimal"] == 1


@pytest.mark.parametrize("groups", [None, 4])
def test_what_it_adds_to_greedy_removal(xp, groups):
    """From greedy masks towards the best of all masks, which it finds nearly everywhere; greedy removal does not."""
    greedy, better, count = 0, 0, 0
    for seed in range(4):
        layer = normal_layer(seed, 20, 8, 2, drift=0.4)
        path = greedy_removal(layer.problem(xp), groups)
        best = best_losses(layer, path.units)
        for kept in range(1, path.units):
            mask, found = searched(xp, layer, xp.numpy(path.mask(kept)), groups)
            loss = found.solution.certificate.objective
            assert best[kept] * (1 - 1e-9) <= loss <= path.loss(kept) * (1 + 1e-9)
            assert (found.solution.detail["exchanges"] > 0) == (not np.array_equal(mask, xp.numpy(path.mask(kept))))
            greedy += path.loss(kept) <= best[kept] * (1 + 1e-9)
            better += loss <= best[kept] * (1 + 1e-9)
            count += 1
    assert greedy < better and better >= 0.9 * count


def test_channels_that_do_not_interact(xp):
    rng = np.random.default_rng(3)
    diagonal, weight = rng.uniform(0.1, 10, size=16), rng.normal(size=(4, 16))
    best = np.argsort(np.argsort(-diagonal * np.sum(weight**2, axis=0))) < 6
    for seed in range(2):
        kept, found = searched(xp, from_gram(np.diag(diagonal), weight), random_units(seed, 16, 6))
        np.testing.assert_array_equal(kept, best)
        assert found.solution.detail["swap_optimal"] == 1


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_planted_units_are_found_again(xp, dtype):
    layer = normal_layer(4, 200, 24, 5, condition=5.0)
    planted = np.isin(np.arange(8), [0, 3, 4])
    layer = Layer(layer.inputs, layer.weight * np.repeat(planted, 3))
    kept, found = searched(xp, layer, np.isin(np.arange(8), [1, 3, 7]), 8, dtype)
    np.testing.assert_array_equal(kept, planted)
    gram = layer.inputs.T @ layer.inputs
    rest = np.linalg.cond(gram) * rounding_of_solve(gram, 1.0, 200) ** 2  # weights that are off by rounding, squared
    assert found.solution.certificate.relative_error <= (rest if dtype == "float64" else 1e-10) <= 1e-10


def test_nothing_to_exchange(xp):
    layer = normal_layer(5, 20, 6, 2, drift=0.2)
    for kept in (0, 6):
        mask, found = searched(xp, layer, random_units(5, 6, kept))
        assert np.sum(mask) == kept and found.solution.detail["swap_optimal"] == 1
    mask = random_units(6, 6, 3)
    same, found = searched(xp, layer, mask, rounds=0)
    np.testing.assert_array_equal(same, mask)
    assert found.solution.detail["exchanges"] == found.solution.detail["swap_optimal"] == 0


def test_rounds_that_are_cut_short_go_on(monkeypatch):
    """A tableau computed anew after every exchange finds what one carried along finds."""
    layer = normal_layer(7, 80, 30, 4, drift=0.1)
    mask = random_units(7, 30, 12)
    whole = exchange_units(layer.problem(np), mask)
    monkeypatch.setattr(module, "BETWEEN", 1)
    short = exchange_units(layer.problem(np), mask, rounds=100)
    np.testing.assert_array_equal(short.mask, whole.mask)
    assert short.solution.detail == whole.solution.detail and whole.solution.steps > 3
    assert exchange_units(layer.problem(np), mask, rounds=2).solution.detail["exchanges"] == 2


def test_exchanges_that_did_not_help_after_all_are_taken_back(monkeypatch):
    layer = normal_layer(9, 80, 10, 4)
    best = exchange_units(layer.problem(np), random_units(9, 10, 5))
    wrong: list[int] = []

    def misled(tableau: Tableau, limit: int, tolerance: float) -> int:
        tableau.kept[:] = ~tableau.kept
        wrong.append(limit)
        return min(limit, 5)

    monkeypatch.setattr(Tableau, "improve", misled)
    found = exchange_units(layer.problem(np), best.mask)
    np.testing.assert_array_equal(found.mask, best.mask)
    assert found.solution.detail["exchanges"] == found.solution.detail["swap_optimal"] == 0
    assert wrong == [64, 2, 1]  # half as many every time
    losses = iter(range(100, 0, -1))
    monkeypatch.setattr(Tableau, "loss", property(lambda tableau: next(losses), lambda tableau, loss: None), raising=False)
    found = exchange_units(layer.problem(np), best.mask, rounds=3)  # the search believes it got better, the refit does not
    np.testing.assert_array_equal(found.mask, best.mask)
    assert found.solution.certificate.objective == best.solution.certificate.objective
    assert found.solution.detail["exchanges"] == found.solution.steps == found.solution.detail["swap_optimal"] == 0


def test_channels_that_nearly_depend_on_each_other(xp):
    """Pairs that differ by 1e-5: of every pair one is kept, whichever the start keeps two of."""
    base, rng = normal_layer(10, 90, 8, 3), np.random.default_rng(100)
    inputs = np.concatenate([base.inputs, base.inputs + 1e-5 * rng.normal(size=base.inputs.shape)], axis=1)
    kept, found = searched(xp, Layer(inputs, rng.normal(size=(3, 16))), np.arange(16) % 8 < 4)
    assert len(set(np.flatnonzero(kept) % 8)) == 8
    assert found.solution.detail["swap_optimal"] == 1 and found.solution.detail["ridge"] == module.RIDGE
    assert found.solution.certificate.relative_error <= 1e-8


def test_bad_arguments_name_both_sides(xp):
    problem = normal_layer(8, 10, 6, 2).problem(xp)
    with pytest.raises(ValueError, match=r"the mask is \(6,\) but the problem has 3 units"):
        exchange_units(problem, xp.asarray(np.ones(6, dtype=bool)), 3)
    with pytest.raises(ValueError, match="rounds must be a whole number of at least 0 but is -1"):
        exchange_units(problem, xp.asarray(np.ones(6, dtype=bool)), rounds=-1)
