"""`gramian.solvers.lasso`: ADMM for all rows at once, then exact solves, to a certified relative duality gap."""

import numpy as np
from benchopt import BaseSolver


class Solver(BaseSolver):
    """The Gram is formed within the time that is measured."""

    name = "gramian"
    sampling_strategy = "tolerance"

    def skip(self, X, Y, l1, l2, positive, kept):
        """The models that are convex."""
        return kept < X.shape[1], "the l0 model is not convex"

    def set_objective(self, X, Y, l1, l2, positive, kept):
        """Keep the data and the term."""
        from gramian.solvers import ElasticNet, NonNegative

        self.X, self.Y = X, Y
        self.term = NonNegative(l1, l2) if positive else ElasticNet(l1, l2)

    def run(self, tolerance):
        """Solve to a gap of `tolerance`."""
        from gramian.solvers import Quadratic, lasso

        zero, floor = np.zeros((self.Y.shape[1], self.X.shape[1])), 0.5 * np.sum(self.Y**2, axis=0)
        problem = Quadratic(self.X.T @ self.X, zero, -(self.Y.T @ self.X), floor)
        self.weights = lasso(problem, self.term, tol=min(tolerance, 1.0)).weights

    def get_result(self):
        """V (q, p)."""
        return {"weights": self.weights}
