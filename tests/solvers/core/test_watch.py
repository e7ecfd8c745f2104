"""How any solver is run: an error for a failure, a callback, a time limit, progress; none of it changes what is computed."""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gramian.solvers as solvers
from gramian import progress
from gramian.progress import quietly
from gramian.proofs.kit.strategies import normal_layer
from gramian.solvers import (
    FISTA,
    L1,
    Certificate,
    MaskProblem,
    NotSolved,
    Quadratic,
    Solution,
    Status,
    TopK,
    allocate,
    certify,
    dsnot,
    exchange,
    exchange_units,
    exchange_weights,
    fistapruner,
    l0_admm,
    lasso,
    lasso_path,
    lasso_to_sparsity,
    magnitude,
    relaxed_mask,
    solve,
)
from gramian.solvers.core import watch
from gramian.solvers.core.watch import RUNNING
from gramian.solvers.units.mask import RelaxedMask

LAYER = normal_layer(7, 60, 12, 6, condition=1e3)
LAMBDA = 0.02 * LAYER.largest
HALF = TopK(0.5)


def last(points: list[solvers.PathPoint]) -> Solution:
    return points[-1].solution


def masked(problem: Quadratic) -> MaskProblem:
    return MaskProblem.from_problem(problem)


def first_six(problem: Quadratic) -> Any:
    return magnitude(Quadratic(problem.gram, problem.anchor[:1, :]), HALF).weights[0, :] != 0


RUNS: dict[str, Callable[..., Any]] = {
    "solve": lambda problem, **run: solve(problem, L1(LAMBDA), FISTA(), tol=1e-10, **run),
    "lasso": lambda problem, **run: lasso(problem, L1(LAMBDA), tol=1e-13, **run),
    "lasso_path": lambda problem, **run: last(lasso_path(problem, [8 * LAMBDA, LAMBDA], solver=FISTA(), tol=1e-8, **run)),
    "lasso_to_sparsity": lambda problem, **run: lasso_to_sparsity(problem, 0.7, tol=1e-9, **run).solution,
    "fistapruner": lambda problem, **run: fistapruner(problem, HALF, **run),
    "l0_admm": lambda problem, **run: l0_admm(problem, HALF, steps=40, **run),
    "dsnot": lambda problem, **run: dsnot(problem, HALF, start="magnitude", **run),
    "exchange": lambda problem, **run: exchange(problem, HALF, start="magnitude", candidates=4, widest=4, **run),
    "exchange_weights": lambda problem, **run: exchange_weights(problem, HALF, magnitude(problem, HALF).weights, **run),
    "exchange_units": lambda problem, **run: exchange_units(problem, first_six(problem), **run).solution,
    "relaxed_mask": lambda problem, **run: relaxed_mask(masked(problem), 5.5, **run),
    "allocate": lambda problem, **run: allocate([masked(problem), masked(problem)], 11, **run).relaxation,
}
SEARCHES = ("fistapruner", "l0_admm", "dsnot", "exchange", "exchange_weights", "exchange_units")
ALTERNATED = {"armor", "sparse_low_rank"}  # which have tests of their own
each = pytest.mark.parametrize("name", RUNS)


def weights_of(xp: Any, found: Solution | RelaxedMask) -> np.ndarray:
    return xp.numpy(found.keep if isinstance(found, RelaxedMask) else found.weights)


class Seen:
    """A callback that keeps what it gets, spoils its copy, and ends the run at a number of calls."""

    def __init__(self, xp: Any, most: float = np.inf) -> None:
        self.xp, self.most = xp, most
        self.steps: list[int] = []
        self.weights: list[np.ndarray] = []
        self.certificates: list[Certificate] = []

    def __call__(self, step: int, weights: Any, certificate: Certificate) -> bool:
        self.steps.append(step)
        self.weights.append(np.array(self.xp.numpy(weights)))
        self.certificates.append(certificate)
        weights[...] = float("nan")
        return len(self.steps) >= self.most


