"""The empirical Bayes ridge: against the formula written out, its own limits, and errors on tokens never seen."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from least_squares import USUAL, close

from gramian.proofs.kit.backends import NUMPY
from gramian.proofs.kit.references import obs_sweep, support_least_squares
from gramian.proofs.kit.strategies import PATTERNS, Layer, layers, normal_layer, patterns
from gramian.solvers import NM, Pattern, Quadratic, TopK, empirical_ridge, refit, sparsegpt
from gramian.solvers.support.shrinkage import PILOT_ROWS, PRIOR_ROWS, STRENGTHS, TYPICAL, Pilots, downhill, estimated


def pilot_mask(layer: Layer, pattern: Pattern) -> np.ndarray:
    """Where SparseGPT, written with explicit inverses, keeps weights; X* = X."""
    chosen = {"pattern": (pattern.kept, pattern.group)} if isinstance(pattern, NM) else {"sparsity": pattern.sparsity}
    per_row = isinstance(pattern, TopK) and pattern.per_row
    return obs_sweep(layer.inputs.T @ layer.inputs, layer.weight, damping=0.01, per_row=per_row, **chosen) != 0


def written_out(layer: Layer, mask: np.ndarray) -> np.ndarray:
    """sigma^2 / tau_j^2 from tokens: mean squared error of the refitted pilot, mean square of its changes in channel j
    with PRIOR_ROWS rows like the average channel, in coordinates v_j |x_j|."""
    point, _ = support_least_squares(layer.inputs, layer.outputs, mask)
    variance = np.mean((layer.inputs @ point.T - layer.outputs) ** 2)
    norms = np.linalg.norm(layer.inputs, axis=0)
    squares = [((point - layer.weight)[mask[:, j], j] * norms[j]) ** 2 for j in range(len(norms))]
    average = np.mean(np.concatenate(squares))
    spread = [np.mean(np.append(each, np.full(PRIOR_ROWS, average))) for each in squares]
    return variance / np.array(spread) * norms**2


def gaussian_layer(seed: int, tokens: int, channels: np.ndarray | None = None) -> tuple[Layer, np.ndarray]:
    """Tokens from a Gaussian of condition number 100, and the root of its covariance; seeds share that and the weights."""
    rng = np.random.default_rng(300)
    basis, _ = np.linalg.qr(rng.normal(size=(24, 24)))
    root, weight = np.logspace(0, -1, 24)[:, None] * basis.T, rng.normal(size=(16, 24))
    return Layer(np.random.default_rng(seed).normal(size=(tokens, 24)) @ root, weight), root


# -- the formula -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", USUAL, ids=str)
def test_the_formula_written_out(xp, pattern):
    layer = normal_layer(301, 60, 12, 7, condition=30.0)
    expected = written_out(layer, pilot_mask(layer, pattern))
    found = empirical_ridge(layer.problem(xp), pattern, 60)
    close(xp.numpy(found.ridge), TYPICAL * expected)
    assert found.strength == TYPICAL and found.heldout == ()
    for strength in (1.0, 0.0):
        evaluated = empirical_ridge(layer.problem(xp), pattern, 60, heldout=layer.problem(xp), strengths=(strength,))
        close(xp.numpy(evaluated.ridge), strength * expected)
        assert evaluated.strength == strength


def test_with_drift_the_error_counts_what_drift_leaves(xp):
    layer = normal_layer(302, 60, 12, 7, condition=30.0, drift=0.4)
    problem = layer.problem(xp)
    mask = xp.numpy(sparsegpt(problem, TopK(0.5)).weights) != 0
    close(xp.numpy(empirical_ridge(problem, TopK(0.5), 60).ridge), TYPICAL * written_out(layer, mask))


def test_one_channel_that_must_move(xp):
    """Channels a + e / 100, b and a, of which every row loses the first: the last moves by as much; the second does not
    have to, and is held by the most that the prior allows."""
    rng = np.random.default_rng(303)
    basis = np.linalg.qr(rng.normal(size=(50, 3)))[0].T
    inputs = np.stack([basis[0] + 0.01 * basis[2], basis[1], basis[0]], axis=1)
    weight = np.tile([1.0, 3.0, 3.0], (10, 1)) * rng.choice([-1, 1], size=(10, 3))
    layer = Layer(inputs, weight)
    ridge = xp.numpy(empirical_ridge(layer.problem(xp), TopK(1 / 3, per_row=True), 50).ridge)
    variance, average = 0.01**2 / 50, 1 / 2  # per token and output; of the squared changes 0 and 1
    expected = variance / np.array([average, PRIOR_ROWS * average / 18, (10 + PRIOR_ROWS * average) / 18])
    np.testing.assert_allclose(ridge, TYPICAL * expected, rtol=0.01)


def test_few_rows_stand_for_all(xp):
    """PILOT_ROWS rows, evenly spread: what the others hold does not matter."""
    layer = normal_layer(304, 40, 6, 2 * PILOT_ROWS)
    ridge = xp.numpy(empirical_ridge(layer.problem(xp), TopK(0.5, per_row=True), 40).ridge)
    close(ridge, xp.numpy(empirical_ridge(layer.permuted(slice(0, None, 2)).problem(xp), TopK(0.5, per_row=True), 40).ridge))
    weight = layer.weight.copy()
    weight[1::2] = 1e3
    again = empirical_ridge(Layer(layer.inputs, weight).problem(xp), TopK(0.5, per_row=True), 40)
    np.testing.assert_array_equal(xp.numpy(again.ridge), ridge)
    weight[-2] *= 10
    moved = empirical_ridge(Layer(layer.inputs, weight).problem(xp), TopK(0.5, per_row=True), 40)
    assert np.all(xp.numpy(moved.ridge) != ridge)


# -- the strength ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", USUAL, ids=str)
def test_the_strength_loses_least_on_other_tokens(xp, pattern):
    """Held-out losses of every strength, recomputed by least squares with extra tokens for the ridge."""
    (layer, _), (other, _) = gaussian_layer(1, 36), gaussian_layer(2, 20)
    found = empirical_ridge(layer.problem(xp), pattern, 36, heldout=other.problem(xp))
    mask = pilot_mask(layer, pattern)
    unit, losses = written_out(layer, mask), []
    for strength in STRENGTHS:
        rows = np.diag(np.sqrt(strength * unit))
        inputs, outputs = np.vstack([layer.inputs, rows]), np.vstack([layer.outputs, rows @ layer.weight.T])
        losses.append(other.loss(support_least_squares(inputs, outputs, mask)[0]))
    tried = [STRENGTHS.index(strength) for strength, _ in found.heldout]
    np.testing.assert_allclose([loss for _, loss in found.heldout], np.take(losses, tried), rtol=1e-8)
    best = int(np.argmin(losses))
    assert found.strength == STRENGTHS[best] > 0
    assert {best - 1, best, best + 1} & set(range(len(STRENGTHS))) <= set(tried)  # no better one beside it
    close(xp.numpy(found.ridge), found.strength * unit)
    assert losses[best] < losses[0]


def test_the_search_of_a_strength_goes_downhill():
    for ladder in ([1.0], [1.0, 2.0], [0.0, 1.0, 3.0, 6.0, 12.0, 24.0]):
        for lowest in ladder:
            asked = []
            found, tried = downhill(lambda each, lowest=lowest, asked=asked: asked.append(each) or abs(each - lowest), ladder)
            assert found == lowest and tried == sorted({found, *asked})
    assert downhill(lambda each: 0.0, [1.0, 2.0, 3.0]) == (2.0, [1.0, 2.0, 3.0])


def test_the_same_tokens_want_no_ridge(xp):
    """On the calibration tokens themselves the loss grows with the ridge, so the least of the strengths wins."""
    problem = gaussian_layer(1, 36)[0].problem(xp)
    found = empirical_ridge(problem, TopK(0.5), 36, heldout=problem)
    assert found.strength == 0 and not np.any(xp.numpy(found.ridge))
    assert np.all(np.diff([loss for _, loss in found.heldout]) > 0)
    assert empirical_ridge(problem, TopK(0.5), 36, heldout=problem, strengths=(5.0, 2.0, 9.0)).strength == 2


def test_of_equally_good_strengths_the_middle_one_is_taken(xp):
    """A refit without error leaves sigma^2 = 0, so that every strength is the same."""
    layer = Layer(np.eye(4)[:, [0, 0, 1, 1]], np.arange(1.0, 9.0).reshape(2, 4))
    problem = layer.problem(xp)
    found = empirical_ridge(problem, NM(1, 2), 4, heldout=problem, strengths=(3.0, 1.0, 24.0))
    np.testing.assert_allclose(xp.numpy(found.ridge), 0, atol=1e-25)
    assert found.strength == 3 and [strength for strength, _ in found.heldout] == [1, 3, 24]


@pytest.mark.parametrize("pattern", [TopK(0.5, per_row=True), NM(2, 4), TopK(0.7)], ids=str)
def test_less_error_on_the_distribution(pattern):
    """Gaussian tokens, a quarter more than channels: strength 1, the one that is derived for them, lowers the expected
    loss on every draw, and the held-out choice does no worse."""
    gains = []
    for seed in range(8):
        (layer, root), (other, _) = gaussian_layer(10 + seed, 30), gaussian_layer(100 + seed, 15)
        problem, heldout, truth = layer.problem(NUMPY), other.problem(NUMPY), Quadratic(root.T @ root, layer.weight)
        mask = sparsegpt(problem, pattern).weights != 0
        bare = truth.loss(refit(problem, mask).weights)
        for strengths in ((1.0,), STRENGTHS):
            ridge = empirical_ridge(problem, pattern, 30, heldout=heldout, strengths=strengths).ridge
            gains.append(truth.loss(refit(problem.damped(ridge), mask).weights) / bare)
    derived, chosen = gains[::2], gains[1::2]
    assert max(derived) < 0.98 and max(chosen) <= 1 and np.mean(chosen) <= np.mean(derived) < 0.95


def test_many_tokens_need_no_ridge():
    """sigma^2 / tau^2 tends to a constant and the Gram grows: the relative ridge falls as 1 / tokens, the answer's change
    with it."""
    shares, shifts = [], []
    for tokens in (100, 1000, 10_000):
        problem = gaussian_layer(5, tokens)[0].problem(NUMPY)
        ridge = empirical_ridge(problem, TopK(0.5), tokens).ridge
        mask = sparsegpt(problem, TopK(0.5)).weights != 0
        shares.append(np.mean(ridge / problem.diagonal))
        shifts.append(np.linalg.norm(refit(problem.damped(ridge), mask).weights - refit(problem, mask).weights))
    assert all(0.05 < after / before < 0.2 for before, after in pairwise(shares))
    assert all(after < before / 4 for before, after in pairwise(shifts))


# -- any layer ---------------------------------------------------------------------------------------------------------


@given(layer=layers(inputs=8, multiple=4), data=st.data())
@settings(max_examples=30)
def test_any_layer(xp, layer: Layer, data):
    """Singular, dead, duplicate and tied channels, one row, fewer tokens than channels, scales 1e-6 and 1e6: a finite
    ridge, none on dead channels, with which the layer can be solved; strength 0 is the plain problem."""
    pattern = data.draw(patterns(data.draw(st.sampled_from(sorted(PATTERNS, key=str))), layer.weight.shape[1]))
    problem = layer.problem(xp)
    heldout = layer.problem(xp) if data.draw(st.booleans()) else None
    found = empirical_ridge(problem, pattern, len(layer.inputs), heldout=heldout)
    ridge = xp.numpy(found.ridge)
    assert ridge.shape == (layer.weight.shape[1],) and np.all(np.isfinite(ridge)) and np.all(ridge >= 0)
    assert not np.any(ridge[~np.any(layer.inputs, axis=0)])
    assert found.strength in {0.0, TYPICAL} | set(STRENGTHS)
    if found.strength == 0:
        np.testing.assert_array_equal(xp.numpy(problem.damped(found.ridge).gram), xp.numpy(problem.gram))
    mask = pattern.select(xp.asarray(np.abs(layer.weight)))
    damped = refit(problem.damped(found.ridge), mask)
    assert np.all(np.isfinite(xp.numpy(damped.weights))) and damped.certificate.violation == 0


def test_dead_channels_neither_get_nor_change_a_ridge(xp):
    """Whatever their weights: one would make it dear to prune what costs nothing."""
    layer = normal_layer(306, 60, 12, 7)
    alone = xp.numpy(empirical_ridge(layer.problem(xp), TopK(0.5, per_row=True), 60).ridge)
    inputs, weight = np.zeros((60, 16)), np.full((7, 16), 1e3)
    inputs[:, :12], weight[:, :12] = layer.inputs, layer.weight
    pattern = TopK(10 / 16, per_row=True)
    for unit in (1.0, 1e-6):
        ridge = xp.numpy(empirical_ridge(Layer(inputs * unit, weight).problem(xp), pattern, 60).ridge)
        assert not np.any(ridge[12:])
        np.testing.assert_allclose(ridge[:12] / unit**2, alone, rtol=0.1)  # the pilot's own damping knows of them


@pytest.mark.parametrize("sparsity, drift", [(0.0, 0.0), (0.0, 0.4), (0.5, 0.0)])
def test_nothing_had_to_change(xp, sparsity, drift):
    """No ridge where the evidence has nothing to say: dense answers that stay, and channels that cannot help each other."""
    layer = normal_layer(307, 40, 8, 4, drift=drift)
    if sparsity:
        layer = Layer(np.diag(np.arange(1.0, 9.0)), layer.weight)
    problem = layer.problem(xp)
    found = empirical_ridge(problem, TopK(sparsity), 40, heldout=problem)
    if drift:
        assert found.heldout  # error correction changes weights, pruned or not
    else:
        assert (found.strength, found.heldout) == (0.0, ()) and not np.any(xp.numpy(found.ridge))


# -- units, order, precision -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", USUAL, ids=str)
def test_units(xp, pattern):
    """The ridge goes with the Gram and ignores the unit of the weights, to the bit for powers of two; a mean over the
    tokens does as well as a sum, and more tokens of the same Gram hold the weights less."""
    layer = normal_layer(308, 60, 12, 7, condition=30.0, drift=0.2)
    problem = layer.problem(xp)
    ridge = xp.numpy(empirical_ridge(problem, pattern, 60).ridge)
    for inputs, weight in ((2.0**-20, 1.0), (2.0**20, 2.0**30), (1.0, 2.0**-20)):
        moved = empirical_ridge(layer.scaled(inputs, weight).problem(xp), pattern, 60).ridge
        np.testing.assert_array_equal(xp.numpy(moved), ridge * inputs**2)
    for unit in (1e-6, 1e6):
        close(xp.numpy(empirical_ridge(layer.scaled(unit, unit).problem(xp), pattern, 60).ridge) / unit**2, ridge)
    mean = Quadratic(problem.gram / 60, problem.anchor, problem.slope / 60, problem.floor / 60)
    close(xp.numpy(empirical_ridge(mean, pattern, 60).ridge), ridge / 60)
    close(xp.numpy(empirical_ridge(problem, pattern, 6000).ridge), ridge / 100)


def test_order_of_outputs(xp):
    layer = normal_layer(309, 60, 12, 7, condition=30.0, drift=0.2)
    rows = np.random.default_rng(309).permutation(7)
    for pattern in USUAL:
        ridge = xp.numpy(empirical_ridge(layer.problem(xp), pattern, 60).ridge)
        close(xp.numpy(empirical_ridge(layer.permuted(rows).problem(xp), pattern, 60).ridge), ridge)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_float32(xp, scale):
    """The ridge has the problem's dtype, so that the damped problem has it too."""
    layer = normal_layer(310, 60, 12, 7, drift=0.2).scaled(inputs=scale)
    for heldout in (False, True):
        single, double = (
            empirical_ridge(problem, NM(2, 4), 60, heldout=problem if heldout else None, strengths=(2.0,))
            for problem in (layer.problem(xp, "float32"), layer.problem(xp))
        )
        assert single.ridge.dtype == xp.dtype("float32") and double.ridge.dtype == xp.dtype("float64")
        close(xp.numpy(single.ridge), xp.numpy(double.ridge), rtol=1e-3)
        assert layer.problem(xp, "float32").damped(single.ridge).gram.dtype == xp.dtype("float32")


