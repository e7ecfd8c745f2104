"""One `prune` for single weights and for whole units, and the methods by name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.config.settings import settings_of
from gramian.adapters.data.mixing import given_windows
from gramian.adapters.data.tokens import TokensLike, windows_of
from gramian.adapters.estimates.figures import Estimate, Rates
from gramian.adapters.estimates.runs import run_estimate
from gramian.adapters.estimates.shared import SharedEstimate, shared_estimate
from gramian.adapters.files import check_output
from gramian.adapters.methods.registry import METHODS
from gramian.adapters.models.wrappers import plain_model
from gramian.adapters.pipeline import run
from gramian.adapters.removal.report import StructuredReport
from gramian.adapters.report import Report
from gramian.adapters.resuming import journaled
from gramian.adapters.run.blocks import InMemory, Offloaded
from gramian.adapters.run.journal import refuse_journal
from gramian.adapters.run.ranks import ranks_here
from gramian.adapters.run.shapes import shape_at
from gramian.adapters.run.streaming import open_checkpoint
from gramian.spelling import meant

__all__ = ["estimate", "methods", "prune"]


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
    return {name: method.described.partition("\n")[0] for name, method in METHODS.items()}


def prune(
    model: PreTrainedModel | str | Path,
    tokens: TokensLike,
    method: str | None = None,
    *,
    config: PruneConfig | None = None,
    heldout: TokensLike | None = None,
    recovery: TokensLike | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str | torch.device | None = None,
    problems: str | Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> Report | StructuredReport:
    """argmin_V 1/2 |X* V^T - X W^T|_F^2 over V of a pattern, or without some units, for every operator.

    A model in memory is pruned in place, block by block; `save` then writes it. Until the run ends, copies of the weights that
    it changes are in the host's memory: after an error or an interruption the model has them back, to the bit. Of a path one
    block at a time is in memory, and the pruned model is written to `out`. `sparsity` is how many weights a method zeroes that
    zeroes single weights, and `ratio` how many parameters a method removes that removes whole heads and hidden channels;
    `methods` lists both kinds.

    Parameters
    ----------
    model : PreTrainedModel, str or Path
        A language model or a text encoder, as `load` returns it, or the directory or hub id of one. Weights are zeroed in
        models of any type whose blocks run one after the other, and in encoder-decoder models.
    tokens : Tokens, or integers (n, length) in any form
        Calibration windows, as `calibration` returns them, or as a tensor, an array, lists, a `BatchEncoding`, a `Dataset` or a
        `DataLoader`. Mappings that have `labels` too, such as those of a data set for `Trainer`, are texts with labels, of any
        lengths, padded where their `attention_mask` is zero: methods that need gradients take those of the labels' loss.
        Of several domains: a mapping from their names to windows, or to pairs of windows and weights, such as
        ``{"law": (law, 0.7), "news": (news, 0.3)}``. Gram matrices are then weighted means over the domains, whatever the
        numbers of windows, and errors are reported on each.
    method : str
        A name that `methods` lists, or `module:name` for a function `solve(problem, pattern) -> Solution` or
        `score(module) -> UnitScores` of your own.
    config : PruneConfig, optional
        All settings together, in place of `method` and those below.
    heldout : Tokens or tensor of integers (n, length), optional
        Windows on which errors are reported beside those on the calibration windows; of domains a mapping by the same names.
    recovery : Tokens or tensor of integers (n, length), optional
        Windows on which what makes up for removed units is fitted, in place of `tokens`, on which units are still chosen.
    out : str or Path, optional
        Of a path: the directory for the pruned model. What is done is kept in a journal beside it until the run ends.
    resume : bool
        Go on with the run that the journal beside `out` is of.
    overwrite : bool
        Replace a saved model that is at `out`, and begin again where a journal is beside it.
    device : str or device, optional
        Where blocks are worked on, one at a time, if not where the model is.
    problems : str or Path, optional
        An empty directory for problem files of the operators as they were solved.
    progress : bool
        Whether long work shows a bar.
    SETTINGS
    Returns
    -------
    Report or StructuredReport
        A row for every operator or module, with its errors on calibration and held-out windows, and the settings of the run.

    Raises
    ------
    ValueError
        Before any work: a setting out of range, one that belongs to the other kind of method, a model that the method does not
        fit, windows that the model cannot read, weights that are quantised, computed from others, or not in memory. Naming the
        layer: NaN or Inf in its weights or inputs.

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
    config = settled(config, method, settings)
    calibration = given_windows(tokens, "calibration windows")
    apart = None if heldout is None else given_windows(heldout, "held-out windows")
    own = None if recovery is None else windows_of(recovery, "recovery windows")
    folder = None if problems is None else Path(problems)
    if isinstance(model, str | Path):
        if out is None:
            raise ValueError(f"{str(model)!r} is a path, and out= is not given: give a directory, or load the model first")
        if ranks_here().first:
            check_output(out, overwrite or resume)
            refuse_journal(Path(out), resume, overwrite)
        stream = open_checkpoint(model, device=device or "cpu")
        return journaled(
            stream, calibration, config, heldout=apart, recovery=own, out=Path(out), problems=folder, resume=resume,
            overwrite=overwrite, progress=progress,
        )  # fmt: skip
    if out is not None or resume or overwrite:
        raise ValueError("out, resume and overwrite go with the path of a model: write a model in memory with save")
    model = plain_model(model)
    blocks = InMemory(model) if device is None else Offloaded(model, device)
    if folder is not None:
        check_output(folder, overwrite=False)
    return run(blocks, calibration, config, heldout=apart, recovery=own, problems=folder, progress=progress)


