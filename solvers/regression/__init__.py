"""Regression with scikit-learn's conventions: thin estimators over the solvers, every fit with a certificate.

They need scikit-learn, which nothing else in `gramian` does: `pip install 'gramian[sklearn]'`.
"""

from gramian.extras import need

need("sklearn", ("sklearn",), "gramian.solvers.regression")

from gramian.solvers.regression.best_subset import L0Regression  # noqa: E402
from gramian.solvers.regression.nonnegative import NonNegativeLeastSquares  # noqa: E402
from gramian.solvers.regression.paths import CoefficientPath, elastic_net_path, plot_path  # noqa: E402
from gramian.solvers.regression.penalised import ElasticNet, Lasso  # noqa: E402
from gramian.solvers.regression.validation import ElasticNetCV, LassoCV  # noqa: E402

__all__ = [
    "CoefficientPath",
    "ElasticNet",
    "ElasticNetCV",
    "L0Regression",
    "Lasso",
    "LassoCV",
    "NonNegativeLeastSquares",
    "elastic_net_path",
    "plot_path",
]
