"""What happens around a method: the problem it is given, the ridge that the evidence asks for, exact weights after."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from least_squares import USUAL, close
from rounding import rounding
from tiny import VOCABULARY, tiny_model

from gramian.adapters import prune
from gramian.adapters.run import forward as traversal
from gramian.proofs.kit.references import support_least_squares
from gramian.proofs.kit.strategies import PATTERNS, Layer, layers, normal_layer, patterns
from gramian.solvers import NM, Quadratic, Status, TopK, empirical_ridge, l0_admm, sparsegpt
from gramian.solvers.support import growing_penalty
from gramian.solvers.support.baselines import magnitude
from gramian.solvers.support.damped import MARGIN, CalibrationSplit, DampedMethod, check_damping
from gramian.solvers.support.growing_penalty import Peers
from gramian.solvers.support.l0 import l0_on_parts
from gramian.solvers.support.obs import inverse_factor
from gramian.solvers.support.shrinkage import pilot_rows


class Recorder:
    """A method that notes the problems it is given and answers as SparseGPT."""

    def __init__(self) -> None:
        self.seen: list[Quadratic] = []

    def __call__(self, problem, pattern):
        self.seen.append(problem)
        solution = sparsegpt(problem, pattern)
        return replace(solution, status=Status.SEARCHED, steps=17, history=((17, 0.5),), detail={"own": 1.0})


def ridge_of(problem: Quadratic, seen: Quadratic, xp) -> np.ndarray:
    """The diagonal that was added to the Gram, and nothing else."""
    added = xp.numpy(seen.gram) - xp.numpy(problem.gram)
    assert not np.any(added - np.diag(np.diag(added)))
    for name in ("anchor", "slope", "floor"):
        assert getattr(seen, name) is getattr(problem, name)
    return np.diag(added)


# -- the damped problem ------------------------------------------------------------------------------------------------


def test_without_damping_the_method_gets_the_problem_itself(xp):
    problem, method = normal_layer(320, 40, 8, 4, drift=0.3).problem(xp), Recorder()
    for damping in (0, 0.0):
        solution = DampedMethod(method, damping)(problem, TopK(0.5), CalibrationSplit(40))
        assert method.seen[-1] is problem and solution.detail == {"own": 1.0}
    assert DampedMethod(method) == DampedMethod(method, 0.0, False)


@pytest.mark.parametrize("damping", [0.01, 1, 30.0])
def test_a_number_is_a_share_of_the_diagonal(xp, damping):
    """d G_jj on the change of channel j, nothing on dead ones; the certificate is that of the damped problem."""
    layer, method = normal_layer(321, 40, 8, 4, dead=2, drift=0.3), Recorder()
    problem = layer.problem(xp)
    solution = DampedMethod(method, damping)(problem, TopK(0.5), CalibrationSplit(40))
    diagonal = np.sum(layer.inputs**2, axis=0)
    np.testing.assert_allclose(ridge_of(problem, method.seen[0], xp), damping * diagonal, rtol=1e-12)
    point = xp.numpy(solution.weights)
    expected = layer.loss(point) + 0.5 * damping * np.sum((point - layer.weight) ** 2 * diagonal)
    assert solution.certificate.objective == pytest.approx(expected, rel=1e-11)
    assert solution.detail == {"own": 1.0}


def test_automatic_without_a_split(xp):
    problem, method = normal_layer(322, 40, 8, 4, drift=0.3).problem(xp), Recorder()
    solution = DampedMethod(method, "auto")(problem, TopK(0.5), CalibrationSplit(40))
    found = empirical_ridge(problem, TopK(0.5), 40)
    np.testing.assert_allclose(ridge_of(problem, method.seen[0], xp), xp.numpy(found.ridge), rtol=1e-9)
    assert solution.detail == {"own": 1.0, "ridge_strength": found.strength} and found.strength > 0


def test_of_a_split_the_pilot_s_rows_are_enough(xp):
    """130 outputs, of which 64 choose, from first to last; of these alone the same ridge is chosen."""
    parts = [normal_layer(327, tokens, 8, 130) for tokens in (30, 12)]
    rows, weight = pilot_rows(130), parts[0].weight
    assert (len(rows), rows[0], rows[-1]) == (64, 0, 127)
    assert pilot_rows(64) == list(range(64)) and pilot_rows(3) == [0, 1, 2]
    whole = Layer(np.vstack([each.inputs for each in parts]), weight).problem(xp)
    ridges = []
    for chosen in (weight, weight[rows]):
        method, split = Recorder(), [Layer(each.inputs, chosen).problem(xp) for each in parts]
        DampedMethod(method, "auto")(whole, TopK(0.5), CalibrationSplit(42, (*split, 30)))
        ridges.append(ridge_of(whole, method.seen[0], xp))
    np.testing.assert_allclose(*ridges, rtol=1e-9)
    assert ridges[0].min() > 0


def test_automatic_with_a_split(xp):
    """The ridge is chosen on the parts and stands against a sum over tokens, so the whole gets it as it is, and half more."""
    parts = [normal_layer(323, tokens, 8, 4).inputs for tokens in (30, 12)]
    weight = normal_layer(323, 30, 8, 4).weight
    first, second, whole = (Layer(inputs, weight).problem(xp) for inputs in (*parts, np.vstack(parts)))
    method = Recorder()
    solution = DampedMethod(method, "auto")(whole, TopK(0.5), CalibrationSplit(42, (first, second, 30)))
    found = empirical_ridge(first, TopK(0.5), 30, heldout=second)
    np.testing.assert_allclose(ridge_of(whole, method.seen[0], xp), MARGIN * xp.numpy(found.ridge), rtol=1e-9, atol=1e-12)
    assert solution.detail["ridge_strength"] == MARGIN * found.strength and len(found.heldout) > 1


# -- parts of the rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damping", [0.0, 0.3, "auto"])
@pytest.mark.parametrize("pattern", [NM(2, 4), TopK(0.5, per_row=True), TopK(0.5)], ids=str)
def test_parts_of_the_rows_are_what_they_are_in_the_whole(xp, pattern, damping):
    """Rows are solved for alike in any company; what rounding makes of near ties may differ."""
    problem, calibration = normal_layer(325, 60, 8, 7, drift=0.3).problem(xp), CalibrationSplit(60)
    run = DampedMethod(l0_admm, damping, together=l0_on_parts)
    whole, parts = run(problem, pattern, calibration), [slice(0, 3), slice(3, 4), slice(4, 7)]

    def choose(scores):
        """Of all parts, in the order of the rows."""
        order = [0, 1, 2] if forwards else [2, 1, 0]
        mask = pattern.largest(xp.asarray(np.vstack([xp.numpy(scores[each]) for each in order])))
        return [mask[part, :] for part in (parts if forwards else parts[::-1])]

    forwards = True
    answers = run.on_parts(problem, pattern, calibration, parts, Peers(choose))
    found = np.vstack([xp.numpy(each.weights) for each in answers])
    assert pattern.admits(xp.asarray(found) != 0)
    kept = np.sum((found != 0) == (xp.numpy(whole.weights) != 0))
    assert kept >= 0.9 * found.size
    assert problem.loss(xp.asarray(found)) == pytest.approx(problem.loss(whole.weights), rel=1e-2)
    assert sum(each.certificate.objective for each in answers) == pytest.approx(whole.certificate.objective, rel=1e-2)
    assert [each.detail for each in answers] == [whole.detail] * 3
    forwards = False
    backwards = run.on_parts(problem, pattern, calibration, parts[::-1], Peers(choose))
    for one, other in zip(answers, reversed(backwards)):
        np.testing.assert_array_equal(xp.numpy(one.weights), xp.numpy(other.weights))


def test_the_gram_of_all_parts_is_factorised_once(xp, monkeypatch):
    calls = []
    monkeypatch.setattr(growing_penalty, "inverse_factor", lambda *given: calls.append(given) or inverse_factor(*given))
    problem = normal_layer(326, 40, 8, 6).problem(xp)
    run = DampedMethod(l0_admm, together=l0_on_parts)
    rows = [slice(0, 2), slice(2, 4), slice(4, 6)]
    run.on_parts(
        problem, NM(2, 4), CalibrationSplit(40), rows, Peers(lambda scores: [NM(2, 4).largest(each) for each in scores])
    )
    assert len(calls) == 1
    DampedMethod(l0_admm)(problem, NM(2, 4), CalibrationSplit(40))
    assert len(calls) == 2


# -- exact weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize("pattern", USUAL, ids=str)
def test_refit_keeps_the_support_and_solves_it(xp, pattern, damping):
    """Least squares on the support of the method, with extra tokens for the ridge; how the method ended stays on record."""
    layer, method = normal_layer(324, 40, 8, 4, drift=0.3), Recorder()
    plain = DampedMethod(method, damping)(layer.problem(xp), pattern, CalibrationSplit(40))
    solution = DampedMethod(method, damping, refit=True)(layer.problem(xp), pattern, CalibrationSplit(40))
    point, mask = xp.numpy(solution.weights), xp.numpy(plain.weights) != 0
    rows = np.diag(np.sqrt(damping * np.sum(layer.inputs**2, axis=0)))
    inputs, outputs = np.vstack([layer.inputs, rows]), np.vstack([layer.outputs, rows @ layer.weight.T])
    expected, least = support_least_squares(inputs, outputs, mask)
    close(point, expected)
    assert solution.certificate.objective == pytest.approx(least)
    size, start = np.linalg.norm(inputs) ** 2 * np.linalg.norm(point), np.linalg.norm(outputs.T @ inputs)
    assert solution.certificate.residual <= rounding(8 * (3 * 8 + 1 + 40), size / start) < 1e-9
    assert solution.certificate.objective < plain.certificate.objective
    assert (solution.status, solution.steps, solution.history) == (Status.SEARCHED, 17, ((17, 0.5),))
    assert solution.detail == {"own": 1.0}


@given(layer=layers(inputs=8, multiple=4), data=st.data())
@settings(max_examples=30)
def test_refit_never_loses(xp, layer: Layer, data):
    """Any layer, any damping: the pattern holds, and the damped loss does not rise."""
    pattern = data.draw(patterns(data.draw(st.sampled_from(sorted(PATTERNS, key=str))), layer.weight.shape[1]))
    damping = data.draw(st.sampled_from([0.0, 0.1, "auto"]))
    problem, statistics = layer.problem(xp), CalibrationSplit(len(layer.inputs))
    before, after = (DampedMethod(sparsegpt, damping, refit)(problem, pattern, statistics) for refit in (False, True))
    assert pattern.admits(xp.asarray(xp.numpy(after.weights) != 0)) and after.certificate.violation == 0
    assert np.all(np.isfinite(xp.numpy(after.weights)))
    assert after.certificate.objective <= before.certificate.objective


def test_float32(xp):
    """Whatever is added, the method gets a problem of one dtype."""
    problem = normal_layer(325, 40, 8, 4, drift=0.3).problem(xp, "float32")
    for damping in (0.0, 0.1, "auto"):
        method = Recorder()
        solution = DampedMethod(method, damping, refit=True)(problem, TopK(0.5), CalibrationSplit(40))
        assert method.seen[0].gram.dtype == method.seen[0].anchor.dtype == solution.weights.dtype == xp.dtype("float32")


# -- in a model --------------------------------------------------------------------------------------------------------


def test_a_quarter_of_the_batches_chooses(monkeypatch):
    """Six batches: five are fitted and one chooses, which the strength then shows; with three none does."""
    monkeypatch.setattr(traversal, "TOKENS_PER_BATCH", 24)
    windows = torch.randint(VOCABULARY, (6, 24), generator=torch.Generator().manual_seed(1))
    asked = {"method": "magnitude", "damping": "auto", "refit": "support", "calibrate_on": "dense", "progress": False}
    strengths = {}
    for count in (3, 6):
        report = prune(tiny_model("llama"), windows[:count], **asked)
        strengths[count] = [row.detail["ridge_strength"] for row in report.operators]
        assert report.settings["damping"] == "auto" and report.settings["refit"] == "support"
    assert set(strengths[3]) == {6.0} and len(set(strengths[6])) > 1


def test_damping_trades_calibration_error_for_change():
    """More ridge, more error on the calibration tokens and less change; refitting pays on them."""
    windows = torch.randint(VOCABULARY, (4, 24), generator=torch.Generator().manual_seed(2))
    errors, changes = [], []
    for damping in (0.0, 0.3, 1e6):
        model, dense = tiny_model("llama"), tiny_model("llama")
        asked = {"method": "magnitude", "calibrate_on": "dense", "damping": damping, "refit": "support", "progress": False}
        errors.append(prune(model, windows, **asked).mean_error)
        kept = [(after, before) for after, before in zip(model.parameters(), dense.parameters()) if after.ndim == 2]
        changes.append(sum(float(((after - before)[after != 0] ** 2).detach().sum()) for after, before in kept))
    bare = prune(tiny_model("llama"), windows, method="magnitude", calibrate_on="dense", progress=False).mean_error
    assert errors[0] < errors[1] < errors[2] == pytest.approx(bare, rel=1e-4)
    assert changes[0] > changes[1] > changes[2]


# -- bad arguments -----------------------------------------------------------------------------------------------------


def test_dampings():
    for damping in ("auto", 0, 0.0, 1, 1e-9, 1e9):
        check_damping(damping)
    for damping in (-0.1, float("nan"), float("inf"), "Auto", "0.1", "", None, [0.1]):
        with pytest.raises(ValueError, match="damping must be a number of at least 0 or 'auto' but is"):
            check_damping(damping)
    with pytest.raises(ValueError, match="damping must be a number of at least 0, or auto but is 'some'"):
        prune(tiny_model("llama"), torch.zeros(1, 8, dtype=torch.int64), method="l0", damping="some")


def test_magnitude_with_a_ridge_is_magnitude(xp):
    """A method that does not look at the Gram keeps its support, whatever the damping."""
    problem = normal_layer(326, 40, 8, 4).problem(xp)
    expected = xp.numpy(magnitude(problem, TopK(0.5)).weights) != 0
    for damping in (0.0, 0.5, "auto"):
        solution = DampedMethod(magnitude, damping, refit=True)(problem, TopK(0.5), CalibrationSplit(40))
        np.testing.assert_array_equal(xp.numpy(solution.weights) != 0, expected)
