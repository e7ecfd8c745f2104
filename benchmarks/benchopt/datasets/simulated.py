"""Correlated inputs, sparse weights and noise."""

from typing import ClassVar

import numpy as np
from benchopt import BaseDataset


class Dataset(BaseDataset):
    """Channels that are correlated with their neighbours, and rows of which a tenth of the weights is not zero."""

    name = "simulated"
    parameters: ClassVar = {"tokens": [2000], "inputs": [400], "outputs": [200], "correlation": [0.6], "seed": [0]}

    def get_data(self):
        """X (N, p) and Y (N, q)."""
        tokens, inputs, outputs = self.tokens, self.inputs, self.outputs
        rng = np.random.default_rng(self.seed)
        X = rng.normal(size=(tokens, inputs))
        for j in range(1, inputs):
            X[:, j] = self.correlation * X[:, j - 1] + (1 - self.correlation**2) ** 0.5 * X[:, j]
        weights = rng.normal(size=(outputs, inputs)) * (rng.random((outputs, inputs)) < 0.1)
        Y = X @ weights.T
        return {"X": X, "Y": Y + 0.3 * np.std(Y) * rng.normal(size=Y.shape)}
