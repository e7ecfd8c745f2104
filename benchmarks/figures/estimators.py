"""scikit-learn's tests of Lasso and elastic net, run against ours: what passes, and why the rest does not."""

from __future__ import annotations

from common.results import read
from figures.markdown import noted, table

EARLY = "it compares to seven decimals with scikit-learn's multi-task estimator, which stops at four"
REASONS = {
    "test_enet_nonfinite_params": "squares overflow; it is refused, in other words",
    "test_lasso_dual_gap": "both gaps are rounding, a millionth of a millionth of the objective, and not the same rounding",
    "test_warm_start": "of 5 steps and 5 more against 10: ADMM chooses its penalty anew at a start",
    "test_lasso_alpha_warning": "with alpha = 0 the least squares are solved directly, and nothing has to be warned of",
    "test_multioutput_enetcv_error": "targets may be several, and each chooses its own alpha",
    "test_1d_multioutput_enet_and_multitask_enet_cv": EARLY,
    "test_1d_multioutput_lasso_and_multitask_lasso_cv": EARLY,
    "test_elasticnet_precompute_incorrect_gram": "there is no `precompute`, and so no Gram to check",
    "test_overridden_gram_matrix": "there is no `precompute`, and so no Gram to warn of",
    "test_warm_start_convergence_with_regularizer_decrement": "more penalty does not mean fewer steps of ADMM",
    "test_enet_path_positive": "`positive` is there for several targets too",
    "test_check_input_false": "inputs are always checked, and their order in memory does not matter",
    "test_enet_copy_X_False_check_input_False": "inputs are never overwritten",
    "test_enet_l1_ratio": "l1_ratio = 0 without alphas is refused, in other words",
    "test_lassoCV_does_not_set_precompute": "it looks for a call of scikit-learn's own class",
}


def sklearn_tests() -> str:
    """The tests of which a case does not pass."""
    results = read("sklearn_tests")
    ours = {name: row for name, row in results["tests"].items() if row["ours"]}
    rows = [
        [f"`{name}`", str(row["ours"]), str(row["passed"]), REASONS[name]]
        for name, row in ours.items()
        if row["passed"] < row["ours"]
    ]
    cases, passed = (sum(row[key] for row in ours.values()) for key in ("ours", "passed"))
    others = sum(row["cases"] - row["ours"] for row in results["tests"].values())
    whole = sum(row["passed"] == row["ours"] for row in ours.values())
    note = (
        f"With scikit-learn {results['versions']['scikit-learn']}, {passed} of {cases} cases that make use of ours pass, and "
        f"all cases of {whole} of {len(ours)} tests. A further {others} cases make no use of them: they are of multi-task "
        "estimators and of scikit-learn's internals."
    )
    return noted(table(["test", "cases", "passed", "why the others do not"], rows), note)
