"""Options out of range are refused before any work, with the number that was given, by every public function."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from gramian import solvers
from gramian.proofs.kit.strategies import normal_layer
from gramian.solvers.backend.options import flag, is_number, number, whole

NAN, INFINITY = float("nan"), float("inf")
LAYER = normal_layer(5, 40, 8, 4)
PROBLEM = LAYER.problem(np)
MASK = solvers.MaskProblem.from_problem(PROBLEM)
HALF = solvers.TopK(0.5)
START = solvers.magnitude(PROBLEM, HALF).weights
COUNTS = (0, -1, 1.0, 1e4, True, NAN, INFINITY, "3", None)  # none is a whole number of at least 1
LEAST = (-1, -1e-9, NAN, INFINITY, -INFINITY, True, "1", None, 1j)  # nor a number in [0, inf)
FLAGS = (1, 0.0, "no", None)

# name of a function -> how it is called with options -> what each option refuses
REFUSED = {
    "solve": (
        lambda **options: solvers.solve(PROBLEM, 1.0, solvers.FISTA(), **options),
        {"tol": LEAST, "max_steps": COUNTS, "check_every": COUNTS},
    ),
    "FISTA": (solvers.FISTA, {"restart": FLAGS, "scaled": FLAGS, "split": FLAGS}),
    "L1": (solvers.L1, {"weight": (-1, NAN, INFINITY, True, "1", None, 1j, [1.0, -1.0], [NAN])}),
    "TopK": (lambda **options: solvers.TopK(**({"sparsity": 0.5} | options)), {"sparsity": (*LEAST, 1, 50), "per_row": FLAGS}),
    "NM": (
        lambda **options: solvers.NM(**({"kept": 2, "group": 4} | options)),
        {"kept": (*COUNTS, 5), "group": COUNTS},
    ),
    "Moments": (solvers.Moments, {"width": COUNTS}),
    "damped": (PROBLEM.damped, {"ridge": (*LEAST, 1e309, [-1.0] * 8, [INFINITY] * 8, [NAN] * 8, [1.0] * 3)}),
    "rescaled": (PROBLEM.rescaled, {"scale": ([0.0] * 8, [-1.0] * 8, [NAN] * 8, [1.0], 2.0)}),
    "lambda_max": (lambda **options: solvers.lambda_max(PROBLEM, **options), {"per_row": FLAGS}),
    "lasso": (lambda **options: solvers.lasso(PROBLEM, 1.0, **options), {"tol": LEAST, "max_steps": COUNTS}),
    "lasso_path": (
        lambda **options: solvers.lasso_path(PROBLEM, **({"weights": [1.0]} | options)),
        {"tol": LEAST, "max_steps": COUNTS, "weights": ([NAN], [-1], ["1"], [np.ones(7)], 5.0)},
    ),
    "lasso_to_sparsity": (
        lambda **options: solvers.lasso_to_sparsity(PROBLEM, **({"sparsity": 0.5} | options)),
        {
            "sparsity": (*LEAST, 1, 50),
            "per_row": FLAGS,
            "tol": LEAST,
            "max_steps": COUNTS,
            "width": (0, -1, NAN, True, "1", None),
        },
    ),
    "sparsegpt": (lambda **options: solvers.sparsegpt(PROBLEM, HALF, **options), {"damping": LEAST, "block": COUNTS}),
    "dsnot": (
        lambda **options: solvers.dsnot(PROBLEM, HALF, **options),
        {"start": ("dense", "l0", 3, None), "steps": (-1, 1.0, True, NAN)},
    ),
    "l0_admm": (
        lambda **options: solvers.l0_admm(PROBLEM, HALF, **options),
        {"steps": COUNTS, "stage": COUNTS, "first": (*LEAST, 0, 2.0), "last": (*LEAST, 0, 0.01)},
    ),
    "exchange": (
        lambda **options: solvers.exchange(PROBLEM, HALF, **options),
        {"start": ("dense", 3), "rounds": (-1, 1.0, True), "candidates": (1, 2.0, True, 129), "widest": (63, 64.5)},
    ),
    "exchange_weights": (
        lambda **options: solvers.exchange_weights(PROBLEM, HALF, **({"start": START} | options)),
        {
            "rounds": (-1, 1.0, True),
            "candidates": (1, 2.0, True, 129),
            "widest": (63, 64.5),
            "start": (LAYER.weight, START[:2], NAN),
        },
    ),
    "l0_bound": (
        lambda **options: solvers.l0_bound(PROBLEM, HALF, **options),
        {"steps": (0, 1.5, True), "splits": (0, 2.0, True)},
    ),
    "bounded": (
        lambda **options: solvers.bounded(PROBLEM, HALF, solvers.magnitude(PROBLEM, HALF), **options),
        {"steps": (0, 1.5, True), "splits": (0, 2.0, True)},
    ),
    "fistapruner": (
        lambda **options: solvers.fistapruner(PROBLEM, HALF, **options),
        {
            "warm_start": ("l0", 3),
            "coordinates": ("scaled", None),
            "l1": ("unit", None),
            "inner_steps": COUNTS,
            "patience": COUNTS,
            "max_lambdas": COUNTS,
            "threshold": (-0.1, 1.1, NAN, True, "1"),
            "tolerance": (-1, NAN, True, "1"),
            "first_lambda": (0, 1e-8, 1.1, NAN, True, "1"),
        },
    ),
    "fistapruner_printed": (
        lambda **options: solvers.fistapruner_printed(PROBLEM, HALF, **options),
        {
            "warm_start": ("dense", 3),
            "inner_steps": COUNTS,
            "patience": COUNTS,
            "max_lambdas": COUNTS,
            "threshold": (-0.1, 1.1, NAN),
            "tolerance": (-1, NAN),
            "first_lambda": (-1, 1e7, NAN),
            "largest_lambda": (0, -1, INFINITY, NAN),
        },
    ),
    "empirical_ridge": (
        lambda **options: solvers.empirical_ridge(PROBLEM, HALF, **({"tokens": 40} | options)),
        {"tokens": (0, 0.5, -1, NAN, INFINITY, True, "40", None), "strengths": ((), (-1,), (NAN,), ("1",)), "heldout": (3,)},
    ),
    "from_problem": (
        lambda **options: solvers.MaskProblem.from_problem(PROBLEM, **options),
        {
            "groups": (0, -1, 3, 16, 2.0, True, NAN, "2"),
            "cost": (0, -1, NAN, INFINITY, [1.0] * 7, [0.0] * 8),
            "normalise": ("l2", 2),
        },
    ),
    "greedy_removal": (
        lambda **options: solvers.greedy_removal(PROBLEM, **options),
        {"groups": (0, -1, 3, 2.0, True), "cost": (0, -1, NAN, INFINITY, [1.0] * 7, [-1.0] * 8)},
    ),
    "removal_path": (
        lambda **options: solvers.removal_path(PROBLEM, **({"order": list(range(8))} | options)),
        {"order": ([0, 1], list(range(1, 9)), [0.5] * 8, 3), "groups": (3, 2.0), "cost": (0, NAN)},
    ),
    "exchange_units": (
        lambda **options: solvers.exchange_units(PROBLEM, **({"mask": np.arange(8) < 4} | options)),
        {"mask": (np.ones(3, bool), np.ones(8), True), "rounds": (-1, 1.0, True, NAN), "groups": (3, 2.0, True)},
    ),
    "relaxed_mask": (
        lambda **options: solvers.relaxed_mask(MASK, **({"budget": 4.0} | options)),
        {
            "budget": (-1, 9, NAN, INFINITY, "4", None),
            "penalty": (0, -1, NAN, "1", None),
            "tol": (0, -1, NAN, True),
            "max_steps": COUNTS,
        },
    ),
    "newton_score": (
        lambda **options: solvers.newton_score(MASK, **({"budget": 4.0} | options)),
        {"budget": (-1, 9, NAN, "4"), "penalty": (0, -1, NAN, "1")},
    ),
    "certify_mask": (
        lambda **options: solvers.certify_mask(MASK, **({"mask": np.ones(8), "budget": 4.0} | options)),
        {"mask": (np.ones(7), 1.0), "budget": (-1, 9, NAN), "penalty": (0, NAN)},
    ),
    "allocate": (
        lambda **options: solvers.allocate([MASK], **({"budget": 4.0} | options)),
        {"budget": (-1, 9, NAN), "importance": ([0], [NAN], ["1"], [1, 1]), "tol": (0, NAN), "max_steps": COUNTS},
    ),
    "allocate_by_score": (
        lambda **options: solvers.allocate_by_score([MASK], **({"scores": [np.ones(8)], "budget": 4.0} | options)),
        {"scores": ([np.ones(7)], [np.full(8, NAN)], []), "budget": (-1, 9, NAN), "importance": ([0], [1, 1])},
    ),
    "allocate_uniformly": (
        lambda **options: solvers.allocate_uniformly([MASK], **({"scores": [np.ones(8)], "budget": 4.0} | options)),
        {"scores": ([np.ones(7)], []), "budget": (-1, 9, NAN), "importance": ([0], [1, 1])},
    ),
    "Budget": (
        lambda **options: solvers.Budget(**({"amount": 4.0, "total": 8.0} | options)),
        {"amount": (-1, 9, NAN, True, "4"), "total": (NAN, -1, INFINITY), "penalty": (0, -1, NAN)},
    ),
    "keep_within": (
        lambda **options: solvers.keep_within(**({"score": np.ones(3), "cost": np.ones(3), "budget": 2.0} | options)),
        {"score": ([NAN] * 3, [1.0]), "cost": ([1.0],), "budget": (NAN, "2", None)},
    ),
    "head_scores": (lambda **options: solvers.head_scores(np.ones(8), **options), {"heads": (*COUNTS, 3)}),
    "parse_pattern": (solvers.parse_pattern, {"text": ("", "2", "50%", 0.5, None)}),
}
CASES = [
    (name, option, value) for name, (_, options) in REFUSED.items() for option, values in options.items() for value in values
]


@pytest.mark.parametrize("name", REFUSED)
def test_options_out_of_range_are_refused_before_any_work(name, monkeypatch):
    """In a sentence that has the value; nothing is factorised or multiplied on the way."""
    call, options = REFUSED[name]

    def work(*arguments, **keywords):
        raise AssertionError("work began")

    monkeypatch.setattr("gramian.solvers.support.obs.cholesky", work)
    monkeypatch.setattr("gramian.solvers.l1.active.inverses", work)
    monkeypatch.setattr(np.linalg, "eigh", work)
    for option, values in options.items():
        for value in values:
            with pytest.raises((ValueError, TypeError)) as caught:
                call(**{option: value})
            message = str(caught.value)
            assert "\n" not in message and len(message) < 250, (option, value)
            arrays = ("scale", "start", "mask", "order", "scores")  # which are shown by their shapes
            if isinstance(value, int | float | str) and not isinstance(value, bool) and option not in arrays:
                assert str(value) in message, (option, value, message)


def test_every_public_function_with_options_is_among_them():
    """Of the others there is nothing to refuse but arrays, problems and patterns; further terms have tests of their own."""
    terms = {"Box", "ElasticNet", "GroupL2", "NonNegative", "Nuclear", "Ridge", "RowSum", "Simplex", "SparseGroup"}
    without = {
        "Affine", "Allocation", "Certificate", "CodeCertificate", "FactoredSolution", "Grid", "Quantised", "WrappedSolution",
        "MaskChoice", "MaskProblem", "NotSolved", "PathPoint", "Pattern", "Quadratic",
        "RelaxedMask", "RemovalPath", "Shrinkage", "Solution", "Solver", "SparsitySearch", "Status", "Support", "SupportBound",
        "TargetMoments", "Term", "UnitExchange", "dual_bound",
        "affine_least_squares", "certify", "magnitude", "refit", "threshold", "unit_support", "wanda",
    }  # fmt: skip
    apart = {"armor", "low_rank", "quantise", "sparse_low_rank", "sparsegpt_quantised"}  # beside tests of their own
    assert set(solvers.__all__) == without | terms | apart | (REFUSED.keys() - {"damped", "rescaled", "from_problem"})


def test_numbers():
    for value in (2, 2.0, np.float32(2), np.int8(2), np.array(2.0), torch.tensor(2), Fraction(2)):
        assert is_number(value) and number("x", value, "(0, 2]") == 2.0
    for value in (True, np.True_, torch.tensor(True), "2", None, [2.0], np.ones(1), 2j, np.complex128(2), Decimal(2), int):
        assert not is_number(value)
        with pytest.raises(ValueError, match=r"x must be a number in \[0, inf\) but is "):
            number("x", value)
    assert number("x", 0) == 0 and number("x", INFINITY, "[0, inf]") == INFINITY
    for value, within in ((0, "(0, 1)"), (1, "(0, 1)"), (INFINITY, "[0, inf)"), (NAN, "[-inf, inf]"), (10**400, "[0, inf)")):
        with pytest.raises(ValueError, match="x must be in"):
            number("x", value, within)


def test_whole_numbers_and_flags():
    for value in (1, np.int64(1), np.uint8(1)):
        assert whole("x", value) == 1 and type(whole("x", value)) is int
    for value in COUNTS:
        with pytest.raises(ValueError, match="x must be a whole number of at least 1 but is "):
            whole("x", value)
    assert flag("x", True) is True and flag("x", np.False_) is False
    for value in FLAGS:
        with pytest.raises(ValueError, match="x must be True or False but is "):
            flag("x", value)


def test_long_values_are_cut():
    with pytest.raises(ValueError, match=r"x must be a number in \[0, inf\) but is an array \(3, 3\)$"):
        number("x", np.eye(3))
    with pytest.raises(ValueError, match=r"x must be a number in \[0, inf\) but is the class TopK$"):
        number("x", solvers.TopK)
    with pytest.raises(ValueError, match=r"but is 'a{56}\.\.\.$"):
        number("x", "a" * 1000)
