"""Convex solvers for layer-wise compression, on numpy, torch, cupy or any array-API arrays. Knows nothing of transformers."""

from gramian.solvers.active import lasso
from gramian.solvers.box import relaxed_mask
from gramian.solvers.budget import Allocation, allocate, allocate_by_score, allocate_uniformly
from gramian.solvers.certificate import Certificate, certify
from gramian.solvers.compensated import greedy_removal
from gramian.solvers.equalities import affine_least_squares
from gramian.solvers.exchange import exchange_weights
from gramian.solvers.fista import FISTA
from gramian.solvers.l0 import l0_admm
from gramian.solvers.loop import Solver, solve
from gramian.solvers.mask import Budget, MaskChoice, MaskProblem, RelaxedMask, keep_within, threshold
from gramian.solvers.moments import Moments
from gramian.solvers.newton import head_scores, newton_score
from gramian.solvers.obs import sparsegpt
from gramian.solvers.path import PathPoint, SparsitySearch, lambda_max, lasso_path, lasso_to_sparsity
from gramian.solvers.patterns import NM, Pattern, TopK, parse_pattern
from gramian.solvers.problem import Quadratic
from gramian.solvers.program import certify_mask
from gramian.solvers.removal import RemovalPath, removal_path, unit_support
from gramian.solvers.restricted import refit
from gramian.solvers.shrinkage import Shrinkage, empirical_ridge
from gramian.solvers.solution import Solution, Status
from gramian.solvers.terms import L1, Affine, Support, Term
from gramian.solvers.unit_exchange import UnitExchange, exchange_units

__all__ = [
    "Affine",
    "Allocation",
    "Budget",
    "Certificate",
    "FISTA",
    "L1",
    "MaskChoice",
    "MaskProblem",
    "Moments",
    "NM",
    "PathPoint",
    "Pattern",
    "Quadratic",
    "RelaxedMask",
    "RemovalPath",
    "Shrinkage",
    "Solution",
    "Solver",
    "SparsitySearch",
    "Status",
    "Support",
    "Term",
    "TopK",
    "UnitExchange",
    "affine_least_squares",
    "allocate",
    "allocate_by_score",
    "allocate_uniformly",
    "certify",
    "certify_mask",
    "empirical_ridge",
    "exchange_units",
    "exchange_weights",
    "greedy_removal",
    "head_scores",
    "keep_within",
    "l0_admm",
    "lambda_max",
    "lasso",
    "lasso_path",
    "lasso_to_sparsity",
    "newton_score",
    "parse_pattern",
    "refit",
    "relaxed_mask",
    "removal_path",
    "solve",
    "sparsegpt",
    "threshold",
    "unit_support",
]
