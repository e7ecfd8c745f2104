"""Compress transformers one layer at a time, with a certificate on every answer.

Where to begin:

    python -m gramian --help        the command: prune a model, judge it, solve layers from files, check published claims
    help(gramian.prune)             the same in Python: load, calibration, prune, perplexity, save
    help(gramian.capture)           one layer of any torch model as a problem, and a solution written back
    help(gramian.solvers)           the solvers alone, on numpy, torch or cupy arrays
    help(gramian.proofs)            laws to hold a method of your own to, and the ledger of published claims

`gramian.solvers` needs numpy and scipy only; what loads models needs `pip install 'gramian[models]'`.
"""

from importlib.metadata import version

from gramian.lazy import exports

__version__ = version("gramian")

__getattr__, __dir__, __all__ = exports(__name__, __file__)
