"""A layer of a language model, from a problem file that `gramian capture` wrote: `benchopt run -d "layer[file=PATH]"`."""

from typing import ClassVar

import numpy as np
from benchopt import BaseDataset


class Dataset(BaseDataset):
    """X is a square root of the layer's Gram, and Y what the dense layer makes of it."""

    name = "layer"
    parameters: ClassVar = {"file": [None]}

    def get_data(self):
        """X (p, p) and Y (p, q)."""
        from gramian.adapters.data.problem_files import read_problem

        if self.file is None:
            raise ValueError("name a problem file: benchopt run benchmarks/benchopt -d 'layer[file=PATH]'")
        problem, _ = read_problem(self.file)
        values, vectors = np.linalg.eigh(np.asarray(problem.gram, dtype=float))
        X = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
        return {"X": X, "Y": X @ np.asarray(problem.anchor, dtype=float).T}
