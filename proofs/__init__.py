"""Published claims and laws for solvers, held to properties that can fail. Needs the extra `proofs` (hypothesis, cvxpy)."""
