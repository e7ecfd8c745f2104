"""One `prune` for single weights and for whole units, and the methods by name."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from transformers import PreTrainedModel

from gramian.adapters.data.tokens import Tokens
from gramian.adapters.methods.registry import METHODS
from gramian.adapters.methods.unit_methods import STRUCTURED_METHODS, gathered
from gramian.adapters.methods.vocabulary import Heads
from gramian.adapters.pipeline import prune_weights
from gramian.adapters.removal.pruning import prune_units
from gramian.adapters.removal.report import StructuredReport
from gramian.adapters.report import Report
from gramian.solvers import Pattern

__all__ = ["methods", "prune"]


def methods() -> dict[str, str]:
    """Describe each method in a line, by the name that `prune` and the command line take.

    Returns
    -------
    dict of str
        Methods that zero single weights come first, then those that remove whole heads and hidden channels.

    Examples
    --------
    >>> import gramian
    >>> gramian.methods()["wanda"].startswith("W on the pattern's largest")
    True
    """
    weights = {name: method.solve for name, method in METHODS.items()}
    units = {
        name: method.gather if method.score is gathered and method.gather else method.score
        for name, method in STRUCTURED_METHODS.items()
    }
    return {name: (function.__doc__ or name).strip().partition("\n")[0] for name, function in {**weights, **units}.items()}


def prune(
    model: PreTrainedModel,
    tokens: Tokens | torch.Tensor,
    method: str = "fistapruner",
    *,
    sparsity: float | str | Pattern | None = None,
    ratio: float | None = None,
    heldout: Tokens | torch.Tensor | None = None,
    options: Mapping[str, Any] | None = None,
    calibrate_on: str | None = None,
    target: str | None = None,
    target_blend: float | None = None,
    damping: float | str | None = None,
    refit: bool = False,
    allocation: str | None = None,
    compensate: bool | None = None,
    refit_producers: bool = False,
    swap_search: bool = False,
    heads: Heads | None = None,
    include: str | None = None,
    exclude: str | None = None,
    blocks: slice | None = None,
    jobs: int = 1,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Report | StructuredReport:
    """argmin_V 1/2 |X* V^T - X W^T|_F^2 over V of a pattern, or without some units, for every operator.

    The model is pruned in place, block by block; `save` then writes it. `sparsity` is how many weights a method zeroes that
    zeroes single weights, and `ratio` how many parameters a method removes that removes whole heads and hidden channels;
    `methods` lists both kinds.

    Parameters
    ----------
    model : PreTrainedModel
        A language model or a text encoder, as `load` returns it. Weights are zeroed in causal models only.
    tokens : Tokens or tensor of integers (n, length)
        Calibration windows, as `calibration` returns them.
    method : str
        A name that `methods` lists, or `module:name` for a function `solve(problem, pattern) -> Solution` of your own.
    sparsity : float, str or Pattern, optional
        Of methods that zero weights: the part of an operator's weights that becomes zero, 0.5 by default, or a pattern such
        as `"2:4"`, which keeps 2 of every 4 consecutive weights of a row.
    ratio : float, optional
        Of methods that remove units: the part of all parameters inside the blocks that is removed, 0.2 by default.
    heldout : Tokens or tensor of integers (n, length), optional
        Windows on which errors are reported beside those on the calibration windows.
    options : mapping, optional
        Keywords of the method itself, such as `{"warm_start": "wanda"}`.
    calibrate_on : {"dense", "pruned"}, optional
        What enters a block: activations of the dense model, or of the model pruned so far. The method's own by default.
    target : {"own", "block", "model"}, optional
        Of methods that zero weights: whose output an operator should match, that of its own input through the dense weights
        (own), of the dense block on the same block input (block), or of the dense model (model). The method's own by default.
    target_blend : float, optional
        How far the target goes there from the operator's own output, above 0 to 1. The method's own by default.
    damping : float or "auto", optional
        Ridge d G_jj on the change of channel j; "auto" chooses it layer by layer, for methods that zero weights. The method's
        own by default.
    refit : bool
        Of methods that zero weights: solve at the end for the best weights at the positions that the method kept.
    allocation : {"uniform", "per_type", "score", "loss"}, optional
        Of methods that remove units: what decides how many units are removed from each module. The method's own by default.
    compensate : bool, optional
        Of methods that remove units: make up for removed units in the weights or the bias of the operator that reads them.
        The method's own by default.
    refit_producers : bool
        Of methods that remove units: fit the operators before removed units too, to the dense model's outputs.
    swap_search : bool
        Of methods that remove units: exchange kept units for removed ones while the loss falls.
    heads : {"groups", "per_kv_group"}, optional
        Of methods that remove units: what is removed of grouped-query attention, whole key/value groups (the default), or
        equally many query heads of every group.
    include : str, optional
        A regular expression; only operators are pruned in whose full name it matches somewhere.
    exclude : str, optional
        A regular expression; operators are not pruned in whose full name it matches somewhere.
    blocks : slice, optional
        Of methods that remove units: the blocks to prune, such as `slice(4, 30)`. All by default.
    jobs : int
        Of methods that zero weights: how many blocks are pruned at once, with `calibrate_on="dense"`.
    device : str or device, optional
        Where blocks are worked on, one at a time, if not where the model is.
    progress : bool
        Whether long work shows a bar.

    Returns
    -------
    Report or StructuredReport
        A row for every operator or module, with its errors on calibration and held-out windows, and the settings of the run.

    Raises
    ------
    ValueError
        Before any work: a setting out of range, one that belongs to the other kind of method, a model that the method does not
        fit, windows that the model cannot read. Naming the layer: NaN or Inf in its weights or inputs.

    Examples
    --------
    >>> import gramian, torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> shape = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
    >>> model = LlamaForCausalLM(LlamaConfig(**shape)).eval()
    >>> report = gramian.prune(model, torch.arange(48).reshape(2, 24), "wanda", sparsity="2:4", progress=False)
    >>> report.sparsity
    0.5
    >>> report = gramian.prune(model, torch.arange(48).reshape(2, 24), "flap", ratio=0.25, progress=False)
    >>> report.parameters[1] < report.parameters[0]
    True
    """
    of_weights: dict[str, Any] = {
        "sparsity": sparsity, "target": target, "refit": refit or None, "jobs": None if jobs == 1 else jobs,
    }  # fmt: skip
    of_units: dict[str, Any] = {
        "ratio": ratio, "allocation": allocation, "compensate": compensate, "refit_producers": refit_producers or None,
        "swap_search": swap_search or None, "heads": heads, "blocks": blocks,
    }  # fmt: skip
    structured = method in STRUCTURED_METHODS
    if not (structured or method in METHODS or ":" in method):
        raise ValueError(f"no method {method!r}; there are {', '.join(methods())}, and module:name for one of your own")
    for name, value in (of_weights if structured else of_units).items():
        if value is not None:
            kind = "removes whole heads and channels" if structured else "zeroes single weights"
            amount = f": give it {'ratio' if structured else 'sparsity'}=" if name in ("sparsity", "ratio") else ""
            raise ValueError(f"{name}={value!r} does not go with {method!r}, which {kind}{amount}")
    if structured:
        if damping == "auto":
            raise ValueError(
                f"damping='auto' does not go with {method!r}, which removes whole heads and channels: give a number"
            )
        return prune_units(
            model, tokens, method=method, ratio=0.2 if ratio is None else ratio, allocation=allocation, options=options,
            compensate=compensate, calibrate_on=calibrate_on, target_blend=target_blend, damping=damping,  # type: ignore[arg-type]
            refit_producers=refit_producers, swap_search=swap_search, heads=heads or "groups", heldout=heldout,
            include=include, exclude=exclude, blocks=blocks, device=device, progress=progress,
        )  # fmt: skip
    number: Any = sparsity if isinstance(sparsity, Real) else None  # a number of any library
    pattern: Any = None if number is not None else sparsity
    return prune_weights(
        model, tokens, method=method, sparsity=number, pattern=pattern, options=options, calibrate_on=calibrate_on,
        target=target, target_blend=target_blend, damping=damping, refit=refit, heldout=heldout, include=include,
        exclude=exclude, jobs=jobs, device=device, progress=progress,
    )  # fmt: skip
