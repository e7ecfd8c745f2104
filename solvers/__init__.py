"""Convex solvers for layer-wise compression, on numpy, torch, cupy or any array-API arrays. Knows nothing of transformers.

Names are imported when they are first used (`gramian.lazy`); the stub beside this file lists them.
"""

from gramian.lazy import exports

__getattr__, __dir__, __all__ = exports(__name__, __file__)
