"""scipy's Lawson and Hanson, exact, a row at a time."""

import numpy as np
from benchopt import BaseSolver


class Solver(BaseSolver):
    """`scipy.optimize.nnls` on the triangular factor of X, which is shorter where tokens are many."""

    name = "scipy"
    sampling_strategy = "run_once"

    def skip(self, X, Y, l1, l2, positive, kept):
        """Non-negative least squares alone."""
        return not positive, "only non-negative least squares"

    def set_objective(self, X, Y, l1, l2, positive, kept):
        """Keep the data."""
        self.X, self.Y = X, Y

    def run(self, _):
        """Solve."""
        from scipy.optimize import nnls

        base, factor = np.linalg.qr(self.X)
        self.weights = np.stack([nnls(factor, base.T @ row, maxiter=100 * len(factor))[0] for row in self.Y.T])

    def get_result(self):
        """V (q, p)."""
        return {"weights": self.weights}
