"""How many different kernels a solver needs: on a GPU each is compiled when it is first used, which takes a tenth of a second.

Torch's operations are counted in the place of cupy's, by name and kinds of numbers; cupy compiles about as many.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gramian.solvers import (
    FISTA,
    L1,
    Quadratic,
    TopK,
    exchange,
    l0_admm,
    lambda_max,
    lasso,
    lasso_to_sparsity,
    refit,
    solve,
    sparsegpt,
)

# Views and what a library brings ready made: products, factorisations, copies.
READY = {
    "view", "_unsafe_view", "t", "transpose", "slice", "select", "unsqueeze", "expand", "detach", "alias", "permute", "squeeze",
    "as_strided", "reshape", "empty", "empty_like", "new_empty", "resize", "_to_copy", "clone", "item", "_local_scalar_dense",
    "lift_fresh", "mm", "bmm", "linalg_cholesky_ex", "_linalg_eigh", "linalg_inv_ex", "linalg_solve_triangular",
    "cholesky_solve", "_linalg_check_errors",
}  # fmt: skip
PROBLEM = Quadratic.from_data(
    *(torch.tensor(np.random.default_rng(seed).normal(size=(n, 96))) for seed, n in ((0, 200), (1, 40)))
)
TERM = L1(0.02 * float(lambda_max(PROBLEM)[0, 0]))
MOST: dict[str, tuple[Callable[[], object], int]] = {
    "fista": (lambda: solve(PROBLEM, TERM, FISTA(), tol=1e-6), 39),
    "lasso": (lambda: lasso(PROBLEM, TERM), 84),
    "lasso to a sparsity": (lambda: lasso_to_sparsity(PROBLEM, 0.5), 86),
    "refit": (lambda: refit(PROBLEM, TopK(0.5).select(abs(PROBLEM.anchor))), 49),
    "l0": (lambda: l0_admm(PROBLEM, TopK(0.5)), 75),
    "sparsegpt": (lambda: sparsegpt(PROBLEM, TopK(0.5)), 41),
    "exchange": (lambda: exchange(PROBLEM, TopK(0.5)), 87),
}


class Counted(TorchDispatchMode):
    """Kinds of operations while a context is open."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[str, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.partition("::")[2].rstrip("_")
        if name not in READY:
            kinds = (str(each.dtype) for each in tree_leaves((args, kwargs or {})) if isinstance(each, torch.Tensor))
            self.seen.add((name, *kinds))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", MOST)
def test_kernels_do_not_become_more(name):
    work, most = MOST[name]
    with Counted() as found:
        work()
    assert 10 < len(found.seen) <= most, sorted(found.seen)
