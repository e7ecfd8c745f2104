"""Convex solvers for layer-wise compression, on numpy, torch, cupy or any array-API arrays. Knows nothing of transformers."""

from gramian.solvers.certificate import Certificate, certify
from gramian.solvers.fista import FISTA
from gramian.solvers.loop import Solver, solve
from gramian.solvers.moments import Moments
from gramian.solvers.obs import sparsegpt
from gramian.solvers.path import PathPoint, SparsitySearch, lambda_max, lasso_path, lasso_to_sparsity
from gramian.solvers.patterns import NM, Pattern, TopK, parse_pattern
from gramian.solvers.problem import Quadratic
from gramian.solvers.solution import Solution, Status
from gramian.solvers.terms import L1, Support, Term

__all__ = [
    "FISTA",
    "L1",
    "NM",
    "Certificate",
    "Moments",
    "PathPoint",
    "Pattern",
    "Quadratic",
    "Solution",
    "Solver",
    "SparsitySearch",
    "Status",
    "Support",
    "Term",
    "TopK",
    "certify",
    "lambda_max",
    "lasso_path",
    "lasso_to_sparsity",
    "parse_pattern",
    "solve",
    "sparsegpt",
]
