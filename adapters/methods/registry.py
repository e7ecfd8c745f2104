"""The methods by name, those that zero single weights and those that remove whole units, and methods of the user's own."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

from gramian.adapters.methods.depth_methods import choose_blocks
from gramian.adapters.methods.expert_methods import choose_experts
from gramian.adapters.methods.factored_methods import low_rank_within, sparse_low_rank_within
from gramian.adapters.methods.method import Method
from gramian.adapters.methods.stream_methods import check_basis, slice_stream
from gramian.adapters.methods.unit_methods import UNIT_METHODS
from gramian.adapters.methods.wrapped_methods import armor_saved
from gramian.solvers import dsnot, exchange, fistapruner_printed, l0_admm, sparsegpt, sparsegpt_quantised
from gramian.solvers.support.baselines import magnitude, wanda
from gramian.solvers.support.l0 import l0_on_parts
from gramian.solvers.support.lasso_rounding import fistapruner
from gramian.spelling import meant

__all__ = ["METHODS", "WEIGHT_METHODS", "Method", "file_of", "resolve"]

WEIGHT_METHODS: dict[str, Method] = {
    "fistapruner": Method(fistapruner, settings={"calibrate_on": "dense", "target": "block"}),
    "fistapruner-printed": Method(fistapruner_printed, settings={"calibrate_on": "dense", "target": "block"}),
    "l0": Method(l0_admm, settings={"target": "model", "target_blend": 0.5, "damping": "auto"}, together=l0_on_parts),
    "sparsegpt": Method(sparsegpt),
    "armor": Method(armor_saved, settings={"target": "model", "target_blend": 0.5, "damping": "auto"}, wrapped=True),
    "sparsegpt-quantised": Method(sparsegpt_quantised),
    "wanda": Method(wanda, settings={"per_row": True}),
    "magnitude": Method(magnitude, damps=False),
    "exchange": Method(exchange),
    "dsnot": Method(dsnot, settings={"per_row": True}),
    "sparse-low-rank": Method(
        sparse_low_rank_within, settings={"target": "model", "target_blend": 0.5, "damping": "auto"}, factored=True
    ),
    "low-rank": Method(low_rank_within, settings={"target": "model", "target_blend": 0.5, "damping": "auto"}, factored=True),
}
EXPERTS = Method(choose_experts, "units", settings={"compensate": True}, modules="experts")
DEPTH = Method(choose_blocks, "units", settings={"compensate": True}, modules="blocks")
STREAM = Method(slice_stream, "units", damps=False, modules="stream", check=check_basis)
METHODS: dict[str, Method] = {**WEIGHT_METHODS, **UNIT_METHODS, "experts": EXPERTS, "depth": DEPTH, "slicegpt": STREAM}


def resolve(name: str) -> Method:
    """Find the method of a name: one of METHODS, or from `module:name` a method of the user's own.

    The latter is a function `solve(problem, pattern) -> Solution` or `score(module) -> UnitScores`, told apart by their
    parameters without a default; any other callable like them; a class that makes one without arguments; or a `Method`, which
    also says how a model is walked. The module is imported, and so run (`file_of` says which it was); Python searches its own
    path for it and then the current directory, which is no part of that path afterwards. ValueError is raised for a name that
    is neither, for a module that cannot be imported, and for an object that is no such callable.
    """
    if name in METHODS:
        return METHODS[name]
    module, colon, path = name.partition(":")
    if not (module and colon and path):
        raise ValueError(
            f"no method {name!r}{meant(name, METHODS)}; there are {', '.join(METHODS)}, and module:name for one of your own"
        )
    try:
        with here_too():
            found: Any = reduce(getattr, path.split("."), import_module(module))
    except Exception as error:  # whatever a module raises while it is imported
        raise ValueError(f"method {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        found = found() if isinstance(found, type) else found
        method = found if isinstance(found, Method) else Method(found, "units" if takes_module(found) else "weights")
        inspect.signature(method.decide).bind(*[None] * method.given)
        json.dumps(method.defaults)  # they will stand in a report, at the end of a long run
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"method {name!r} cannot be called as solve(problem, pattern), nor as score(module): {error}"
        ) from error
    return method


@contextmanager
def here_too() -> Iterator[None]:
    """Import from the current directory as well while the context is open, as an installed command starts without it."""
    here = os.getcwd()
    sys.path.append(here)
    try:
        yield
    finally:
        for place in reversed(range(len(sys.path))):
            if sys.path[place] == here:  # the last one, whatever the module itself has changed
                del sys.path[place]
                break


def file_of(name: str) -> Path | None:
    """The file of a method of the user's own, which was run; None for one of the toolkit's, and where it is no file."""
    found = sys.modules.get(name.partition(":")[0]) if name not in METHODS else None
    file = getattr(found, "__file__", None)
    return None if file is None else Path(file)


def takes_module(function: Any) -> bool:
    """Whether one argument is enough for a function, as it is for one that scores the units of a module."""
    wanted = inspect.signature(function).parameters.values()
    free = [
        each
        for each in wanted
        if each.default is each.empty and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    several = any(each.kind is each.VAR_POSITIONAL for each in wanted)
    return len(free) == 1 and not several
