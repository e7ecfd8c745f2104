"""`gramian.solvers.l0_admm`: ADMM for weights of which half of every row are zero, then least squares on their support."""

import numpy as np
from benchopt import BaseSolver


class Solver(BaseSolver):
    """The Gram is formed within the time that is measured."""

    name = "gramian-l0"
    sampling_strategy = "run_once"

    def skip(self, X, Y, l1, l2, positive, kept):
        """The model that is not convex."""
        return kept == X.shape[1], "only the l0 model"

    def set_objective(self, X, Y, l1, l2, positive, kept):
        """Keep the data and the pattern."""
        from gramian.solvers import TopK

        self.X, self.Y, self.pattern = X, Y, TopK(1 - kept / X.shape[1], per_row=True)

    def run(self, _):
        """Search from nothing."""
        from gramian.solvers import Quadratic, l0_admm

        gram, cross = self.X.T @ self.X, self.Y.T @ self.X
        least = np.linalg.lstsq(gram, cross.T, rcond=1e-12)[0].T  # the dense weights, without which scores are zero
        change = np.sum((self.X @ least.T - self.Y) ** 2, axis=0)
        self.weights = l0_admm(Quadratic(gram, least, least @ gram - cross, 0.5 * change), self.pattern).weights

    def get_result(self):
        """V (q, p)."""
        return {"weights": self.weights}
