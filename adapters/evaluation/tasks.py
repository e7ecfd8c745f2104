"""Tasks of an evaluation: by name, or a file of questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.data.question_files import Question, is_question_file, read_questions
from gramian.adapters.evaluation.figures import Figure, paired
from gramian.adapters.measure.intervals import Interval
from gramian.adapters.measure.named_tasks import TaskFigure, check_tasks, task_figures
from gramian.adapters.measure.questions import answered, continuation_likelihoods, continuations_of
from gramian.adapters.models.tasks import kind_of
from gramian.progress import bar

__all__ = ["Tasks", "task_rows"]


@dataclass(frozen=True)
class Tasks:
    """names: of tasks of lm-eval, or one file. questions: what the file holds, None without one. folder, limit: of the tasks by
    name, as `evaluate` takes them. manager: lm-eval's, where there are tasks by name."""

    names: list[str]
    questions: list[Question] | None
    folder: Path | None
    limit: int | None
    manager: Any = field(default=None, repr=False)

    @classmethod
    def of(cls, given: Sequence[str] | str | Path, folder: str | Path | None, limit: int | None) -> Tasks:
        """Read the file, or find the tasks and their data. ValueError for a limit below 1, and as `read_questions` and
        `check_tasks` raise."""
        names = [str(given)] if isinstance(given, str | Path) else list(given)
        folder = None if folder is None else Path(folder)
        if limit is not None and limit < 1:
            raise ValueError(f"limit is {limit}, must be at least 1")
        files = [name for name in names if is_question_file(name)]
        if files and len(names) > 1:
            raise ValueError(f"the file of questions {files[0]} does not go with other tasks: evaluate one after the other")
        if files:
            return cls(names, read_questions(Path(files[0]).expanduser()), folder, limit)
        return cls(names, None, folder, limit, check_tasks(names, folder) if names else None)

    def check(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> None:
        """Raise ValueError for a model that cannot do them."""
        kind = kind_of(model.config)
        if self.names and tokenizer is None:
            raise ValueError("the model has no tokenizer, so it can do no tasks: leave them out")
        if self.names and (kind == "encoder" or (self.questions and kind != "causal")):
            raise ValueError(f"{type(model).__name__} does not continue text, so it can do no such tasks: leave them out")
        if self.questions is not None and tokenizer is not None:
            continuations_of(model, tokenizer, self.questions, self.names[0])


def task_rows(
    tasks: Tasks,
    model: PreTrainedModel,
    dense: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase | None,
    seed: int,
    progress: bool,
) -> list[Figure]:
    """The figures of all tasks; an item is a question or a document."""
    if not tasks.names or tokenizer is None:
        return []
    models = [model] if dense is None else [model, dense]
    if tasks.questions is not None:
        continuations = continuations_of(model, tokenizer, tasks.questions, tasks.names[0])
        scores = [
            answered(tasks.questions, continuation_likelihoods(each, continuations, progress=progress)) for each in models
        ]
        name = Path(tasks.names[0]).name
        return [
            paired("tasks", f"{name}: {what}", scores[0][place], scores[1][place] if dense is not None else None, seed)
            for place, what in enumerate(("accuracy", "accuracy by character"))
        ]
    figures = []
    with bar(len(tasks.names) * len(models), "tasks", "task", progress) as done:
        for name in tasks.names:
            found = []
            for each in models:
                found.append(task_figures(each, tokenizer, name, tasks.manager, limit=tasks.limit, seed=seed))
                done.update()
            figures += [joined(rows, seed) for rows in zip(*found, strict=True)]
    return figures


def joined(rows: Sequence[TaskFigure], seed: int) -> Figure:
    """A figure of a metric by one model or by two, which have no intervals where the metric is no mean over documents."""
    name = f"{rows[0].task}: {rows[0].metric}"
    documents = [row.documents for row in rows]
    found = [each for each in documents if each is not None]
    if len(found) == len(rows):
        return paired("tasks", name, found[0], found[1] if len(rows) > 1 else None, seed)
    values = [Interval(row.value, np.nan, np.nan) for row in rows]
    return Figure("tasks", name, 0, values[0], values[1] if len(values) > 1 else None)
