"""Arrays of every kind that users have: the same answer, or one sentence that says which side is which and the way out."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse
import torch
from solver_calls import halved

from gramian.proofs.kit.strategies import normal_layer
from gramian.solvers import (
    FISTA,
    L1,
    MaskProblem,
    Moments,
    Quadratic,
    Support,
    TopK,
    affine_least_squares,
    allocate_by_score,
    certify,
    exchange_units,
    exchange_weights,
    greedy_removal,
    head_scores,
    keep_within,
    lasso,
    lasso_path,
    refit,
    removal_path,
    solve,
    sparsegpt,
    unit_support,
    wanda,
)
from gramian.solvers.backend.given import given, given_together

RNG = np.random.default_rng(0)
INPUTS, WEIGHT = RNG.normal(size=(60, 8)), RNG.normal(size=(3, 8))


def answer(inputs, weight):
    """The LASSO of a problem from data, whatever it is made of, in numpy."""
    found = lasso(Quadratic.from_data(inputs, weight), 5.0, tol=1e-10).weights
    return found.detach().double().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)


def plain(array):
    """What the array stands for, in float64."""
    return array.detach().double().numpy() if isinstance(array, torch.Tensor) else np.asarray(array, dtype=np.float64)


class Frame:
    """What data frames of whatever library have in common."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype=dtype)


def frozen(array):
    array = array.copy()
    array.setflags(write=False)
    return array


