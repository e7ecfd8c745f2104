"""What single modules at other levels would change, as far as the gradient at the present choice says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gramian.solvers.levels.level_budget import Choice

__all__ = ["level_prices"]

FLATTEST = 0.1  # of the median curvature, which every module is given at the least


def level_prices(slopes: Sequence[np.ndarray], errors: Sequence[np.ndarray], choice: Choice) -> list[np.ndarray]:
    """d_k(j) = <g_k, V_k(j) - V_k(i)> + c_k |e_k(j) - e_k(i)|, with c_k = <g_k, V_k(i) - W_k> / (2 e_k(i))

    An estimate of by how much D(V) changes where module k alone goes from its level i to level j, from the gradient g_k of D
    at the choice. It is exact where D is c_k times the error e_k = |X V^T - X W^T|^2 / |X W^T|^2 and levels are nested, each
    fitted exactly on its support: then <g, V(i) - W> = 2 c e(i), and |X V(j)^T - X V(i)^T|^2 is the difference of both errors
    (Pythagoras). A module that is dense, or that would be no worse if its error grew, is taken to be as curved as others are.

    slopes: <g_k, V_k(j) - V_k(i)> for every module k at each of its levels j, of which the first is the dense one W; NaN where
    it is not known. errors: e_k, likewise. choice: the levels i. ValueError for slopes or errors that do not fit each other.
    """
    shapes, others = ([np.shape(each) for each in some] for some in (slopes, errors))
    if shapes != others or len(shapes) != len(choice):
        raise ValueError(f"{len(choice)} modules have slopes of shapes {shapes} and errors of shapes {others}")
    present = [float(each[level]) for each, level in zip(errors, choice)]
    found = np.array([-float(slope[0]) / (2 * error) if error > 0 else 0.0 for slope, error in zip(slopes, present)])
    known = found[found > 0]
    usual = float(np.median(known)) if known.size else 0.0
    curved = np.where(found > 0, np.maximum(found, FLATTEST * usual), usual * np.where(np.array(present) > 0, FLATTEST, 1.0))
    return [
        np.asarray(slope) + each * np.abs(np.asarray(error) - here)
        for slope, error, here, each in zip(slopes, errors, present, curved)
    ]
