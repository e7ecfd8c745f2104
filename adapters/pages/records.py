"""What `gramian.json` says of a run, read for pages and figures: rows of one form, whatever the run removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

from gramian.adapters.pages.kinds import Grid, grid_of
from gramian.adapters.pages.numerals import count, mean, number

__all__ = ["Row", "Run", "mapping", "run_of", "short_title"]


@dataclass(frozen=True)
class Row:
    """An operator or a module. share: zeros over weights, or units that stay over all. size: its shape, or its units before and
    after. units: those numbers, None where weights are zeroed. similar: heads that the method found alike."""

    name: str
    size: str
    share: float | None
    error: float | None
    heldout: float | None
    residual: float | None
    status: str
    seconds: float
    detail: Mapping[str, Any]
    units: tuple[int, int] | None = None
    similar: tuple[tuple[int, ...], ...] = ()

    @property
    def reported_error(self) -> float | None:
        """The error on held-out text where there is one, else on calibration text."""
        return self.error if self.heldout is None else self.heldout


@dataclass(frozen=True)
class Run:
    """A run. document: what `gramian.json` says. kind: `weights`, `units`, `experts`, `blocks` or `stream`. kept: units that
    stay, by module."""

    document: Mapping[str, Any]
    kind: str
    rows: tuple[Row, ...]
    kept: Mapping[str, Sequence[int]]

    @cached_property
    def grid(self) -> Grid:
        """Rows by block and kind."""
        return grid_of([f"{row.name}.stream" if self.kind == "blocks" else row.name for row in self.rows])

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the run."""
        return mapping(self.document.get("settings"))

    @property
    def method(self) -> str:
        """The name of the method, and whether the model was tuned after it."""
        name = str(self.settings.get("method", "a method without a name"))
        return f"{name}, tuned" if self.tuning else name

    @property
    def tuning(self) -> Mapping[str, Any]:
        """What a training after it was, nothing without one."""
        return mapping(self.document.get("tuning"))

    @property
    def model(self) -> str:
        """The dense model as it was named, or nothing."""
        return str(self.document.get("model") or "")

    @property
    def title(self) -> str:
        """The dense model in a few words: the end of its path, or its name on the hub."""
        return short_title(self.model) or "model"

    @property
    def measured(self) -> Mapping[str, Any]:
        """Perplexity before and after; empty where there is none."""
        return mapping(self.document.get("perplexity"))

    @property
    def embedded(self) -> Mapping[str, Any]:
        """How far embeddings moved; empty where that was not measured."""
        return mapping(self.document.get("embeddings"))

    @property
    def parameters(self) -> tuple[int, int] | None:
        """Parameters before and after, where units were removed."""
        found = self.document.get("parameters")
        if isinstance(found, Sequence) and len(found) == 2 and all(isinstance(each, int) for each in found):
            return found[0], found[1]
        return None

    @property
    def seconds(self) -> float:
        """The seconds of the whole run."""
        return number(self.document.get("seconds")) or 0.0

    @property
    def unit(self) -> str:
        """What a row is called."""
        return {"weights": "operator", "units": "module", "experts": "mixture", "blocks": "block", "stream": "norm"}[self.kind]

    def errors(self, heldout: bool) -> list[float | None]:
        """The errors of all rows, on held-out or on calibration text."""
        return [row.heldout if heldout else row.error for row in self.rows]

    @property
    def has_heldout(self) -> bool:
        """Whether errors were measured on held-out text."""
        return any(row.heldout is not None for row in self.rows)

    @property
    def mean_errors(self) -> tuple[float | None, float | None]:
        """Means on calibration and on held-out text."""
        return mean(self.errors(False)), mean(self.errors(True))


def short_title(name: str) -> str:
    """A model in few words: the end of a path, or the whole name on the hub."""
    return PurePath(name).name if name.startswith(("/", ".", "~")) or name.count("/") > 1 else name


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def run_of(document: Mapping[str, Any]) -> Run | None:
    """Read a document; None where it is not that of a run, such as a report of the user's own."""
    for key, read in (("operators", operator_row), ("modules", module_row)):
        found = document.get(key)
        if isinstance(found, Sequence) and found and all(isinstance(each, Mapping) and "name" in each for each in found):
            stated = mapping(document.get("settings"))
            experts = mapping(stated.get("experts"))
            whole = {"removed_blocks": "blocks", "stream": "stream"}
            units = "experts" if experts else next((whole[name] for name in whole if name in stated), "units")
            kind = "weights" if key == "operators" else units
            return Run(document, kind, tuple(read(each) for each in found), experts or mapping(document.get("kept")))
    return None


def operator_row(each: Mapping[str, Any]) -> Row:
    """One operator."""
    shape = " × ".join(count(int(side)) for side in each.get("shape", ()))
    return row_of(each, shape, number(each.get("sparsity")))


def module_row(each: Mapping[str, Any]) -> Row:
    """One module, or one mixture of experts."""
    before, after = (int(number(value) or 0) for value in each.get("units", (0, 0)))
    similar = tuple(tuple(group) for group in each.get("groups_of_heads", ()) if len(group) > 1)
    return row_of(each, f"{count(before)} → {count(after)}", after / before if before else None, (before, after), similar)


def row_of(
    each: Mapping[str, Any],
    size: str,
    share: float | None,
    units: tuple[int, int] | None = None,
    similar: tuple[tuple[int, ...], ...] = (),
) -> Row:
    """What operators and modules have in common."""
    return Row(
        str(each["name"]),
        size,
        share,
        number(each.get("relative_error")),
        number(each.get("heldout_error")),
        number(each.get("residual")),
        str(each.get("status", "")),
        number(each.get("seconds")) or 0.0,
        mapping(each.get("detail")),
        units,
        similar,
    )
