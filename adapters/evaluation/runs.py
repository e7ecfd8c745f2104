"""Everything that can be said of a model on a text, alone or beside the dense one, in one call."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.data.context import usual_length
from gramian.adapters.data.texts import heldout_windows
from gramian.adapters.data.tokens import Tokens, TokensLike, check_windows, windows_of
from gramian.adapters.evaluation.figures import Evaluation
from gramian.adapters.evaluation.pairs import Pair
from gramian.adapters.evaluation.probe_figures import copying_figures, needle_figures
from gramian.adapters.evaluation.tasks import Tasks, task_rows
from gramian.adapters.evaluation.text_figures import continuation_figures, embedding_figures, text_figures
from gramian.adapters.files import REPORT
from gramian.adapters.measure.intervals import LEVEL
from gramian.adapters.measure.next_tokens import check_causal
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.origins import origin_of
from gramian.adapters.models.tasks import kind_of
from gramian.adapters.models.wrappers import plain_model
from gramian.versions import versions

__all__ = ["LENGTH", "SAMPLES", "evaluate"]

SAMPLES, LENGTH = 16, 256  # windows of the built-in text, and tokens in each
LOG = logging.getLogger(__name__)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    dense: PreTrainedModel | None = None,
    windows: TokensLike | None = None,
    tasks: Sequence[str] | str | Path = (),
    task_folder: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Measure what a model has lost, on text, on probes of its context and on tasks, with 95 % intervals.

    On held-out text: perplexity, also by the position in the window. Beside a dense model: KL(dense || model) per token, how
    often both find the same token likeliest, and how long greedy continuations of the same prompts agree. Probes, drawn with
    the seed: random tokens that come twice, copied the second time, and a fact in other text that is asked for at its end.
    Tasks: by name through lm-eval, or a file of questions ranked by log-likelihood. A sequence-to-sequence model has figures of
    the second half of every window; an encoder has the cosine of its embeddings to the dense ones, and how many windows keep
    their nearest neighbour.

    Parameters
    ----------
    model : PreTrainedModel
        The model that is judged; `load` returns one for every form in which models are saved.
    tokenizer : PreTrainedTokenizerBase or None
        Its tokeniser. Without one there have to be windows, and neither facts nor tasks are tried.
    dense : PreTrainedModel, optional
        The model to compare it with, over the same tokens.
    windows : Tokens, tensor, array, nested lists, mapping or iterable, optional
        Held-out windows of tokens in any form that `perplexity` takes: by default 16 windows of 256 tokens, or of as many as
        fit, from the part of the built-in English text that no calibration reads.
    tasks : str, path, or sequence of str
        Names of lm-eval's tasks, or a `.jsonl` file of questions in the format of `gramian.adapters.data.question_files`.
    task_folder : str or Path, optional
        A folder of task files of your own in lm-eval's format, which may run code that they name.
    limit : int, optional
        How many documents of each of lm-eval's tasks are read, the first ones: all by default.
    seed : int
        Seed of probes and intervals.
    progress : bool
        Whether it is shown how far the work is.

    Returns
    -------
    Evaluation
        A row a figure; `as_dict()` for JSON, `table()` or `print` for a person.

    Raises
    ------
    ValueError
        Before any work: windows that the models cannot read, models over different numbers of tokens or of different kinds, an
        encoder without a dense model, an encoder or an encoder-decoder model with a file of questions, neither a tokeniser nor
        windows; naming its line, a question that cannot be read; naming it, a task that nobody knows, or whose data is not at
        hand. Later: losses that are not finite, naming the window.
    FileNotFoundError
        A file of questions that is not there.
    ImportError
        Tasks by name, where lm-eval is not installed.

    Examples
    --------
    A model is what it is compared with:

    >>> import torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> import gramian
    >>> sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24}
    >>> model = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=2))
    >>> found = gramian.evaluate(model, None, dense=model, windows=torch.arange(96).reshape(4, 24) % 32, progress=False)
    >>> print(found["KL(dense || model), nats per token"].model)
    0 [0, 0]
    """
    started = time.perf_counter()
    model, dense = plain_model(model), None if dense is None else plain_model(dense)
    text = text_of(model, tokenizer, windows)
    rows = text.windows.cpu()
    check_pair(model, dense, rows)
    given = Tasks.of(tasks, task_folder, limit)
    given.check(model, tokenizer)
    seen = calibrated_on(model, text)
    left_out: dict[str, str] = {}
    with eval_mode(model), eval_mode(dense if dense is not None else model):
        pair = Pair(model, dense, tokenizer, rows, seed, progress)
        kind = kind_of(model.config)
        figures = embedding_figures(pair) if kind == "encoder" else text_figures(pair)
        if kind == "causal":
            figures += continuation_figures(pair) if dense is not None else []
            figures += copying_figures(pair, left_out)
            figures += needle_figures(pair, left_out)
        else:
            left_out["continuations and probes"] = f"{type(model).__name__} does not continue text"
        figures += task_rows(given, model, dense, tokenizer, seed, progress)
    settings = {
        "text": {"source": text.source, "windows": list(rows.shape), "sha256": text.digest, "seen_in_calibration": seen},
        "calibration": calibration_of(model),
        "tasks": given.names,
        "limit": limit,
        "seed": seed,
        "level": LEVEL,
        "threads": torch.get_num_threads(),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "versions": dict(versions()),
    }
    return Evaluation(tuple(figures), left_out, settings, time.perf_counter() - started)


