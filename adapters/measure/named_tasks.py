"""Tasks by name, as the evaluation harness lm-eval defines and scores them, with its figures of every document."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.models.libraries import one_line
from gramian.extras import EVAL, need
from gramian.spelling import meant

__all__ = ["TaskFigure", "check_tasks", "task_figures"]


@dataclass(frozen=True)
class TaskFigure:
    """A metric of a task: what lm-eval makes of it, and of every document, (documents,), where its mean is the metric."""

    task: str
    metric: str
    value: float
    documents: np.ndarray | None


def check_tasks(names: Sequence[str], folder: Path | None = None) -> Any:
    """Return lm-eval's manager of tasks, once every task was found and its data could be read.

    folder: task files of the user's own, in lm-eval's format, which may bring code; where all tasks are of it, it stands by
    itself. ImportError without the extra `eval`. ValueError, naming the task: for one that nobody knows, and one whose data is
    not at hand.
    """
    need("eval", EVAL, "a task by name")
    if folder is not None and not folder.is_dir():
        raise ValueError(f"no folder of tasks {str(folder)!r}")
    manager = own_tasks() if folder is None else manager_of(folder, False)
    if folder is not None and not set(names) <= set(manager.all_tasks):
        manager = manager_of(folder, True)
    for name in names:
        if name not in manager.all_tasks:
            near, count = meant(name, manager.all_tasks), len(manager.all_tasks)
            raise ValueError(f"no task {name!r}{near}: lm-eval has {count} tasks, and a file of questions ends in .jsonl")
        with reported(name), silenced():
            manager.load([name])
    return manager


@cache
def own_tasks() -> Any:
    """lm-eval's manager of its own tasks, whose files take seconds to read."""
    return manager_of(None, True)


def manager_of(folder: Path | None, everything: bool) -> Any:
    """lm-eval's manager of the tasks of a folder, and of its own where it is to know everything."""
    with silenced():
        from lm_eval.tasks import TaskManager

        return TaskManager(include_path=None if folder is None else str(folder), include_defaults=everything)


def task_figures(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    manager: Any,
    *,
    limit: int | None = None,
    batch: int = 8,
    seed: int = 0,
) -> list[TaskFigure]:
    """Evaluate a model that is in memory on a task, or a group of tasks, by lm-eval.

    limit: documents of each task at most. ValueError, naming the task, for whatever lm-eval raises."""
    with reported(name), silenced():
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch)
        answer = simple_evaluate(
            model=harness, tasks=[name], task_manager=manager, limit=limit, bootstrap_iters=0, random_seed=seed,
            numpy_random_seed=seed, torch_random_seed=seed, fewshot_random_seed=seed,
        )  # fmt: skip
    assert answer is not None  # it is None in processes other than the first
    return [
        TaskFigure(task, metric, float(value), documents_of(answer["samples"].get(task, []), key, float(value)))
        for task, figures in answer["results"].items()
        for key, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and "," in key and "_stderr," not in key
        for metric in [key.removesuffix(",none")]
    ]


def documents_of(samples: Sequence[dict[str, Any]], key: str, value: float) -> np.ndarray | None:
    """A metric of every document, in order, if its mean is what the task reports; None for other aggregates."""
    metric, _, chosen = key.partition(",")
    found = [(each["doc_id"], each.get(metric)) for each in samples if each.get("filter") == chosen]
    if not found or not all(isinstance(score, int | float | np.number) for _, score in found):
        return None
    scores = np.array([score for _, score in sorted(found, key=lambda pair: pair[0])], dtype=np.float64)
    return scores if np.isclose(scores.mean(), value, rtol=1e-6, atol=1e-9) else None


@contextlib.contextmanager
def reported(name: str) -> Iterator[None]:
    """Turn whatever lm-eval and its libraries raise into a ValueError of one sentence that names the task."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"the task {name!r} cannot be evaluated: {type(error).__name__}: {one_line(error)}") from error


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Let lm-eval neither print, nor warn, nor log, nor draw bars of its own."""
    noisy = [logging.getLogger(each) for each in ("lm_eval", "lm-eval", "datasets", "evaluate")]
    levels = [each.level for each in noisy]
    level, parallel = logging.getLogger().level, os.environ.get("TOKENIZERS_PARALLELISM")
    for each in noisy:
        each.setLevel(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, before in zip(noisy, levels):
            each.setLevel(before)
        logging.getLogger().setLevel(level)
        if parallel is None:  # lm-eval sets it
            os.environ.pop("TOKENIZERS_PARALLELISM", None)
