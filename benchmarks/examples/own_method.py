"""A pruning method of one's own is held to the laws of a method: the smallest layer that breaks one is shown."""

from gramian.proofs import laws
from gramian.solvers import Pattern, Quadratic, Solution, refit


def costly(problem: Quadratic, pattern: Pattern) -> Solution:
    """Keep the weights that cost most to remove alone, w_ij^2 G_jj, and solve for them exactly."""
    return refit(problem, pattern.select(problem.anchor**2 * problem.diagonal))


def careless(problem: Quadratic, pattern: Pattern) -> Solution:
    """Claim the same and return the dense weights, which are not in the pattern."""
    solution = costly(problem, pattern)
    return Solution(problem.anchor, solution.status, solution.certificate)


laws.check_method(costly, examples=10)
print("the first method keeps the laws")
try:
    laws.check_method(careless, examples=10)
except AssertionError as broken:
    print(f"the second breaks one: {str(broken).splitlines()[0]}")
else:
    raise SystemExit("the laws let a broken method pass")
