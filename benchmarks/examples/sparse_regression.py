"""A LASSO for a whole layer is solved to a duality gap at one lambda, and then to the lambda that sets 70 % of it to zero."""

import numpy as np

from gramian.solvers import L1, Quadratic, lambda_max, lasso, lasso_to_sparsity

rng = np.random.default_rng(0)
inputs = rng.normal(size=(500, 40)) @ rng.normal(size=(40, 40))  # tokens x inputs, correlated
weight = rng.normal(size=(10, 40))  # outputs x inputs
problem = Quadratic.from_data(inputs, weight)  # 1/2 |X V^T - X W^T|^2

solution = lasso(problem, L1(0.1 * float(lambda_max(problem)[0, 0])), tol=1e-8)
print(f"{solution.status.value}; relative duality gap {solution.certificate.relative_gap:.1e}")
assert solution.certificate.relative_gap <= 1e-8

search = lasso_to_sparsity(problem, 0.7)
zeros = float((search.solution.weights == 0).mean())
print(f"lambda {float(search.weight[0, 0]):.4g}: {zeros:.1%} zeros, gap {search.solution.certificate.gap:.1e}")
assert abs(zeros - 0.7) < 0.02
