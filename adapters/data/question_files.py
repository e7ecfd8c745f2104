"""Questions with several answers of which one is true, as a file of one JSON object a line (JSONL, UTF-8):

    {"question": "Which of these is a metal?", "choices": ["oak", "iron", "milk"], "answer": 1}
    {"context": "The opposite of hot is", "choices": ["cold", "warm"], "answer": 0}

`answer` is the number of the true one of at least two `choices`, counted from 0. The model reads `context` as it is, or of
`question` the text "Question: ...\\nAnswer:", and every choice after it, apart by a blank unless either has one there. Other
keys are left unread, and blank lines are left out. An example is `benchmarks/examples/questions.jsonl`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Question", "is_question_file", "read_questions"]

PROMPT = "Question: {}\nAnswer:"


@dataclass(frozen=True)
class Question:
    """line: its number in the file, from 1. context: what is read before a choice. choices: the texts that may follow. answer:
    the number of the true one."""

    line: int
    context: str
    choices: tuple[str, ...]
    answer: int

    def continuation(self, choice: str) -> str:
        """What follows the context where that choice does."""
        apart = not self.context or self.context[-1].isspace() or choice[0].isspace()
        return choice if apart else f" {choice}"


def is_question_file(name: str) -> bool:
    """Whether what stands in place of names of tasks is a file of questions."""
    return name.endswith((".jsonl", ".json"))


def read_questions(path: Path) -> list[Question]:
    """Read and check every line. FileNotFoundError where there is no file, ValueError with the number of the first bad line."""
    if not path.is_file():
        raise FileNotFoundError(f"no file of questions {str(path)!r}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start})") from error
    questions = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                questions.append(question_of(line, number))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
    if not questions:
        raise ValueError(f"{path} holds no questions")
    return questions


def question_of(line: str, number: int) -> Question:
    """One line as a question; ValueError says what is wrong with it."""
    try:
        given: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error.msg} at character {error.pos + 1})") from error
    if not isinstance(given, dict):
        raise ValueError(f"a JSON {type(given).__name__}, expected an object with question or context, choices and answer")
    keys = [key for key in ("question", "context") if key in given]
    if len(keys) != 1:
        raise ValueError(
            f"{'both question and context are' if keys else 'neither question nor context is'} there, expected one"
        )
    text, choices, answer = given[keys[0]], given.get("choices"), given.get("answer")
    if not isinstance(text, str) or (keys == ["question"] and not text.strip()):
        raise ValueError(f"{keys[0]} is {text!r}, expected a text")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(each, str) and each.strip() for each in choices):
        raise ValueError("choices have to be a list of two texts or more, none of them empty")
    if len(set(choices)) < len(choices):
        raise ValueError("two choices are the same")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise ValueError(f"answer is {answer!r}, expected the number of one of {len(choices)} choices, from 0")
    return Question(number, PROMPT.format(text) if keys == ["question"] else text, tuple(choices), answer)