def text_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, windows: TokensLike | None) -> Tokens:
    """The windows that were given, or those of the built-in text."""
    if windows is not None:
        return windows_of(windows)
    if tokenizer is None:
        raise ValueError("the model has no tokenizer, so the built-in text cannot be used: give windows of tokens as windows=")
    length = usual_length(model, tokenizer, LENGTH)
    return Tokens(heldout_windows(tokenizer, length, SAMPLES), "held out of builtin")


def check_pair(model: PreTrainedModel, dense: PreTrainedModel | None, rows: torch.Tensor) -> None:
    """Raise ValueError for models that cannot be compared, or cannot read the windows."""
    kind = kind_of(model.config)
    if kind == "encoder" and dense is None:
        raise ValueError(
            f"{type(model).__name__} predicts no tokens, so it is judged beside the dense model: give that (--dense, dense=)"
        )
    if kind == "encoder" and len(rows) < 3:
        raise ValueError(f"nearest neighbours need 3 windows or more, not {len(rows)}")
    for each in (model, dense):
        if each is None:
            continue
        if kind_of(each.config) != kind:
            raise ValueError(
                f"{type(model).__name__} and {type(each).__name__} are of different kinds, so they cannot be compared"
            )
        if kind == "causal":
            check_causal(each)
        check_windows(each, rows)
    if dense is not None:
        sizes = [each.config.get_text_config().vocab_size for each in (model, dense)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"the model's vocabulary has {sizes[0]} tokens and the dense one's {sizes[1]}: give the same family"
            )


def calibration_of(model: PreTrainedModel) -> dict[str, Any] | None:
    """What `gramian.json` beside a model says of the windows that it was calibrated on; None where there is nothing."""
    origin = origin_of(model)
    try:
        document = json.loads((origin.folder / REPORT).read_text(encoding="utf-8")) if origin is not None else None
        found = document["settings"]["calibration"] if document is not None else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def calibrated_on(model: PreTrainedModel, text: Tokens) -> bool:
    """Whether the text is, or may hold, what the model was calibrated on, which is then said in a remark."""
    found = calibration_of(model)
    if found is None:
        return False
    file, source = Path(text.source), found.get("source")
    same_file = file.is_file() and isinstance(source, str) and file.resolve() == Path(source).expanduser().resolve()
    seen = same_file or text.digest == found.get("sha256")
    if seen:
        LOG.warning(f"the model was calibrated on {text.source} too, so that its figures are those of text that it has seen")
    return seen