def estimate(
    model: PreTrainedModel | str | Path,
    windows: TokensLike | tuple[int, int],
    method: str | None = None,
    *,
    config: PruneConfig | None = None,
    heldout: int = 0,
    evaluated: int = 0,
    ranks: int = 1,
    bandwidth: float = 1e9,
    rates: Rates | None = None,
    device: str | torch.device | None = None,
    **settings: Any,
) -> Estimate | SharedEstimate:
    """Estimate the memory and the time of a run of `prune` with the same settings, to within a factor of two, before it begins.

    Seconds are operations over the rate of a product, and bytes are those of the arrays that the run would keep.

    Parameters
    ----------
    model : PreTrainedModel, str or Path
        A model, or the directory or hub id of one, which would be read block by block. Only its configuration is read here;
        its weights need not be there.
    windows : Tokens, integers (n, length) in any form, or (int, int)
        Calibration windows, or how many there would be and how many tokens each would have.
    method : str
        As of `prune`.
    config : PruneConfig, optional
        All settings together, in place of `method` and those below.
    heldout : int
        How many more such windows errors would be reported on.
    evaluated : int
        How many more such windows perplexity would be measured on, before and after.
    ranks : int
        Processes that would share the run.
    bandwidth : float
        Bytes a second that each of them would receive.
    rates : Rates, optional
        Operations a second, measured here within a quarter of a second where they are not given.
    device : str or device, optional
        Where blocks would be worked on, if not where the model is, or on a CPU.
    SETTINGS
    Returns
    -------
    Estimate or SharedEstimate
        Seconds and bytes by what takes them, and with several ranks the critical path through all. It prints as a table.

    Raises
    ------
    ValueError
        What the run would raise before any work, and ranks below 1.

    Examples
    --------
    >>> import gramian
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> shape = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
    >>> model = LlamaForCausalLM(LlamaConfig(**shape)).eval()
    >>> found = gramian.estimate(model, (32, 24), "l0", sparsity="2:4")
    >>> found.duration > 0, found.peak > 0, gramian.estimate(model, (32, 24), "l0", sparsity="2:4", ranks=2).ranks
    (True, True, 2)
    """
    if ranks < 1:
        raise ValueError(f"ranks={ranks} processes cannot share a run: give 1 or more")
    config = settled(config, method, settings, "estimate")
    shape = shape_at(model) if isinstance(model, str | Path) else plain_model(model)
    extent = extent_of(windows)
    found = run_estimate(shape, extent, config, heldout=heldout, evaluated=evaluated, rates=rates, device=device)
    if ranks == 1:
        return found
    return shared_estimate(shape, extent, config, ranks, bandwidth, found, heldout=heldout)


def extent_of(windows: Any) -> tuple[int, int]:
    """How many windows there are, and how long each is, of windows or of these two numbers."""
    if isinstance(windows, tuple) and len(windows) == 2 and all(isinstance(each, int) for each in windows):
        return windows
    found = given_windows(windows, "calibration windows").windows
    return len(found), found.shape[1]


def settled(config: PruneConfig | None, method: str | None, settings: dict[str, Any], called: str = "prune") -> PruneConfig:
    """The configuration that is given, whole or setting by setting. TypeError for a name that is no setting, ValueError for
    both at once."""
    if config is None:
        named: dict[str, Any] = {} if method is None else {"method": method}
        known = [each.name for each in settings_of(PruneConfig)]
        for name in settings:
            if name not in known:
                raise TypeError(f"{called}() has no setting {name!r}{meant(name, known)}; there are {', '.join(known)}")
        return PruneConfig(**named, **settings)
    if method is not None or settings:
        raise ValueError(
            f"config is given, and so is {', '.join([*(['method'] if method else []), *settings])}: give one of them"
        )
    return config


def described() -> str:
    """The documentation of all settings but the method."""
    lines = []
    for each in settings_of(PruneConfig):
        if each.name == "method":
            continue
        kind = {"weights": "Of methods that zero weights: ", "units": "Of methods that remove units: ", None: ""}[each.of]
        text = f"{kind}{each.help}."
        text = text[0].upper() + text[1:]
        if each.default is None and each.usual is not None:
            text += f" The method's own by default, {each.usual} for most."
        elif each.default is None and each.name in ("target_blend", "damping"):
            text += " The method's own by default."
        lines += [f"    {each.name} : {each.kind.annotation}", f"        {text}"]
    return "\n".join(lines)


def with_settings(function: Any) -> Any:
    """Let `help` and editors see the settings as parameters of the function."""
    plain = inspect.signature(function)
    fixed = [each for each in plain.parameters.values() if each.kind is not each.VAR_KEYWORD]
    added = [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default)
        for each in settings_of(PruneConfig)
        if each.name != "method"
    ]
    function.__signature__ = plain.replace(parameters=[*fixed, *added])
    function.__doc__ = (function.__doc__ or "").replace("    SETTINGS\n", f"{described()}\n\n")
    return function


with_settings(prune)
with_settings(estimate)
