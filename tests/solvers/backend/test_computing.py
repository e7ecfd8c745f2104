"""Solvers compute as if they were alone: whatever torch has been set to, however many threads there are, beside forks."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import torch
from solver_calls import CALLS, arrays_in

from gramian.proofs.kit.backends import Backend
from gramian.proofs.kit.strategies import normal_layer
from gramian.solvers import Moments, Quadratic
from gramian.solvers.backend.computing import INSIDE, Gate, computation, computing

TORCH = Backend("torch", torch)
LAYER = normal_layer(11, 60, 16, 6, condition=100.0, drift=0.1)


@contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float16)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device() -> Iterator[None]:
    """On which nothing can be computed at all."""
    with torch.device("meta"):
        yield


SETTINGS: dict[str, Callable[[], object]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default dtype": default_dtype,
    "default device": default_device,
    "inference": torch.inference_mode,
}


@cache
def undisturbed(name: str, dtype: str) -> list[np.ndarray]:
    return arrays_in(CALLS[name](LAYER.problem(TORCH, dtype), TORCH), TORCH)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_nothing_that_torch_is_set_to_changes_a_bit(setting, dtype):
    """Neither of what a solver returns nor of where it is."""
    for name, call in CALLS.items():
        problem, expected = LAYER.problem(TORCH, dtype), undisturbed(name, dtype)
        with SETTINGS[setting]():
            found = call(problem, TORCH)
        for one, other in zip(arrays_in(found, TORCH), expected, strict=True):
            assert one.dtype == other.dtype and one.tobytes() == other.tobytes(), name


@pytest.mark.parametrize("products", ["float32", "float64"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_nor_of_moments_and_the_problems_made_of_them(setting, products):
    star, dense = torch.from_numpy(LAYER.inputs).float(), torch.from_numpy(LAYER.dense).float()
    weight = torch.from_numpy(LAYER.weight).float()

    def made() -> list[np.ndarray]:
        moments = Moments(16)
        for part in (slice(0, 20), slice(20, 60)):
            moments.update(star[part], dense[part], torch.ones(len(star[part]), device="cpu"), products=products)
        problem = Quadratic.from_moments(moments, weight)
        again = Quadratic(problem.gram.float(), problem.anchor.float(), problem.slope.float(), problem.floor.float())
        arrays = [moments.cross, moments.drift, problem.gram, problem.slope, problem.floor, again.damped(1.0).at_zero[1]]
        return [TORCH.numpy(array) for array in arrays]

    expected = made()
    with SETTINGS[setting]():
        found = made()
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype and one.tobytes() == other.tobytes()


def test_autocast_is_as_it_was_afterwards():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Quadratic.from_data(torch.from_numpy(LAYER.inputs), torch.from_numpy(LAYER.weight))
        assert torch.is_autocast_enabled("cpu") and (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


# -- threads -----------------------------------------------------------------------------------------------------------


def in_threads(count: int, work: Callable[[int], object]) -> None:
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def test_threads_share_a_problem(xp):
    """Every thread gets what it would get alone, bit for bit."""
    chosen = ("lasso", "fista", "sparsegpt", "l0_admm", "refit", "lipschitz")
    problem = LAYER.problem(xp)
    expected = {name: [a.tobytes() for a in arrays_in(CALLS[name](LAYER.problem(xp), xp), xp)] for name in chosen}

    def work(index: int) -> None:
        for name in (*chosen[index:], *chosen[:index]):
            assert [array.tobytes() for array in arrays_in(CALLS[name](problem, xp), xp)] == expected[name], name

    in_threads(4, work)


def test_threads_add_to_the_same_moments(xp):
    """Whole numbers, so that sums are exact in any order."""
    batches = np.random.default_rng(0).integers(-3, 4, (40, 7, 300)).astype(float)
    moments = Moments(300)

    def work(index: int) -> None:
        for batch in batches[index::4]:
            moments.update(xp.asarray(batch), xp.asarray(batch + 1))
            assert moments.gram is not None and moments.cross is not None

    in_threads(4, work)
    rows = batches.reshape(-1, 300)
    np.testing.assert_array_equal(xp.numpy(moments.gram), rows.T @ rows)
    np.testing.assert_array_equal(xp.numpy(moments.cross), -np.ones_like(rows).T @ rows)
    assert moments.tokens == len(rows)
    again = pickle.loads(pickle.dumps(moments)) if xp.name == "numpy" else moments
    again.update(xp.asarray(rows[:3]))
    assert again.tokens == len(rows) + 3


# -- forks -------------------------------------------------------------------------------------------------------------


def test_a_fork_waits_for_threads_that_compute_and_they_for_it():
    gate, order, begun = Gate(), [], threading.Event()

    def compute() -> None:
        gate.enter()
        begun.set()
        time.sleep(0.2)
        order.append("computed")
        gate.leave()

    one = threading.Thread(target=compute)
    one.start()
    begun.wait(10)
    gate.before_fork()
    order.append("forked")
    two = threading.Thread(target=lambda: (gate.enter(), order.append("after"), gate.leave()))
    two.start()
    time.sleep(0.1)
    order.append("done")
    gate.after_fork()
    one.join(10)
    two.join(10)
    assert order == ["computed", "forked", "done", "after"]


def test_two_threads_that_compute_may_fork_at_once():
    """As in functions that a solver calls; each would wait for the other for ever if it counted as computing meanwhile."""
    gate, meeting = Gate(), threading.Barrier(2)

    def work(index: int) -> None:
        for _ in range(50):
            gate.enter()
            meeting.wait(10)
            gate.before_fork()
            assert threading.get_ident() in gate.forks and not gate.threads
            gate.after_fork()
            meeting.wait(10)
            gate.leave()

    in_threads(2, work)
    assert not gate.threads and not gate.forks and not gate.resuming


def test_an_interrupted_wait_lets_everything_go_on(monkeypatch):
    """Python forks all the same after an error in what it calls before a fork."""
    gate = Gate()
    gate.threads.add(-1)
    monkeypatch.setattr(gate.condition, "wait", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        gate.before_fork()
    gate.after_fork()
    gate.after_fork()  # as it would be if it had not come to wait at all
    gate.threads.clear()
    in_threads(1, lambda _: (gate.enter(), gate.leave()))


def test_blocks_within_blocks_are_one():
    seen = []

    @computation
    def inner(value: int, *, more: int = 0) -> int:
        """Add."""
        seen.append(INSIDE.get())
        return value + more

    with computing(), computing():
        assert inner(1, more=2) == 3
    assert seen == [True] and not INSIDE.get() and inner.__doc__ == "Add."
    with pytest.raises(ArithmeticError), computing():
        raise ArithmeticError
    assert not INSIDE.get()


FORKS = """
import os, sys, threading, time, warnings
import numpy as np
from gramian.solvers import L1, Moments, Quadratic, lasso, l0_admm, refit, TopK
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
inputs, weight = rng.normal(size=(400, 300)), rng.normal(size=(6, 300))
problem = Quadratic.from_data(inputs, weight)
stop = threading.Event()
def solving():
    while not stop.is_set():
        {work}
