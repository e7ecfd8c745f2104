"""scikit-learn's coordinate descent on the Gram, a row at a time."""

from typing import ClassVar

import numpy as np
from benchopt import BaseSolver


class Solver(BaseSolver):
    """`ElasticNet(precompute=G)`, whose objective is this one over N."""

    name = "scikit-learn"
    sampling_strategy = "iteration"
    requirements: ClassVar = ["scikit-learn"]

    def skip(self, X, Y, l1, l2, positive, kept):
        """The models that are convex."""
        return kept < X.shape[1], "the l0 model is not convex"

    def set_objective(self, X, Y, l1, l2, positive, kept):
        """Keep the data and the options."""
        self.X, self.Y, tokens = X, Y, len(X)
        total = l1 + l2
        self.options = {"alpha": total / tokens, "l1_ratio": l1 / total if total else 0.5, "positive": positive}

    def run(self, iterations):
        """So many epochs of every row."""
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import ElasticNet

        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)  # that a price of zero is better left to least squares
        epochs = {"precompute": self.X.T @ self.X, "fit_intercept": False, "tol": 0.0, "max_iter": max(1, iterations)}
        X, rows = np.asfortranarray(self.X), self.Y.T
        self.weights = np.stack([ElasticNet(**self.options, **epochs).fit(X, row).coef_ for row in rows])
        if iterations == 0:
            self.weights = np.zeros_like(self.weights)

    def get_result(self):
        """V (q, p)."""
        return {"weights": self.weights}
