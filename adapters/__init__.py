"""Transformers as layer-wise problems: load a model, calibrate, prune it, measure what that cost, save it.

`adapters/README.md` in the repository has a map, and says what each method does and how a model family or a method is added.
Every name is imported when it is first used (`gramian.lazy`); the stub beside this file lists all of them.
"""

from gramian.lazy import exports

__getattr__, __dir__, __all__ = exports(__name__, __file__)