KINDS = {
    "lists": lambda array: array.tolist(),
    "tuples": lambda array: tuple(map(tuple, array.tolist())),
    "frame": Frame,
    "whole numbers": lambda array: (10 * array).astype(np.int64),
    "bytes": lambda array: np.abs(10 * array).astype(np.uint8),
    "truth values": lambda array: array > 0,
    "half precision": lambda array: array.astype(np.float16),
    "single precision": lambda array: array.astype(np.float32),
    "extended precision": lambda array: array.astype(np.longdouble),
    "Fortran order": np.asfortranarray,
    "negative strides": lambda array: array[::-1, ::-1],
    "read only": frozen,
    "other byte order": lambda array: array.astype(array.dtype.newbyteorder()),
    "matrix": lambda array: array.view(np.matrix),
    "nothing masked": lambda array: np.ma.masked_array(array, mask=np.zeros(array.shape, bool)),
    "tensor": torch.from_numpy,
    "single tensor": lambda array: torch.from_numpy(array).float(),
    "bfloat16 tensor": lambda array: torch.from_numpy(array).bfloat16(),
    "float8 tensor": lambda array: torch.from_numpy(array).to(torch.float8_e4m3fn),
    "tensor of whole numbers": lambda array: (10 * torch.from_numpy(array)).long(),
    "parameter": lambda array: torch.nn.Parameter(torch.from_numpy(array)),
    "transposed tensor": lambda array: torch.from_numpy(np.ascontiguousarray(array.T)).T,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_works_gives_the_same_answer(kind):
    """From inputs of that kind, and from weights of it; a problem that is made of them owns what it holds."""
    inputs, weight = KINDS[kind](INPUTS), KINDS[kind](WEIGHT)
    expected = answer(plain(inputs), plain(weight))
    np.testing.assert_allclose(answer(inputs, weight), expected, rtol=1e-9, atol=1e-9)
    if not isinstance(weight, torch.Tensor):
        np.testing.assert_allclose(answer(plain(inputs), weight), expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(answer(inputs, plain(weight)), expected, rtol=1e-9, atol=1e-9)
        assert type(Quadratic.from_data(inputs, weight).gram) is type(Quadratic.from_data(inputs, weight).anchor) is np.ndarray


def test_memory_maps(tmp_path):
    np.save(tmp_path / "inputs.npy", INPUTS)
    mapped = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    assert type(Quadratic.from_data(mapped, WEIGHT).gram) is np.ndarray
    np.testing.assert_array_equal(answer(mapped, WEIGHT), answer(INPUTS, WEIGHT))
    np.save(tmp_path / "weight.npy", WEIGHT)
    problem = Quadratic(INPUTS.T @ INPUTS, np.load(tmp_path / "weight.npy", mmap_mode="r"))
    assert type(problem.anchor) is np.ndarray and problem.anchor.flags.writeable


def test_data_frames():
    pandas = pytest.importorskip("pandas")
    np.testing.assert_array_equal(answer(pandas.DataFrame(INPUTS), pandas.DataFrame(WEIGHT)), answer(INPUTS, WEIGHT))
    moments = Moments(8)
    moments.update(pandas.DataFrame(INPUTS), weights=pandas.Series(np.full(60, 0.5)))
    assert moments.tokens == 30
    with pytest.raises(TypeError, match="inputs holds Python objects but must hold numbers: convert it"):
        Quadratic.from_data(pandas.DataFrame(INPUTS.astype(object)), WEIGHT)


class Immutable:
    """What stands for an array of JAX where it is not installed."""

    __module__ = "jaxlib._jax"


REFUSED = {
    "complex": (lambda array: array + 0j, r"is complex128 but least squares are real here: pass .*\.real"),
    "objects": (lambda array: array.astype(object), "holds Python objects but must hold numbers"),
    "fractions": (lambda array: [[Fraction(1, 3)] * array.shape[1]] * array.shape[0], "holds Python objects"),
    "text": (lambda array: array.astype(str), "must hold numbers"),
    "ragged": (lambda array: [[1.0, 2.0], [3.0]], "its rows differ in length"),
    "nothing": (lambda array: None, "must be an array but is None"),
    "masked": (lambda array: np.ma.masked_array(array, mask=array > 1), r"masked entries: fill them, as in .*\.filled\(0\)"),
    "sparse": (scipy.sparse.csr_matrix, r"is a sparse matrix of scipy .*: pass .*\.toarray\(\)"),
    "sparse array": (scipy.sparse.csr_array, r"is a sparse matrix of scipy .*: pass .*\.toarray\(\)"),
    "sparse tensor": (lambda array: torch.from_numpy(array).to_sparse(), r"is a sparse_coo tensor .*: pass .*\.to_dense\(\)"),
    "tensor without memory": (lambda array: torch.from_numpy(array).to("meta"), "is on the meta device"),
    "quantised tensor": (
        lambda array: torch.quantize_per_tensor(torch.from_numpy(array).float(), 0.1, 0, torch.qint8),
        r"is a quantised tensor .*: pass .*\.dequantize\(\)",
    ),
    "complex tensor": (lambda array: torch.from_numpy(array) + 0j, "is complex128 but least squares are real"),
    "JAX": (lambda array: Immutable(), r"is a JAX array, which cannot be written to .*: pass np\.asarray"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_work_says_so_in_a_sentence(kind):
    make, message = REFUSED[kind]
    inputs, weight = make(INPUTS), make(WEIGHT)
    problem = Quadratic.from_data(INPUTS, WEIGHT)
    calls = {
        "inputs": lambda: Quadratic.from_data(inputs, WEIGHT),
        "weight": lambda: Quadratic(INPUTS.T @ INPUTS, weight),
        "start": lambda: lasso(problem, 5.0, start=weight) if kind != "nothing" else given("start", None),
        "weights": lambda: problem.loss(weight),
        "mask": lambda: refit(problem, weight),
    }
    for side, call in calls.items():
        with pytest.raises((TypeError, ValueError), match=f"^{side} (is|has|holds|must).*") as caught:
            call()
        assert caught.match(message)


def test_jax_itself():
    numpy = pytest.importorskip("jax.numpy")
    with pytest.raises(TypeError, match=r"inputs is a JAX array, which cannot be written to"):
        Quadratic.from_data(numpy.asarray(INPUTS), numpy.asarray(WEIGHT))


def test_two_libraries_are_named_with_their_sides():
    tensor, problem = torch.from_numpy(WEIGHT), Quadratic.from_data(INPUTS, WEIGHT)
    mixed = "is a torch array but {} is a numpy array: convert one of them, by torch.from_numpy or .numpy()"
    beside = mixed.format("the problem's weight")
    cases = [
        (lambda: Quadratic.from_data(torch.from_numpy(INPUTS), WEIGHT), "weight is a numpy array but inputs is a torch array"),
        (lambda: Quadratic(INPUTS.T @ INPUTS, tensor), "weight " + mixed.format("gram")),
        (lambda: lasso(problem, L1(torch.ones(8))), "the weight of L1 " + beside),
        (lambda: lasso(problem, 5.0, start=tensor), "start " + beside),
        (lambda: problem.loss(tensor), "weights " + beside),
        (lambda: problem.damped(torch.ones(8)), "ridge " + beside),
        (lambda: refit(problem, tensor > 0), "mask " + beside),
        (lambda: refit(problem, WEIGHT > 0, start=tensor), "start " + beside),
        (lambda: exchange_weights(problem, TopK(0.5), tensor), "start " + beside),
        (lambda: affine_least_squares(problem, torch.ones((1, 8)), np.ones((3, 1))), "matrix " + beside),
        (lambda: MaskProblem.from_problem(problem, cost=torch.ones(8)), "cost " + beside),
        (lambda: exchange_units(problem, torch.ones(8) > 0), "mask " + beside),
        (lambda: keep_within(np.ones(3), torch.ones(3), 2.0), "cost " + mixed.format("score")),
        (lambda: Moments(8).update(INPUTS, weights=torch.ones(60)), "weights " + mixed.format("inputs")),
        (lambda: Moments(8).update(INPUTS, torch.from_numpy(INPUTS)), "dense " + mixed.format("inputs")),
    ]
    for call, message in cases:
        with pytest.raises(TypeError) as caught:
            call()
        assert message in str(caught.value)
    moments = Moments(8)
    moments.update(INPUTS)
    with pytest.raises(TypeError, match="inputs is a torch array but what came before is a numpy array"):
        moments.update(torch.from_numpy(INPUTS))
    with pytest.raises(TypeError, match="weight is a torch array but what the moments were made of is a numpy array"):
        Quadratic.from_moments(moments, tensor)


def test_two_devices_are_named_with_their_sides(monkeypatch):
    """There is one here, so that a second is made believe."""
    elsewhere = torch.from_numpy(WEIGHT)
    monkeypatch.setattr("gramian.solvers.backend.given.device", lambda array: "cuda:1" if array is elsewhere else "cpu")
    with pytest.raises(TypeError, match="weight is on cuda:1 but inputs is on cpu: move one of them"):
        Quadratic.from_data(torch.from_numpy(INPUTS), elsewhere)


def test_lists_take_the_library_of_what_they_stand_beside(xp):
    layer = normal_layer(3, 40, 8, 3)
    problem, mask = layer.problem(xp), np.arange(24).reshape(3, 8) % 2 == 0
    listed = Quadratic.from_data(layer.inputs.tolist(), xp.asarray(layer.weight))
    np.testing.assert_allclose(xp.numpy(listed.gram), xp.numpy(problem.gram), rtol=1e-13)
    pairs = [
        (refit(problem, mask.tolist()), refit(problem, xp.asarray(mask))),
        (lasso(problem, 5.0, start=layer.weight.tolist()), lasso(problem, 5.0, start=xp.asarray(layer.weight))),
        (solve(problem, 5.0, FISTA(), start=layer.weight.tolist()), solve(problem, 5.0, FISTA())),
        (
            affine_least_squares(problem, [[1.0] * 8], [[1], [1], [1]]),
            affine_least_squares(problem, xp.asarray(np.ones((1, 8))), xp.asarray(np.ones((3, 1)))),
        ),
        (
            exchange_units(problem, [True] * 4 + [False] * 4).solution,
            exchange_units(problem, xp.asarray(np.arange(8) < 4)).solution,
        ),
    ]
    for one, other in pairs:
        np.testing.assert_array_equal(xp.numpy(one.weights), xp.numpy(other.weights))
    zeros = np.zeros((3, 8)).tolist()
    assert problem.loss(zeros) == problem.energy and problem.relative_error(zeros) == 1
    assert certify(problem, 1.0, zeros).gap == certify(problem, 1.0, xp.asarray(np.zeros((3, 8)))).gap
    for one, other in (
        (problem.damped([1.0] * 8).gram, problem.damped(1.0).gram),
        (problem.damped(np.float64(1)).gram, problem.damped(1).gram),
        (greedy_removal(problem, cost=[1.0] * 8).losses, greedy_removal(problem).losses),
        (removal_path(problem, list(range(8))).losses, removal_path(problem, xp.asarray(np.arange(8))).losses),
        (MaskProblem.from_problem(problem, cost=np.int64(2)).cost, MaskProblem.from_problem(problem, cost=[2] * 8).cost),
    ):
        np.testing.assert_array_equal(xp.numpy(one), xp.numpy(other))
    start = wanda(problem, "2:4").weights
    same = exchange_weights(problem, "2:4", xp.numpy(start).tolist())
    np.testing.assert_array_equal(xp.numpy(same.weights), xp.numpy(exchange_weights(problem, "2:4", start).weights))
    mixed = MaskProblem.from_problem(problem)
    assert mixed.value([True] * 8) == 0 and mixed.spent([True] * 4 + [False] * 4) == 4
    assert [int(m.sum()) for m in map(xp.numpy, allocate_by_score([mixed], [[1, 2, 3, 4, 5, 6, 7, 8]], 3).masks)] == [3]


def test_lists_alone_are_numpy():
    assert keep_within([3, 1, 2], [1, 1, 1], 2).tolist() == [True, False, True]
    assert unit_support([True, False], (1, 4)).tolist() == [[True, True, False, False]]
    assert head_scores([1, 3, 0, 1], 2).tolist() == [2.0, 0.5]
    assert Support([[True, False]]).prox(np.array([[3.0, 2.0]]), 1.0).tolist() == [[3.0, 0.0]]
    assert L1([1, 2]).value(np.array([[1.0, 1.0]])).tolist() == [3.0]
    assert Quadratic([[2, 0], [0, 1]], [[1, 1]]).loss([[0, 0]]) == 1.5
    assert TopK(0.5).select([[1, 2]]).tolist() == [[False, True]]
    moments = Moments(2)
    moments.update([[1, 2], [3, 4]], weights=[1, 0])
    assert moments.gram.tolist() == [[1, 2], [2, 4]] and moments.tokens == 1


def test_numbers_of_every_kind_are_lambdas(xp):
    problem = normal_layer(3, 40, 8, 3).problem(xp)
    expected = xp.numpy(lasso(problem, L1(5.0)).weights)
    for weight in (5, np.float32(5), np.int64(5), Fraction(5), np.array(5.0), torch.tensor(5.0)):
        for term in (weight, L1(weight)):
            np.testing.assert_array_equal(xp.numpy(lasso(problem, term).weights), expected)
    points = lasso_path(problem, xp.asarray(np.array([50.0, 5.0])))
    np.testing.assert_array_equal(
        xp.numpy(points[-1].solution.weights), xp.numpy(lasso_path(problem, [50, 5])[-1].solution.weights)
    )


def test_a_row_of_weights_is_not_a_matrix(xp):
    row = xp.asarray(WEIGHT[0])
    for call in (
        lambda: Quadratic.from_data(xp.asarray(INPUTS), row),
        lambda: Quadratic(xp.asarray(INPUTS.T @ INPUTS), row),
    ):
        with pytest.raises(ValueError, match=r"weight is \(8,\).*: weight\[None, :\] is one row"):
            call()
    assert Quadratic.from_data(xp.asarray(INPUTS), row[None, :]).shape == (1, 8)


def test_only_float32_and_float64_are_solved(xp):
    if xp.name == "numpy":
        with pytest.raises(
            ValueError, match="gram is float16 but weight is float16: use one floating dtype for all, float32 or"
        ):
            Quadratic(np.eye(2, dtype=np.float16), np.ones((1, 2), dtype=np.float16))
    with pytest.raises(ValueError, match="the inputs are too large for float64, their squares overflow: scale them"):
        Quadratic.from_data(xp.asarray(1e200 * INPUTS), xp.asarray(WEIGHT))
    whole = Quadratic(xp.asarray(np.eye(8, dtype=np.int64)), xp.asarray(WEIGHT, "float32"))
    assert whole.gram.dtype == xp.dtype("float32")


def test_together_the_first_library_decides():
    found = given_together({"a": [1.0], "b": torch.ones(1), "c": None}, optional=["c"])
    assert set(found) == {"a", "b"} and all(isinstance(array, torch.Tensor) for array in found.values())
    assert found["a"].dtype == torch.float64
    with pytest.raises(TypeError, match="c must be an array but is None"):
        given_together({"c": None})


def test_masks_are_boolean(xp):
    problem = Quadratic.from_data(xp.asarray(INPUTS), xp.asarray(WEIGHT))
    numbers = xp.asarray(np.ones((3, 8), dtype=np.int64))
    for call in (lambda: refit(problem, numbers), lambda: Support(numbers)):
        with pytest.raises(ValueError, match=r"a support is a boolean mask but this one is .*int64"):
            call()
    with pytest.raises(ValueError, match=r"a mask of units is boolean but this one is .*int64"):
        exchange_units(problem, xp.asarray(np.ones(8, dtype=np.int64)))
    assert sparsegpt(problem, TopK(0.5)).weights.shape == halved(problem, xp).shape
