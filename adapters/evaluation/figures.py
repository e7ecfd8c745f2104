"""The figures of an evaluation: what was measured of a model, of the dense one, and of both on the same items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from gramian.adapters.html import html_table
from gramian.adapters.measure.intervals import Interval, mean_interval
from gramian.tables import table

__all__ = ["Evaluation", "Figure", "paired"]

HEAD = ["", "model", "dense", "change", "items"]
CAPTION = "in brackets 95 % intervals by the bootstrap over items; a change is of pairs, x a ratio"


@dataclass(frozen=True)
class Figure:
    """One figure. part: what it belongs to: text, positions, continuations, copying, needle, embeddings or tasks.

    name: what was measured. items: of how many windows, prompts, questions or documents it is the mean, or an increasing
    function of that. model, dense: the figure of each, dense None without one, or for what compares both. change: the mean
    difference of pairs, model - dense, or their ratio, as `change_is` says; None where there is no pair."""

    part: str
    name: str
    items: int
    model: Interval
    dense: Interval | None = None
    change: Interval | None = None
    change_is: Literal["difference", "ratio"] = "difference"

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        intervals = {"model": self.model, "dense": self.dense, "change": self.change}
        return {
            "part": self.part,
            "name": self.name,
            "items": self.items,
            **{name: None if each is None else each.as_dict() for name, each in intervals.items()},
            "change_is": self.change_is,
        }

    def cells(self) -> list[str]:
        """The row of text."""
        change = "-" if self.change is None else f"{'x ' if self.change_is == 'ratio' else ''}{self.change}"
        return [self.name, str(self.model), "-" if self.dense is None else str(self.dense), change, str(self.items)]


def paired(
    part: str, name: str, values: np.ndarray, dense: np.ndarray | None, seed: int, *, perplexity: bool = False
) -> Figure:
    """The mean of items (n,), that of the dense model's, and that of their differences, each with its interval.

    perplexity: items are mean losses, and exponentials of all these are given, so that the change is a ratio."""
    transform: Callable[[float], float] = exponential if perplexity else float
    if dense is not None and len(dense) != len(values):
        raise ValueError(f"{name} is of {len(values)} items of the model and {len(dense)} of the dense one")
    return Figure(
        part,
        name,
        len(values),
        mean_interval(values, seed, transform),
        None if dense is None else mean_interval(dense, seed, transform),
        None if dense is None else mean_interval(values - dense, seed, transform),
        "ratio" if perplexity else "difference",
    )


def exponential(value: float) -> float:
    """exp(value), without a warning where that is too large for a number."""
    with np.errstate(over="ignore"):
        return float(np.exp(value))


@dataclass(frozen=True)
class Evaluation:
    """All figures of a model. left_out: what was not measured, and why. settings: what the figures depend on."""

    figures: tuple[Figure, ...]
    left_out: Mapping[str, str]
    settings: Mapping[str, Any]
    seconds: float = field(compare=False)

    def __getitem__(self, name: str) -> Figure:
        """The figure of that name; KeyError with all names where there is none."""
        for figure in self.figures:
            if figure.name == name:
                return figure
        raise KeyError(f"no figure {name!r}: there are {', '.join(figure.name for figure in self.figures)}")

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for JSON."""
        return {
            "figures": [figure.as_dict() for figure in self.figures],
            "left_out": dict(self.left_out),
            "settings": dict(self.settings),
            "seconds": self.seconds,
        }

    def table(self) -> str:
        """Rows for a person: a figure each, with its intervals."""
        return table(HEAD, [figure.cells() for figure in self.figures])

    def remarks(self) -> list[str]:
        """Lines below the table: what its figures are, and what is not among them."""
        return [CAPTION, *(f"{name} left out: {why}" for name, why in self.left_out.items())]

    def __str__(self) -> str:
        """The table, with remarks below it."""
        return "\n".join([self.table(), *self.remarks()])

    def __repr__(self) -> str:
        """One line: how many figures there are."""
        return f"Evaluation({len(self.figures)} figures, {self.seconds:.0f} s)"

    def _repr_html_(self) -> str:
        """What a notebook shows: the table of `str` in HTML."""
        return html_table(HEAD, [figure.cells() for figure in self.figures], "\n".join(self.remarks()))
