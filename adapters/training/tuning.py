"""Training after pruning: the loss goes down on text, and zeros remain zeros."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from gramian.adapters.config.settings import settings_of
from gramian.adapters.config.tune_config import TuneConfig
from gramian.adapters.data.tokens import TokensLike, check_windows, unlabelled
from gramian.adapters.models.factored_weights import model_factors
from gramian.adapters.models.loading import settle, storage_dtype
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.plain_modules import check_plain
from gramian.adapters.models.tasks import kind_of, trunk_of
from gramian.adapters.models.wrappers import plain_model
from gramian.adapters.run.digests import weights_digest
from gramian.adapters.training.masks import masks_of, zeros_in
from gramian.adapters.training.places import refuse_other
from gramian.adapters.training.report import TuneReport
from gramian.adapters.training.schedule import split_windows
from gramian.adapters.training.weights import trained
from gramian.extras import TRAIN, need
from gramian.spelling import meant
from gramian.versions import versions

__all__ = ["tune"]


def tune(
    model: PreTrainedModel,
    tokens: TokensLike,
    *,
    teacher: PreTrainedModel | None = None,
    heldout_tokens: TokensLike | None = None,
    config: TuneConfig | None = None,
    state: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    **settings: Any,
) -> TuneReport:
    """argmin over weights that are trained of (1 - b) CE + b KL on text, with every zero of the operators held.

    CE is the loss of the next token, and KL the divergence of the model's distribution over the next token from the teacher's
    (b = 0 without one). The model is trained in place, in float32 and without dropout, by AdamW, with a learning rate that
    rises and then falls as a cosine to the planned end. Its embeddings and head are frozen. Some windows of the text are set
    apart: on these the loss is measured at the beginning, on the way and at the end, and the weights with the lowest are what
    the model has afterwards, rounded to its storage dtype; so they are after an error, too. The windows of a step and the
    positions that count are drawn by the seed; so is what the teacher writes, where little text is there (`written`).

    Parameters
    ----------
    model : PreTrainedModel
        A causal language model, pruned or not, of any widths.
    tokens : Tokens, or integers (n, length) in any form
        Windows of a text, as `calibration` returns them; those held out are taken from them, unless there are others.
    teacher : PreTrainedModel, optional
        The dense model, or another with the same vocabulary.
    heldout_tokens : Tokens, or integers (n, length) in any form, optional
        Windows to hold out in place of `heldout` of the text's: needed where the text has calibrated the model, whose loss on
        it is lower before training than on any other text and says nothing of when to end.
    config : TuneConfig, optional
        All settings together, in place of those below.
    state : str or Path, optional
        A directory in which training keeps, at every check, what it can go on from; it is left there at the end. It replaces
        the state of an earlier training, unless it goes on from it, and nothing else.
    resume : bool
        Go on from the state, if there is one: without a bound on time, and but for fp16, whose scale begins anew, the result is
        the same to the byte.
    progress : bool
        Whether it is shown how much is done.
    SETTINGS
    Returns
    -------
    TuneReport
        Held-out losses on the way, and how many zeros there were before and after.

    Raises
    ------
    ValueError
        Before any work: a setting out of range, a model that is no causal language model or has no such weights, a teacher
        with another vocabulary, windows that either cannot read, too few windows; the state of another run. Later: a loss that
        is not a number.
    FileExistsError
        The state's directory holds something else.
    ImportError
        The package `accelerate` is not installed.

    Examples
    --------
    >>> import gramian, torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> shape = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
    >>> model, windows = LlamaForCausalLM(LlamaConfig(**shape)).eval(), torch.arange(240).reshape(10, 24) % 50
    >>> _ = gramian.prune(model, windows, "wanda", sparsity="2:4", progress=False)
    >>> report = gramian.tune(model, windows, heldout=2, epochs=3, lr=1e-2, progress=False)
    >>> report.zeros[0] == report.zeros[1], report.checks[-1]["loss"] < report.checks[0]["loss"]
    (True, True)
    """
    need("train", TRAIN, "gramian.tune")
    from gramian.adapters.training.loop import Training, apart_from_others  # here, since they need what was asked for

    config, folder = settled(config, settings), None if state is None else Path(state).expanduser()
    if folder is not None:
        refuse_other(folder, "give state= a directory of its own")
    model, given = plain_model(model), unlabelled(tokens, "tokens")
    check_models(model, teacher)
    other = None if heldout_tokens is None else unlabelled(heldout_tokens, "heldout_tokens")
    for each in (model, teacher):
        for tokens_of in (given, other):
            if each is not None and tokens_of is not None:
                check_windows(each, tokens_of.windows)
    windows, apart = split_windows(given.windows.cpu(), 0 if other else config.heldout, config.samples, config.seed)
    if other is not None:
        apart = other.windows.cpu()
    if config.written and teacher is None:
        raise ValueError(f"written={config.written} windows come from a teacher: give teacher=, or leave written out")
    masks, storage, zeros = masks_of(model), storage_dtype(model), zeros_in(model)
    fingerprint: dict[str, Any] = {}
    if folder is not None:
        fingerprint = {
            "weights": weights_digest(model, storage),
            "teacher": None if teacher is None else weights_digest(teacher, storage_dtype(teacher)),
            "windows": [given.digest, other and other.digest],
            "settings": described(config),
            "versions": dict(versions()),
        }
    with in_float32(model), eval_mode(model), eval_mode(teacher or model), apart_from_others():
        try:
            with trained(model, config.train, config.rank, masks, config.seed) as parameters:
                run = Training(model, teacher, windows, apart, parameters, config)
                stopped = run.train(folder, fingerprint, resume, progress)
        except BaseException:
            with suppress(ValueError):  # what went wrong is said already
                settle(model, storage, "after training")
            raise
        settle(model, storage, "after training")
        final = run.check()
    done = run.progress
    return TuneReport(
        settings={
            **described(config), "heldout": len(apart), "heldout_sha256": other and other.digest,
            "tokens": [*run.windows.shape], "source": given.source, "sha256": given.digest,
            "trained": sum(each.numel() for each in parameters.values()), "threads": torch.get_num_threads(),
            "dtype": str(storage).removeprefix("torch."), "versions": dict(versions()),
        },
        checks=[*done.checks, final], best=done.best, zeros=(zeros, zeros_in(model)), steps=done.step,
        tokens=done.step * config.batch * windows.shape[1], seconds=run.pace.elapsed + done.writing,
        writing=done.writing, stopped=stopped,
    )  # fmt: skip


def settled(config: TuneConfig | None, settings: dict[str, Any]) -> TuneConfig:
    """The configuration that is given, whole or setting by setting. TypeError for a name that is no setting, ValueError for
    both at once."""
    known = [each.name for each in settings_of(TuneConfig)]
    for name in settings:
        if name not in known:
            raise TypeError(f"tune() has no setting {name!r}{meant(name, known)}; there are {', '.join(known)}")
    if config is not None and settings:
        raise ValueError(f"config is given, and so is {', '.join(settings)}: give one of them")
    return config or TuneConfig(**settings)


def described(config: TuneConfig) -> dict[str, Any]:
    """The settings as plain numbers and strings."""
    values = {each.name: getattr(config, each.name) for each in settings_of(config)}
    return {**values, "lr": config.rate}


def check_models(model: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
    """Raise ValueError for models that cannot be trained, or learnt from."""
    check_plain(model)
    if model_factors(model):
        raise ValueError(
            "the model's weights are sparse ones beside a matrix of low rank, merged: training would make them dense. Train "
            "the adapter on the sparse checkpoint by peft, with callbacks=[gramian.HoldZeros(model)]"
        )
    for each in (model, teacher):
        if each is None:
            continue
        if kind_of(each.config) != "causal" or each.get_output_embeddings() is None or trunk_of(each) is each:
            raise ValueError(
                f"{type(each).__name__} has no head that predicts the next token, which tune needs: train it with "
                "transformers.Trainer and callbacks=[gramian.HoldZeros(model)]"
            )
    if teacher is None:
        return
    if teacher is model:
        raise ValueError(
            "the teacher is the model itself: load the dense model a second time, for it would change as it learns"
        )
    sizes = [len(each.get_output_embeddings().weight) for each in (model, teacher)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the model's vocabulary has {sizes[0]} tokens and the teacher's {sizes[1]}: the teacher has to be the dense "
            "model, or another with the same tokeniser"
        )


@contextmanager
def in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Let a model's parameters be float32 while the context is open."""
    dtypes = [(each, each.dtype) for each in model.parameters() if each.is_floating_point()]
    try:
        for each, _ in dtypes:
            each.data = each.data.float()
        yield
    finally:
        for each, dtype in dtypes:
            each.data = each.data.to(dtype)


def with_settings(function: Any) -> Any:
    """Let `help` and editors see the settings as parameters of the function."""
    plain, listed = inspect.signature(function), settings_of(TuneConfig)
    fixed = [each for each in plain.parameters.values() if each.kind is not each.VAR_KEYWORD]
    added = [inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default) for each in listed]
    function.__signature__ = plain.replace(parameters=[*fixed, *added])
    lines = [f"    {each.name} : {each.kind.annotation}\n        {each.help[0].upper()}{each.help[1:]}.\n" for each in listed]
    function.__doc__ = (function.__doc__ or "").replace("    SETTINGS\n", "".join(lines) + "\n")
    return function


with_settings(tune)