class Clock:
    """A clock that is a second on whenever it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def monotonic(self) -> float:
        self.reads += 1
        return float(self.reads)


def test_what_takes_one_of_the_keywords_takes_them_all():
    usual = {"throw": False, "time_limit": None, "callback": None, "progress": False}
    assert tuple(usual) == RUNNING
    taking = set()
    for name in solvers.__all__:
        found = getattr(solvers, name)
        there = inspect.signature(found).parameters if inspect.isfunction(found) else {}
        if {*RUNNING} & {*there}:
            taking.add(name)
            assert {key: there[key].default for key in RUNNING} == usual, name
            assert all(there[key].kind is inspect.Parameter.KEYWORD_ONLY for key in RUNNING), name
    assert taking == {*RUNS, *ALTERNATED}


@each
def test_being_watched_changes_nothing(xp, name, monkeypatch, capsys):
    """To the last bit; and who sets no limit is independent of the clock."""
    problem = LAYER.problem(xp)
    monkeypatch.setattr(watch, "time", SimpleNamespace())  # a look at the clock fails
    plain = RUNS[name](problem)
    monkeypatch.undo()
    seen = Seen(xp)
    watched = RUNS[name](problem, callback=seen, time_limit=1e6, progress=True)
    assert watched.status is plain.status and watched.steps == plain.steps and not plain.status.failed
    np.testing.assert_array_equal(weights_of(xp, watched), weights_of(xp, plain))
    assert watched.certificate == plain.certificate
    assert seen.steps and np.all(np.isfinite(seen.weights[-1]))
    shown = capsys.readouterr().err
    assert shown.startswith(f"{name}: 0 of ") and len(shown.splitlines()) == 2


@each
def test_nothing_is_shown_that_nobody_asked_for(name, capsys):
    problem = LAYER.problem(np)
    RUNS[name](problem)
    with quietly():
        RUNS[name](problem, progress=True)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_the_gap(capsys, monkeypatch):
    monkeypatch.setattr(progress, "draws_bars", lambda: True)
    found = lasso(LAYER.problem(np), L1(LAMBDA), progress=True)
    shown = capsys.readouterr().err
    assert "lasso:" in shown and f"{found.steps}/10000" in shown and "gap " in shown


@each
def test_a_callback_ends_a_run_with_what_it_was_shown(xp, name):
    problem, seen = LAYER.problem(xp), Seen(xp, 2)
    stopped = RUNS[name](problem, callback=seen, throw=True)  # what the user wants is no failure
    assert len(seen.steps) == 2
    if name == "lasso_to_sparsity":  # the solve that was ended is no end of the bracket
        assert stopped.status is Status.STOPPED
        return
    np.testing.assert_array_equal(weights_of(xp, stopped), seen.weights[-1])
    assert stopped.status is Status.STOPPED and stopped.certificate == seen.certificates[-1]


def test_a_callback_sees_every_check(xp):
    problem, seen = LAYER.problem(xp), Seen(xp)
    solution = solve(problem, L1(LAMBDA), FISTA(), tol=1e-10, callback=seen)
    assert [(step, c.measure) for step, c in zip(seen.steps, seen.certificates)] == list(solution.history)
    for weights, certificate in zip(seen.weights, seen.certificates):
        assert certify(problem, L1(LAMBDA), xp.asarray(weights)) == certificate
    rounds = Seen(xp)
    lasso(problem, L1(LAMBDA), callback=rounds)
    assert rounds.steps[0] == 0 and rounds.steps == sorted(rounds.steps)
    objectives = [certificate.objective for certificate in rounds.certificates]
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(objectives))  # the best so far


def test_a_callback_may_fail():
    def broken(step: int, weights: Any, certificate: Certificate) -> None:
        raise KeyError("mine")

    for run in RUNS.values():
        with pytest.raises(KeyError, match="mine"):
            run(LAYER.problem(np), callback=broken, progress=True)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_that_is_stopped_satisfies_the_pattern(xp, name):
    problem = LAYER.problem(xp)
    for most in (1, 2):
        stopped = RUNS[name](problem, callback=Seen(xp, most))
        assert stopped.certificate.violation == 0 and np.mean(xp.numpy(stopped.weights) == 0) == 0.5


def test_a_time_limit_ends_a_run_where_a_step_limit_would(xp, monkeypatch):
    """The clock is read at the start, at every check and after every step: a limit of 4.5 passes at the third step."""
    problem = LAYER.problem(xp)
    monkeypatch.setattr(watch, "time", Clock())
    cut = solve(problem, L1(LAMBDA), FISTA(), tol=1e-10, time_limit=4.5)
    monkeypatch.undo()
    assert cut.status is Status.TIME_LIMIT and cut.steps == 4
    same = solve(problem, L1(LAMBDA), FISTA(), tol=1e-10, max_steps=4)
    np.testing.assert_array_equal(xp.numpy(cut.weights), xp.numpy(same.weights))
    assert cut.certificate == same.certificate and cut.history == same.history


@each
def test_a_time_limit_that_has_passed(name, monkeypatch):
    """Every solver ends at its next look at the clock, with weights and an honest certificate."""
    problem = LAYER.problem(np)
    monkeypatch.setattr(watch, "time", Clock())
    cut = RUNS[name](problem, time_limit=0.5)
    assert cut.status is Status.TIME_LIMIT or (name, cut.status) in {
        ("exchange_weights", Status.SWAP_OPTIMAL), ("relaxed_mask", Status.CONVERGED), ("allocate", Status.CONVERGED),
    }, cut  # fmt: skip
    assert np.all(np.isfinite(weights_of(np_backend, cut))) and cut.steps <= 1
    if cut.status.failed:
        monkeypatch.setattr(watch, "time", Clock())
        with pytest.raises(NotSolved, match="the time limit came first") as caught:
            RUNS[name](problem, time_limit=0.5, throw=True)
        assert caught.value.solution.certificate == cut.certificate


np_backend = SimpleNamespace(numpy=np.asarray)


@pytest.mark.parametrize("limit", [0, 0.0, -1.0, float("nan")])
@each
def test_limits_that_are_none(name, limit):
    with pytest.raises(ValueError, match=f"time_limit must be a positive number of seconds, or None .* but is {limit}"):
        RUNS[name](LAYER.problem(np), time_limit=limit)


@each
def test_a_callback_that_cannot_be_called(name):
    with pytest.raises(TypeError, match=r"callback must be a function of \(step, weights, certificate\) but is 3"):
        RUNS[name](LAYER.problem(np), callback=3)


def test_a_failure_is_an_error_where_that_is_wanted(xp):
    problem = LAYER.problem(xp)
    runs = (
        lambda throw: solve(problem, L1(LAMBDA), FISTA(), tol=1e-10, max_steps=1, throw=throw),
        lambda throw: lasso(problem, L1(LAMBDA), tol=1e-13, max_steps=1, throw=throw),
        lambda throw: last(lasso_path(problem, [LAMBDA], solver=FISTA(), max_steps=1, throw=throw)),
    )
    for run in runs:
        plain = run(False)
        assert plain.status is Status.STEP_LIMIT
        with pytest.raises(NotSolved) as caught:
            run(True)
        np.testing.assert_array_equal(xp.numpy(caught.value.solution.weights), xp.numpy(plain.weights))
        assert caught.value.solution.certificate == plain.certificate
        with pytest.raises(NotSolved):
            plain.required()
    solution = solve(problem, L1(LAMBDA), FISTA(), throw=True)
    assert solution.status is Status.CONVERGED and solution.required() is solution


def test_a_mask_that_is_not_found_is_the_weights_of_the_error():
    rough = relaxed_mask(masked(LAYER.problem(np)), 5.5, tol=1e-300, max_steps=1)
    with pytest.raises(NotSolved) as caught:
        rough.required()
    error = caught.value.solution
    np.testing.assert_array_equal(error.weights, rough.keep)
    assert (error.certificate, error.steps, error.detail["price"]) == (rough.certificate, rough.steps, rough.price)


def test_a_sparsity_that_cannot_be_reached_is_an_error():
    weight = np.eye(6)
    with pytest.raises(NotSolved, match="request at least as many zeros"):
        lasso_to_sparsity(Quadratic(np.eye(6), weight), 0.5, throw=True)


def test_the_error_says_what_to_do_and_can_be_sent_to_another_process():
    found = solve(LAYER.problem(np), L1(LAMBDA), FISTA(), tol=1e-10, max_steps=3)
    error = pickle.loads(pickle.dumps(NotSolved(found)))
    assert isinstance(error, RuntimeError) and error.solution.certificate == found.certificate
    assert str(error).startswith("the step limit came before the tolerance") and "raise the limit or the tolerance" in str(
        error
    )
    assert str(error).endswith(" after 3 steps)") and "(gap " in str(error)


def test_statuses_say_what_to_do():
    failures = {status for status in Status if status.failed}
    assert failures == {Status.STEP_LIMIT, Status.TIME_LIMIT, Status.UNREACHABLE, Status.BROKEN}
    done = {Status.CONVERGED, Status.DIRECT}  # nothing is left to do
    for status in Status:
        told, _, what = status.value.partition(": ")
        assert told[0].islower() or told.startswith("NaN")
        assert bool(what) == (status not in done) and not status.value.endswith("."), status


def test_a_summary_has_a_line_for_every_figure(xp):
    problem = LAYER.problem(xp)
    solution = lasso(problem, L1(LAMBDA))
    lines = solution.summary().splitlines()
    said = dict(re.split("  +", line, maxsplit=1) for line in lines)
    assert said["weights"].startswith("6x12 (float64, ") and said["weights"].endswith("zeros")
    assert said["status"] == "converged: the certificate met the tolerance" and said["steps"] == str(solution.steps)
    assert said["objective"].startswith(f"{solution.certificate.objective:.6g}, in squared outputs")
    assert said["lower bound"].startswith(f"{solution.certificate.bound:.6g}, ")
    assert "solves" in said and "open rows" in said and all(len(line) <= 128 for line in lines)
    direct = magnitude(problem, HALF).certificate
    assert "lower bound   none is known" in direct.summary() and "\nKKT residual  " in direct.summary()
