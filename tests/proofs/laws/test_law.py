"""What a law says when it fails: the smallest case, as code that fails in the same way when it is run."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st

from gramian.proofs import laws
from gramian.proofs.kit.backends import backends
from gramian.proofs.kit.reproduction import Source, snippet
from gramian.proofs.kit.strategies import Layer, spectral_layers
from gramian.proofs.laws.law import Law
from gramian.solvers import FISTA, L1, NM, Quadratic, Status, TopK, certify

THEIRS = '''
from dataclasses import dataclass

from gramian.solvers import L1, Solution, Status, Support, certify


@dataclass(frozen=True)
class Thrifty:
    """Keeps one weight less than it may, and the first row as it is."""

    extra: float = 0.5

    def __call__(self, problem, pattern):
        mask = pattern.select(abs(problem.anchor))
        mask[0, :] = True
        weights = problem.anchor * mask
        return Solution(weights, Status.DIRECT, certify(problem, Support(mask), weights))


class Ridge:
    """h(V) = c/2 |V|^2 with a prox that forgets the half."""

    def __init__(self, weight):
        self.weight = weight

    def value(self, weights):
        return 0.5 * self.weight * (weights**2).sum(axis=1)

    def prox(self, weights, step):
        return weights / (1 + 2 * step * self.weight)

    def rescaled(self, scale):
        return self
'''


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of somebody else's."""
    (tmp_path / "theirs.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    import theirs  # type: ignore[import-not-found]

    return theirs


def message(check: Any) -> tuple[str, str]:
    """What a check that has to fail says, and the code it prints."""
    with pytest.raises(AssertionError) as caught:
        check()
    message = str(caught.value)
    return message.splitlines()[0], message.partition("to run again:\n\n")[2]


def test_the_printed_code_fails_in_the_same_way(theirs, tmp_path):
    first, code = message(partial(laws.check_method, theirs.Thrifty(extra=0.25)))
    assert first.startswith("the pattern holds: [[")
    assert "from theirs import Thrifty" in code and "Thrifty(extra=0.25)" in code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "AssertionError: " + first.partition(": ")[2]


def test_the_case_is_the_smallest(theirs):
    """One row of four channels, whole numbers, X* = X, and a pattern that prunes."""
    _, code = message(partial(laws.check_method, theirs.Thrifty()))
    drawn: dict[str, Any] = {}
    exec(code.replace("\nthe_pattern_holds(", "\ncase = (").replace("import the_pattern_holds", "import *"), drawn)
    _, layer, pattern = drawn["case"]
    assert layer.weight.shape == (1, 4) and layer.dense is None and layer.inputs.shape == (1, 4)
    assert np.all(layer.weight == np.round(layer.weight)) and np.sum(layer.weight != 0) <= 4
    assert isinstance(pattern, TopK | NM)


def test_what_cannot_be_imported_is_left_to_the_reader():
    _, code = message(partial(laws.check_pattern, Greedy()))
    assert "checked1 = ...  # put here what was checked: Greedy()" in code and "(\n    checked1," in code


@dataclass(frozen=True)
class Hidden:
    """Not under its own name."""

    def __repr__(self) -> str:
        return "Greedy()"

    def check(self, shape: tuple[int, int]) -> None: ...

    def select(self, score: np.ndarray) -> np.ndarray:
        return np.ones(score.shape, dtype=bool)

    def admits(self, mask: np.ndarray) -> bool:
        return not mask.all()


Greedy, _ = Hidden, globals().pop("Hidden")


def test_a_term_of_somebody_elses(theirs):
    first, code = message(partial(laws.check_term, lambda shape: st.sampled_from([1.0, 2.0]).map(theirs.Ridge)))
    assert first.startswith("prox is optimal: prox gives") and "checked1 = ..." in code


def test_an_exception_fails_too():
    def broken(problem: Any, pattern: Any) -> Any:
        raise ZeroDivisionError("oh")

    first, _ = message(partial(laws.check_method, broken))
    assert first == "the pattern holds: ZeroDivisionError: oh"


def test_a_law_counts_its_cases():
    law = Law(holds=nothing, given=lambda candidate: st.tuples(st.just(candidate), st.integers(0, 1000)), slow=4)
    assert law.check("anything", 40) == 10 and str(law) == "nothing"


def nothing(candidate: str, number: int) -> None:
    assert candidate == "anything"


class Pair(NamedTuple):
    one: Any
    other: Any


@dataclass(frozen=True)
class Record:
    needed: Any
    extra: Any = None
    number: float = 1.0


VALUES = [
    None, True, 3, -2.5, float("inf"), "a 'quoted' text", (1,), (), [1, (2, 3)], {"a": np.float64(0.1)}, Status.DIRECT,
    np.array([[0.1, -0.0], [np.inf, 1e-300]]), np.array([True, False]), np.array([1, 2]), np.zeros((0, 4)),
    np.array([[1.5]], dtype=np.float32), np.zeros((2, 0), dtype=np.float32), Pair(1, np.array([2.0])), Record(1),
    Record(np.array([1.0]), extra="x", number=2.0), L1(0.5), L1(np.array([[1.0, 0.1]])), FISTA(scaled=True), NM(2, 4),
    Layer(np.eye(2), np.ones((1, 2))), certify, Quadratic, Quadratic.from_data, partial(max, 1, default=2),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_every_value_comes_back(value):
    source = Source()
    expression = source.of(value)
    names: dict[str, Any] = {}
    exec("\n".join([*source.imports, f"found = {expression}"]), names)
    assert not source.missing
    assert same(names["found"], value), expression


def same(one: Any, other: Any) -> bool:
    if isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(other, tuple | list) and type(one) is type(other):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(other, partial):
        return (one.func, one.args, one.keywords) == (other.func, other.args, other.keywords)
    if hasattr(other, "__dataclass_fields__") and not isinstance(other, type):
        return type(one) is type(other) and all(same(getattr(one, name), getattr(other, name)) for name in vars(other))
    return bool(one == other)


def test_long_calls_stand_on_lines_of_their_own():
    assert snippet(nothing, ("anything", 1)).splitlines()[-1] == "nothing('anything', 1)"
    long = snippet(nothing, ("x" * 100, 1))
    assert textwrap.dedent(long).endswith("nothing(\n    '" + "x" * 100 + "',\n    1,\n)")


@pytest.mark.parametrize("condition, rank", [(1.0, 1), (10.0, 3), (1e3, 4)])
def test_spectral_layers_have_the_spectrum_asked_for(condition, rank):
    def check(layer: Layer) -> None:
        width = layer.weight.shape[1]
        sizes = np.linalg.svd(layer.inputs, compute_uv=False)
        assert len(sizes) == min(rank, width) == np.linalg.matrix_rank(layer.inputs)
        worst = condition if min(rank, width) > 1 else 1.0
        assert sizes[0] / sizes[-1] == pytest.approx(worst, rel=1e-9) and sizes[0] == pytest.approx(1)

    case = spectral_layers(inputs=5, rank=rank, condition=condition)
    Law(holds=check, given=lambda _: st.tuples(case)).check(None, 30)


def test_records_move_to_every_backend():
    for backend in backends():
        moved = backend.moved(L1(np.array([[1.0, 2.0]])))
        assert type(moved.weight) is type(backend.asarray([1.0])) and backend.moved(L1(0.5)).weight == 0.5
        assert backend.moved("text") == "text" and backend.moved(L1) is L1