def test_bad_arguments(xp):
    problem = normal_layer(311, 20, 8, 4).problem(xp)
    for strengths in ((), (1.0, -1.0), (float("nan"),), (0.0, float("inf"))):
        with pytest.raises(ValueError, match=r"there are no strengths|a strength must be in "):
            empirical_ridge(problem, TopK(0.5), 20, strengths=strengths)
    with pytest.raises(ValueError, match=r"tokens must be in \[1, inf\) but is 0"):
        empirical_ridge(problem, TopK(0.5), 0)
    with pytest.raises(ValueError, match=r"held-out problem's weight is \(3, 8\) but the problem's weight is \(4, 8\)"):
        empirical_ridge(problem, TopK(0.5), 20, heldout=normal_layer(311, 20, 8, 3).problem(xp))
    with pytest.raises(ValueError, match="pattern 3:5 needs a multiple of 5"):
        empirical_ridge(problem, NM(3, 5), 20)


def test_a_pilot_may_be_refitted_in_parts(xp):
    """Rows by themselves, and those of single processes put together, make the same ridge."""
    first, second = (normal_layer(seed, 60, 8, 9, drift=0.3).problem(xp) for seed in (411, 412))
    other = Quadratic(second.gram, first.anchor)

    class RowByRow(Pilots):
        def exact(self, pilot, mask):
            rows = [refit(pilot.part(slice(row, row + 1)), mask[row : row + 1, :]).weights for row in range(pilot.shape[0])]
            return xp.asarray(np.vstack([xp.numpy(each) for each in rows]))

    whole = empirical_ridge(first, TopK(0.5), 60, heldout=other)
    parts = estimated(first, TopK(0.5), 60, other, STRENGTHS, RowByRow())
    assert whole.strength == parts.strength
    np.testing.assert_allclose(xp.numpy(parts.ridge), xp.numpy(whole.ridge), rtol=1e-8)
    for one, other_one in zip(whole.heldout, parts.heldout):
        assert one[0] == other_one[0] and one[1] == pytest.approx(other_one[1], rel=1e-8)
