"""Many regressions on the same inputs, for benchopt: 1/2 |X V^T - Y|^2 + l1 |V|_1 + l2 / 2 |V|^2, V (q, p), on a set.

    benchopt run benchmarks/benchopt            # benchopt's own options choose solvers, datasets and models

The models are `lasso`; `elastic net`; `non-negative`, least squares over V >= 0; and `l0`, least squares with half of the
weights of every row zero, which nobody solves to the optimum: there the lowest value wins. The value of weights off the set is
infinite. All rows share X, and a solver may make use of that.
"""

from typing import ClassVar

import numpy as np
from benchopt import BaseObjective

RIDGE = 0.01  # of the elastic net, of the mean square norm of the inputs' columns
KEPT = 0.5  # of the weights of a row, by `l0`


class Objective(BaseObjective):
    """f(V) + h(V) and how many weights are not zero."""

    name = "Regressions with one Gram"
    min_benchopt_version = "1.6"
    parameters: ClassVar = {"model": ["lasso", "elastic net", "non-negative", "l0"], "reg": [0.1, 0.01]}

    def set_data(self, X, Y):
        """X (N, p), Y (N, q). The price is `reg` of the one at which all weights are zero."""
        self.X, self.Y = X, Y
        priced = self.model in ("lasso", "elastic net")
        self.l1 = self.reg * float(np.abs(Y.T @ X).max()) if priced else 0.0
        self.l2 = RIDGE * float(np.mean(np.sum(X**2, axis=0))) if self.model == "elastic net" else 0.0
        self.positive = self.model == "non-negative"
        self.kept = max(1, round(KEPT * X.shape[1])) if self.model == "l0" else X.shape[1]

    def evaluate_result(self, weights):
        """The objective at `weights` (q, p)."""
        loss = 0.5 * float(np.sum((self.X @ weights.T - self.Y) ** 2))
        cost = self.l1 * float(np.abs(weights).sum()) + 0.5 * self.l2 * float(np.sum(weights**2))
        off = (self.positive and np.any(weights < 0)) or np.any(np.count_nonzero(weights, axis=1) > self.kept)
        return {"value": float("inf") if off else loss + cost, "nonzeros": int(np.count_nonzero(weights))}

    def get_one_result(self):
        """Weights that are on every set."""
        return {"weights": np.zeros((self.Y.shape[1], self.X.shape[1]))}

    def get_objective(self):
        """What a solver is given."""
        return {"X": self.X, "Y": self.Y, "l1": self.l1, "l2": self.l2, "positive": self.positive, "kept": self.kept}