threads = [threading.Thread(target=solving, daemon=True) for _ in range({threads})]
for thread in threads: thread.start()
small = Quadratic.from_data(inputs[:, :40], weight[:, :40])
expected = lasso(small, 5.0).weights.tobytes()
for _ in range({forks}):
    time.sleep(0.01)
    child = os.fork()
    if child == 0:
        problem.gram @ problem.gram  # on threads of its own
        os._exit(0 if lasso(small, 5.0).weights.tobytes() == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
for thread in threads:
    thread.join(60)
    assert not thread.is_alive()
print("done")
"""
WORK = {
    "products": "problem.damped(1.0).lipschitz",
    "solvers": "l0_admm(problem, TopK(0.5), steps=8); lasso(problem, 100.0)",
    "moments": "Moments(300).update(inputs)",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("work", WORK)
def test_forks_beside_threads_that_solve_never_hang(work, threads=2):
    """Each of the children solves too. On two threads of BLAS at least, for with one there is nothing to wait for."""
    code = FORKS.format(work=WORK[work], threads=threads, forks=8)
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_function_that_a_solver_calls_may_fork():
    code = """
import os, warnings
import numpy as np
from gramian.solvers import Quadratic, solve, FISTA, lasso
warnings.simplefilter("ignore")
problem = Quadratic.from_data(np.random.default_rng(0).normal(size=(50, 8)), np.ones((2, 8)))
class Forking:
    def value(self, weights): return abs(weights).sum(axis=1)
    def polar(self, gradient): return abs(gradient).max(axis=1)
    def prox(self, weights, step):
        child = os.fork()
        if child == 0:
            lasso(problem, 1.0)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        return np.sign(weights) * np.maximum(abs(weights) - step, 0)
solve(problem, Forking(), FISTA(), max_steps=5, tol=0)
child = os.fork()
if child == 0: os._exit(0)
os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
